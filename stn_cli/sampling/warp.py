"""The CPU sampler: OpenCV on whole pixels, with the behaviour of `differentiable.sample` within one grey level."""

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from stn_cli.annotations import Float, Float32, Num
from stn_cli.errors import ImageError
from stn_cli.geometry import Linear, Transform, alike, grid
from stn_cli.sampling.footprint import (
    POINTWISE,
    Footprint,
    fill_values,
    footprints,
    interpolation,
    weighted_fill,
)
from stn_cli.sampling.kinds import ANTI_ALIASED, LONGEST_SIDE, Fill, Resample
from stn_cli.sampling.lattice import Knots, between, lattices

_FLAGS = {
    "bilinear": cv2.INTER_LINEAR,
    "bicubic": cv2.INTER_CUBIC,
    "nearest": cv2.INTER_NEAREST,
}
_STRIP_READINGS = 1 << 20
"""Readings taken at once: keeps the map of a large crop to some 16 MB."""
_FIRST_CENTRE = 0.5
"""Where OpenCV starts to count, in pixels from the edge."""
_DECIMALS = 12
"""Of a matrix in pixels: what is left of the identity after sizes have been multiplied in and out is the identity."""

_KERNEL = 2
"""Pixels on each side that bicubic interpolation looks at."""

Each = Callable[..., Iterable[Any]]
"""`map`, or that of a thread pool."""
Positions = tuple[Float32[np.ndarray, "h w"], Float32[np.ndarray, "h w"]]
"""x and y of readings, in pixels from the centre of the first, as OpenCV counts them."""
Border = tuple[float, ...] | None
"""What lies outside a level, a value a channel; None: its border continued."""


def warp(
    pixels: Num[np.ndarray, "h w c"],
    transform: Transform,
    size: tuple[int, ...],
    *,
    resample: Resample = "auto",
    fill: Fill = "border",
    reading: "Reading | None" = None,
) -> Num[np.ndarray, "out_h out_w c"]:
    """The crop of `size` (height, width) that `transform` shows of `pixels`.

    Args:
        pixels: uint8, uint16 or float32; 1 to 4 channels. The second of two and the fourth of four channels are
            alpha: colours are weighted by it.
        transform: output → input, unbatched, NumPy.
        size, resample, fill: as in `differentiable.sample`; fill in the values of the pixels.
        reading: as `readings` prepared it for this transform and these sizes; else that is done now.

    Raises:
        ImageError: a side exceeds what OpenCV can address.
        UsageError: there are neither one nor as many fill values as channels.
    """
    if reading is None:
        (reading,) = readings([transform], [pixels.shape[:2]], [size], resample)
    has_alpha = pixels.shape[2] in (2, 4)
    border = _border_value(fill, pixels.shape[2], _full(pixels.dtype))
    plane = _premultiplied(pixels) if has_alpha else pixels
    crop = _warped(plane, reading, resample, border)
    return _straight(crop, pixels.dtype) if has_alpha else crop


def warp_each(
    images: Sequence[Float32[np.ndarray, "_ _ _"]], transforms: Transform, size: tuple[int, ...], each: Each = map
) -> list[Float32[np.ndarray, "_ _ _"]]:
    """One crop (h, w, c) of each image, without alpha, by a batch of transforms; anti-aliased, borders continued.

    `each` is `map`, or that of a thread pool.
    """
    prepared = _prepared(transforms, [image.shape[:2] for image in images], [size] * len(images), "auto")
    return list(each(lambda image, reading: _warped(image, reading, "auto", None), images, prepared))


def readings(
    transforms: Sequence[Transform],
    sources: Sequence[tuple[int, ...]],
    sizes: Sequence[tuple[int, ...]],
    resample: Resample = "auto",
) -> "list[Reading]":
    """Where the crops of many images are read: transforms of one family are looked at together, which costs less.

    Args:
        transforms: output → input, unbatched, NumPy.
        sources, sizes: (height, width) of the images and of the crops.
    """
    found: list[Reading | None] = [None] * len(transforms)
    for batch, numbers in alike(transforms):
        their_sources, their_sizes = ([each[number] for number in numbers] for each in (sources, sizes))
        for number, reading in zip(numbers, _prepared(batch, their_sources, their_sizes, resample), strict=True):
            found[number] = reading
    return [reading for reading in found if reading is not None]


@dataclass(frozen=True)
class Reading:
    """Where a crop of `size` is read, and how often.

    Attributes:
        matrix: of what is linear, normalised.
        knots: of what is not linear; None for what is, or is too wild for a lattice.
    """

    transform: Transform
    plan: Footprint
    size: tuple[int, ...]
    matrix: Float[np.ndarray, "3 3"] | None
    knots: Knots | None

    def positions(self, rows: slice, readings: tuple[int, ...], extent: Float[np.ndarray, "2"]) -> Positions:
        """x and y of all readings for some rows of the crop, in a source of `extent` pixels."""
        fine = self.size[0] * readings[0], self.size[1] * readings[1]
        fine_rows = slice(rows.start * readings[0], rows.stop * readings[0])
        if self.knots is not None:
            knots = self.knots * extent[:, None, None] - _FIRST_CENTRE
            return between(knots.astype(np.float32), fine, fine_rows)
        if (matrix := self.pixel_matrix(rows, readings, extent)) is not None:
            along, down = np.arange(fine[1]), np.arange(fine_rows.stop - fine_rows.start)[:, None]
            x, y = (a * along + (b * down + c) for a, b, c in matrix[:2].tolist())
            a, b, c = matrix[2].tolist()
            scale = a * along + (b * down + c) if a or b else c
            return np.divide(x, scale, dtype=np.float32), np.divide(y, scale, dtype=np.float32)
        points = self.transform(grid(fine, fine_rows))
        x, y = ((points + 1.0) / 2.0 * extent - _FIRST_CENTRE).astype(np.float32).T.reshape(2, -1, fine[1])
        return x, y

    def pixel_matrix(
        self, rows: slice, readings: tuple[int, ...], extent: Float[np.ndarray, "2"]
    ) -> Float[np.ndarray, "3 3"] | None:
        """Likewise, as the matrix from a reading to its place; None of what has no matrix."""
        if self.matrix is None:
            return None
        width, height = self.size[1] * readings[1], self.size[0] * readings[0]
        first = (2 * rows.start * readings[0] + 1) / height - 1
        from_reading = np.array(((2 / width, 0.0, 1 / width - 1), (0.0, 2 / height, first), (0.0, 0.0, 1.0)))
        x, y = (extent / 2).tolist()
        to_place = np.array(((x, 0.0, x - _FIRST_CENTRE), (0.0, y, y - _FIRST_CENTRE), (0.0, 0.0, 1.0)))
        matrix: np.ndarray = (to_place @ self.matrix @ from_reading).round(_DECIMALS)
        return matrix


def _prepared(
    transforms: Transform, sources: Sequence[tuple[int, ...]], sizes: Sequence[tuple[int, ...]], resample: Resample
) -> list[Reading]:
    """The readings of a batch."""
    plans = footprints(transforms, sources, sizes) if resample in ANTI_ALIASED else [POINTWISE] * len(sizes)
    matrices: Sequence[np.ndarray | None] = [None] * len(plans)
    knots: Sequence[Knots | None] = [None] * len(plans)
    if isinstance(transforms, Linear):
        matrices = list(transforms.matrix)
    else:
        extents = [_crop_pixels(source, plan) for source, plan in zip(sources, plans, strict=True)]
        knots = lattices(transforms, extents, sizes)
    each = zip(plans, sizes, matrices, knots, strict=True)
    return [Reading(transforms[number], *parts) for number, parts in enumerate(each)]


def _warped(pixels: np.ndarray, where: Reading, resample: Resample, border: Border) -> np.ndarray:
    """The crop of whole pixels without alpha, or with colours weighted by it."""
    plan, size, flags = where.plan, where.size, _FLAGS[interpolation(resample, where.plan)]
    level, extent = _shrunk(pixels, plan.level, border), _extent(pixels.shape[:2], plan)
    if max(size) > LONGEST_SIDE:
        raise ImageError(f"a crop with a side of more than {LONGEST_SIDE} pixels cannot be made")
    readings = (plan.readings[0], min(plan.readings[1], LONGEST_SIDE // size[1]))
    rows = max(1, min(_STRIP_READINGS // (size[1] * math.prod(readings)), LONGEST_SIDE // readings[0]))
    if readings == (1, 1) and _is_by_matrix(where, level, flags):
        rows = size[0]  # nothing is held but the crop itself
    crop = np.empty((*size, level.shape[2]), level.dtype)
    for strip in _strips(size[0], rows):
        if readings == (1, 1):
            _read(level, where, strip, readings, extent, flags, border, into=crop[strip])
        else:
            fine = _read(level, where, strip, readings, extent, flags, border)
            cv2.resize(fine, crop[strip].shape[1::-1], crop[strip], interpolation=cv2.INTER_AREA)
    return crop


def _strips(height: int, rows: int) -> Iterator[slice]:
    for top in range(0, height, rows):
        yield slice(top, min(top + rows, height))


def _read(
    level: np.ndarray,
    where: Reading,
    rows: slice,
    readings: tuple[int, ...],
    extent: Float[np.ndarray, "2"],
    flags: int,
    border: Border,
    into: np.ndarray | None = None,
) -> np.ndarray:
    """All readings of some rows of a crop; `extent` is the size of the source in the level's pixels."""
    size = (where.size[1] * readings[1], (rows.stop - rows.start) * readings[0])
    outside: dict[str, Any] = {"borderMode": _border_mode(border), "borderValue": border or (0.0,)}
    matrix = where.pixel_matrix(rows, readings, extent) if _is_by_matrix(where, level, flags) else None
    if matrix is None:
        out = np.empty((size[1], size[0], level.shape[2]), level.dtype) if into is None else into
        values = _remap(level, where.positions(rows, readings, extent), flags, out, outside)
    elif (matrix[2] == (0.0, 0.0, 1.0)).all():
        values = cv2.warpAffine(level, matrix[:2], size, into, flags | cv2.WARP_INVERSE_MAP, **outside)
    else:
        values = cv2.warpPerspective(level, matrix, size, into, flags | cv2.WARP_INVERSE_MAP, **outside)
    found: np.ndarray = values.reshape(size[1], size[0], level.shape[2])
    return found


def _is_by_matrix(where: Reading, level: np.ndarray, flags: int) -> bool:
    """Whether a matrix is enough, and no map of positions is needed.

    OpenCV's own kernels for matrices are as exact as its general one where they interpolate linearly, and only there.
    """
    is_in_reach = max(level.shape[:2]) <= LONGEST_SIDE
    return where.matrix is not None and flags == cv2.INTER_LINEAR and is_in_reach


def _remap(
    level: np.ndarray, positions: Positions, flags: int, into: np.ndarray, outside: dict[str, Any]
) -> np.ndarray:
    """`cv2.remap`; from a source that is too large for it, by parts that are read within smaller windows."""
    if max(level.shape[:2]) <= LONGEST_SIDE:
        cv2.remap(level, *positions, flags, into, **outside)
        return into
    (left, right), (top, bottom) = (
        _window(along, side) for along, side in zip(positions, level.shape[1::-1], strict=True)
    )
    window = level[top:bottom, left:right]
    if max(window.shape[:2]) <= LONGEST_SIDE:
        moved = positions[0] - np.float32(left), positions[1] - np.float32(top)
        return _remap(window, moved, flags, into, outside)
    axis = int(np.argmax(into.shape[:2]))
    halves = zip(*(np.array_split(each, 2, axis) for each in (*positions, into)), strict=True)
    for x, y, part in halves:
        _remap(level, (x, y), flags, part, outside)
    return into


def _window(along: Float32[np.ndarray, "h w"], side: int) -> tuple[int, int]:
    """The pixels that are read, along one axis, and the border only where the window ends with the source."""
    low, high = (float(np.clip(np.nan_to_num(end), 0, side - 1)) for end in (along.min(), along.max()))
    return max(0, math.floor(low) - _KERNEL), min(side, math.ceil(high) + 1 + _KERNEL)


def _shrunk(pixels: np.ndarray, level: int, border: Border) -> np.ndarray:
    """The pyramid level; at its end are pixels that the source fills in part, and the border the rest of them."""
    if not level:
        return pixels
    step, sides = 2**level, pixels.shape[:2]
    small = np.empty((*(-(-side // step) for side in sides), pixels.shape[2]), pixels.dtype)
    for rows, columns in itertools.product(*(_whole_and_rest(side, step) for side in sides)):
        part = pixels[_times(rows, step), _times(columns, step)]
        padding = (0, -part.shape[0] % step, 0, -part.shape[1] % step)
        if any(padding):
            part = cv2.copyMakeBorder(part, *padding, _border_mode(border), value=border or (0.0,))
        size = columns.stop - columns.start, rows.stop - rows.start
        averages = cv2.resize(part, size, interpolation=cv2.INTER_AREA)
        small[rows, columns] = averages.reshape(*size[::-1], pixels.shape[2])
    return small


def _whole_and_rest(side: int, step: int) -> list[slice]:
    """Along one axis of a level: the pixels that are filled, and the last one if it is not."""
    whole = side // step
    return [part for part in (slice(0, whole), slice(whole, -(-side // step))) if part.stop > part.start]


def _times(part: slice, step: int) -> slice:
    return slice(part.start * step, part.stop * step)


def _extent(source: tuple[int, ...], plan: Footprint) -> Float[np.ndarray, "2"]:
    """Width and height of the source in pixels of its level, which is padded to whole ones."""
    extent: np.ndarray = np.array([source[1], source[0]]) / 2**plan.level
    return extent


def _crop_pixels(source: tuple[int, ...], plan: Footprint) -> Float[np.ndarray, "2"]:
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
