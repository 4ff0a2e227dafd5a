"""Numbers that a user reads to decide whether a crop can be trusted."""

import numpy as np
import pytest
import torch

from stn_cli.geometry import (
    Affine,
    Affine3d,
    Attention,
    BorderLayout,
    GridLayout,
    Projective,
    Similarity,
    ThinPlateSpline,
    Translation,
    crop_size,
    letterbox,
    quality,
    zooms,
)
from tests.geometry.examples import PLANAR, example, spline_theta

LATTICE_STEP = 1 / 17


@pytest.mark.parametrize("name", PLANAR)
def test_a_gentle_transform_does_not_fold(name, array):
    assert not quality(example(name, array)).fold


def test_zooms_are_mean_sizes(array):
    theta = array([[0.5, 0.1, 0.2], [2.0, 0.0, 0.0]])
    np.testing.assert_allclose(np.asarray(zooms(Attention(theta))), [0.5, 2.0], rtol=1e-6)
    half = Affine3d(array([[0.5, 0, 0, 0, 0, 0.5, 0, 0, 0, 0, 0.5, 0]]))
    np.testing.assert_allclose(np.asarray(zooms(half)), [0.5], rtol=1e-6)


def test_a_mirror_image_is_no_fold():
    mirrored = quality(Affine(np.array([-1.0, 0.0, 0.0, 0.0, 1.0, 0.0])))
    assert not mirrored.fold
    assert mirrored.jacobian_max == pytest.approx(-1.0)


def test_crossed_control_points_are_a_fold(array):
    points = GridLayout(3).points.copy()
    points[[3, 5]] = points[[5, 3]]
    assert quality(ThinPlateSpline(array(points.ravel()), GridLayout(3))).fold


@pytest.mark.parametrize("slope", [2.0, 1.2, 1.03])
@pytest.mark.parametrize("chained", [False, True])
def test_a_horizon_through_the_crop_is_a_fold(slope, chained, array):
    transform = Projective(array([1.0, 0.0, 0.0, 0.0, 1.0, 0.0, slope, 0.0]))
    spline = ThinPlateSpline(array(spline_theta("grid 3x3", spread=0.0)), GridLayout(3))
    assert quality(transform @ spline if chained else transform).fold


def test_a_horizon_outside_the_crop_is_none():
    assert not quality(Projective(np.array([1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.6, 0.3]))).fold


@pytest.mark.parametrize(
    ("transform", "share"),
    [
        (Affine.identity(), 0.0),
        (Translation(np.array([1.0, 0.0])), 0.5),
        (Translation(np.array([0.0, -1.0])), 0.5),
        (Translation(np.array([3.0, 0.0])), 1.0),
        (Attention(np.array([2.0, 0.0, 0.0])), 0.75),
        (Attention(np.array([0.5, 0.4, -0.4])), 0.0),
    ],
)
def test_out_of_frame_is_the_share_of_the_crop_beyond_the_source(transform, share):
    assert quality(transform).out_of_frame == pytest.approx(share, abs=LATTICE_STEP)


@pytest.mark.parametrize("scale", [0.5, 1.0, 3.0])
def test_jacobian_of_a_zoom_is_its_square_everywhere(scale, array):
    numbers = quality(Attention(array([scale, 0.1, 0.1])))
    assert (numbers.jacobian_min, numbers.jacobian_max) == pytest.approx((scale**2, scale**2))


def test_jacobian_range_of_a_homography():
    # det = det(H) / w³, and w runs over 1 ± 0.3 at the centres of the outermost of 17 columns' 16/17.
    numbers = quality(Projective(np.array([1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.3, 0.0])))
    ends = [(1 + sign * 0.3 * 16 / 17) ** -3 for sign in (1, -1)]
    assert (numbers.jacobian_min, numbers.jacobian_max) == pytest.approx(tuple(ends))


def test_quality_of_parameters_under_training_is_plain_numbers():
    theta = torch.tensor([0.5, 0.0, 0.0], requires_grad=True)
    assert quality(Attention(theta)).jacobian_min == pytest.approx(0.25)
    assert crop_size(Attention(theta), (100, 200)) == pytest.approx((50.0, 100.0))


def rectangle(size, centre, angle, source):
    """The affine map that shows an upright crop of a turned rectangle, all of it given in source pixels."""
    (height, width), (source_h, source_w) = size, source
    across = np.array([np.cos(angle), np.sin(angle)]) * width / 2
    down = np.array([-np.sin(angle), np.cos(angle)]) * height / 2
    to_unit = np.array([2 / source_w, 2 / source_h])
    columns = (across * to_unit, down * to_unit, np.array(centre) * to_unit - 1)
    return np.stack(columns, axis=-1).ravel()


@pytest.mark.parametrize("angle", [0.0, 0.5, np.pi / 2, 2.5])
@pytest.mark.parametrize("size", [(80, 200), (33, 33)])
def test_crop_size_is_the_sides_of_the_rectangle_shown(angle, size, array):
    source = (300, 500)
    transform = Affine(array(rectangle(size, (260, 140), angle, source)))
    assert crop_size(transform, source) == pytest.approx(size)


@pytest.mark.parametrize("angle", [0.0, 0.7])
def test_crop_size_behind_a_letterbox_is_stated_in_source_pixels(angle):
    source = (300, 500)
    turned = Similarity(np.array([np.log(0.25), angle, 0.2, 0.1]))
    assert crop_size(letterbox(source, (64, 64)) @ turned, source) == pytest.approx((125.0, 125.0))


def test_crop_size_follows_bent_borders():
    """Both borders of the crop lie on half circles of 100 px radius."""
    n, source = 33, (400, 400)
    t = np.linspace(np.pi, 2 * np.pi, n)
    arc = np.stack((200 + 100 * np.cos(t), 200 + 100 * np.sin(t)), -1)
    control = np.concatenate((arc, arc + np.array([0, 40]))) / 200 - 1
    _, width = crop_size(ThinPlateSpline(control.ravel(), BorderLayout(n)), source)
    assert width == pytest.approx(100 * np.pi, rel=0.01)
