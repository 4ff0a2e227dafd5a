"""Rectifying from Python."""

import numpy as np
import pytest
from PIL import Image

import stn_cli
from stn_cli.errors import ImageError, UsageError
from stn_cli.geometry import outline
from tests.running import SAMPLES

SURE, GREY = SAMPLES / "rotated-1.png", np.full((40, 56), 128, np.uint8)


@pytest.fixture(scope="module")
def model():
    return stn_cli.load("digits")


def test_a_height_gives_the_width(model):
    assert model(SURE, height=50).crop.shape == (50, 50, 1)  # the frame of a digit is a square
    assert model(GREY, height=20).crop.shape == (20, 28)  # passes through, resized


def test_always_rectifies_what_would_pass_through(model):
    doubted, forced = model(GREY), model(GREY, always=True)
    assert doubted.unchanged.startswith("confidence")
    np.testing.assert_array_equal(doubted.crop, GREY)
    np.testing.assert_array_equal(doubted.transform(outline()), outline())
    assert forced.unchanged is None
    assert np.abs(forced.transform(outline()) - outline()).max() > 0.01


def test_arguments_that_exclude_each_other_are_refused(model):
    for arguments in ({"always": True, "min_confidence": 0.5}, {"height": 20, "size": (20, 20)}):
        with pytest.raises(UsageError):
            model(GREY, **arguments)


@pytest.mark.parametrize("image", [Image.new("L", (30, 30)), [[0, 1], [2, 3]], None])
def test_what_is_neither_a_path_nor_an_array_is_refused(model, image):
    with pytest.raises(ImageError, match="neither a path nor a NumPy array"):
        model(image)


def test_the_package_tells_what_it_has():
    assert {"load", "train", "SpatialTransformer"} <= set(dir(stn_cli))
