"""Shrinking: a pixel of the crop is the mean of the source pixels that it stands for."""

import numpy as np
import PIL.Image
import pytest
import torch

from stn_cli.geometry import Affine, Attention, Projective, Similarity
from stn_cli.sampling.differentiable import sample
from stn_cli.sampling.footprint import footprint
from stn_cli.sampling.warp import warp
from tests.geometry.examples import as_torch
from tests.sampling.images import batch, blobs, checkers, noise, picture, psnr

SHRINK = 30
LARGE, SMALL = (24 * SHRINK, 32 * SHRINK), (24, 32)
TEXTURES = {"blobs": blobs(LARGE), "checkers": checkers(LARGE), "noise": noise(LARGE)}


def by_sample(image, transform, size, **options):
    return picture(sample(batch(image.astype(np.float32)), as_torch(transform, torch.float32), size, **options))[..., 0]


def by_warp(image, transform, size, **options):
    pixels = np.rint(image).astype(np.uint8)[..., None]
    return warp(pixels, transform, size, **options)[..., 0]


SAMPLERS = pytest.mark.parametrize("sampler", [by_sample, by_warp])


@SAMPLERS
@pytest.mark.parametrize("texture", TEXTURES)
def test_a_thirtyfold_shrink_is_the_mean_of_blocks(texture, sampler):
    image = TEXTURES[texture]
    means = image.reshape(SMALL[0], SHRINK, SMALL[1], SHRINK).mean(axis=(1, 3))
    assert psnr(sampler(image, Affine.identity(), SMALL), means) >= 35


@SAMPLERS
@pytest.mark.parametrize("texture", ["checkers", "noise"])
def test_plain_bilinear_is_far_from_it(texture, sampler):
    image = TEXTURES[texture]
    means = image.reshape(SMALL[0], SHRINK, SMALL[1], SHRINK).mean(axis=(1, 3))
    plain = psnr(sampler(image, Affine.identity(), SMALL, resample="bilinear"), means)
    assert plain < psnr(sampler(image, Affine.identity(), SMALL), means) - 15


@SAMPLERS
@pytest.mark.parametrize("shrink", [2, 3, 5, 7])
def test_a_small_whole_shrink_is_the_mean_of_blocks_to_rounding(shrink, sampler):
    image = np.rint(noise((12 * shrink, 10 * shrink)))
    means = image.reshape(12, shrink, 10, shrink).mean(axis=(1, 3))
    assert np.abs(sampler(image, Affine.identity(), (12, 10)) - means).max() <= 0.51


@SAMPLERS
@pytest.mark.parametrize("scale", [0.83, 0.31])
@pytest.mark.parametrize("texture", TEXTURES)
def test_fractional_shrinks_agree_with_pillows_box_filter(texture, scale, sampler):
    image, (height, width) = TEXTURES[texture], LARGE
    transform = Attention(np.array([scale, 0.05, -0.1]))
    left, top = (transform(np.array([[-1.0, -1.0]])) + 1)[0] * np.array([width, height]) / 2
    box = (left, top, left + scale * width, top + scale * height)
    whole = PIL.Image.fromarray(image.astype(np.float32))
    area = np.asarray(whole.resize(SMALL[::-1], PIL.Image.Resampling.BOX, box))
    assert psnr(sampler(image, transform, SMALL), area) >= 30


@SAMPLERS
@pytest.mark.parametrize("shrunk", [(60, 640), (480, 64)])
def test_only_the_axis_that_shrinks_is_averaged(shrunk, sampler):
    image = noise((480, 640))
    block = (480 // shrunk[0], 640 // shrunk[1])
    means = image.reshape(shrunk[0], block[0], shrunk[1], block[1]).mean(axis=(1, 3))
    assert psnr(sampler(image, Affine.identity(), shrunk), means) >= 35


@SAMPLERS
def test_a_turned_shrink_finds_the_mean_of_a_fine_texture(sampler):
    """Checkers of 7 px average to grey under pixels of 30 px, whichever way these are turned."""
    turned = Similarity(np.array([-0.5, 0.6, 0.0, 0.0]))
    crop = sampler(TEXTURES["checkers"], turned, (14, 14))
    assert np.abs(crop.astype(float) - 127.5).max() < 30
    assert (
        np.abs(sampler(TEXTURES["checkers"], turned, (14, 14), resample="bilinear").astype(float) - 127.5).max() > 100
    )


@pytest.mark.parametrize("size", [(24, 32), (48, 64), (30, 100)])
def test_enlarging_is_plain_bilinear(size):
    image = noise((24, 32))
    plain = by_sample(image, Affine.identity(), size, resample="bilinear")
    np.testing.assert_array_equal(by_sample(image, Affine.identity(), size), plain)


@pytest.mark.parametrize("slope", [0.9, 1.0, 1.05, 1.3, 3.0])
def test_the_plan_stays_within_the_source_however_near_the_horizon(slope):
    """A level of more than the source's own pixels is one pixel of nothing, at the price of a huge padded image."""
    transform = Projective(np.array([1.0, 0.0, 0.0, 0.0, 1.0, 0.0, slope, 0.1]))
    assert 2 ** footprint(transform, (61, 83), (32, 40)).level <= 83


@SAMPLERS
def test_a_crop_across_the_horizon_is_still_a_crop(sampler):
    transform = Projective(np.array([0.9, 0.1, 0.05, -0.1, 0.8, 0.1, 1.1, -0.2]))
    crop = sampler(noise((61, 83)), transform, (32, 40))
    assert crop.shape == (32, 40)
    assert np.isfinite(crop).all()
