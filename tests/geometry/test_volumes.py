"""Frames of volumes: their corners, sizes and rotations."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from stn_cli.geometry import (
    Affine3d,
    BorderLayout,
    corners,
    letterbox,
    pixel_matrix,
    pixel_points,
    qualities,
    volume_size,
)
from stn_cli.geometry.rotation import angle, rotation
from tests.geometry.examples import example


def affine3d(linear, shift=(0, 0, 0)):
    return Affine3d(np.concatenate((linear, np.reshape(shift, (3, 1))), axis=1).ravel())


def test_corners():
    np.testing.assert_array_equal(corners(2), BorderLayout(2).points)
    cube = corners(3)
    assert {tuple(point) for point in cube} == {(x, y, z) for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)}
    assert (cube[:4, 1] == -1).all(), "the upper face comes first"
    np.testing.assert_array_equal(cube[:4, [0, 2]], corners(2))


def test_a_letterbox_keeps_the_aspect_of_a_volume():
    source, seen = (10, 20, 40), (16, 16, 16)
    sides = np.diag(letterbox(source, seen).matrix)[:3]  # x, y, z
    np.testing.assert_allclose(sides * source[::-1] / seen[::-1], 40 / 16)
    assert sides[0] == 1.0


def test_voxels():
    transform, source, size = example("affine3d"), (7, 9, 11), (4, 5, 6)
    points = np.random.default_rng(0).uniform(-1, 1, (20, 3))
    crop_voxels = np.concatenate((pixel_points(points, size), np.ones((20, 1))), axis=1)
    matrix = pixel_matrix(transform, source, size)
    np.testing.assert_allclose((crop_voxels @ matrix.T)[:, :3], pixel_points(transform(points), source))
    np.testing.assert_allclose(matrix[3], (0, 0, 0, 1))


def test_the_size_of_a_turned_box():
    turned = Rotation.from_euler("xyz", (20, -30, 40), degrees=True).as_matrix()
    transform = affine3d(turned @ np.diag((0.5, 0.25, 0.75)))  # of the width, height and depth of a cube
    np.testing.assert_allclose(volume_size(transform, (64, 64, 64)), (48, 16, 32))
    upright = affine3d(np.diag((0.5, 0.25, 0.75)))
    np.testing.assert_allclose(volume_size(upright, (100, 60, 40)), (75, 15, 20))


@pytest.mark.parametrize("degrees", [0.0, 10.0, 75.0, 179.0])
def test_rotations(array, degrees):
    turned = Rotation.from_rotvec(np.radians(degrees) * np.array((0.6, 0.0, 0.8))).as_matrix()
    frame = array(np.stack([1.7 * corners(3) @ turned.T + 0.3] * 2))
    found = rotation(frame)
    np.testing.assert_allclose(np.asarray(found), [turned] * 2, atol=1e-9)
    np.testing.assert_allclose(np.degrees(np.asarray(angle(found))), degrees, atol=1e-5)


def test_the_nearest_rotation_to_a_sheared_frame_is_one():
    sheared = example("affine3d")(corners(3))
    found = rotation(sheared)
    np.testing.assert_allclose(found @ found.T, np.eye(3), atol=1e-9)
    assert np.linalg.det(found) == pytest.approx(1)
    best, _ = Rotation.align_vectors(sheared - sheared.mean(axis=0), corners(3))
    np.testing.assert_allclose(found, best.as_matrix(), atol=1e-6)


def test_quality():
    shifted, mirrored = affine3d(np.eye(3), (1, 0, 0)), affine3d(np.diag((1.0, -1.0, 0.5)))
    one, other = (qualities(transform[None])[0] for transform in (shifted, mirrored))
    assert not one.fold
    assert one.out_of_frame == pytest.approx(0.5, abs=0.06)
    assert one.jacobian_min == one.jacobian_max == pytest.approx(1)
    assert other.fold
    assert other.jacobian_max == pytest.approx(-0.5)
