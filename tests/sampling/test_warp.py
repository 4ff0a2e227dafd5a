"""The CPU sampler: one behaviour with the differentiable one, on whole pixels and with alpha."""

import itertools
import math
import tracemalloc

import numpy as np
import pytest
import torch

from stn_cli.errors import ImageError, UsageError
from stn_cli.geometry import Affine, Attention, Translation
from stn_cli.sampling import warp as warp_module
from stn_cli.sampling.differentiable import sample
from stn_cli.sampling.kinds import LONGEST_SIDE
from stn_cli.sampling.warp import warp
from tests.geometry.examples import PLANAR, as_torch, example
from tests.sampling.images import batch, noise, picture, source_pixels

TOP = {np.uint8: 255, np.uint16: 65535, np.float32: 1.0}
SIZES = [((61, 83), (32, 40)), ((200, 150), (17, 11)), ((20, 20), (50, 64)), ((97, 400), (40, 9))]


def pixels_of(dtype, shape, seed=0):
    values = noise(shape, seed, TOP[dtype])
    return values.astype(dtype) if dtype == np.float32 else np.rint(values).astype(dtype)


def both(pixels, transform, size, **options):
    """The crop by either sampler, in float64; that of the differentiable one clipped to what integers can hold."""
    ours = warp(pixels, transform, size, **options)
    assert ours.dtype == pixels.dtype
    assert ours.shape == (*size, pixels.shape[2])
    theirs = picture(sample(batch(pixels.astype(np.float64)), as_torch(transform), size, **options))
    return ours.astype(float), theirs if pixels.dtype == np.float32 else theirs.clip(0, TOP[pixels.dtype.type])


@pytest.mark.parametrize("dtype", TOP)
@pytest.mark.parametrize("name", PLANAR)
@pytest.mark.parametrize("resample", ["sharp", "auto", "bilinear", "bicubic"])
def test_agrees_with_the_differentiable_sampler_within_a_grey_level(dtype, name, resample):
    for (source, size), (fill, channels) in itertools.product(SIZES, [("border", 3), ((TOP[dtype] / 5,), 1)]):
        pixels = pixels_of(dtype, (*source, channels))
        ours, theirs = both(pixels, example(name), size, resample=resample, fill=fill)
        # Means of rounded readings are rounded again: a hair more than one level, here and there.
        grey_level = TOP[dtype] / 255
        assert np.abs(ours - theirs).max() <= 1.1 * grey_level, (source, size, fill)
        assert np.mean(np.abs(ours - theirs) > grey_level) < 0.005, (source, size, fill)


@pytest.mark.parametrize("name", PLANAR)
def test_nearest_agrees_but_on_the_line_between_two_pixels(name):
    for source, size in SIZES:
        ours, theirs = both(pixels_of(np.uint8, (*source, 3)), example(name), size, resample="nearest")
        at = source_pixels(example(name), source, size)
        decided = np.all(np.abs(at - np.rint(at)) > 1e-3, axis=-1)
        assert decided.mean() > 0.75
        np.testing.assert_array_equal(ours[decided], theirs[decided])


@pytest.mark.parametrize("resample", ["sharp", "auto", "bilinear", "bicubic", "nearest"])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("dtype", TOP)
def test_identity_changes_no_bit(dtype, channels, resample):
    pixels = pixels_of(dtype, (17, 23, channels))
    pixels[..., -1] = TOP[dtype]
    crop = warp(pixels, Affine.identity(), (17, 23), resample=resample)
    if dtype == np.float32:
        np.testing.assert_allclose(crop, pixels, atol=1e-6)
    else:
        np.testing.assert_array_equal(crop, pixels)


@pytest.mark.parametrize("resample", ["sharp", "auto", "bilinear", "bicubic", "nearest"])
def test_whole_pixel_shifts_move_pixels(resample):
    pixels = pixels_of(np.uint8, (19, 23, 3))
    shift = Translation(np.array([2 * 3 / 23, -2 * 5 / 19]))
    shifted = warp(pixels, shift, (19, 23), resample=resample, fill=(1.0, 2.0, 3.0))
    np.testing.assert_array_equal(shifted[5:, :-3], pixels[:-5, 3:])
    np.testing.assert_array_equal(shifted[:4, :-4], np.broadcast_to([1, 2, 3], (4, 19, 3)))


@pytest.mark.parametrize("name", ["affine", "projective", "border 2x5"])
@pytest.mark.parametrize(("source", "size"), [((40, 50), (33, 37)), ((300, 260), (33, 9))])
@pytest.mark.parametrize("readings", [1, 64, 1000])
def test_strips_join_without_a_seam(name, source, size, readings, monkeypatch):
    pixels = pixels_of(np.uint8, (*source, 3))
    whole = warp(pixels, example(name), size)
    monkeypatch.setattr(warp_module, "_STRIP_READINGS", readings)
    difference = np.abs(warp(pixels, example(name), size).astype(int) - whole)
    assert difference.max() <= 1  # where a value lies between two grey levels
    assert (difference > 0).mean() < 2e-3


@pytest.mark.parametrize("name", ["affine", "projective", "ribbon 2x5"])
@pytest.mark.parametrize(("size", "like"), [((90, 110), "bicubic"), ((11, 9), "auto")])
def test_sharp_is_bicubic_where_nothing_shrinks_and_averages_where_something_does(name, size, like):
    pixels = pixels_of(np.uint8, (60, 70, 3))
    sharp, others = warp(pixels, example(name), size, resample="sharp"), {"bicubic", "auto", "bilinear"} - {like}
    np.testing.assert_array_equal(sharp, warp(pixels, example(name), size, resample=like))
    assert all(not np.array_equal(sharp, warp(pixels, example(name), size, resample=other)) for other in others)


def half_red(dtype, channels):
    """Left half opaque without the first colour, right half fully transparent and full of it."""
    pixels = np.zeros((32, 32, channels), dtype)
    pixels[:, :16, -1] = TOP[dtype]
    pixels[:, :16, channels - 2] = TOP[dtype] if channels == 4 else 0
    pixels[:, 16:, 0] = TOP[dtype]
    return pixels


@pytest.mark.parametrize("dtype", TOP)
@pytest.mark.parametrize("channels", [2, 4])
@pytest.mark.parametrize("resample", ["sharp", "auto", "bilinear", "bicubic"])
@pytest.mark.parametrize("size", [(32, 32), (50, 50), (5, 5)])
def test_transparent_colour_does_not_bleed(dtype, channels, resample, size):
    crop = warp(half_red(dtype, channels), Translation(np.array([0.03, 0.0])), size, resample=resample)
    alpha, red = crop[..., -1], crop[..., 0]
    assert (alpha == TOP[dtype]).any()
    assert (alpha == 0).any()
    assert not red[alpha > 0].any()
    if channels == 4:
        np.testing.assert_allclose(crop[..., 2][alpha > 0.02 * TOP[dtype]], TOP[dtype], rtol=0.03)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_constant_colour_keeps_its_value_under_any_alpha(dtype):
    pixels = np.full((20, 20, 4), 0.6 * TOP[dtype], dtype)
    pixels[..., 3] = noise((20, 20), top=TOP[dtype] - 100) + 50
    crop = warp(pixels, example("affine"), (15, 15))
    assert np.abs(crop[..., :3].astype(int) - int(pixels[0, 0, 0])).max() <= 1


@pytest.mark.parametrize(
    "fill",
    [
        (10.0, 20.0, 30.0, 255.0),
        (100.0, 0.0, 50.0, 128.0),
        (0.0, 0.0, 0.0, 0.0),
        (128.0,),
        (60.0, 255.0),
        (60.0, 128.0),
    ],
)
def test_fill_is_stated_in_the_values_of_the_pixels(fill):
    channels = 4 if len(fill) != 2 else 2
    crop = warp(pixels_of(np.uint8, (8, 8, channels)), Translation(np.array([5.0, 0.0])), (2, 2), fill=fill)
    expected = fill * channels if len(fill) == 1 else fill
    np.testing.assert_array_equal(crop, np.broadcast_to(np.array(expected), (2, 2, channels)))


def test_a_crop_beyond_what_opencv_can_address_is_refused():
    with pytest.raises(ImageError, match="32766"):
        warp(np.zeros((2, 8, 1), np.uint8), Affine.identity(), (2, 40_000), resample="bilinear")


@pytest.mark.parametrize("resample", ["sharp", "auto", "bilinear", "bicubic", "nearest"])
@pytest.mark.parametrize("fill", ["border", (200.0,)])
@pytest.mark.parametrize("shown", ["all of it, small", "a part", "a turned part"])
def test_a_source_beyond_what_opencv_can_address_is_read_by_parts(resample, fill, shown):
    y, x = np.mgrid[:24, :70_000]  # smooth: OpenCV counts in float32, which 70,000 pixels make coarse
    waves = [np.sin(x / 9 + y / 5), np.sin(x / 700), np.cos(x / 31 - y / 7)]
    source = np.rint(127.5 + 127.5 * np.stack(waves, axis=2)).astype(np.uint8)
    theta = {
        "all of it, small": [1.05, 0.0, 0.0, 0.0, 1.2, 0.0],
        "a part": [0.001, 0.0, 0.6, 0.0, 1.1, 0.1],
        "a turned part": [0.6, 0.1, -0.5, -0.5, 0.6, 0.0],
    }[shown]
    ours, theirs = both(source, Affine(np.array(theta)), (20, 70), resample=resample, fill=fill)
    assert np.abs(ours - theirs).max() <= (30 if resample == "nearest" else 1.1)  # between two pixels either is nearest


@pytest.mark.parametrize(("source", "size"), [((10, 32_000), (10, 9_000)), ((32_000, 4), (9_000, 1))])
def test_a_very_long_source_can_be_shown_from_further_away(source, size):
    """The crop's own sides are fine, and so are the source's; so must be what is read to average them."""
    crop = warp(np.full((*source, 1), 9, np.uint8), Attention(np.array([1.1, 0.0, 0.0])), size)
    assert (crop == 9).all()


@pytest.mark.parametrize(("channels", "fill"), [(3, (1.0, 2.0)), (1, (1.0, 2.0, 3.0)), (4, ())])
def test_a_fill_of_other_channels_is_refused_by_both_samplers(channels, fill):
    pixels = pixels_of(np.uint8, (8, 8, channels))
    with pytest.raises(UsageError, match="fill"):
        warp(pixels, example("affine"), (4, 4), fill=fill)
    with pytest.raises(UsageError, match="fill"):
        sample(torch.rand(1, channels, 8, 8), as_torch(example("affine")), (4, 4), fill=fill)


def test_integers_are_sampled_as_they_are():
    pixels = torch.arange(16).reshape(1, 1, 4, 4)
    torch.testing.assert_close(sample(pixels, Affine.identity(torch.zeros(0)), (4, 4)), pixels.float())


@pytest.mark.parametrize("resample", ["sharp", "auto", "bilinear", "bicubic", "nearest"])
@pytest.mark.parametrize("width", [60, LONGEST_SIDE + 10])
def test_a_large_crop_takes_little_more_memory_than_itself(resample, width):
    pixels, size = np.zeros((40, width, 1), np.uint8), (3000, 1000)
    tracemalloc.start()
    try:
        warp(pixels, Affine(np.array([0.9, 0.1, 0.0, 0.0, 0.9, 0.0])), size, resample=resample)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < math.prod(size) + 80e6  # a map of all its positions alone has 24 million bytes, and took 150 to make
