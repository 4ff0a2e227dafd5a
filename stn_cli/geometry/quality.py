"""Numbers that say whether a transform makes sense, and how large the region is that it shows."""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from stn_cli.geometry.arrays import detached, like, namespace
from stn_cli.geometry.base import Transform
from stn_cli.geometry.cascade import Cascade
from stn_cli.geometry.frames import Size, pixel_points
from stn_cli.geometry.grids import grid, outline
from stn_cli.geometry.linear import Projective

_EDGE_POINTS, _COLUMNS = 33, 9
_LATTICE = grid((17, 17))
_EVERYWHERE = np.concatenate((_LATTICE, outline(_EDGE_POINTS)))


def _lines() -> Float64[np.ndarray, "n 2"]:
    """Points along the columns of a crop, from the left to the right, then along its upper and its lower border."""
    steps, ones = np.linspace(-1.0, 1.0, _EDGE_POINTS), np.ones(_EDGE_POINTS)
    columns = [np.stack((x * ones, steps), axis=-1) for x in np.linspace(-1.0, 1.0, _COLUMNS)]
    return np.concatenate((*columns, *(np.stack((steps, y * ones), axis=-1) for y in (-1.0, 1.0))))


_LINES = _lines()


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
    points = like(_LATTICE, transform.theta)
    xp = namespace(points)
    jacobian = detached(transform.jacobian(points))
    determinant = jacobian[..., 0, 0] * jacobian[..., 1, 1] - jacobian[..., 0, 1] * jacobian[..., 1, 0]
    inside = xp.all(xp.abs(detached(transform(points))) <= 1.0, axis=-1)
    low, high = float(xp.min(determinant)), float(xp.max(determinant))
    fold = low * high <= 0.0 or _crosses_horizon(transform)
    return Quality(fold, 1.0 - float(xp.mean(xp.astype(inside, points.dtype))), low, high)


def crop_size(transform: Transform, source_size: Size) -> tuple[float, float]:
    """Height and width in source pixels of the region shown.

    The width is the mean arc length of the upper and the lower border; the height that of columns all along the crop,
    so that the ends of a bent word, where a spline is least sure, do not decide it.
    """
    points = pixel_points(detached(transform(like(_LINES, transform.theta))), source_size)
    xp = namespace(points)
    lines = xp.reshape(points, (-1, _EDGE_POINTS, 2))
    steps = lines[:, 1:, :] - lines[:, :-1, :]
    lengths = xp.sum(xp.sqrt(xp.sum(steps * steps, axis=-1)), axis=-1)
    return float(xp.mean(lengths[:_COLUMNS])), float(xp.mean(lengths[_COLUMNS:]))


def _crosses_horizon(transform: Transform) -> bool:
    points = like(_EVERYWHERE, transform.theta)
    for stage in reversed(transform.stages if isinstance(transform, Cascade) else (transform,)):
        if isinstance(stage, Projective) and float(namespace(points).min(detached(stage.horizon(points)))) <= 0.0:
            return True
        points = detached(stage(points))
    return not math.isfinite(float(namespace(points).sum(points)))
