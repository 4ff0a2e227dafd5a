"""What the nets are shown of an image: a small copy, averaged, of its luminance; as Pillow has them."""

import numpy as np
import pytest
from PIL import Image

from stn_cli.engines.engine import small_copy
from stn_cli.images.channels import luminance


@pytest.mark.parametrize("size", [(1800, 2400), (1303, 2111), (600, 5000)])
def test_a_large_image_is_averaged(size):
    pixels = np.random.default_rng(0).integers(0, 256, (*size, 1), np.uint8)
    small = small_copy(pixels)[..., 0] * 255
    floating = Image.fromarray(pixels[..., 0].astype(np.float32))
    expected = np.asarray(floating.resize(small.shape[::-1], Image.Resampling.BOX))
    assert np.abs(small - expected).mean() < 10  # noise that is not averaged is off by some 60


def test_luminance_is_that_of_pillow():
    colours = np.random.default_rng(0).integers(0, 256, (20, 20, 3), np.uint8)
    grey = np.asarray(Image.fromarray(colours).convert("L")).astype(int)
    assert np.abs(luminance(colours)[..., 0].astype(int) - grey).max() <= 1
