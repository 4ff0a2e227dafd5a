"""From a location to a crop: whether to rectify at all, what the crop takes in, how large it is, and its pixels."""

import math
from dataclasses import dataclass

import numpy as np

from stn_cli.checkpoints.header import Header
from stn_cli.geometry import (
    Affine,
    Attention,
    Quality,
    ThinPlateSpline,
    Transform,
    crop_size,
    outline,
    pixel_points,
    quality,
)
from stn_cli.images import Pixels
from stn_cli.rectify.engine import Engine, Location
from stn_cli.rectify.options import LONGEST_SIDE, RectifyOptions
from stn_cli.sampling.footprint import Fill

Size = tuple[int, int]

_HALF_A_PIXEL = 0.5
_MOSTLY_OUTSIDE = 0.75
_EDGE_POINTS = 17
_MOST_SOURCES = 4


@dataclass(frozen=True)
class Decision:
    """What to do with an image.

    Attributes:
        transform: crop → image, both normalised: the predicted frame and its margin, or the identity.
        size: (height, width) of the crop.
        quality: numbers of the predicted frame.
        unchanged: why the image passes through as it is; None if it is rectified.
    """

    transform: Transform
    size: Size
    quality: Quality
    unchanged: str | None


def decide(location: Location, source_size: Size, options: RectifyOptions, header: Header) -> Decision:
    """Rectify, or do no harm. What the options leave open is as the header of the model says."""
    crop = location.transform
    numbers = quality(crop)
    unchanged = _why_unchanged(location, numbers, source_size, options, header)
    if unchanged is None and any(header.crop_margin):
        crop = with_margin(crop, header.crop_margin, source_size)
        unchanged = "the predicted transform folds within its margin" if quality(crop).fold else None
    if unchanged is not None:
        return Decision(Attention.identity(), _size(None, source_size, options), numbers, unchanged)
    return Decision(crop, _size(crop, source_size, options), numbers, None)


def with_margin(frame: Transform, margin: tuple[float, float], source_size: Size) -> Transform:
    """The frame enlarged by `margin` (beyond each end, above and below), in mean heights of the frame in the source.

    A spline stays one spline of its layout: through the points where it takes the enlarged layout.
    """
    if not any(margin):
        return frame
    height, width = crop_size(frame, source_size)
    x, y = 1.0 + 2.0 * margin[0] * height / width, 1.0 + 2.0 * margin[1]
    if isinstance(frame, ThinPlateSpline):
        moved = frame(frame.layout.points * np.array([x, y]))
        return ThinPlateSpline(moved.ravel(), frame.layout)
    return frame @ Affine(np.array([x, 0.0, 0.0, 0.0, y, 0.0]))


def natural_size(transform: Transform, source_size: Size) -> Size:
    """As many pixels as the region has in the source: mean arc lengths of its borders."""
    sides = crop_size(transform, source_size)
    if not all(math.isfinite(side) for side in sides):
        return source_size
    # Near its horizon a projective crop is as long as you like: it gets no more than a few sources' worth of pixels.
    most = _MOST_SOURCES * source_size[0] * source_size[1]
    scale = min(1.0, math.sqrt(most / max(1.0, sides[0] * sides[1])))
    return _whole(sides[0] * scale), _whole(sides[1] * scale)


def strays(frame: Transform, source_size: Size) -> float:
    """How far the upper and the lower edge stray from an upright box, in mean heights of the frame; inf if turned.

    The box has the mean y of each of them, left and right the mean x of the ends. How the ends lean does not count:
    that is the slant of italics.
    """
    top, right, bottom, left = _edges(frame, source_size)
    if not (left[:, 0].mean() < right[:, 0].mean() and top[:, 1].mean() < bottom[:, 1].mean()):
        return math.inf
    farthest = max(float(np.abs(y - y.mean()).max()) for y in (top[:, 1], bottom[:, 1]))
    return farthest / crop_size(frame, source_size)[0]


def render(engine: Engine, pixels: Pixels, decision: Decision, options: RectifyOptions) -> Pixels:
    """The crop (h, w, c); of an image that passes through at its own size, the image itself."""
    if decision.unchanged is not None and decision.size == pixels.shape[:2]:
        return pixels
    fill = _fill_values(options.fill, pixels)
    return engine.crop(pixels, decision.transform, decision.size, options.resample, fill)


def _why_unchanged(
    location: Location, numbers: Quality, source_size: Size, options: RectifyOptions, header: Header
) -> str | None:
    least = header.min_confidence if options.min_confidence is None else options.min_confidence
    if location.confidence < least and not options.always:
        return f"confidence {location.confidence:.2f} is below {least:.2f}"
    if numbers.fold:
        return "the predicted transform folds"
    if options.always:
        return None
    if numbers.out_of_frame > _MOSTLY_OUTSIDE:
        return f"{numbers.out_of_frame:.0%} of the predicted region lies outside the image"
    return _why_straight(location.transform, source_size, header.straight_within)


def _why_straight(frame: Transform, source_size: Size, within: float) -> str | None:
    border = outline(_EDGE_POINTS)
    moved = pixel_points(frame(border), source_size) - pixel_points(border, source_size)
    if float(np.abs(moved).max()) < _HALF_A_PIXEL:
        return "it is straight already: the predicted transform is the identity within half a pixel"
    if within > 0 and (stray := strays(frame, source_size)) < within:
        return f"it is straight already: the predicted frame strays from an upright box by {stray:.2f} of its height"
    return None


def _edges(frame: Transform, source_size: Size) -> list[np.ndarray]:
    """Top, right, bottom and left edge of the frame in source pixels, (n, 2) each, clockwise."""
    border = pixel_points(frame(outline(_EDGE_POINTS)), source_size)
    closed, step = np.concatenate((border, border[:1])), _EDGE_POINTS - 1
    return [closed[start : start + step + 1] for start in range(0, 4 * step, step)]


def _size(crop: Transform | None, source_size: Size, options: RectifyOptions) -> Size:
    """The size that was asked for, else the natural one; None stands for an image that passes through."""
    if options.size is not None:
        return options.size
    if options.height is not None:
        height, width = source_size if crop is None else crop_size(crop, source_size)
        return options.height, _whole(options.height * width / height)
    return source_size if crop is None else natural_size(crop, source_size)


def _whole(side: float) -> int:
    return min(LONGEST_SIDE, max(1, round(side)))


def _fill_values(fill: Fill, pixels: Pixels) -> Fill:
    """The colour in the channels and the range of the pixels; alpha, where there is one, is opaque."""
    if fill == "border":
        return fill
    red, green, blue = fill
    colours = (red, green, blue) if pixels.shape[2] > 2 else (0.299 * red + 0.587 * green + 0.114 * blue,)
    alpha = (255.0,) if pixels.shape[2] in (2, 4) else ()
    scale = np.iinfo(pixels.dtype).max / 255.0
    return tuple(value * scale for value in (*colours, *alpha))
