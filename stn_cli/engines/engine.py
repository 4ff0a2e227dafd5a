"""Where is it? Localization in stages, each on a small view of the original."""

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from stn_cli.annotations import Float, Float32
from stn_cli.checkpoints import Checkpoint
from stn_cli.checkpoints.header import CLASSIFIER, DIRECTION, READER, localizer_names
from stn_cli.errors import ModelError, UsageError
from stn_cli.geometry import (
    Affine,
    Affine3d,
    Attention,
    ThinPlateSpline,
    Transform,
    letterbox,
)
from stn_cli.images import Pixels
from stn_cli.images.channels import over_white
from stn_cli.networks.config import Size
from stn_cli.networks.refinement import all_looks, doubtful, enlarged, refined, righted, upright_odds
from stn_cli.sampling.kinds import Fill, Resample
from stn_cli.sampling.warp import Each, Reading

Small = Float32[np.ndarray, "*size c"]

SMALL_SIDE = 512
"""Localization nets see some 50 pixels: they still see an eighth of the image sharp."""
_QUARTER_TURN = Affine(np.array([0.0, -1.0, 0.0, 1.0, 0.0, 0.0]))
_SLACK = 1e-5
"""By which a probability may be rounded beyond 0 and 1."""


@dataclass(frozen=True)
class Location:
    """What a model says of one image.

    Attributes:
        transform: crop → image, both normalised.
        confidence: probability that it is right, 0…1.
        label, label_confidence: of the crop, where the model has a classifier or a reader.
    """

    transform: Transform
    confidence: float
    label: str | None = None
    label_confidence: float | None = None


@dataclass(frozen=True)
class Located:
    """What a model says of a batch of images: as many locations.

    Attributes:
        transforms: a batch of them.
        confidence: of each.
        labels: of each, with their probabilities; None where the model has neither classifier nor reader.
    """

    transforms: Transform
    confidence: Float[np.ndarray, " b"]
    labels: Sequence[tuple[str, float] | tuple[None, None]]

    def __len__(self) -> int:
        return len(self.labels)

    def __iter__(self) -> Iterator[Location]:
        for number, (label, sure) in enumerate(self.labels):
            yield Location(self.transforms[number], float(self.confidence[number]), label, sure)


class Engine(ABC):
    """Runs a checkpoint: its nets look at small copies, the crop is read from the original."""

    out_of_memory: tuple[type[Exception], ...] = ()
    """What its device raises if a batch is too large for it."""

    def __init__(self, checkpoint: Checkpoint, head: int = 0) -> None:
        self.checkpoint = checkpoint
        self.model = checkpoint.header.model
        self.head = head
        if not 0 <= head < self.model.heads:
            raise UsageError(f"{checkpoint.name} has {self.model.heads} heads; there is no head {head + 1}")

    @abstractmethod
    def take(self, small: Small) -> Any:
        """A small copy in the engine's own form."""

    @abstractmethod
    def views(self, taken: Sequence[Any], transforms: Transform, size: Size, each: Each) -> Any:
        """What a net is shown by a batch of transforms: (b, c, h, w) float32, 0…1; c is the model's channels."""

    @abstractmethod
    def joined(self, views: Sequence[Any]) -> Any:
        """Views joined along their channels."""

    @abstractmethod
    def infer(self, graph: str, views: Any) -> list[np.ndarray]:
        """The outputs of a net for a batch of views."""

    @abstractmethod
    def crop(
        self,
        pixels: Pixels,
        transform: Transform,
        size: Size,
        resample: Resample,
        fill: Fill,
        reading: Reading | None = None,
    ) -> Pixels:
        """The crop (h, w, c) in the type and channels of the image; `reading`, as `readings` prepared it."""

    def readings(
        self, transforms: Sequence[Transform], sources: Sequence[Size], sizes: Sequence[Size], resample: Resample
    ) -> Sequence[Reading | None]:
        """What can be prepared for the crops of many images at once."""
        del sources, sizes, resample
        return [None] * len(transforms)

    def locate(self, smalls: Sequence[Small], sizes: Sequence[Size], each: Each = map) -> Located:
        """Runs all stages, then what reads the crop, on the small copies of a batch of images of (height, width).

        Of a model with several heads, what is located is that of the engine's own; what is read is that of all.

        Nets see volumes in the middle of a cube. The frame that they find is stated as it lies about the volume
        instead, so that a volume that is upright is shown as it is, and a flat one stays flat.
        """
        taken = [self.take(small) for small in smalls]
        reads_all = self.model.classifier is not None
        heads = range(self.model.heads) if reads_all else (self.head,)
        found = {head: self._found(taken, sizes, head, each) for head in heads}
        transform, confidence = found[self.head]
        crops = [self.whole(sizes)] if self.model.insert_at else [crop for crop, _ in found.values()]
        labels = self.labels(taken, crops, each)
        if self.model.dims == 3:
            transform = transform @ self.whole(sizes).inverse()
        return Located(transform, confidence, labels)

    def _found(
        self, taken: Sequence[Any], sizes: Sequence[Size], head: int, each: Each
    ) -> tuple[Transform, Float[np.ndarray, " b"]]:
        """What a head finds, and its confidence; where that is low, of a second look if the model has one."""
        found, confidence = self._looked(taken, self.whole(sizes), head, each)
        header = self.checkpoint.header
        doubtful = np.flatnonzero(confidence < header.min_confidence).tolist()
        if not header.second_look or not doubtful:
            return found, confidence
        start = self.whole([sizes[row] for row in doubtful]) @ _QUARTER_TURN
        other, sure = self._looked([taken[row] for row in doubtful], start, head, each)
        theta, confidence = found.theta.copy(), confidence.copy()
        for row, turned, surer in zip(doubtful, other.theta, sure, strict=True):
            if surer > confidence[row]:
                theta[row], confidence[row] = turned, surer
        return dataclasses.replace(found, theta=theta), confidence  # type: ignore[type-var]

    def _looked(
        self, taken: Sequence[Any], found: Transform, head: int, each: Each
    ) -> tuple[Transform, Float[np.ndarray, " b"]]:
        """What the stages of a head find, starting from a frame of each image, and their confidence."""
        odds, confidence = np.zeros(len(taken)), np.ones(len(taken))
        named = list(zip(localizer_names(self.model, head), self.model.stages, strict=True))
        for graph, stage in (pair for pair in named for _ in range(pair[1].repeat)):
            shown = all_looks(found, stage.margin, stage.looks)
            seen = self.joined([self.views(taken, look, stage.input_size, each) for look in shown])
            theta, confidence, *upright = self.infer(graph, seen)
            if not all(np.isfinite(said).all() for said in (theta, *upright)):
                raise ModelError(f"{graph} of {self.checkpoint.path} predicts values that are not finite")
            self._check_probabilities(graph, confidence)
            found = refined(found, stage.transform.spec(theta.astype(np.float64)), stage.margin)
            if upright and isinstance(found, ThinPlateSpline):
                found, odds = righted(found, odds + upright[0], self.model.upright_odds)
        if self.model.stages[-1].votes_on_up and isinstance(found, ThinPlateSpline):
            found, odds = righted(found, odds + self._asked(taken, found, odds, each), self.model.upright_odds)
            confidence = confidence / (1 + np.exp(-odds - upright_odds(found, self.model.upright_odds)))
        return found, confidence

    def _asked(
        self, taken: Sequence[Any], found: ThinPlateSpline, odds: Float[np.ndarray, " b"], each: Each
    ) -> Float[np.ndarray, " b"]:
        """Log-odds of lines being upright, as the direction net says where all votes leave doubt, and 0 elsewhere."""
        said, direction = np.zeros(len(taken)), self.model.direction
        if direction is not None:
            rows = np.flatnonzero(doubtful(found, odds, self.model.upright_odds, direction.doubt))
            if len(rows):
                lines = enlarged(found[rows], direction.margin)
                views = self.views([taken[row] for row in rows.tolist()], lines, direction.input_size, each)
                (said[rows],) = self.infer(DIRECTION, views)
        if not np.isfinite(said).all():
            raise ModelError(f"{DIRECTION} of {self.checkpoint.path} predicts values that are not finite")
        return said

    def _check_probabilities(self, graph: str, said: np.ndarray) -> None:
        if not (np.abs(said - 0.5) <= 0.5 + _SLACK).all():  # NaN is not, either
            raise ModelError(f"{graph} of {self.checkpoint.path} predicts probabilities that are not 0 to 1")

    def whole(self, sizes: Sequence[Size]) -> Transform:
        """What the first stage starts from: all of each image of (height, width)."""
        if self.model.fit == "letterbox":
            return letterbox(sizes, self.model.stages[0].input_size)
        family = Attention if self.model.dims == 2 else Affine3d
        return family(np.tile(family.identity_theta, (len(sizes), 1)))

    def labels(
        self, taken: Sequence[Any], heads: Sequence[Transform], each: Each = map
    ) -> Sequence[tuple[str, float] | tuple[None, None]]:
        """What the crops of all heads show, with its probability; None where the model has nothing that reads them.

        A classifier with the transformer inside looks at the whole image instead.
        """
        if reader := self.model.reader:
            views = self.views(taken, heads[0], reader.input_size, each)
            (probabilities,) = self.infer(READER, views)
            self._check_probabilities(READER, probabilities)
            return [best_path(columns, reader.alphabet) for columns in probabilities]
        if classifier := self.model.classifier:
            views = [self.views(taken, head, classifier.input_size, each) for head in heads]
            (probabilities,) = self.infer(CLASSIFIER, self.joined(views))
            self._check_probabilities(CLASSIFIER, probabilities)
            best = probabilities.argmax(axis=1)
            return [(classifier.classes[i], float(row[i])) for i, row in zip(best, probabilities, strict=True)]
        return [(None, None)] * len(taken)


def best_path(columns: Float[np.ndarray, "columns characters"], alphabet: str) -> tuple[str, float]:
    """The most probable path of a connectionist temporal classification, and its probability (Graves et al. 2006).

    The first character of each column is the blank.
    """
    best = columns.argmax(axis=1)
    kept = best[(best != 0) & (np.diff(best, prepend=0) != 0)]
    return "".join(alphabet[number - 1] for number in kept), float(columns.max(axis=1).prod())


def small_copy(pixels: Pixels) -> Small:
    """What the nets look at: 0…1, one or three channels, alpha laid over white, the longer side 512 at most.

    Of a volume (d, h, w, 1), all of it; `sampling.volumes.shown` makes it small.
    """
    full = np.float32(np.iinfo(pixels.dtype).max)
    if pixels.ndim == 4:
        return pixels.astype(np.float32) / full
    small: np.ndarray = over_white(pixels)
    height, width, channels = small.shape
    factor = max(height, width) / SMALL_SIDE
    if factor > 1:
        size = (max(1, round(width / factor)), max(1, round(height / factor)))
        while small.shape[0] >= 2 * size[1] and small.shape[1] >= 2 * size[0]:  # halves are averaged many times faster
            half = ((small.shape[1] + 1) // 2, (small.shape[0] + 1) // 2)
            small = cv2.resize(small, half, interpolation=cv2.INTER_AREA)
        small = cv2.resize(small, size, interpolation=cv2.INTER_AREA).reshape(size[1], size[0], channels)
    return small.astype(np.float32) / full
