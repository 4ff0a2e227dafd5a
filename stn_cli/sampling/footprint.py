"""How many source pixels one pixel of the crop stands for, and what it takes to average them.

Reading one interpolated value where a pixel covers many is aliasing. Both samplers answer it alike: the source is
first shrunk by area averages to a pyramid level still finer than the crop, then read several times for every pixel.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np

from stn_cli.annotations import Float64, Int, Num
from stn_cli.errors import UsageError
from stn_cli.geometry import Linear, Projective, Transform, grid
from stn_cli.geometry.arrays import Array, detached, like, namespace, numpy_of
from stn_cli.sampling.kinds import Resample

_LATTICE_POINTS = 17
_FINER_THAN_CROP = 4.0
"""A level's pixels are at least this many times finer than the crop's, so that the second average stays faithful."""
_SLACK = 0.25
"""Bilinear interpolation alone averages well enough up to this much more than one pixel."""
_MOST_READINGS = 16
"""Readings a pixel and axis at most; where the footprint varies beyond that, the level gets coarser instead."""


@dataclass(frozen=True)
class Footprint:
    """Plan of an anti-aliased reading.

    Attributes:
        level: the source is shrunk by 2**level.
        readings: interpolated readings per pixel of the crop, for each axis in the order of sizes (y before x).
    """

    level: int
    readings: tuple[int, ...]


POINTWISE = Footprint(0, (1, 1))


def interpolation(resample: Resample, plan: Footprint) -> Literal["bilinear", "bicubic", "nearest"]:
    """How every reading of a plan takes its value between pixels; of volumes, `sharp` is no more than `auto`."""
    match resample:
        case "sharp":
            return "bicubic" if plan == POINTWISE else "bilinear"
        case "auto":
            return "bilinear"
    return resample


def footprint(transform: Transform, source_size: tuple[int, ...], output_size: tuple[int, ...]) -> Footprint:
    """Plan for reading a crop of `output_size` from a source of `source_size` through one transform, θ (dof,)."""
    (plan,) = footprints(transform[None], [source_size], [output_size])
    return plan


def least_footprint(transform: Transform, source_size: tuple[int, ...], output_size: tuple[int, ...]) -> float:
    """Source pixels along a side of a pixel of the crop, where they are fewest."""
    spread = _spread(transform, np.array(source_size), np.array(output_size))
    return float(namespace(spread).min(spread))


def footprints(
    transforms: Transform, source_sizes: Sequence[tuple[int, ...]], output_sizes: Sequence[tuple[int, ...]]
) -> list[Footprint]:
    """A plan for each transform of a batch (b, dof), whose sources and crops differ in size."""
    if not len(source_sizes):
        return []
    sources, outputs = np.array(source_sizes), np.array(output_sizes)
    spread = _spread(transforms, sources[:, None, :], outputs[:, None, :])
    xp = namespace(spread)
    least, most = (numpy_of(side).astype(float) for side in (xp.min(spread, axis=(1, 2)), xp.max(spread, axis=1)))
    return _plans(least, most[:, ::-1], sources)


def _spread(
    transform: Transform, source_sides: Num[np.ndarray, "*batch dims"], output_sides: Num[np.ndarray, "*batch dims"]
) -> Array:
    """Source pixels that a step of one crop pixel along each axis (x first) covers, on a lattice: (..., n, dims)."""
    is_affine = isinstance(transform, Linear) and not isinstance(transform, Projective)  # all points are alike
    points = like(np.zeros((1, transform.dims)) if is_affine else _lattice(transform.dims), transform.theta)
    xp = namespace(points)
    jacobian = detached(transform.jacobian(points))
    to_source = like(source_sides[..., ::-1, None] / output_sides[..., None, ::-1], points)
    pixels = jacobian * to_source
    return xp.sqrt(xp.sum(pixels * pixels, axis=-2))


def _plans(
    least: Float64[np.ndarray, " b"], widest: Float64[np.ndarray, "b dims"], sources: Num[np.ndarray, "b dims"]
) -> list[Footprint]:
    """From the source pixels that a pixel of the crop covers at least, and at most along each axis (y first).

    One point is read where nothing finite is known of that.
    """
    known = np.isfinite(widest).all(axis=1)
    least, widest = np.where(known, least, 1.0), np.where(known[:, None], widest, 1.0)
    wanted = np.maximum(least / _FINER_THAN_CROP, 2 * widest.max(axis=1) / _MOST_READINGS)
    levels = np.minimum(_level(wanted), _level(sources.min(axis=1)))
    readings = np.clip(np.ceil(widest / 2.0 ** levels[:, None] - _SLACK), 1, _MOST_READINGS).astype(int)
    return [Footprint(level, tuple(each)) for level, each in zip(levels.tolist(), readings.tolist(), strict=True)]


@lru_cache(maxsize=2)
def _lattice(dims: int) -> Float64[np.ndarray, "n dims"]:
    return grid((_LATTICE_POINTS,) * dims)


def fill_values(fill: tuple[float, ...], channels: int) -> tuple[float, ...]:
    """One value a channel; UsageError if there are neither one nor as many as channels."""
    if len(fill) not in (1, channels):
        raise UsageError(f"{len(fill)} fill values for {channels} channels")
    return fill if len(fill) == channels else fill * channels


def weighted_fill(values: tuple[float, ...], full: float) -> tuple[float, ...]:
    """The fill of an image whose colours are weighted by its last channel, alpha (0…full)."""
    *colours, alpha = values
    return (*(value * alpha / full for value in colours), alpha)


def _level(pixels: Num[np.ndarray, " b"]) -> Int[np.ndarray, " b"]:
    levels: np.ndarray = np.log2(np.maximum(pixels, 1.0)).astype(int)
    return levels
