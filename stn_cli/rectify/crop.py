"""From a location to a crop: whether to rectify at all, what the crop takes in, how large it is, and its pixels."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from stn_cli.annotations import Float, Num
from stn_cli.checkpoints.header import Header
from stn_cli.engines.engine import SMALL_SIDE, Engine, Located
from stn_cli.geometry import (
    Affine,
    Attention,
    Quality,
    ThinPlateSpline,
    Transform,
    crop_sizes,
    outline,
    pixel_points,
    qualities,
)
from stn_cli.images import Pixels
from stn_cli.images.channels import grey
from stn_cli.networks.config import Size
from stn_cli.rectify.options import RectifyOptions
from stn_cli.sampling.footprint import least_footprint
from stn_cli.sampling.kinds import LONGEST_SIDE, Fill, Resample
from stn_cli.sampling.warp import Reading

Sides = Num[np.ndarray, "*batch 2"]
"""(height, width)."""

_HALF_A_PIXEL = 0.5
_MOSTLY_OUTSIDE = 0.75
_EDGE_POINTS = 17
_MOST_SOURCES = 4
_LEAST_SIDE = {2: 1, 3: 2}
"""Of images and of volumes, which would else be images."""
_VERY_LARGE = 50_000_000
"""Pixels."""
_FINER_THAN_CROP = 2
"""How many times finer than a crop's pixels those of a JPEG are at least that was decoded smaller.

It lacks the upper frequencies of its blocks, which is not quite the same as averages of its pixels: crops of printed
text from it and from the whole differ by 35 dB and more."""
_ROUNDING = 1e-6


@dataclass(frozen=True)
class Decision:
    """What to do with an image.

    Attributes:
        transform: crop → image, both normalised: the predicted frame and its margin, or the identity.
        size: (height, width), or (depth, height, width), of the crop.
        quality: numbers of the predicted frame.
        unchanged: why the image passes through as it is; None if it is rectified.
    """

    transform: Transform
    size: Size
    quality: Quality
    unchanged: str | None


def decide(located: Located, source_sizes: Sequence[Size], options: RectifyOptions, header: Header) -> list[Decision]:
    """For each image of a batch: rectify, or do no harm. What the options leave open the model's header says."""
    frames, sizes = located.transforms, np.array(source_sizes)
    numbers, sides = qualities(frames), crop_sizes(frames, sizes)
    reasons = _why_unchanged(located, numbers, sides, sizes, options, header)
    going = np.array([number for number, reason in enumerate(reasons) if reason is None], dtype=int)
    crops = _crops(frames[going], header.crop_margin, sides[going], sizes[going]) if len(going) else []
    decisions = {
        number: Decision(crop.transform, _size(crop.sides, source_sizes[number], options), numbers[number], None)
        for number, crop in zip(going.tolist(), crops, strict=True)
        if not crop.fold
    }
    for number, source_size in enumerate(source_sizes):
        if number not in decisions:
            reason = reasons[number] or "the predicted transform folds within its margin"
            size = _size(None, source_size, options)
            decisions[number] = Decision(Attention.identity(), size, numbers[number], reason)
    return [decisions[number] for number in range(len(source_sizes))]


class _Crop(NamedTuple):
    transform: Transform
    sides: tuple[float, float]
    fold: bool


def _crops(frames: Transform, margin: tuple[float, float], sides: Sides, sizes: Sides) -> Iterator[_Crop]:
    """The frames of a batch with their margins."""
    if any(margin):
        frames = with_margin(frames, margin, sides)
        folds, sides = [numbers.fold for numbers in qualities(frames)], crop_sizes(frames, sizes)
    else:
        folds = [False] * len(sides)  # which has been looked at
    for number, (height, width) in enumerate(sides.tolist()):
        yield _Crop(frames[number], (height, width), folds[number])


def with_margin(frame: Transform, margin: tuple[float, float], sides: Sides) -> Transform:
    """The frame enlarged by `margin` (beyond each end, above and below), in mean heights of the frame in the source.

    A spline stays one spline of its layout: through the points where it takes the enlarged layout.

    Args:
        frame: one, or a batch.
        sides: (height, width) of the frame in the source, of the frame's batch.
    """
    if not any(margin):
        return frame
    x, y = 1.0 + 2.0 * margin[0] * sides[..., 0] / sides[..., 1], np.full(sides.shape[:-1], 1.0 + 2.0 * margin[1])
    if isinstance(frame, ThinPlateSpline):
        moved = frame(frame.layout.points * np.stack((x, y), axis=-1)[..., None, :])
        return ThinPlateSpline(moved.reshape(*moved.shape[:-2], -1), frame.layout)
    zero = np.zeros_like(x)
    return frame @ Affine(np.stack((x, zero, zero, zero, y, zero), axis=-1))


def natural_size(sides: Sequence[float], source_size: Size) -> Size:
    """As many pixels as the region has in the source, whose mean (height, width) there is `sides`; or voxels."""
    if not all(math.isfinite(side) for side in sides):
        return source_size
    # Near its horizon a projective crop is as long as you like: it gets no more than a few sources' worth of pixels.
    most = _MOST_SOURCES * math.prod(source_size)
    scale = min(1.0, (most / max(1.0, math.prod(sides))) ** (1 / len(sides)))
    return tuple(max(_LEAST_SIDE[len(sides)], _whole(side * scale)) for side in sides)


def strays(frames: Transform, sides: Sides, source_sizes: Sides) -> Float[np.ndarray, " b"]:
    """How far the edges of each frame stray from an upright box, in mean heights of the frame; inf if turned.

    The box has the mean y of the upper and of the lower edge, left and right the mean x of the ends. How the ends lean
    does not count: that is the slant of italics.
    """
    border = pixel_points(frames(outline(_EDGE_POINTS)), source_sizes)
    closed, step = np.concatenate((border, border[:, :1]), axis=1), _EDGE_POINTS - 1
    top, right, bottom, left = (closed[:, start : start + step + 1] for start in range(0, 4 * step, step))
    stands = left[..., 0].mean(axis=1) < right[..., 0].mean(axis=1)
    stands &= top[..., 1].mean(axis=1) < bottom[..., 1].mean(axis=1)
    heights = np.stack((top[..., 1], bottom[..., 1]), axis=1)
    farthest = np.abs(heights - heights.mean(axis=2, keepdims=True)).max(axis=(1, 2))
    return np.where(stands, farthest / sides[:, 0], math.inf)


def shrink_at_first(size: Size, options: RectifyOptions) -> int:
    """By how much an image may be shrunk while it is decoded, when nobody knows yet what the crop needs.

    So that a crop of a given size that shows all of it is as good. A very large image is looked at small in any case,
    and decoded whole only if the crop needs it: many pass through.
    """
    height, width = size
    if height * width > _VERY_LARGE:
        covered = math.inf
    elif options.size is not None:
        covered = min(height / options.size[0], width / options.size[1])
    else:
        covered = 1.0 if options.height is None else height / options.height
    return _may_shrink(min(covered, max(size) / SMALL_SIDE))


def shrink_for(decision: Decision, source_size: Size) -> int:
    """By how much the source may be shrunk for a crop."""
    return _may_shrink(least_footprint(decision.transform, source_size, decision.size))


def _may_shrink(covered: float) -> int:
    """Where a pixel of the crop covers so many of the source along each side."""
    return max(1, math.floor(covered / _FINER_THAN_CROP + _ROUNDING))


def render(
    engine: Engine, pixels: Pixels, decision: Decision, options: RectifyOptions, reading: Reading | None = None
) -> Pixels:
    """The crop (h, w, c); of an image that passes through at its own size, the image itself."""
    if decision.unchanged is not None and decision.size == pixels.shape[:2]:
        return pixels
    fill, resample = _fill_values(options.fill, pixels), resampling(options, engine.checkpoint.header)
    return engine.crop(pixels, decision.transform, decision.size, resample, fill, reading)


def resampling(options: RectifyOptions, header: Header) -> Resample:
    """How crops are read: as was asked for, or as the model says."""
    return options.resample or header.crop_resample


def _why_unchanged(
    located: Located, numbers: Sequence[Quality], sides: Sides, sizes: Sides, options: RectifyOptions, header: Header
) -> list[str | None]:
    straight = [None] * len(numbers) if options.always else _why_straight(located.transforms, sides, sizes, header)
    return [
        why_not(confidence, quality, options, header) or why_straight
        for confidence, quality, why_straight in zip(located.confidence.tolist(), numbers, straight, strict=True)
    ]


def why_not(confidence: float, quality: Quality, options: RectifyOptions, header: Header) -> str | None:
    """Why a transform had better not be used; None if nothing speaks against it."""
    least = header.min_confidence if options.min_confidence is None else options.min_confidence
    if confidence < least and not options.always:
        return f"confidence {confidence:.2f} is below {least:.2f}"
    if quality.fold:
        return "the predicted transform folds"
    if quality.out_of_frame > _MOSTLY_OUTSIDE and not options.always:
        return f"{quality.out_of_frame:.0%} of the predicted region lies outside the image"
    return None


def _why_straight(frames: Transform, sides: Sides, sizes: Sides, header: Header) -> list[str | None]:
    border = outline(_EDGE_POINTS)
    moved = np.abs(pixel_points(frames(border) - border - 1.0, sizes)).max(axis=(1, 2))
    reasons: list[str | None] = []
    for far, stray in zip(moved.tolist(), strays(frames, sides, sizes).tolist(), strict=True):
        if far < _HALF_A_PIXEL:
            same = "the predicted transform is the identity within half a pixel"
            reasons.append(f"it is straight already: {same}")
        elif stray < header.straight_within:
            box = f"the predicted frame strays from an upright box by {stray:.2f} of its height"
            reasons.append(f"it is straight already: {box}")
        else:
            reasons.append(None)
    return reasons


def _size(sides: tuple[float, float] | None, source_size: Size, options: RectifyOptions) -> Size:
    """The size that was asked for, else the natural one; None stands for an image that passes through."""
    if options.size is not None:
        return options.size
    if options.height is not None:
        height, width = source_size if sides is None else sides
        return options.height, _whole(options.height * width / height)
    return source_size if sides is None else natural_size(sides, source_size)


def _whole(side: float) -> int:
    return min(LONGEST_SIDE, max(1, round(side)))


def _fill_values(fill: Fill, pixels: Pixels) -> Fill:
    """The colour in the channels and the range of the pixels; alpha, where there is one, is opaque."""
    if fill == "border":
        return fill
    colours = fill if pixels.shape[2] > 2 else (grey(fill),)
    alpha = (255.0,) if pixels.shape[2] in (2, 4) else ()
    scale = np.iinfo(pixels.dtype).max / 255.0
    return tuple(value * scale for value in (*colours, *alpha))
