"""What holds for every kind of transform: one arithmetic in two libraries, composition, inverse, derivatives."""

import cv2
import numpy as np
import pytest
import skimage.transform
import torch

from stn_cli.errors import GeometryError
from stn_cli.geometry import (
    KINDS,
    Affine,
    Affine3d,
    Attention,
    Cascade,
    Projective,
    TransformSpec,
    alike,
    grid,
    pixel_points,
)
from tests.geometry.examples import (
    ALL,
    LINEAR,
    PLANAR,
    PLANAR_LINEAR,
    SPLINES,
    as_torch,
    example,
    points_in,
    random_affines,
    spec,
)

CLOSE = {torch.float32: 3e-6, torch.float64: 1e-12}


@pytest.mark.parametrize("dtype", CLOSE)
@pytest.mark.parametrize("name", ALL)
def test_numpy_and_torch_agree(name, dtype):
    ours = example(name)
    theirs = as_torch(ours, dtype)
    points = points_in(ours)
    same = torch.tensor(points, dtype=dtype)
    np.testing.assert_allclose(theirs(same), ours(points), atol=CLOSE[dtype])
    np.testing.assert_allclose(theirs.jacobian(same), ours.jacobian(points), atol=5 * CLOSE[dtype])
    np.testing.assert_allclose(theirs.inverse()(same), ours.inverse()(points), atol=10 * CLOSE[dtype])
    np.testing.assert_allclose((theirs @ theirs)(same), (ours @ ours)(points), atol=5 * CLOSE[dtype])


@pytest.mark.parametrize("name", LINEAR)
def test_matrices_agree_and_give_the_transform_back(name, array):
    transform = example(name, array)
    np.testing.assert_allclose(transform.matrix, example(name).matrix, atol=1e-12)
    np.testing.assert_allclose(type(transform).from_matrix(transform.matrix).theta, transform.theta, atol=1e-12)


@pytest.mark.parametrize("name", [*KINDS[:-1], *SPLINES])
def test_identity_leaves_points_where_they_are(name, array):
    transform = spec(name)(array(spec(name).identity_theta))
    points = array(points_in(transform))
    np.testing.assert_allclose(transform(points), points, atol=1e-12)
    np.testing.assert_allclose(transform.jacobian(points)[3], np.eye(transform.dims), atol=1e-11)


@pytest.mark.parametrize("name", [*KINDS[:-1], *SPLINES])
def test_a_spec_knows_its_degrees_of_freedom(name):
    dof = {"translation": 2, "attention": 3, "similarity": 4, "affine": 6, "projective": 8, "affine3d": 12}
    assert spec(name).dof == {**dof, "grid 4x4": 32, "border 2x5": 20, "ribbon 2x5": 20}[name]
    with pytest.raises(GeometryError):
        spec(name)(np.zeros(spec(name).dof + 1))


@pytest.mark.parametrize(
    ("kind", "layout"), [("afine", None), ("affine", "grid 3x3"), ("tps", None), ("tps", "ring 9")]
)
def test_a_spec_that_makes_no_sense_is_refused(kind, layout):
    with pytest.raises(GeometryError):
        TransformSpec(kind, layout)


def test_affine_is_torchs_affine_grid():
    theta = random_affines((3,)).theta
    height, width = 5, 7
    expected = torch.nn.functional.affine_grid(torch.tensor(theta).reshape(3, 2, 3), (3, 1, height, width), False)
    centres = np.stack(
        np.meshgrid((2 * np.arange(width) + 1) / width - 1, (2 * np.arange(height) + 1) / height - 1), -1
    )
    np.testing.assert_allclose(Affine(theta)(centres.reshape(-1, 2)), expected.reshape(3, -1, 2), atol=1e-12)


def test_affine3d_is_torchs_affine_grid(array):
    transform = example("affine3d", array)
    size = (2, 3, 4)
    expected = torch.nn.functional.affine_grid(
        torch.tensor(example("affine3d").theta).reshape(1, 3, 4), (1, 1, *size), False
    )
    axes = [(2 * np.arange(n) + 1) / n - 1 for n in size]
    z, y, x = np.meshgrid(*axes, indexing="ij")
    points = array(np.stack((x.ravel(), y.ravel(), z.ravel()), -1))
    np.testing.assert_allclose(transform(points), expected.reshape(-1, 3), atol=1e-12)


def test_projective_is_opencvs_and_scikit_images_homography(array):
    transform = example("projective", array)
    points = points_in(transform)
    matrix = np.asarray(transform.matrix)
    ours = np.asarray(transform(array(points)))
    np.testing.assert_allclose(ours, cv2.perspectiveTransform(points[None], matrix)[0], atol=1e-12)
    np.testing.assert_allclose(ours, skimage.transform.ProjectiveTransform(matrix=matrix)(points), atol=1e-12)


def test_similarity_turns_x_towards_y():
    quarter = TransformSpec("similarity")(np.array([np.log(2.0), np.pi / 2, 0.0, 0.0]))
    np.testing.assert_allclose(quarter(np.array([[1.0, 0.0], [0.0, 1.0]])), [[0.0, 2.0], [-2.0, 0.0]], atol=1e-12)


@pytest.mark.parametrize("b", PLANAR)
@pytest.mark.parametrize("a", PLANAR)
def test_composition_is_one_map_after_the_other(a, b, array):
    first, second = example(a, array), example(b, array)
    points = array(points_in(first))
    np.testing.assert_allclose((first @ second)(points), first(second(points)), atol=1e-10)


@pytest.mark.parametrize("a", PLANAR_LINEAR)
@pytest.mark.parametrize("b", PLANAR_LINEAR)
def test_linear_families_compose_to_the_larger_of_the_two(a, b):
    assert (example(a) @ example(b)).kind == max(a, b, key=PLANAR_LINEAR.index)


@pytest.mark.parametrize(
    ("a", "b", "kind"),
    [(name, "border 2x5", "tps") for name in ("translation", "attention", "similarity", "affine")]
    + [
        ("projective", "border 2x5", "cascade"),
        ("border 2x5", "affine", "cascade"),
        ("grid 4x4", "border 2x5", "cascade"),
    ]
    + [("cascade", "affine", "cascade"), ("affine3d", "affine3d", "affine3d")],
)
def test_the_family_of_a_product_is_the_smallest_that_holds_it(a, b, kind):
    assert (example(a) @ example(b)).kind == kind


def test_a_chain_grows_only_where_no_family_is_closed():
    chain = example("border 2x5") @ example("affine") @ example("similarity")
    assert [stage.kind for stage in chain.stages] == ["tps", "affine"]


@pytest.mark.parametrize("planar", ["affine", "border 2x5"])
def test_plane_and_space_do_not_compose(planar):
    with pytest.raises(GeometryError):
        example("affine3d") @ example(planar)
    with pytest.raises(GeometryError):
        example(planar) @ example("affine3d")


@pytest.mark.parametrize("name", ALL)
def test_inverse_takes_points_back(name, array):
    transform = example(name, array)
    points = array(points_in(transform))
    np.testing.assert_allclose(transform.inverse()(transform(points)), points, atol=1e-9)
    np.testing.assert_allclose(transform(transform.inverse()(points)), points, atol=1e-9)
    np.testing.assert_allclose(transform.inverse().inverse()(points), transform(points), atol=1e-9)


@pytest.mark.parametrize("name", LINEAR)
def test_inverse_stays_in_its_family(name):
    assert example(name).inverse().kind == name


@pytest.mark.parametrize(
    "transform",
    [
        Attention(np.zeros(3)),
        Affine(np.array([1.0, 2.0, 0.0, 2.0, 4.0, 0.5])),
        Projective(np.array([0.0, 0.0, 0.3, 0.0, 1.0, 0.0, 0.0, 0.0])),
        Affine3d(np.zeros(12)),
    ],
)
@pytest.mark.parametrize("library", [np.asarray, torch.tensor])
def test_a_singular_transform_has_no_inverse(transform, library):
    with pytest.raises(GeometryError, match="cannot be inverted"):
        type(transform)(library(transform.theta)).inverse()


def test_a_homography_that_sends_the_centre_to_infinity_is_refused():
    with pytest.raises(GeometryError, match="infinity"):
        Projective.from_matrix(np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [1.0, 0.0, 0.0]]))


@pytest.mark.parametrize("name", [*ALL, "inverse"])
def test_jacobian_is_the_derivative_of_the_points(name):
    transform = example("grid 4x4").inverse() if name == "inverse" else example(name)
    points = points_in(transform, n=12)
    step = 1e-6
    columns = [
        (transform(points + step * axis) - transform(points - step * axis)) / (2 * step)
        for axis in np.eye(transform.dims)
    ]
    np.testing.assert_allclose(transform.jacobian(points), np.stack(columns, axis=-1), atol=1e-6)


@pytest.mark.parametrize("name", PLANAR)
def test_jacobian_is_what_automatic_differentiation_finds(name):
    transform = example(name, torch.tensor)
    points = torch.tensor(points_in(transform, n=6))
    expected = torch.stack([torch.autograd.functional.jacobian(lambda p: transform(p[None])[0], p) for p in points])
    np.testing.assert_allclose(transform.jacobian(points), expected, atol=1e-10)


@pytest.mark.parametrize("name", SPLINES)
def test_a_spline_is_differentiable_at_its_control_points(name):
    points = torch.tensor(spec(name)(spec(name).identity_theta).layout.points, requires_grad=True)
    theta = torch.tensor(example(name).theta, requires_grad=True)
    spec(name)(theta)(points).sum().backward()
    assert torch.isfinite(points.grad).all()
    assert torch.isfinite(theta.grad).all()
    assert float(theta.grad.abs().sum()) > 0


@pytest.mark.parametrize("name", [*KINDS[:-1], *SPLINES])
@pytest.mark.parametrize("batch", [(3,), (2, 1)])
def test_leading_dimensions_are_batch(name, batch, array):
    one = example(name)
    offsets = np.random.default_rng(1).uniform(-0.05, 0.05, (*batch, 1))
    stacked = spec(name)(array(one.theta + offsets))
    points = points_in(one, n=9)
    maps = (stacked, stacked.jacobian, stacked.inverse())
    together, jacobians, back = (np.asarray(f(array(points))) for f in maps)
    assert together.shape == (*batch, 9, one.dims)
    for index in np.ndindex(batch):
        alone = spec(name)(one.theta + offsets[index])
        np.testing.assert_allclose(together[index], alone(points), atol=1e-12)
        np.testing.assert_allclose(jacobians[index], alone.jacobian(points), atol=1e-12)
        np.testing.assert_allclose(back[index], alone.inverse()(points), atol=1e-9)


@pytest.mark.parametrize("name", [*PLANAR_LINEAR, *SPLINES])
def test_each_of_a_batch_may_have_its_own_points(name, array):
    points = np.random.default_rng(2).uniform(-1, 1, (3, 5, 2))
    stacked = spec(name)(array(np.stack([example(name).theta * scale for scale in (0.8, 0.9, 1.0)])))
    for i, scale in enumerate((0.8, 0.9, 1.0)):
        alone = spec(name)(example(name).theta * scale)
        np.testing.assert_allclose(stacked(array(points))[i], alone(points[i]), atol=1e-12)


def test_a_cascade_takes_stages_of_which_some_are_batched(array):
    splines = spec("border 2x5")(array(np.stack([example("border 2x5").theta * scale for scale in (0.8, 1.0)])))
    chain = splines @ example("attention", array)
    assert chain.theta.shape == (2, 23)
    points = points_in(chain)
    np.testing.assert_allclose(
        chain(array(points))[1], (example("border 2x5") @ example("attention"))(points), atol=1e-12
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", ["affine", "border 2x5"])
def test_half_precision_parameters_are_computed_in_float32(name, dtype):
    transform = spec(name)(torch.tensor(example(name).theta, dtype=dtype))
    assert transform.theta.dtype == torch.float32
    assert transform(torch.zeros(1, 2)).dtype == torch.float32


@pytest.mark.parametrize("name", PLANAR)
def test_autocast_changes_no_bit(name):
    transform = example(name, lambda theta: torch.tensor(theta, dtype=torch.float32))
    points = torch.tensor(points_in(transform), dtype=torch.float32)

    def everything():
        product = transform @ transform
        return [
            transform(points),
            transform.jacobian(points),
            transform.inverse()(points),
            product.theta,
            product(points),
            product.jacobian(points),
        ]

    outside = everything()
    with torch.autocast("cpu", torch.bfloat16):
        inside = everything()
    assert all(torch.equal(a, b) for a, b in zip(outside, inside, strict=True))


@pytest.mark.parametrize("name", PLANAR)
def test_parameters_found_on_a_small_copy_hold_for_the_original(name):
    small, large = (64, 64), (4096, 4096)
    centres = grid(small)[::37]
    exact = example(name, lambda theta: np.asarray(theta, np.float32).astype(np.float64))  # as networks predict it
    located = pixel_points(exact(centres), small) * 64
    places = as_torch(exact, torch.float32)(torch.tensor(centres, dtype=torch.float32))
    np.testing.assert_allclose(pixel_points(places, large), located, atol=1e-3)


def test_cascade_of_linear_stages_equals_their_product():
    a, b = example("projective"), example("affine")
    points = points_in(a)
    chain = Cascade((a, b))
    np.testing.assert_allclose(chain(points), (a @ b)(points), atol=1e-12)
    np.testing.assert_allclose(chain.jacobian(points), (a @ b).jacobian(points), atol=1e-12)
    np.testing.assert_allclose(chain.inverse()(points), (a @ b).inverse()(points), atol=1e-10)


@pytest.mark.parametrize("name", ALL)
def test_a_batch_is_taken_apart_and_made_of_one(name):
    one = example(name)
    points = points_in(one)
    several = one[None][np.zeros(3, int)]
    assert several(points).shape == (3, *points.shape)
    np.testing.assert_allclose(several[1](points), one(points))
    np.testing.assert_allclose(several[1:](points), one[None][np.zeros(2, int)](points))


def test_transforms_of_one_family_come_in_one_batch():
    names = [name for name in PLANAR for _ in range(2)]
    order = np.random.default_rng(0).permutation(len(names))
    mixed = [example(names[number]) for number in order]
    points, seen = points_in(mixed[0]), []
    for batch, places in alike(mixed):
        for found, place in zip(batch(points), places, strict=True):
            np.testing.assert_allclose(found, mixed[place](points), atol=1e-12)
        seen.append(places)
    assert sorted(place for places in seen for place in places) == list(range(len(mixed)))
    assert len(seen) == len(PLANAR) + 1  # but for cascades, of which no two need have the same stages
