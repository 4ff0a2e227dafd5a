"""Numbers that say whether a transform makes sense, and how large the region is that it shows."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from stn_cli.annotations import Bool, Float, Float64, Num
from stn_cli.geometry.arrays import Array, detached, like, namespace, numpy_of
from stn_cli.geometry.base import Transform
from stn_cli.geometry.cascade import Cascade
from stn_cli.geometry.frames import Size, pixel_points
from stn_cli.geometry.grids import grid, outline
from stn_cli.geometry.linear import Affine3d, Projective

_EDGE_POINTS, _COLUMNS = 33, 9
_ZOOM_POINTS = 5
_LATTICES = {2: grid((17, 17)), 3: grid((9, 9, 9))}
_EVERYWHERE = np.concatenate((_LATTICES[2], outline(_EDGE_POINTS)))


def _lines() -> Float64[np.ndarray, "n 2"]:
    """Points along the columns of a crop, from the left to the right, then along its upper and its lower border."""
    steps, ones = np.linspace(-1.0, 1.0, _EDGE_POINTS), np.ones(_EDGE_POINTS)
    columns = [np.stack((x * ones, steps), axis=-1) for x in np.linspace(-1.0, 1.0, _COLUMNS)]
    return np.concatenate((*columns, *(np.stack((steps, y * ones), axis=-1) for y in (-1.0, 1.0))))


_LINES = _lines()


@dataclass(frozen=True)
class Quality:
    """Of one transform over the crop, on a lattice of 17×17 points, or 9×9×9 of a volume.

    Attributes:
        fold: the map of an image turns over in some places inside the crop and not in others, or crosses the horizon;
            that of a volume turns over.
        out_of_frame: share of the crop that lies outside the source, 0…1.
        jacobian_min, jacobian_max: range of the determinant ∂source/∂output in normalised coordinates (1: identity).
    """

    fold: bool
    out_of_frame: float
    jacobian_min: float
    jacobian_max: float


def quality(transform: Transform) -> Quality:
    """Quality numbers of one (unbatched) transform."""
    (numbers,) = qualities(transform[None])
    return numbers


def qualities(transforms: Transform) -> list[Quality]:
    """Quality numbers of each transform of a batch."""
    points = like(_LATTICES[transforms.dims], transforms.theta)
    xp = namespace(points)
    determinant = detached(determinants(transforms, points))
    inside = xp.all(xp.abs(detached(transforms(points))) <= 1.0, axis=-1)
    low, high = xp.min(determinant, axis=-1), xp.max(determinant, axis=-1)
    folds = (low * high <= 0.0) | (_cross_horizon(transforms) if transforms.dims == 2 else low <= 0.0)
    outside = 1.0 - xp.mean(xp.astype(inside, points.dtype), axis=-1)
    columns = (column.tolist() for column in (folds, outside, low, high))
    return [Quality(*numbers) for numbers in zip(*columns, strict=True)]


def determinants(transform: Transform, points: Float[Array, "*batch n d"]) -> Float[Array, "*batch2 n"]:
    """Of the Jacobian ∂source/∂output at the output points; negative where the map turns over."""
    jacobian = transform.jacobian(points)
    if transform.dims == 3:
        return namespace(jacobian).linalg.det(jacobian)
    return jacobian[..., 0, 0] * jacobian[..., 1, 1] - jacobian[..., 0, 1] * jacobian[..., 1, 0]


def zooms(transforms: Transform) -> Float[Array, " b"]:
    """How large the region is that each transform of a batch shows, as a share of the source's side, on average.

    1 is as large as the source; the square root (of volumes the cube root) of the mean determinant on a lattice.
    """
    points = like(grid((_ZOOM_POINTS,) * transforms.dims), transforms.theta)
    xp = namespace(points)
    return xp.mean(xp.abs(detached(determinants(transforms, points))), axis=-1) ** (1 / transforms.dims)


def volume_size(transform: Affine3d, source_size: Size) -> tuple[float, float, float]:
    """Depth, height and width in voxels of the region that one transform shows of a volume."""
    half_sides = np.array(source_size[::-1])[:, None] / 2.0
    edges = np.linalg.norm(numpy_of(transform.matrix)[:3, :3] * half_sides, axis=0) * 2.0
    width, height, depth = edges.tolist()
    return depth, height, width


def crop_size(transform: Transform, source_size: Size) -> tuple[float, float]:
    """Height and width in source pixels of the region that one transform shows, as in `crop_sizes`."""
    height, width = crop_sizes(transform[None], [source_size])[0]
    return float(height), float(width)


def crop_sizes(transforms: Transform, source_sizes: Sequence[Size] | Num[np.ndarray, "b 2"]) -> Float[Array, "b 2"]:
    """Height and width in source pixels of the regions that a batch shows of sources of (height, width).

    The width is the mean arc length of the upper and the lower border; the height that of columns all along the crop,
    so that the ends of a bent word, where a spline is least sure, do not decide it.
    """
    points = pixel_points(detached(transforms(like(_LINES, transforms.theta))), source_sizes)
    xp = namespace(points)
    lines = xp.reshape(points, (len(points), -1, _EDGE_POINTS, 2))
    steps = lines[..., 1:, :] - lines[..., :-1, :]
    lengths = xp.sum(xp.sqrt(xp.sum(steps * steps, axis=-1)), axis=-1)
    return xp.stack((xp.mean(lengths[:, :_COLUMNS], axis=-1), xp.mean(lengths[:, _COLUMNS:], axis=-1)), axis=-1)


def _cross_horizon(transforms: Transform) -> Bool[Array, " b"]:
    points = like(_EVERYWHERE, transforms.theta)
    xp = namespace(points)
    crosses = xp.any(detached(transforms.theta) != detached(transforms.theta), axis=-1)  # it is no transform at all
    for stage in reversed(transforms.stages if isinstance(transforms, Cascade) else (transforms,)):
        if isinstance(stage, Projective):
            crosses = crosses | (xp.min(detached(stage.horizon(points)), axis=-1) <= 0.0)
        points = detached(stage(points))
    return crosses | ~xp.isfinite(xp.sum(points, axis=(-2, -1)))
