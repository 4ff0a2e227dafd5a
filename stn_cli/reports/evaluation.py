"""How good a model is on a set of images: what it reads before and after rectification, and where it looks."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np

from stn_cli.annotations import Float
from stn_cli.engines.engine import Engine, Location, Small, small_copy
from stn_cli.geometry import Transform, corners, pixel_points, qualities, zooms
from stn_cli.geometry.rotation import angle, rotation
from stn_cli.networks.config import Size
from stn_cli.training.examples import Examples
from stn_cli.training.overlap import overlap

SCHEMA = "stn.evaluation/1"
_BATCH, _BATCH_OF_VOLUMES = 64, 4
_BINS = 10
_RIGHT = 0.1
"""A pose counts as right when its corners err by less than this share of the frame's height, on average."""


class BeforeAfter(msgspec.Struct, frozen=True):
    """The same measure of whole images, as if nothing were rectified, and of crops.

    `before` is None of a classifier with the transformer inside, which never sees anything else.
    """

    before: float | None
    after: float


class ClassRow(msgspec.Struct, frozen=True):
    name: str
    images: int
    accuracy: BeforeAfter


class Spread(msgspec.Struct, frozen=True):
    mean: float
    p05: float
    median: float
    p95: float


class Bin(msgspec.Struct, frozen=True):
    """Images whose confidence lies within these bounds."""

    low: float
    high: float
    images: int
    confidence: float | None
    right: float | None


class Calibration(msgspec.Struct, frozen=True):
    """How far the model's confidence can be taken at its word.

    Attributes:
        of: what is right or wrong: `label`, whose own confidence is meant then, or `pose`.
        expected_error: mean distance between confidence and share that is right, over ten bins (Guo et al. 2017).
        brier: mean squared distance between confidence and 1 or 0.
    """

    of: str
    expected_error: float
    brier: float
    bins: list[Bin]


class Evaluation(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Figures over all images; None where the data has no truth for them, or the model does not say it.

    Attributes:
        accuracy: share of classes that are right.
        words, characters: share of transcriptions that are right to the letter; edit distance over their length.
        classes: accuracy of each.
        theta: zoom (1: a crop as large as the image), turn in degrees (of a volume about whatever axis), middle x and y
            (0 and 0: that of the image; 1: its edge), share out of frame.
        folds: share of transforms that turn over.
        corner_error: mean distance of the corners from the true ones, in heights of the true frame.
        iou: intersection over union of the crop's corners and the true ones.
    """

    schema: str = SCHEMA
    model: str
    sha256: str
    images: int
    accuracy: BeforeAfter | None = None
    words: BeforeAfter | None = None
    characters: BeforeAfter | None = None
    classes: list[ClassRow] = []
    theta: dict[str, Spread]
    folds: float
    confidence: Spread
    corner_error: Spread | None = None
    iou: Spread | None = None
    calibration: Calibration | None = None

    def to_json(self) -> bytes:
        return msgspec.json.format(msgspec.json.encode(self)) + b"\n"


@dataclass(frozen=True)
class Case:
    """What the model makes of one image.

    Attributes:
        number: of the image.
        location: as found.
        before: what is read of the whole image; None if nothing reads it, or nothing without rectifying it.
        truth: class or transcription, None where there is none.
        error: of the corners, in heights of the true frame; NaN where they are not known.
        iou: with the true frame.
    """

    number: int
    location: Location
    before: str | None
    truth: str | None
    error: float
    iou: float

    @property
    def is_right(self) -> bool | None:
        """Of the label, or else of the pose; None where there is no truth."""
        if self.is_labelled:
            return self.location.label == self.truth
        return None if math.isnan(self.error) else self.error < _RIGHT

    @property
    def is_labelled(self) -> bool:
        """The label is known, and the model says one."""
        return self.truth is not None and self.location.label is not None

    @property
    def sure(self) -> float:
        """The model's confidence in what is right or wrong."""
        said = self.location.label_confidence if self.is_labelled else None
        return self.location.confidence if said is None else said


def evaluate(engine: Engine, examples: Examples) -> tuple[Evaluation, list[Case]]:
    """Runs the model on all images, each as it is kept."""
    cases = list(_cases(engine, examples))
    transforms = [case.location.transform for case in cases]
    labelled = [case for case in cases if case.is_labelled]
    by_class = labelled if engine.model.classifier and not engine.model.reader else []
    spelled = labelled if engine.model.reader else []
    errors = np.array([case.error for case in cases])
    folds, theta = _theta(transforms, [image.shape[:-1] for image in examples.images])
    return (
        Evaluation(
            model=engine.checkpoint.name,
            sha256=engine.checkpoint.sha256,
            images=len(cases),
            accuracy=_exact(by_class),
            words=_exact(spelled),
            characters=_edits(spelled),
            classes=list(_classes(by_class, examples.classes)),
            theta=theta,
            folds=folds,
            confidence=_spread([case.location.confidence for case in cases]),
            corner_error=_spread(errors) if np.isfinite(errors).any() else None,
            iou=_spread([case.iou for case in cases]) if np.isfinite(errors).any() else None,
            calibration=_calibration(cases),
        ),
        cases,
    )


def worst(cases: Sequence[Case], count: int) -> list[Case]:
    """What is wrong, most confident first; then what overlaps the true frame least, or is least sure."""

    def badness(case: Case) -> tuple[bool, float]:
        if case.is_right is False:
            return True, case.sure
        return False, -(case.iou if math.isfinite(case.iou) else case.sure)

    return sorted(cases, key=badness, reverse=True)[:count]


def _cases(engine: Engine, examples: Examples) -> Iterator[Case]:
    truths = _truths(engine, examples)
    together = _BATCH if engine.model.dims == 2 else _BATCH_OF_VOLUMES
    for first in range(0, len(examples), together):
        images = examples.images[first : first + together]
        sizes = [image.shape[:-1] for image in images]
        smalls = [small_copy(image) for image in images]
        located = engine.locate(smalls, sizes)
        for number, (location, label) in enumerate(zip(located, _before(engine, smalls, sizes), strict=True), first):
            error, iou = math.nan, math.nan
            if examples.corners is not None:
                error, iou = _compared(location.transform, examples.corners[number], sizes[number - first])
            yield Case(number, location, label, truths[number], error, iou)


def _before(engine: Engine, smalls: Sequence[Small], sizes: Sequence[Size]) -> list[str | None]:
    """What is read of whole images."""
    if engine.model.insert_at:
        return [None] * len(smalls)
    taken = [engine.take(small) for small in smalls]
    return [label for label, _ in engine.labels(taken, [engine.whole(sizes)] * engine.model.heads)]


def _truths(engine: Engine, examples: Examples) -> Sequence[str | None]:
    if engine.model.reader:
        return examples.texts or [None] * len(examples)
    if engine.model.classifier:
        return [examples.classes[label] if label >= 0 else None for label in examples.labels]
    return [None] * len(examples)


def _compared(transform: Transform, truth: Float[np.ndarray, "4 2"], size: tuple[int, ...]) -> tuple[float, float]:
    """Mean distance of the corners in heights of the true frame, and the overlap, both as pixels have it."""
    scale = np.array(size[::-1]) / 2
    found, true = transform(corners(2)) * scale, truth * scale
    height = float(np.linalg.norm(true[2:] - true[:2], axis=1).mean())
    error = float(np.linalg.norm(found - true, axis=1).mean()) / height if height > 0 else math.nan
    return error, overlap(found, true)


def _exact(cases: Sequence[Case]) -> BeforeAfter | None:
    if not cases:
        return None
    before = [case.before == case.truth for case in cases if case.before is not None]
    after = [case.location.label == case.truth for case in cases]
    return BeforeAfter(float(np.mean(before)) if before else None, float(np.mean(after)))


def _edits(cases: Sequence[Case]) -> BeforeAfter | None:
    length = sum(len(case.truth or "") for case in cases)
    if not length:
        return None
    before = sum(edit_distance(case.before or "", case.truth or "") for case in cases)
    after = sum(edit_distance(case.location.label or "", case.truth or "") for case in cases)
    return BeforeAfter(before / length, after / length)


def edit_distance(a: str, b: str) -> int:
    """Insertions, deletions and replacements that make one text of the other, at least (Levenshtein 1966)."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        above, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            above, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, above + (x != y))
    return row[-1]


def _classes(cases: Sequence[Case], names: Sequence[str]) -> Iterator[ClassRow]:
    for name in names:
        accuracy = _exact(some := [case for case in cases if case.truth == name])
        if accuracy is not None:
            yield ClassRow(name, len(some), accuracy)


def _theta(transforms: Sequence[Transform], sizes: Sequence[Size]) -> tuple[float, dict[str, Spread]]:
    quality = [number for transform in transforms for number in qualities(transform[None])]
    dims = transforms[0].dims
    frames = np.stack([transform(corners(dims)) for transform in transforms])
    middles, in_pixels = frames.mean(axis=1), pixel_points(frames, np.array(sizes))
    along = (in_pixels[:, 1] - in_pixels[:, 0]) + (in_pixels[:, 3] - in_pixels[:, 2])
    turn = np.arctan2(along[:, 1], along[:, 0]) if dims == 2 else angle(rotation(in_pixels))
    columns: dict[str, Any] = {
        "zoom": np.concatenate([zooms(transform[None]) for transform in transforms]),
        "turn": np.degrees(turn),
        "x": middles[:, 0],
        "y": middles[:, 1],
        "out_of_frame": [number.out_of_frame for number in quality],
    }
    return float(np.mean([number.fold for number in quality])), {n: _spread(values) for n, values in columns.items()}


def _spread(values: Sequence[float] | np.ndarray) -> Spread:
    known = np.asarray(values, float)
    known = known[np.isfinite(known)]
    return Spread(float(known.mean()), *(float(np.quantile(known, share)) for share in (0.05, 0.5, 0.95)))


def _calibration(cases: Sequence[Case]) -> Calibration | None:
    judged = [case for case in cases if case.is_labelled] or [case for case in cases if case.is_right is not None]
    if not judged:
        return None
    sure = np.array([case.sure for case in judged])
    right = np.array([bool(case.is_right) for case in judged])
    number = np.minimum((sure * _BINS).astype(int), _BINS - 1)
    bins = [_bin(i, sure[number == i], right[number == i]) for i in range(_BINS)]
    off = sum(
        part.images * abs(part.confidence - part.right)
        for part in bins
        if part.confidence is not None and part.right is not None
    )
    of = "label" if judged[0].is_labelled else "pose"
    return Calibration(of, off / len(judged), float(np.mean((sure - right) ** 2)), bins)


def _bin(number: int, sure: np.ndarray, right: np.ndarray) -> Bin:
    known = (float(sure.mean()), float(right.mean())) if len(sure) else (None, None)
    return Bin(number / _BINS, (number + 1) / _BINS, len(sure), *known)
