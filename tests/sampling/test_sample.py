"""The differentiable sampler against Pillow, OpenCV and SciPy."""

import cv2
import numpy as np
import pytest
import torch

from stn_cli.geometry import Affine, Attention, Similarity, Translation, center_based, pixel_matrix
from stn_cli.sampling.differentiable import coverage, sample
from tests.geometry.examples import PLANAR, as_torch, example
from tests.sampling.images import (
    batch,
    blobs,
    noise,
    picture,
    pillow_crop,
    scipy_crop,
    source_pixels,
    well_inside,
)

SOURCE, CROP = (60, 81), (40, 50)
FRAMES = ("translation", "attention", "similarity", "affine", "projective")


def crop_of(image, transform, size, dtype=torch.float64, **options):
    return picture(sample(batch(image).to(dtype), as_torch(transform, dtype), size, **options))


@pytest.mark.parametrize("name", FRAMES)
def test_equals_pillow_inside_the_image(name):
    image, transform = noise(SOURCE), example(name)
    ours = crop_of(image, transform, CROP, torch.float32, resample="bilinear")[..., 0]
    inside = well_inside(transform, SOURCE, CROP)
    assert inside.sum() > 500
    np.testing.assert_allclose(ours[inside], pillow_crop(image, transform, CROP)[inside], atol=0.01)


@pytest.mark.parametrize("fill", ["border", (77.0,)])
@pytest.mark.parametrize("name", PLANAR)
def test_equals_scipy_up_to_and_beyond_the_border(name, fill):
    image, transform = noise((7, 9)), example(name) @ Attention(np.array([1.5, 0.1, 0.0]))
    mode = {"mode": "nearest"} if fill == "border" else {"mode": "grid-constant", "cval": fill[0]}
    ours = crop_of(image, transform, (13, 11), resample="bilinear", fill=fill)[..., 0]
    np.testing.assert_allclose(ours, scipy_crop(image, transform, (13, 11), **mode), atol=1e-6)


@pytest.mark.parametrize("fill", ["border", (7.0,)])
def test_volumes_equal_scipy(fill):
    volume, transform = noise((5, 6, 7)), example("affine3d")
    mode = {"mode": "nearest"} if fill == "border" else {"mode": "grid-constant", "cval": fill[0]}
    ours = sample(torch.tensor(volume)[None, None], as_torch(transform), (4, 5, 3), resample="bilinear", fill=fill)
    np.testing.assert_allclose(ours[0, 0], scipy_crop(volume, transform, (4, 5, 3), **mode), atol=1e-6)


def test_nearest_takes_the_pixel_that_the_point_lies_in():
    image, transform = noise(SOURCE), example("affine")
    ours = crop_of(image, transform, CROP, resample="nearest")[..., 0]
    at = np.floor(source_pixels(transform, SOURCE, CROP)).astype(int).clip(0, np.array(SOURCE[::-1]) - 1)
    np.testing.assert_array_equal(ours, image[at[..., 1], at[..., 0]])


def test_bicubic_equals_opencv():
    image, transform = noise(SOURCE).astype(np.float32), example("affine")
    matrix = center_based(pixel_matrix(transform, SOURCE, CROP))
    theirs = cv2.warpAffine(image, matrix[:2], CROP[::-1], flags=cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP)
    inside = well_inside(transform, SOURCE, CROP, margin=2.5)
    ours = crop_of(image, transform, CROP, resample="bicubic")[..., 0]
    # OpenCV places cubic readings on a raster of 1/32 pixel; noise changes by as much as 255 from pixel to pixel.
    assert np.abs(ours - theirs)[inside].mean() < 1.5
    assert np.abs(ours - crop_of(image, transform, CROP, resample="bilinear")[..., 0])[inside].mean() > 5


@pytest.mark.parametrize("fill", [(0.0, 0.0, 0.0), (250.0, 10.0, 90.0)])
def test_fill_colours_equal_opencvs_constant_border(fill):
    image, transform = noise((*SOURCE, 3)).astype(np.float32), example("similarity") @ Attention(np.array([2.0, 0, 0]))
    matrix = center_based(pixel_matrix(transform, SOURCE, CROP))
    flags = cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP
    theirs = cv2.warpAffine(
        image, matrix[:2], CROP[::-1], flags=flags, borderMode=cv2.BORDER_CONSTANT, borderValue=fill
    )
    ours = crop_of(image, transform, CROP, resample="bilinear", fill=fill)
    at = source_pixels(transform, SOURCE, CROP)
    outside = np.any((at < -1) | (at > np.array(SOURCE[::-1]) + 1), axis=-1)
    assert outside.sum() > 200
    np.testing.assert_allclose(ours[outside], theirs[outside], atol=1e-4)


def test_one_fill_value_serves_all_channels():
    outside = Translation(torch.tensor([5.0, 0.0]))
    crop = sample(torch.rand(2, 3, 4, 4), outside, (2, 2), fill=(0.25,))
    assert torch.equal(crop, torch.full((2, 3, 2, 2), 0.25))


@pytest.mark.parametrize("resample", ["sharp", "auto", "bilinear", "bicubic", "nearest"])
def test_identity_changes_no_bit(resample):
    image = torch.rand(2, 3, 16, 32)
    assert torch.equal(sample(image, Affine.identity(image), (16, 32), resample=resample), image)


def test_identity_on_odd_sizes_is_exact_to_rounding():
    image = torch.rand(2, 3, 17, 23)
    torch.testing.assert_close(sample(image, Affine.identity(image), (17, 23)), image, atol=2e-6, rtol=0)


def test_whole_pixel_shifts_move_pixels():
    image = torch.rand(1, 1, 16, 32)
    shift = Translation(torch.tensor([2 * 3 / 32, -2 * 5 / 16]))
    shifted = sample(image, shift, (16, 32), fill=(0.0,))
    assert torch.equal(shifted[..., 5:, :-3], image[..., :-5, 3:])
    assert not shifted[..., :5, :].any()
    assert not shifted[..., -3:].any()


@pytest.mark.parametrize(
    ("a", "b"), [("affine", "similarity"), ("projective", "border 2x5"), ("grid 4x4", "attention")]
)
def test_warping_twice_is_warping_once_with_the_product(a, b):
    image = blobs((90, 120))
    first, second = example(a), example(b)
    size = (80, 100)
    twice = crop_of(crop_of(image, first, size), second, size)
    once, reversed_ = crop_of(image, first @ second, size), crop_of(image, second @ first, size)
    # Where the second reads its own border, a warp of a warp no longer knows what lay beyond.
    inside = well_inside(second, size, size, margin=2)
    assert np.abs(twice - once)[inside].max() < 1.5
    assert np.abs(twice - reversed_)[inside].max() > 15


@pytest.mark.parametrize("channels", [1, 2, 4, 7])
def test_any_number_of_channels_and_one_transform_for_all(channels):
    image = torch.rand(3, channels, 9, 8)
    theta = torch.tensor(example("affine").theta)
    together = sample(image, Affine(theta), (5, 4))
    assert together.shape == (3, channels, 5, 4)
    each = sample(image, Affine(theta.expand(3, 6)), (5, 4))
    torch.testing.assert_close(together, each)
    alone = sample(image[1:2, -1:], Affine(theta), (5, 4))
    torch.testing.assert_close(together[1:2, -1:], alone)


def test_each_of_a_batch_has_its_own_transform():
    image = torch.rand(2, 1, 16, 16)
    theta = torch.tensor([[1.0, 0.0, 0.0], [1.0, 0.25, 0.0]])
    crops = sample(image, Attention(theta), (16, 16), fill=(0.0,))
    assert torch.equal(crops[0], image[0])
    assert torch.equal(crops[1, :, :, :-2], image[1, :, :, 2:])


@pytest.mark.parametrize("image_dtype", [torch.float16, torch.float32, torch.float64])
def test_the_crop_is_float32_or_wider(image_dtype):
    image = (torch.rand(1, 1, 8, 8) * 255).to(image_dtype)
    crop = sample(image, Affine.identity(torch.zeros(0)), (8, 8))
    assert crop.dtype == torch.promote_types(image_dtype, torch.float32)
    torch.testing.assert_close(crop, image.to(crop.dtype), atol=1e-4, rtol=0)


@pytest.mark.parametrize("size", [(16, 16), (3, 4)])
@pytest.mark.parametrize("name", [*FRAMES, "border 2x5", "cascade"])
def test_autocast_changes_no_bit(name, size):
    image, transform = torch.rand(1, 2, 40, 50), as_torch(example(name), torch.float32)
    outside = sample(image, transform, size)
    with torch.autocast("cpu", torch.bfloat16):
        inside = sample(image, transform, size)
    assert torch.equal(inside, outside)


def test_coverage_is_one_inside_and_nothing_outside():
    half = coverage(Translation(torch.tensor([1.0, 0.0])), torch.rand(2, 3, 8, 8), (8, 8))
    assert half.shape == (2, 1, 8, 8)
    assert torch.equal(half[..., :4], torch.ones(2, 1, 8, 4))
    assert torch.equal(half[..., 4:], torch.zeros(2, 1, 8, 4))


@pytest.mark.parametrize(
    ("transform", "share"),
    [
        (Attention(np.array([2.0, 0.0, 0.0])), 1 / 4),
        (Attention(np.array([0.5, 0.2, 0.2])), 1.0),
        # A square within the same square turned by 45° is an octagon.
        (Similarity(np.array([0.0, np.pi / 4, 0.0, 0.0])), 2 * (np.sqrt(2) - 1)),
        (Translation(np.array([0.5, 0.5])), 9 / 16),
    ],
)
@pytest.mark.parametrize("size", [(64, 64), (16, 16)])
def test_coverage_adds_up_to_the_area_shown(transform, share, size):
    mask = coverage(as_torch(transform), torch.zeros(1, 1, 64, 64), size)
    assert float(mask.mean()) == pytest.approx(share, abs=0.005)
