"""The CPU sampler: OpenCV on whole pixels, with the behaviour of `differentiable.sample` within one grey level."""

import math
from collections.abc import Iterator

import cv2
import numpy as np
from jaxtyping import Float, Num

from stn_cli.errors import ImageError
from stn_cli.geometry import Transform, grid
from stn_cli.sampling.footprint import POINTWISE, Fill, Resample, fill_values, footprint, weighted_fill

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
    source_size = pixels.shape[:2]
    plan = footprint(transform, source_size, size) if resample == "auto" else POINTWISE
    channels = pixels.shape[2]
    has_alpha = channels in (2, 4)
    border = _border_value(fill, channels, _full(pixels.dtype))
    level, extent = _shrunk(_premultiplied(pixels) if has_alpha else pixels, plan.level, border)
    if max(*level.shape[:2], *size) > _OPENCV_SIDE:
        raise ImageError(f"a side of more than {_OPENCV_SIDE} pixels cannot be warped")
    readings = (plan.readings[0], min(plan.readings[1], _OPENCV_SIDE // size[1]))
    rows = max(1, min(_STRIP_READINGS // (size[1] * math.prod(readings)), _OPENCV_SIDE // readings[0]))
    strips = [
        _averaged(_read(level, extent * _positions(transform, size, readings, strip), resample, border), readings)
        for strip in _strips(size[0], rows)
    ]
    crop = np.concatenate(strips) if len(strips) > 1 else strips[0]
    return _straight(crop, pixels.dtype) if has_alpha else crop


def _strips(height: int, rows: int) -> Iterator[slice]:
    for top in range(0, height, rows):
        yield slice(top, min(top + rows, height))


def _positions(
    transform: Transform, size: tuple[int, int], readings: tuple[int, ...], rows: slice
) -> Float[np.ndarray, "fine_h fine_w 2"]:
    """Where the readings for some rows of the crop lie in the source, 0…1 across it."""
    height, width = size
    fine = ((rows.stop - rows.start) * readings[0], width * readings[1])
    points = grid(fine)
    # The grid spans −1…1 over these rows alone; y becomes that of the whole crop.
    points[:, 1] = (2 * rows.start + (points[:, 1] + 1.0) * (rows.stop - rows.start)) / height - 1.0
    positions: np.ndarray = (transform(points) + 1.0) / 2.0
    return positions.reshape(*fine, 2)


def _read(level: np.ndarray, positions: np.ndarray, resample: Resample, border: Border) -> np.ndarray:
    """Interpolated values at positions (x, y) in pixels of the level, corner-based."""
    centred = (positions - 0.5).astype(np.float32)
    values = cv2.remap(
        level,
        centred[..., 0],
        centred[..., 1],
        _INTERPOLATION[resample],
        borderMode=_border_mode(border),
        borderValue=border or (0.0,),
    )
    return values.reshape(*centred.shape[:2], level.shape[2])


def _averaged(values: np.ndarray, readings: tuple[int, ...]) -> np.ndarray:
    if readings == (1, 1):
        return values
    ky, kx = readings
    height, width, channels = values.shape
    size = (width // kx, height // ky)
    return cv2.resize(values, size, interpolation=cv2.INTER_AREA).reshape(size[1], size[0], channels)


def _shrunk(pixels: np.ndarray, level: int, border: Border) -> tuple[np.ndarray, Float[np.ndarray, "2"]]:
    """The pyramid level, and the source's extent (x, y) in its pixels: levels are padded to whole pixels."""
    height, width = pixels.shape[:2]
    step = 2**level
    if level:
        padding = (0, -height % step, 0, -width % step)
        padded = cv2.copyMakeBorder(pixels, *padding, _border_mode(border), value=border or (0.0,))
        small = cv2.resize(padded, None, fx=1 / step, fy=1 / step, interpolation=cv2.INTER_AREA)
        pixels = small.reshape(*small.shape[:2], pixels.shape[2])
    return pixels, np.array([width / step, height / step])


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
