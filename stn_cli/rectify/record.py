"""One JSON line for every input: what was found, what was done, where it went (schema `stn.theta/1`)."""

import os
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec
import numpy as np

from stn_cli.annotations import Float
from stn_cli.geometry import (
    Cascade,
    Linear,
    Quality,
    ThinPlateSpline,
    Transform,
    alike,
    corners,
    outline,
    pixel_matrix,
    pixel_points,
)
from stn_cli.geometry.layouts import layout_name
from stn_cli.images import Image

if TYPE_CHECKING:  # a record is read and written without what makes it
    from stn_cli.engines.engine import Location
    from stn_cli.rectify.crop import Decision

SCHEMA = "stn.theta/1"
Status = Literal["done", "unchanged", "skipped", "failed"]
Point = tuple[float, ...]
_OUTLINE_POINTS = 9
_LIKE_ESCAPED = re.compile(rb"\\(?=x(?:5c|[89a-f][0-9a-f]))")


class SourceRecord(msgspec.Struct, kw_only=True, omit_defaults=True):
    """The input; width and height as a person sees it, EXIF orientation applied; its damage, if it was salvaged.

    `relative` is its path as seen from the folder of the record. A volume has a depth as well, and as its mode NumPy's
    name for the type of its numbers.
    """

    path: str
    relative: str | None = None
    sha256: str | None = None
    bytes: int | None = None
    width: int | None = None
    height: int | None = None
    depth: int | None = None
    format: str | None = None
    mode: str | None = None
    exif_orientation: int | None = None
    damage: str | None = None


class ModelRecord(msgspec.Struct, kw_only=True):
    name: str
    sha256: str


class TransformRecord(msgspec.Struct, kw_only=True, omit_defaults=True):
    """θ, output → input, normalised coordinates; a cascade lists its stages instead."""

    kind: str
    theta: list[float] | None = None
    layout: str | None = None
    stages: list["TransformRecord"] | None = None


class QualityRecord(msgspec.Struct, kw_only=True):
    fold: bool
    out_of_frame: float
    jacobian_min: float
    jacobian_max: float


class OutputRecord(msgspec.Struct, kw_only=True, omit_defaults=True):
    path: str
    relative: str | None = None
    sha256: str
    width: int
    height: int
    depth: int | None = None
    format: str


class LabelRecord(msgspec.Struct, kw_only=True):
    value: str
    confidence: float


class ErrorRecord(msgspec.Struct, kw_only=True, omit_defaults=True):
    """What failed and why; what to do next, where that is known."""

    type: str
    message: str
    remedy: str | None = None


class Record(msgspec.Struct, kw_only=True, omit_defaults=True):
    """A line of `theta.jsonl`.

    Attributes:
        pixel_matrix: corner-based, output → source pixels, (x, y, 1) columns, of volumes (x, y, z, 1); of transforms
            that have one.
        control_points: of a spline, in source pixels.
        outline: the border of the crop in source pixels, clockwise from its top left corner; of images.
        fiducials: where the predicted frame lies in source pixels, also where the image passed through, and without
            the crop's margin: a spline's control points, else the corners; upper row first, left to right. Of volumes
            the eight corners, the upper face first.
        reason: why an image passed through unchanged, or was skipped.
        stale: of an input that failed, the crop that an earlier run made of what it was then, and that is still there;
            seen from the folder of the record.
    """

    schema: str = msgspec.field(default=SCHEMA)
    source: SourceRecord
    status: Status
    model: ModelRecord | None = None
    options_sha256: str | None = None
    transform: TransformRecord | None = None
    pixel_matrix: list[list[float]] | None = None
    control_points: list[Point] | None = None
    outline: list[Point] | None = None
    fiducials: list[Point] | None = None
    confidence: float | None = None
    quality: QualityRecord | None = None
    label: LabelRecord | None = None
    output: OutputRecord | None = None
    reason: str | None = None
    notes: list[str] = []
    error: ErrorRecord | None = None
    stale: str | None = None

    def to_json(self) -> bytes:
        """One line without its end; numbers that are not finite become null."""
        fields = {"schema": self.schema, **msgspec.to_builtins(self)}
        return msgspec.json.encode(fields)


def path_text(path: os.PathLike[str] | str) -> str:
    """A path as JSON holds it, no two alike: bytes that are not UTF-8 as `\\xXX`, as `\\udcXX` would be no valid text.

    A backslash that would read as the start of one is a byte of that kind, too: `\\x5c`.
    """
    return _LIKE_ESCAPED.sub(rb"\\x5c", os.fsencode(path)).decode("utf-8", "backslashreplace")


def relative_text(path: Path, folder: Path) -> str:
    """A path as seen from a folder, however both are spelled; as JSON holds it. Absolute where there is no way."""
    return f"{_way(path.parent.absolute(), folder.absolute())}/{path_text(path.name)}"


@lru_cache(maxsize=4096)
def _way(there: Path, folder: Path) -> str:
    try:
        return path_text(os.path.relpath(os.path.realpath(there), os.path.realpath(folder)))
    except ValueError:  # another drive
        return path_text(there)


def source_record(path: Path, image: Image) -> SourceRecord:
    """The input, read."""
    return SourceRecord(
        path=path_text(path),
        sha256=image.sha256,
        bytes=image.file_size,
        width=image.size[1],
        height=image.size[0],
        format=image.format,
        mode=image.source_mode,
        exif_orientation=image.exif_orientation,
        damage=image.damage,
    )


def complete(record: Record, location: "Location", decision: "Decision", described: Mapping[str, Any]) -> None:
    """Fills in what was found in the image and what was decided; `described`, as `describe_all` has it."""
    for name, value in described.items():
        setattr(record, name, value)
    record.status = "done" if decision.unchanged is None else "unchanged"
    record.reason = decision.unchanged
    record.confidence = location.confidence
    record.quality = quality_record(decision.quality)
    if location.label is not None and location.label_confidence is not None:
        record.label = LabelRecord(value=location.label, confidence=location.label_confidence)


def describe_all(
    locations: Sequence["Location"], decisions: Sequence["Decision"], source_sizes: Sequence[tuple[int, ...]]
) -> list[dict[str, Any]]:
    """For each image of a batch, the fields of its record that follow from transforms."""
    crops = [decision.transform for decision in decisions]
    described = describe(crops, source_sizes, [decision.size for decision in decisions])
    for frames, places in alike([location.transform for location in locations]):
        points = pixel_points(fiducials(frames)[1], [source_sizes[place] for place in places])
        for place, those in zip(places, points, strict=True):
            described[place]["fiducials"] = points_record(those)
    return described


def fiducials(frame: Transform) -> tuple[Float[np.ndarray, "k d"], Float[np.ndarray, "*batch k d"]]:
    """Points of the frame and where they lie in the image, both normalised: control points, else the corners."""
    points = frame.layout.points if isinstance(frame, ThinPlateSpline) else corners(frame.dims)
    return points, frame(points)


def describe(
    transforms: Sequence[Transform], source_sizes: Sequence[tuple[int, ...]], output_sizes: Sequence[tuple[int, ...]]
) -> list[dict[str, Any]]:
    """For each of the transforms, from a crop to its source, the fields of a record that follow from it."""
    described: list[dict[str, Any]] = [{"transform": transform_record(transform)} for transform in transforms]
    for batch, places in alike(transforms):
        sources, outputs = ([sizes[place] for place in places] for sizes in (source_sizes, output_sizes))
        columns: dict[str, list[Any]] = {}
        if isinstance(batch, Linear):
            columns["pixel_matrix"] = pixel_matrix(batch, sources, outputs).tolist()
        if isinstance(batch, ThinPlateSpline):
            columns["control_points"] = list(map(points_record, pixel_points(batch.control_points, sources)))
        if batch.dims == 2:
            border = batch(outline(2 if isinstance(batch, Linear) else _OUTLINE_POINTS))
            columns["outline"] = list(map(points_record, pixel_points(border, sources)))
        for name, column in columns.items():
            for place, value in zip(places, column, strict=True):
                described[place][name] = value
    return described


def transform_record(transform: Transform) -> TransformRecord:
    """θ with what is needed to rebuild the transform."""
    if isinstance(transform, Cascade):
        return TransformRecord(kind=transform.kind, stages=[transform_record(stage) for stage in transform.stages])
    layout = layout_name(transform.layout) if isinstance(transform, ThinPlateSpline) else None
    return TransformRecord(kind=transform.kind, theta=transform.theta.tolist(), layout=layout)


def quality_record(quality: Quality) -> QualityRecord:
    return QualityRecord(
        fold=quality.fold,
        out_of_frame=round(quality.out_of_frame, 4),
        jacobian_min=quality.jacobian_min,
        jacobian_max=quality.jacobian_max,
    )


def points_record(points: np.ndarray) -> list[Point]:
    return [tuple(point) for point in np.round(points.astype(np.float64), 4).tolist()]
