"""What a model finds in one image, and what `rectify` would make of it."""

import math
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np

from stn_cli.engines.engine import Engine, small_copy
from stn_cli.errors import UsageError
from stn_cli.geometry import Transform, crop_size, outline, pixel_points
from stn_cli.images import Pixels, Size, decode
from stn_cli.rectify.crop import Decision, decide, render
from stn_cli.rectify.options import RectifyOptions
from stn_cli.rectify.outcome import options_digest
from stn_cli.rectify.record import (
    ModelRecord,
    Point,
    Record,
    TransformRecord,
    complete,
    describe_all,
    points_record,
    source_record,
    transform_record,
)

_OUTLINE_POINTS = 9
_LINE_POINTS = 33


class FrameRecord(msgspec.Struct, kw_only=True):
    """The predicted frame: what a crop shows but for its margin, whether the image was rectified or not.

    Attributes:
        height, width: in source pixels, mean arc lengths.
        angle: of the reading direction, in degrees, clockwise from rightwards.
        outline: in source pixels, clockwise from the top left corner.
    """

    transform: TransformRecord
    height: float
    width: float
    angle: float
    outline: list[Point]


class CropRecord(msgspec.Struct, kw_only=True):
    width: int
    height: int


class InspectionRecord(Record, kw_only=True, omit_defaults=True):
    """The record that `rectify` would write, with the predicted frame and the size of the crop in place of a file."""

    frame: FrameRecord
    crop: CropRecord


@dataclass(frozen=True, eq=False)
class Inspection:
    """What was found in an image.

    Attributes:
        pixels: the image, (h, w, c).
        frame: the predicted transform.
        decision: what `rectify` would do.
        crop: what it would write, (h, w, c).
        record: all of it in numbers.
    """

    pixels: Pixels
    frame: Transform
    decision: Decision
    crop: Pixels
    record: InspectionRecord


def inspect(path: Path, engine: Engine, options: RectifyOptions) -> Inspection:
    """Finds, decides and crops as `rectify` does; ImageError if there is no readable image."""
    if engine.model.dims == 3:
        raise UsageError(
            f"{engine.checkpoint.name} is a model of volumes, and a picture shows none",
            remedy="stn rectify writes what it finds in a volume into its record.",
        )
    image = decode(path, max_pixels=options.max_pixels)
    source_size, header = image.pixels.shape[:2], engine.checkpoint.header
    located = engine.locate([small_copy(image.pixels)], [source_size])
    (location,) = located
    (decision,) = decide(located, [source_size], options, header)
    height, width = decision.size
    record = InspectionRecord(
        source=source_record(path, image),
        status="failed",
        model=ModelRecord(name=header.name, sha256=engine.checkpoint.sha256),
        options_sha256=options_digest(options),
        notes=list(image.notes),
        frame=_frame_record(location.transform, source_size),
        crop=CropRecord(width=width, height=height),
    )
    complete(record, location, decision, *describe_all([location], [decision], [source_size]))
    crop = render(engine, image.pixels, decision, options)
    return Inspection(image.pixels, location.transform, decision, crop, record)


def reading_angle(frame: Transform, source_size: Size) -> float:
    """Degrees, clockwise from rightwards, −180…180: the direction of the centre line, fitted by least squares."""
    steps = np.linspace(-1.0, 1.0, _LINE_POINTS)
    line = pixel_points(frame(np.stack((steps, np.zeros_like(steps)), axis=-1)), source_size)
    x, y = steps @ line
    return math.degrees(math.atan2(y, x))


def _frame_record(frame: Transform, source_size: Size) -> FrameRecord:
    height, width = crop_size(frame, source_size)
    return FrameRecord(
        transform=transform_record(frame),
        height=height,
        width=width,
        angle=reading_angle(frame, source_size),
        outline=points_record(pixel_points(frame(outline(_OUTLINE_POINTS)), source_size)),
    )
