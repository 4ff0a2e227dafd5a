"""The lattice of knots against the transforms themselves."""

import numpy as np
import pytest

from stn_cli.geometry import Projective, ThinPlateSpline, grid, layout_from_name
from stn_cli.sampling.lattice import between, lattices
from stn_cli.sampling.warp import warp, warp_each
from tests.geometry.examples import SPLINES, example, spec, spline_theta
from tests.sampling.images import noise

BENT = ("projective", *SPLINES, "cascade")


def mild(name):
    """A transform as bent as those of words: what is wilder may have no lattice."""
    if name in SPLINES:
        return spec(name)(spline_theta(name, 0.01))
    return mild("ribbon 2x5") @ example("affine") if name == "cascade" else example(name)


def stated(knots, size, extent):
    """Pixels of the source, by the knots, (h, w, 2)."""
    return np.stack(between((knots * extent[:, None, None]).astype(np.float32), size, slice(0, size[0])), axis=-1)


def exact(transform, size, extent):
    return ((transform(grid(size)) + 1) / 2 * extent).reshape(*size, 2)


@pytest.mark.parametrize("name", BENT)
@pytest.mark.parametrize("size", [(48, 96), (300, 90), (540, 960)])
def test_knots_stray_from_the_transform_by_hundredths_of_a_pixel_at_most(name, size):
    extent = 1.3 * np.array(size[::-1])
    (knots,) = lattices(mild(name)[None], [extent], [size])
    assert np.abs(stated(knots, size, extent) - exact(mild(name), size, extent)).max() < 0.01


@pytest.mark.parametrize("name", BENT)
@pytest.mark.parametrize("rows", [slice(0, 1), slice(37, 120), slice(299, 300)], ids=str)
def test_some_rows_lie_where_they_do_among_all(name, rows):
    size, extent = (300, 701), np.array([900.0, 400.0])
    (knots,) = lattices(mild(name)[None], [extent], [size])
    some = np.stack(between((knots * extent[:, None, None]).astype(np.float32), size, rows), axis=-1)
    np.testing.assert_allclose(some, exact(mild(name), size, extent)[rows], atol=0.01)


@pytest.mark.parametrize("name", ["border 2x5", "ribbon 2x5"])
def test_a_batch_is_its_transforms_one_by_one(name):
    thetas = np.stack([spline_theta(name, spread, seed) for seed, spread in enumerate((0.0, 0.005, 0.01))])
    splines, extents = spec(name)(thetas), [np.array([50.0 * i, 40.0]) for i in (1, 2, 3)]
    for number, knots in enumerate(lattices(splines, extents, [(60, 120)] * len(extents))):
        np.testing.assert_allclose(
            stated(knots, (60, 120), extents[number]), exact(splines[number], (60, 120), extents[number]), atol=0.01
        )


@pytest.mark.parametrize(
    "wild",
    [
        Projective(np.array([1.0, 0, 0, 0, 1, 0, 1.5, 0.2])),  # the horizon crosses it
        ThinPlateSpline(np.full(20, np.nan), layout_from_name("ribbon 2x5")),
    ],
    ids=["horizon", "nan"],
)
def test_what_is_too_wild_has_no_lattice(wild):
    assert lattices(wild[None], [np.array([100.0, 100.0])], [(30, 40)]) == [None]


def test_what_is_too_wild_is_read_at_its_own_positions():
    horizon = Projective(np.array([1.0, 0, 0, 0, 1, 0, 1.5, 0.2]))
    pixels = noise((30, 40, 1), top=255).astype(np.uint8)
    crop = warp(pixels, horizon, (30, 40), resample="nearest")
    at = np.floor((horizon(grid((30, 40))) + 1) / 2 * (40, 30)).reshape(30, 40, 2)
    inside = np.all((at >= 0) & (at < (40, 30)), axis=-1)
    assert 100 < inside.sum() < 1200
    x, y = at[inside].astype(int).T
    assert np.mean(crop[inside][:, 0] == pixels[y, x, 0]) > 0.99


@pytest.mark.parametrize("name", ["affine", *BENT])
def test_each_image_is_warped_by_its_own_transform(name):
    images = [noise((h, w, 1), h, 1.0).astype(np.float32) for h, w in ((20, 30), (200, 90), (31, 400))]
    transform = example(name)
    for image, crop in zip(images, warp_each(images, repeated(transform, 3), (24, 48)), strict=True):
        np.testing.assert_allclose(crop, warp(image, transform, (24, 48)), atol=2e-3)


def repeated(transform, count):
    """A batch of the same transform."""
    return transform[None][np.zeros(count, int)]
