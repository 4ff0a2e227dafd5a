"""How many source pixels one pixel of the crop stands for, and what it takes to average them.

Reading one interpolated value where a pixel covers many is aliasing. Both samplers answer it alike: the source is
first shrunk by area averages to a pyramid level still finer than the crop, then read several times for every pixel.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from jaxtyping import Float64, Num

from stn_cli.errors import UsageError
from stn_cli.geometry import Linear, Projective, Transform, grid
from stn_cli.geometry.arrays import Array, detached, like, namespace

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


def footprint(transform: Transform, source_size: tuple[int, ...], output_size: tuple[int, ...]) -> Footprint:
    """Plan for reading a crop of `output_size` from a source of `source_size`; one plan for a whole batch."""
    xp = namespace(transform.theta)
    spread = xp.reshape(_spread(transform, np.array(source_size), np.array(output_size)), (-1, transform.dims))
    return _plan(float(xp.min(spread)), [float(most) for most in xp.max(spread, axis=0)], source_size)


def least_footprint(transform: Transform, source_size: tuple[int, ...], output_size: tuple[int, ...]) -> float:
    """Source pixels along a side of a pixel of the crop, where they are fewest."""
    spread = _spread(transform, np.array(source_size), np.array(output_size))
    return float(namespace(spread).min(spread))


def footprints(
    transforms: Transform, source_sizes: Sequence[tuple[int, ...]], output_sizes: Sequence[tuple[int, ...]]
) -> list[Footprint]:
    """A plan for each transform of a batch (b, dof), whose sources and crops differ in size."""
    sides = (np.array(sizes)[:, None, :] for sizes in (source_sizes, output_sizes))
    spread = _spread(transforms, *sides)
    xp = namespace(spread)
    least, most = xp.min(spread, axis=(1, 2)).tolist(), xp.max(spread, axis=1).tolist()
    return [_plan(*each) for each in zip(least, most, source_sizes, strict=True)]


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


def _plan(least: float, widest: Sequence[float], source_size: tuple[int, ...]) -> Footprint:
    """From the source pixels that a pixel of the crop covers at least, and at most along each axis (x first)."""
    dims = len(widest)
    if not all(math.isfinite(value) for value in widest):
        return Footprint(0, (1,) * dims)
    level = max(_level(least / _FINER_THAN_CROP), _level(2 * max(widest) / _MOST_READINGS))
    level = min(level, _level(float(min(source_size))))
    readings = tuple(min(max(1, math.ceil(value / 2**level - _SLACK)), _MOST_READINGS) for value in reversed(widest))
    return Footprint(level, readings)


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


def _level(pixels: float) -> int:
    return max(0, math.floor(math.log2(max(pixels, 1.0))))
