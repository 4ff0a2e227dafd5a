"""From a location to a crop: whether to rectify at all, and how large."""

import math
from dataclasses import dataclass

import numpy as np

from stn_cli.geometry import Quality, Transform, crop_size, outline, pixel_points, quality
from stn_cli.rectify.engine import Location
from stn_cli.rectify.options import RectifyOptions

_HALF_A_PIXEL = 0.5
_MOSTLY_OUTSIDE = 0.75
_OUTLINE_POINTS = 17
_MOST_SOURCES = 4
_LARGEST_SIDE = 32_766


@dataclass(frozen=True)
class Decision:
    """What to do with an image.

    Attributes:
        size: (height, width) of the crop.
        quality: numbers of the predicted transform.
        unchanged: why the image passes through as it is; None if it is rectified.
    """

    size: tuple[int, int]
    quality: Quality
    unchanged: str | None


def decide(
    location: Location, source_size: tuple[int, int], options: RectifyOptions, min_confidence: float
) -> Decision:
    """Rectify, or do no harm."""
    numbers = quality(location.transform)
    natural = natural_size(location.transform, source_size)
    unchanged = _why_unchanged(location, numbers, source_size, min_confidence)
    size = options.size or (natural if unchanged is None else source_size)
    return Decision(size, numbers, unchanged)


def natural_size(transform: Transform, source_size: tuple[int, int]) -> tuple[int, int]:
    """As many pixels as the region has in the source: mean arc lengths of its borders."""
    sides = crop_size(transform, source_size)
    if not all(math.isfinite(side) for side in sides):
        return source_size
    # Near its horizon a projective crop is as long as you like: it gets no more than a few sources' worth of pixels.
    most = _MOST_SOURCES * source_size[0] * source_size[1]
    scale = min(1.0, math.sqrt(most / max(1.0, sides[0] * sides[1])))
    height, width = (min(_LARGEST_SIDE, max(1, round(side * scale))) for side in sides)
    return height, width


def _why_unchanged(
    location: Location, numbers: Quality, source_size: tuple[int, int], min_confidence: float
) -> str | None:
    if location.confidence < min_confidence:
        return f"confidence {location.confidence:.2f} is below {min_confidence:.2f}"
    if numbers.fold:
        return "the predicted transform folds"
    if numbers.out_of_frame > _MOSTLY_OUTSIDE:
        return f"{numbers.out_of_frame:.0%} of the predicted region lies outside the image"
    border = outline(_OUTLINE_POINTS)
    moved = pixel_points(location.transform(border), source_size) - pixel_points(border, source_size)
    if float(np.abs(moved).max()) < _HALF_A_PIXEL:
        return "it is straight already: the predicted transform is the identity within half a pixel"
    return None
