"""Laws of composition and inversion of the linear families, on transforms that hypothesis draws."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from stn_cli.geometry import Affine, Attention, Projective, Similarity, Translation, grid
from tests.geometry.examples import example, points_in

POINTS = grid((3, 4))
LAWS = settings(max_examples=40)


def theta(*ranges):
    return st.tuples(*(st.floats(low, high) for low, high in ranges)).map(np.array)


SHIFT = (-0.5, 0.5)
NEAR_ONE, NEAR_ZERO = (0.7, 1.4), (-0.3, 0.3)
MATRIX = (NEAR_ONE, NEAR_ZERO, SHIFT, NEAR_ZERO, NEAR_ONE, SHIFT)
linear = st.one_of(
    theta(SHIFT, SHIFT).map(Translation),
    theta((0.2, 3.0), SHIFT, SHIFT).map(Attention),
    theta((-1.0, 1.0), (-3.1, 3.1), SHIFT, SHIFT).map(Similarity),
    theta(*MATRIX).map(Affine),
    theta(*MATRIX, (-0.05, 0.05), (-0.05, 0.05)).map(Projective),
)


@LAWS
@given(linear, linear)
def test_a_product_is_one_map_after_the_other(a, b):
    np.testing.assert_allclose((a @ b)(POINTS), a(b(POINTS)), atol=1e-8)


@LAWS
@given(linear, linear, linear)
def test_composition_is_associative(a, b, c):
    np.testing.assert_allclose(((a @ b) @ c)(POINTS), (a @ (b @ c))(POINTS), atol=1e-8)


@LAWS
@given(linear, linear)
def test_the_inverse_of_a_product_is_the_product_of_inverses_reversed(a, b):
    targets = (a @ b)(POINTS)
    np.testing.assert_allclose((b.inverse() @ a.inverse())(targets), POINTS, atol=1e-7)
    np.testing.assert_allclose((a @ b).inverse()(targets), POINTS, atol=1e-7)


def test_a_product_closes_wherever_it_can():
    affine, spline = example("affine"), example("grid 4x4")
    joined = affine @ (spline @ affine)
    assert [stage.kind for stage in joined.stages] == ["tps", "affine"]
    points = points_in(affine)
    np.testing.assert_allclose(joined(points), affine(spline(affine(points))), atol=1e-12)
