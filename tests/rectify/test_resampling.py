"""How crops are read: as was asked for, and else as the model says."""

import dataclasses

import msgspec
import numpy as np
import pytest
from PIL import Image

from stn_cli.checkpoints import open_checkpoint
from stn_cli.engines.onnx_engine import OnnxEngine
from stn_cli.rectify.ledger import Ledger
from stn_cli.rectify.options import RectifyOptions
from stn_cli.rectify.pipeline import Pipeline
from stn_cli.rectify.plan import plan
from stn_cli.sampling.warp import warp
from tests.running import ROOT

WORD = ROOT / "sample_images" / "words" / "arch.jpg"
TEXT = open_checkpoint("text")


def crop_of(tmp_path, says, asked, monkeypatch):
    """The crop that is written, and what it was made of: pixels, transform and size."""
    header = msgspec.structs.replace(TEXT.header, crop_resample=says)
    engine, seen = OnnxEngine(dataclasses.replace(TEXT, header=header)), []
    crop = engine.crop

    def watched(pixels, transform, size, *rest):
        seen.append((pixels, transform, size))
        return crop(pixels, transform, size, *rest)

    monkeypatch.setattr(engine, "crop", watched)
    options = RectifyOptions(out=tmp_path / "out", resample=asked, format="png")
    jobs = plan([WORD], options).jobs
    with Ledger(options.out, jobs) as ledger:
        ledger.commit(jobs, Pipeline(engine, options).run(jobs))
    return np.asarray(Image.open(options.out / "arch.png").convert("RGB")), *seen[0]


@pytest.mark.parametrize(
    ("says", "asked", "read"),
    [("sharp", None, "sharp"), ("auto", None, "auto"), ("sharp", "auto", "auto"), ("auto", "nearest", "nearest")],
)
def test_crops_are_read_as_was_asked_and_else_as_the_model_says(tmp_path, says, asked, read, monkeypatch):
    crop, pixels, transform, size = crop_of(tmp_path, says, asked, monkeypatch)
    ways = {way: warp(pixels, transform, size, resample=way) for way in ("sharp", "auto", "nearest")}
    np.testing.assert_array_equal(crop, ways.pop(read))
    assert all(not np.array_equal(crop, other) for other in ways.values())
