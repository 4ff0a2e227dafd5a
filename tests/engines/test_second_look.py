"""What a model is not sure of it looks at again, turned by a right angle."""

import dataclasses

import msgspec
import numpy as np
import pytest
from PIL import Image

from stn_cli.checkpoints import open_checkpoint
from stn_cli.engines.engine import small_copy
from stn_cli.engines.onnx_engine import OnnxEngine
from stn_cli.engines.torch_engine import TorchEngine
from stn_cli.geometry import outline
from tests.running import ROOT

WORDS = sorted((ROOT / "sample_images" / "words").glob("*.[jp]*g"))
TEXT = open_checkpoint("text")
ONCE = dataclasses.replace(TEXT, header=msgspec.structs.replace(TEXT.header, second_look=False))
RING = np.asarray(Image.open(ROOT / "sample_images" / "words" / "ring.jpg").convert("RGB"))
LYING = np.ascontiguousarray(np.rot90(RING, -1))
"""Clockwise by a right angle: what was right is below."""


def located(engine, images):
    return list(engine.locate([small_copy(image) for image in images], [image.shape[:2] for image in images]))


@pytest.mark.parametrize("engine", [OnnxEngine, lambda checkpoint: TorchEngine(checkpoint, "cpu")])
def test_a_word_that_is_doubtful_as_it_lies_is_found_turned(engine):
    (once,), (twice, upright) = located(engine(ONCE), [LYING]), located(engine(TEXT), [LYING, RING])
    assert once.confidence < TEXT.header.min_confidence < 0.9 < twice.confidence
    x, y = np.moveaxis(upright.transform(outline(9)), -1, 0)
    top_left, *_, bottom_left = upright.transform(outline(2))
    strayed = np.linalg.norm(twice.transform(outline(9)) - np.stack((-y, x), axis=-1), axis=-1)
    assert strayed.max() < np.linalg.norm(top_left - bottom_left) / 2
    assert np.abs(once.transform(outline(9)) - twice.transform(outline(9))).max() > 0.01


def test_what_is_sure_stays_as_it_is_whatever_else_is_in_the_batch():
    images = [np.asarray(Image.open(path).convert("RGB")) for path in WORDS]
    once, twice = located(OnnxEngine(ONCE), images), located(OnnxEngine(TEXT), [*images, LYING])
    assert all(each.confidence >= TEXT.header.min_confidence for each in once)
    for before, after in zip(once, twice[:-1], strict=True):
        assert before.confidence == after.confidence
        np.testing.assert_array_equal(before.transform.theta, after.transform.theta)
