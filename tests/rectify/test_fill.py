"""What lies beyond the image, in every mode."""

import json

import numpy as np
import pytest
from PIL import Image, ImageColor

from tests.running import SAMPLES, stn

COLOUR = "#3060c0"
GREY = np.asarray(Image.open(SAMPLES / "rotated-1.png").convert("L"))
RGB = np.stack((GREY, 255 - GREY, GREY // 2), axis=-1)
ALPHA = np.full_like(GREY, 90)
SURELY_BEYOND, SURELY_WITHIN = 1.5, 1.0
"""Pixels of the source beyond its edge, or within."""


def beyond(record, shape):
    """How far beyond the image the centre of each pixel of the crop lies, in pixels of the source."""
    output = record["output"]
    y, x = np.mgrid[: output["height"], : output["width"]] + 0.5
    source = np.array(record["pixel_matrix"]) @ np.stack((x, y, np.ones_like(x))).reshape(3, -1)
    across, down = source[:2] / source[2]
    outside = np.maximum.reduce((-across, across - shape[1], -down, down - shape[0]))
    return outside.reshape(x.shape)


@pytest.mark.parametrize(
    ("mode", "pixels", "opaque"),
    [
        ("L", GREY, ()),
        ("I;16", GREY * np.uint16(257), ()),
        ("RGB", RGB, ()),
        ("RGBA", np.dstack((RGB, ALPHA)), (255,)),
        ("LA", np.dstack((GREY, ALPHA)), (255,)),
    ],
)
def test_a_colour_fills_what_lies_beyond_the_image(tmp_path, mode, pixels, opaque):
    Image.fromarray(pixels).save(tmp_path / "image.png")
    run = stn("rectify", "image.png", "-m", "digits", "--always", "--fill", COLOUR, "-o", "out", "--json", cwd=tmp_path)
    outside = beyond(json.loads(run.stdout), pixels.shape)
    with Image.open(tmp_path / "out" / "image.png") as written:
        assert written.mode == mode
        crop = np.asarray(written).astype(float)
    colour = ImageColor.getcolor(COLOUR, "L" if mode[0] in "LI" else "RGB")
    expected = np.array((*np.atleast_1d(colour), *opaque)) * (257 if mode == "I;16" else 1)
    filled = crop[outside > SURELY_BEYOND]
    assert len(filled) > 20
    assert np.abs(filled - expected).max() <= (257 if mode == "I;16" else 1)
    if opaque:
        assert (crop[outside < -SURELY_WITHIN][..., -1] == ALPHA[0, 0]).all()


def test_by_default_the_border_goes_on(tmp_path):
    Image.fromarray(np.maximum(GREY, 40)).save(tmp_path / "image.png")
    run = stn("rectify", "image.png", "-m", "digits", "--always", "-o", "out", "--json", cwd=tmp_path)
    outside = beyond(json.loads(run.stdout), GREY.shape)
    with Image.open(tmp_path / "out" / "image.png") as crop:
        assert (np.asarray(crop)[outside > SURELY_BEYOND] == 40).all()
