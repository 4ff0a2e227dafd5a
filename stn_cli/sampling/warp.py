"""The CPU sampler: OpenCV on whole pixels, with the behaviour of `differentiable.sample` within one grey level."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from jaxtyping import Float, Float32, Num

from stn_cli.errors import ImageError
from stn_cli.geometry import Affine, Linear, Transform
from stn_cli.sampling.footprint import (
    POINTWISE,
    Fill,
    Footprint,
    Resample,
    fill_values,
    footprint,
    footprints,
    weighted_fill,
)
from stn_cli.sampling.lattice import Knots, between, lattices

_INTERPOLATION = {
    "auto": cv2.INTER_LINEAR,
    "bilinear": cv2.INTER_LINEAR,
    "bicubic": cv2.INTER_CUBIC,
    "nearest": cv2.INTER_NEAREST,
}
_STRIP_READINGS = 1 << 20
"""Readings taken at once: keeps the map of a large crop to some 16 MB."""
_OPENCV_SIDE = 32_766
"""`cv2.remap` counts pixels in 16 bits."""

Each = Callable[..., Iterable[Any]]
"""`map`, or that of a thread pool."""
Border = tuple[float, ...] | None
"""What lies outside a level, a value a channel; None: its border continued."""


def warp(
    pixels: Num[np.ndarray, "h w c"],
    transform: Transform,
    size: tuple[int, int],
    *,
    resample: Resample = "auto",
    fill: Fill = "border",
) -> Num[np.ndarray, "out_h out_w c"]:
    """The crop of `size` (height, width) that `transform` shows of `pixels`.

    Args:
        pixels: uint8, uint16 or float32; 1 to 4 channels. The second of two and the fourth of four channels are
            alpha: colours are weighted by it.
        transform: output → input, unbatched, NumPy.
        size, resample, fill: as in `differentiable.sample`; fill in the values of the pixels.

    Raises:
        ImageError: a side exceeds what OpenCV can address.
        UsageError: there are neither one nor as many fill values as channels.
    """
    plan = footprint(transform, pixels.shape[:2], size) if resample == "auto" else POINTWISE
    has_alpha = pixels.shape[2] in (2, 4)
    border = _border_value(fill, pixels.shape[2], _full(pixels.dtype))
    plane = _premultiplied(pixels) if has_alpha else pixels
    crop = _warped(plane, _Map.of(transform, plan, plane.shape[:2], size), resample, border)
    return _straight(crop, pixels.dtype) if has_alpha else crop


def warp_each(
    images: Sequence[Float32[np.ndarray, "_ _ _"]], transforms: Transform, size: tuple[int, int], each: Each = map
) -> list[Float32[np.ndarray, "_ _ _"]]:
    """One crop (h, w, c) of each image, without alpha, by a batch of transforms; anti-aliased, borders continued.

    `each` is `map`, or that of a thread pool.
    """
    maps = _Map.of_each(transforms, [image.shape[:2] for image in images], size)
    return list(each(lambda image, where: _warped(image, where, "auto", None), images, maps))


@dataclass(frozen=True)
class _Map:
    """Where a crop of `size` is read, and how often.

    Attributes:
        knots: of what is not linear; None for what is, or is too wild for a lattice.
    """

    transform: Transform
    plan: Footprint
    size: tuple[int, int]
    knots: Knots | None

    @classmethod
    def of(cls, transform: Transform, plan: Footprint, source: tuple[int, int], size: tuple[int, int]) -> "_Map":
        if _is_flat(transform):
            return cls(transform, plan, size, None)
        (knots,) = lattices(transform[None], [_crop_pixels(source, plan)], size)
        return cls(transform, plan, size, knots)

    @classmethod
    def of_each(cls, transforms: Transform, sources: Sequence[tuple[int, int]], size: tuple[int, int]) -> "list[_Map]":
        plans = footprints(transforms, sources, size)
        extents = [_crop_pixels(source, plan) for source, plan in zip(sources, plans, strict=True)]
        found = [None] * len(plans) if _is_flat(transforms) else lattices(transforms, extents, size)
        return [cls(transforms[i], plan, size, knots) for i, (plan, knots) in enumerate(zip(plans, found, strict=True))]

    def positions(self, rows: slice, readings: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
        """x and y of all readings for some rows of the crop, 0…1 across the source."""
        fine = self.size[0] * readings[0], self.size[1] * readings[1]
        fine_rows = slice(rows.start * readings[0], rows.stop * readings[0])
        if self.knots is not None:
            return between(self.knots, fine, fine_rows)
        y, x = ((2.0 * np.arange(side) + 1.0) / side - 1.0 for side in fine)
        y = y[fine_rows]
        if isinstance(self.transform, Linear) and _is_flat(self.transform):
            (a, b, c), (d, e, f), _ = self.transform.matrix
            flat = a * x + (b * y + c)[:, None], d * x + (e * y + f)[:, None]
        else:
            points = self.transform(np.stack(np.broadcast_arrays(x, y[:, None]), axis=-1).reshape(-1, 2))
            flat = tuple(points.T.reshape(2, len(y), len(x)))
        position_x, position_y = ((axis + 1.0) / 2.0 for axis in flat)
        return position_x, position_y


def _warped(pixels: np.ndarray, where: _Map, resample: Resample, border: Border) -> np.ndarray:
    """The crop of whole pixels without alpha, or with colours weighted by it."""
    plan, size = where.plan, where.size
    level, extent = _shrunk(pixels, plan.level, border), _extent(pixels.shape[:2], plan)
    if max(*level.shape[:2], *size) > _OPENCV_SIDE:
        raise ImageError(f"a side of more than {_OPENCV_SIDE} pixels cannot be warped")
    readings = (plan.readings[0], min(plan.readings[1], _OPENCV_SIDE // size[1]))
    rows = max(1, min(_STRIP_READINGS // (size[1] * math.prod(readings)), _OPENCV_SIDE // readings[0]))
    strips = [
        _averaged(_read(level, extent, where.positions(strip, readings), resample, border), readings)
        for strip in _strips(size[0], rows)
    ]
    crop: np.ndarray = np.concatenate(strips) if len(strips) > 1 else strips[0]
    return crop


def _is_flat(transform: Transform) -> bool:
    """Its positions are sums of a term for the row and one for the column."""
    return isinstance(transform, Linear) and transform.rank <= Affine.rank


def _strips(height: int, rows: int) -> Iterator[slice]:
    for top in range(0, height, rows):
        yield slice(top, min(top + rows, height))


def _read(
    level: np.ndarray,
    extent: np.ndarray,
    positions: tuple[np.ndarray, np.ndarray],
    resample: Resample,
    border: Border,
) -> np.ndarray:
    """Interpolated values at positions x and y, 0…1 across the source, of which the level shows `extent` pixels."""
    # OpenCV counts from the centre of the first pixel.
    x, y = ((axis * side - 0.5).astype(np.float32) for axis, side in zip(positions, extent, strict=True))
    values: np.ndarray = cv2.remap(
        level, x, y, _INTERPOLATION[resample], borderMode=_border_mode(border), borderValue=border or (0.0,)
    )
    return values.reshape(*x.shape, level.shape[2])


def _averaged(values: np.ndarray, readings: tuple[int, ...]) -> np.ndarray:
    if readings == (1, 1):
        return values
    ky, kx = readings
    height, width, channels = values.shape
    size = (width // kx, height // ky)
    return cv2.resize(values, size, interpolation=cv2.INTER_AREA).reshape(size[1], size[0], channels)


def _shrunk(pixels: np.ndarray, level: int, border: Border) -> np.ndarray:
    """The pyramid level, padded to whole pixels."""
    if not level:
        return pixels
    (height, width), step = pixels.shape[:2], 2**level
    padding = (0, -height % step, 0, -width % step)
    padded = cv2.copyMakeBorder(pixels, *padding, _border_mode(border), value=border or (0.0,))
    small: np.ndarray = cv2.resize(padded, None, fx=1 / step, fy=1 / step, interpolation=cv2.INTER_AREA)
    return small.reshape(*small.shape[:2], pixels.shape[2])


def _extent(source: tuple[int, int], plan: Footprint) -> Float[np.ndarray, "2"]:
    """Width and height of the source in pixels of its level, which is padded to whole ones."""
    extent: np.ndarray = np.array([source[1], source[0]]) / 2**plan.level
    return extent


def _crop_pixels(source: tuple[int, int], plan: Footprint) -> Float[np.ndarray, "2"]:
    """Width and height of the source in pixels of the crop, or in its own where those are larger."""
    pixels: np.ndarray = _extent(source, plan) / max(plan.readings)
    return pixels


def _border_mode(border: Border) -> int:
    return cv2.BORDER_REPLICATE if border is None else cv2.BORDER_CONSTANT


def _border_value(fill: Fill, channels: int, full: float) -> Border:
    """The fill in the channels that OpenCV is given."""
    if fill == "border":
        return None
    if channels not in (2, 4):
        return fill_values(fill, channels)
    *colours, alpha = weighted_fill(fill_values(fill, channels), full)
    return (*colours, *(0.0,) * (3 - channels), alpha)


def _full(dtype: np.dtype) -> float:
    return 1.0 if dtype == np.float32 else float(np.iinfo(dtype).max)


def _premultiplied(pixels: np.ndarray) -> np.ndarray:
    """Float32 with colours weighted by alpha; grey and alpha get a third, empty channel.

    OpenCV's exact bilinear kernels exist for one, three and four channels.
    """
    alpha = pixels[..., -1:].astype(np.float32)
    parts = [pixels[..., :-1] * (alpha / _full(pixels.dtype)), alpha]
    if pixels.shape[2] == 2:
        parts.insert(1, np.zeros_like(alpha))
    return np.ascontiguousarray(np.concatenate(parts, axis=-1), dtype=np.float32)


def _straight(weighted: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """The inverse of `_premultiplied`."""
    alpha, full = weighted[..., -1:], _full(dtype)
    colours = weighted[..., :1] if weighted.shape[2] == 3 else weighted[..., :3]
    colours = np.divide(colours * full, alpha, out=np.zeros_like(colours), where=alpha > 0)
    straight = np.concatenate((colours, alpha), axis=-1)
    return straight.astype(dtype) if dtype == np.float32 else np.rint(np.clip(straight, 0, full)).astype(dtype)
