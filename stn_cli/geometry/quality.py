"""Numbers that say whether a transform makes sense, and how large the region is that it shows."""

import math
from dataclasses import dataclass

import numpy as np

from stn_cli.geometry.arrays import detached, like, namespace
from stn_cli.geometry.base import Transform
from stn_cli.geometry.cascade import Cascade
from stn_cli.geometry.frames import Size, pixel_points
from stn_cli.geometry.grids import grid, outline
from stn_cli.geometry.linear import Projective

_LATTICE = (17, 17)
_EDGE_POINTS, _COLUMNS = 33, 9


@dataclass(frozen=True)
class Quality:
    """Of one transform over the crop, on a lattice of 17×17 points.

    Attributes:
        fold: the map turns over somewhere inside the crop, or crosses the horizon.
        out_of_frame: share of the crop that lies outside the source, 0…1.
        jacobian_min, jacobian_max: range of the determinant ∂source/∂output in normalised coordinates (1: identity).
    """

    fold: bool
    out_of_frame: float
    jacobian_min: float
    jacobian_max: float


def quality(transform: Transform) -> Quality:
    """Quality numbers of one (unbatched) planar transform."""
    points = like(grid(_LATTICE), transform.theta)
    xp = namespace(points)
    determinant = xp.linalg.det(detached(transform.jacobian(points)))
    inside = xp.all(xp.abs(detached(transform(points))) <= 1.0, axis=-1)
    low, high = float(xp.min(determinant)), float(xp.max(determinant))
    fold = low * high <= 0.0 or _crosses_horizon(transform)
    return Quality(fold, 1.0 - float(xp.mean(xp.astype(inside, points.dtype))), low, high)


def crop_size(transform: Transform, source_size: Size) -> tuple[float, float]:
    """Height and width in source pixels of the region shown.

    The width is the mean arc length of the upper and the lower border; the height that of columns all along the crop,
    so that the ends of a bent word, where a spline is least sure, do not decide it.
    """
    steps, ones = np.linspace(-1.0, 1.0, _EDGE_POINTS), np.ones(_EDGE_POINTS)
    columns = [np.stack((x * ones, steps), axis=-1) for x in np.linspace(-1.0, 1.0, _COLUMNS)]
    rows = [np.stack((steps, y * ones), axis=-1) for y in (-1.0, 1.0)]
    height, width = (
        float(np.mean([_arc_length(transform, line, source_size) for line in lines])) for lines in (columns, rows)
    )
    return height, width


def _arc_length(transform: Transform, edge: np.ndarray, source_size: Size) -> float:
    points = pixel_points(detached(transform(like(edge, transform.theta))), source_size)
    xp = namespace(points)
    step = points[1:, :] - points[:-1, :]
    return float(xp.sum(xp.sqrt(xp.sum(step * step, axis=-1))))


def _crosses_horizon(transform: Transform) -> bool:
    points = like(np.concatenate((grid(_LATTICE), outline(_EDGE_POINTS))), transform.theta)
    for stage in reversed(transform.stages if isinstance(transform, Cascade) else (transform,)):
        if isinstance(stage, Projective) and float(namespace(points).min(detached(stage.horizon(points)))) <= 0.0:
            return True
        points = detached(stage(points))
    return not math.isfinite(float(namespace(points).sum(points)))
