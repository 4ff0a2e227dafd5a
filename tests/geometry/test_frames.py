"""Normalised and pixel coordinates, against what Pillow and OpenCV read there."""

import cv2
import numpy as np
import PIL.Image
import pytest
from jaxtyping import TypeCheckError

from stn_cli.geometry import (
    Affine,
    Attention,
    Projective,
    center_based,
    corner_based,
    grid,
    letterbox,
    outline,
    pixel_matrix,
    pixel_points,
)
from tests.geometry.examples import LINEAR, PLANAR_LINEAR, example

SOURCE, CROP = (90, 130), (40, 70)


def ramps(size):
    """Two images whose values are the corner-based x and y of their pixels' centres."""
    y, x = np.mgrid[: size[0], : size[1]].astype(np.float32) + 0.5
    return x, y


def interior(points, size, margin=1.0):
    height, width = size
    return np.all((points > margin) & (points < np.array([width - margin, height - margin])), axis=-1)


def test_the_grid_is_pixel_centres_row_by_row():
    assert grid((2, 4)).tolist() == [[x, y] for y in (-0.5, 0.5) for x in (-0.75, -0.25, 0.25, 0.75)]
    assert grid((1, 1, 2)).tolist() == [[-0.5, 0.0, 0.0], [0.5, 0.0, 0.0]]


def test_the_outline_runs_clockwise_from_the_top_left_corner():
    assert outline().tolist() == [[-1, -1], [1, -1], [1, 1], [-1, 1]]
    assert outline(3).tolist() == [[-1, -1], [0, -1], [1, -1], [1, 0], [1, 1], [0, 1], [-1, 1], [-1, 0]]


def test_pixel_points_reach_from_corner_to_corner(array):
    corners = array([[-1.0, -1.0], [1.0, 1.0], [0.0, 0.0]])
    np.testing.assert_allclose(pixel_points(corners, (30, 50)), [[0, 0], [50, 30], [25, 15]])


@pytest.mark.parametrize("name", PLANAR_LINEAR)
def test_pixel_matrix_is_the_data_that_pillow_takes(name, array):
    matrix = np.asarray(pixel_matrix(example(name, array), SOURCE, CROP))
    points = pixel_points(example(name)(grid(CROP)), SOURCE)
    read = [
        np.asarray(
            PIL.Image.fromarray(ramp).transform(
                CROP[::-1], PIL.Image.Transform.PERSPECTIVE, matrix.ravel()[:8].tolist(), PIL.Image.Resampling.BILINEAR
            )
        )
        for ramp in ramps(SOURCE)
    ]
    inside = interior(points, SOURCE)
    assert inside.sum() > 1000
    np.testing.assert_allclose(np.stack(read, -1).reshape(-1, 2)[inside], points[inside], atol=1e-3)


@pytest.mark.parametrize("name", PLANAR_LINEAR[:-1])
def test_center_based_matrix_is_the_one_that_opencv_takes(name):
    matrix = center_based(pixel_matrix(example(name), SOURCE, CROP))
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    read = [cv2.warpAffine(ramp, matrix[:2], CROP[::-1], flags=flags) for ramp in ramps(SOURCE)]
    points = pixel_points(example(name)(grid(CROP)), SOURCE)
    inside = interior(points, SOURCE)
    # OpenCV may place its readings on a raster of 1/32 pixel.
    np.testing.assert_allclose(np.stack(read, -1).reshape(-1, 2)[inside], points[inside], atol=0.04)


@pytest.mark.parametrize("name", PLANAR_LINEAR)
def test_corner_and_center_based_are_inverse_to_each_other(name, array):
    matrix = pixel_matrix(example(name, array), SOURCE, CROP)
    assert np.abs(np.asarray(center_based(matrix) - matrix)).max() > 0.01
    np.testing.assert_allclose(corner_based(center_based(matrix)), matrix, atol=1e-9)


@pytest.mark.parametrize("size", [(100, 200), (200, 100), (64, 64), (31, 977)])
@pytest.mark.parametrize("frame", [(64, 64), (32, 100)])
def test_letterbox_shows_all_of_the_image_centred_with_its_aspect_kept(size, frame):
    box = letterbox(size, frame)
    scale = np.diag(pixel_matrix(box, size, frame))[:2]
    assert scale[0] == pytest.approx(scale[1])
    np.testing.assert_allclose(box(np.zeros((1, 2))), 0.0, atol=1e-12)
    corners = box.inverse()(outline())
    assert np.abs(corners).max() == pytest.approx(1.0)


def test_pixel_matrix_of_a_batch(array):
    batch = Attention(array(np.array([[0.5, 0.0, 0.0], [1.0, 0.2, 0.0]])))
    np.testing.assert_allclose(
        pixel_matrix(batch, SOURCE, CROP)[1],
        pixel_matrix(Attention(np.array([1.0, 0.2, 0.0])), SOURCE, CROP),
        atol=1e-9,
    )


@pytest.mark.parametrize("name", LINEAR)
def test_every_transform_of_a_batch_has_its_own_sizes(name, array):
    one, volume = example(name), name == "affine3d"
    sources, crops = ([(*size, 50) if volume else size for size in sizes] for sizes in ((SOURCE, CROP), (CROP, (9, 8))))
    together = pixel_matrix(type(one)(array(np.stack((one.theta, one.theta)))), sources, crops)
    alone = [pixel_matrix(one, *sizes) for sizes in zip(sources, crops, strict=True)]
    np.testing.assert_allclose(together, alone, rtol=1e-9, atol=1e-9)


def test_identity_between_equal_sizes_is_the_identity_in_pixels():
    np.testing.assert_allclose(pixel_matrix(Affine.identity(), SOURCE, SOURCE), np.eye(3), atol=1e-12)


def test_pixel_matrix_of_a_corner_on_the_horizon_is_finite_and_the_same_map():
    transform = Projective(np.array([1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.5, 0.5]))
    matrix = pixel_matrix(transform, (20, 30), (10, 12))
    assert np.isfinite(matrix).all()
    x, y, w = matrix @ [9.0, 8.0, 1.0]
    expected = pixel_points(transform(np.array([[9 / 6 - 1, 8 / 5 - 1]])), (20, 30))
    np.testing.assert_allclose([[x / w, y / w]], expected)


def test_annotations_of_shapes_are_checked_here():
    with pytest.raises(TypeCheckError):
        center_based(np.eye(2))
