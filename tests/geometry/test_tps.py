"""The thin-plate spline against scikit-image's and SciPy's, and where its inverse ends."""

import numpy as np
import pytest
import torch
from scipy.interpolate import RBFInterpolator
from skimage.transform import ThinPlateSplineTransform

from stn_cli.errors import GeometryError
from stn_cli.geometry import (
    Affine,
    BorderLayout,
    Cascade,
    GridLayout,
    Projective,
    ThinPlateSpline,
    grid,
    layout_from_name,
    pixel_points,
)
from stn_cli.geometry.layouts import layout_name
from stn_cli.networks.refinement import righted, upright_odds
from tests.geometry.examples import spline_theta

LAYOUTS = ("grid 3x3", "grid 4x4", "border 2x2", "border 2x10", "ribbon 2x10")
VGA = (480, 640)
METRIC = {"ribbon 2x10": np.array([9.0, 1.0])}


def spline(layout, **options):
    return ThinPlateSpline(spline_theta(layout, **options), layout_from_name(layout))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_agrees_with_scikit_image_to_a_hundredth_of_a_pixel(layout):
    transform = spline(layout, spread=0.15)
    metric = METRIC.get(layout, np.ones(2))
    oracle = ThinPlateSplineTransform.from_estimate(transform.layout.points * metric, transform.control_points)
    points = grid(VGA)[::13]
    ours, theirs = pixel_points(transform(points), VGA), pixel_points(oracle(points * metric), VGA)
    np.testing.assert_allclose(ours, theirs, atol=0.01)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_agrees_with_scipy(layout):
    transform = spline(layout, spread=0.15)
    metric = METRIC.get(layout, np.ones(2))
    points = 1.2 * grid((21, 23))
    oracle = RBFInterpolator(transform.layout.points * metric, transform.control_points, kernel="thin_plate_spline")
    np.testing.assert_allclose(transform(points), oracle(points * metric), atol=1e-10)


def test_a_ribbon_follows_an_arc_that_a_square_border_does_not():
    errors = {}
    for name in ("ribbon 2x10", "border 2x10"):
        layout, points = layout_from_name(name), grid((17, 33))
        found = ThinPlateSpline(arched(layout.points).ravel(), layout)(points)
        errors[name] = np.linalg.norm(found - arched(points), axis=1).max() / 0.3
    assert errors["ribbon 2x10"] < 0.1
    assert errors["border 2x10"] > 0.25


def arched(points):
    """Half a ring about the origin, 0.3 wide."""
    angle, radius = points[:, 0] * np.pi / 2, 0.75 - 0.15 * points[:, 1]
    return np.stack((radius * np.sin(angle), -radius * np.cos(angle)), axis=-1)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_takes_each_control_point_to_where_theta_says(layout, array):
    transform = ThinPlateSpline(array(spline_theta(layout)), layout_from_name(layout))
    np.testing.assert_allclose(transform(array(transform.layout.points)).ravel(), spline_theta(layout), atol=1e-12)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_is_affine_where_its_control_points_are(layout):
    affine = Affine(np.array([0.8, 0.2, 0.1, -0.15, 0.9, -0.05]))
    points = layout_from_name(layout).points
    transform = ThinPlateSpline(affine(points).ravel(), layout_from_name(layout))
    everywhere = 3 * grid((9, 9))
    np.testing.assert_allclose(transform(everywhere), affine(everywhere), atol=1e-11)
    np.testing.assert_allclose(transform.affine_part().theta, affine.theta, atol=1e-12)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layout_names_round_trip(layout):
    assert layout_name(layout_from_name(layout)) == layout


def test_layouts_list_their_points_in_reading_order():
    assert GridLayout(2).points.tolist() == [[-1, -1], [1, -1], [-1, 1], [1, 1]]
    assert BorderLayout(3).points.tolist() == [[-1, -1], [0, -1], [1, -1], [-1, 1], [0, 1], [1, 1]]


@pytest.mark.parametrize(
    "name",
    ["", "grid", "grid 4", "grid 4x5", "grid 1x1", "border 3x5", "border 2x1", "border 2x", "ring 4x4", "grid -4x-4"],
)
def test_unknown_layouts_are_refused(name):
    with pytest.raises(GeometryError, match="layout"):
        layout_from_name(name)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_turned_over_it_shows_the_opposite_point(layout, array):
    transform, points = ThinPlateSpline(array(spline_theta(layout)), layout_from_name(layout)), 0.9 * grid((5, 7))
    yes, no = (array(np.array(where), "bool") for where in (True, False))
    np.testing.assert_allclose(transform.turned(yes)(array(points)), transform(array(-points)), atol=1e-12)
    np.testing.assert_array_equal(transform.turned(no).theta, transform.theta)


@pytest.mark.parametrize("degrees", [0, 30, 90, 150, 180])
def test_uprightness_is_the_cosine_of_the_turn(degrees, array):
    angle, layout = np.radians(degrees), layout_from_name("ribbon 2x5")
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    spline = ThinPlateSpline(array((layout.points * (0.5, 0.2) @ turn).ravel()), layout)
    assert float(spline.uprightness()) == pytest.approx(np.cos(angle), abs=1e-9)


@pytest.mark.parametrize("degrees", [0, 30, 90, 150, 180])
def test_the_prior_fades_with_the_turn(degrees):
    layout, angle = layout_from_name("ribbon 2x5"), np.radians(degrees)
    turn = Affine(np.array([np.cos(angle), -np.sin(angle), 0, np.sin(angle), np.cos(angle), 0]))
    spline = ThinPlateSpline.identity(layout).through(turn)
    assert float(upright_odds(spline, 4.0)) == pytest.approx(4 * np.cos(angle) ** 5, abs=1e-9)


@pytest.mark.parametrize(
    ("odds", "prior", "over"), [(1.0, 0.0, False), (-1.0, 0.0, True), (-1.0, 3.0, False), (-4.0, 3.0, True)]
)
def test_it_is_righted_where_the_votes_outweigh_the_prior(odds, prior, over, array):
    layout = layout_from_name("ribbon 2x5")
    upright = ThinPlateSpline(array(layout.points.ravel()), layout)
    found, after = righted(upright, array(odds), prior)
    assert float(found.uprightness()) == pytest.approx(-1 if over else 1)
    assert float(after) == (-odds if over else odds)


def nearly_folded_flat():
    """x' = x² + 0.2·x at the control points: the plane folds along x ≈ −0.1, nothing near is shown left of it."""
    x, y = GridLayout(5).points.T
    return ThinPlateSpline(np.stack((x * x + 0.2 * x, y), -1).ravel(), GridLayout(5))


def test_a_point_beyond_a_fold_has_no_inverse():
    transform = nearly_folded_flat()
    seen = transform(np.array([[0.7, 0.3]]))
    preimage = transform.inverse()(np.concatenate((seen, [[-0.9, 0.0]])))
    np.testing.assert_allclose(transform(preimage[:1]), seen, atol=1e-9)
    assert np.isnan(preimage[1]).all()


def test_a_part_of_a_cascade_keeps_what_all_have_in_common():
    layout = GridLayout(3)
    rng = np.random.default_rng(0)
    splines = ThinPlateSpline(layout.points.ravel() + rng.normal(0, 0.05, (4, 18)), layout)
    common = Projective(np.array([[1.1, 0, 0.1, 0, 0.9, 0, 0.1, 0.05]]))
    cascade, points = splines @ common, rng.uniform(-0.5, 0.5, (5, 2))
    assert isinstance(cascade, Cascade)
    np.testing.assert_allclose(cascade[[2, 0]](points), cascade(points)[[2, 0]])
    np.testing.assert_allclose(cascade[1](points), cascade(points)[1])


def test_the_inverse_has_a_gradient_also_where_nothing_is_bent():
    layout, points = GridLayout(4), torch.tensor([[0.3, -0.2], [0.0, 0.5]], dtype=torch.float64)
    theta = torch.tensor(layout.points.ravel(), dtype=torch.float64, requires_grad=True)
    spline = ThinPlateSpline(theta, layout)
    (backwards,) = torch.autograd.grad(spline.inverse()(points).sum(), theta)
    (forwards,) = torch.autograd.grad(spline(points).sum(), theta)
    torch.testing.assert_close(backwards, -forwards)


def test_a_spline_collapsed_to_a_point_has_no_inverse():
    with pytest.raises(GeometryError, match="cannot be inverted"):
        ThinPlateSpline(np.zeros(32), GridLayout(4)).inverse()
