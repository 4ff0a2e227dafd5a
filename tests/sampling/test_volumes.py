"""Crops of volumes, against SciPy."""

import numpy as np
import pytest
import torch

from stn_cli.geometry import Affine3d
from stn_cli.sampling import volumes
from stn_cli.sampling.differentiable import sample
from tests.geometry.examples import example
from tests.sampling.images import noise, scipy_crop

SHAPE, SIZE = (9, 10, 11), (7, 6, 5)
TRANSFORM = example("affine3d")


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "int32", "float16", "float32", "float64"])
def test_equal_to_scipy_in_the_type_of_the_volume(dtype):
    volume = (noise(SHAPE) - (100 if np.dtype(dtype).kind != "u" else 0)).astype(dtype)
    ours = volumes.crop(volume, TRANSFORM, SIZE, resample="bilinear")
    assert ours.dtype == volume.dtype
    theirs = scipy_crop(volume.astype(float), TRANSFORM, SIZE)
    np.testing.assert_allclose(ours.astype(float), theirs, atol=0.51 if np.dtype(dtype).kind != "f" else 0.1)


def test_large_numbers_keep_their_last_digit():
    volume = (noise(SHAPE) + 2**30).astype(np.int32)
    np.testing.assert_array_equal(volumes.crop(volume, Affine3d.identity(), SHAPE), volume)


def test_a_fill_beyond_the_volume():
    volume, away = noise(SHAPE), Affine3d(np.array([1, 0, 0, 0.7, 0, 1, 0, 0, 0, 0, 1, -0.6]))
    ours = volumes.crop(volume, away, SIZE, resample="bilinear", fill=(7.0,))
    np.testing.assert_allclose(ours, scipy_crop(volume, away, SIZE, mode="grid-constant", cval=7.0), atol=1e-4)


@pytest.mark.parametrize("resample", ["sharp", "auto", "bilinear", "nearest"])
@pytest.mark.parametrize("size", [SIZE, (3, 4, 2)])
def test_slab_by_slab_is_as_all_at_once(monkeypatch, resample, size):
    volume = noise(SHAPE).astype(np.float64)
    theta = torch.from_numpy(TRANSFORM.theta)
    whole = sample(torch.from_numpy(volume)[None, None], Affine3d(theta), size, resample=resample)[0, 0]
    monkeypatch.setattr(volumes, "_SLAB_VOXELS", size[1] * size[2] * 2)
    np.testing.assert_allclose(volumes.crop(volume, TRANSFORM, size, resample=resample), whole, atol=1e-9)


def test_what_nets_are_shown_runs_from_0_to_1():
    volume = (noise((4, 6, 8)) - 300).astype(np.int16)
    seen = volumes.shown(volume, 100)
    np.testing.assert_allclose(seen, (volume - volume.min()) / np.ptp(volume), atol=1e-6)
    assert not volumes.shown(np.full((3, 3, 3), 9, np.uint8), 10).any()


@pytest.mark.parametrize(("dtype", "largest"), [("float64", 1.7e308), ("float32", 3.3e38), ("float64", 1e30)])
def test_numbers_whose_sums_exceed_their_type_are_shown_all_the_same(dtype, largest):
    unit = 2 * noise((4, 6, 8), top=1.0) - 1
    volume = (unit * largest).astype(dtype)
    np.testing.assert_allclose(volumes.shown(volume, 100), (unit - unit.min()) / np.ptp(unit), atol=1e-6)
    same = np.full((2, 2, 300), largest, dtype)
    assert not volumes.shown(same, 100).any()


def test_what_nets_are_shown_is_averaged_over_boxes():
    volume = noise((4, 8, 8), top=1.0)
    volume[0, 0, 0], volume[-1, -1, -1] = 0.0, 1.0
    boxes = volume.reshape(2, 2, 4, 2, 4, 2).mean(axis=(1, 3, 5))
    np.testing.assert_allclose(volumes.shown(volume, 4), boxes, atol=1e-6)
