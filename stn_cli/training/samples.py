"""Training samples, each a pure function of (seed, index)."""

import itertools
import math
import os
import signal
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from stn_cli.annotations import Float64, Int64, UInt8
from stn_cli.geometry import BorderLayout, Projective
from stn_cli.images.channels import luminance
from stn_cli.training.config import Augment, Scene, TrainConfig
from stn_cli.training.examples import Examples
from stn_cli.training.scenes import draw
from stn_cli.training.text.config import TextScene

_CLUTTER_SOURCES = 8
_ALMOST = 0.75
"""Of its size, down to which an image may be drawn by interpolation alone."""


class Batch(NamedTuple):
    """Samples.

    Attributes:
        canvas: the images, or volumes, that the model sees.
        truth: where the border points (`border 2xN`) of the upright frame lie on the canvas, normalised; NaN where
            that is not known. Four corners are enough where the frame is not bent; a volume's has eight.
        label: class indices, −1 where there is none.
        scene: indices into the configuration's scenes.
        text: transcriptions as indices into the alphabet from 1 on, filled up with 0, and one past the last for a
            character that it lacks; of no length where there are none.
    """

    canvas: UInt8[Tensor, "b c *size"]
    truth: Float64[Tensor, "b 2n d"]
    label: Int64[Tensor, " b"]
    scene: Int64[Tensor, " b"]
    text: Int64[Tensor, "b characters"]

    def to(self, device: str) -> "Batch":
        """The samples on a device; where it has no float64, truth is float32."""
        truth = self.truth.float() if device == "mps" else self.truth
        return Batch(*(part.to(device, non_blocking=True) for part in self._replace(truth=truth)))


def split(batch: Batch, pieces: int) -> list[Batch]:
    """The batch in so many pieces, of equal sizes where they divide it; in fewer where there are fewer samples."""
    ends = [len(batch.label) * number // pieces for number in range(pieces + 1)]
    return [Batch(*(part[a:b] for part in batch)) for a, b in itertools.pairwise(ends) if b > a]


class Samples(Dataset[Batch], ABC):
    """As many samples as `length` says; sample i depends on the seed and on i alone."""

    scene_names: tuple[str, ...] = ()

    def __init__(self, *, seed: int, length: int) -> None:
        self.seed, self.length = seed, length

    def __len__(self) -> int:
        return self.length

    @abstractmethod
    def __getitems__(self, indices: Sequence[int]) -> Batch:
        """The samples of the given indices."""


class DrawnSamples(Samples):
    """Sample i draws a scene, and what is in it, by a generator seeded with (seed, i)."""

    def __init__(self, scenes: Sequence[Scene | TextScene], *, seed: int, length: int) -> None:
        super().__init__(seed=seed, length=length)
        self.scene_names = tuple(scene.name for scene in scenes)
        weights = np.array([scene.weight for scene in scenes], dtype=float)
        self.scene_ends = np.cumsum(weights / weights.sum())

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        samples = [self.draw(np.random.default_rng((self.seed, index))) for index in indices]
        return Batch(*(torch.stack(column) for column in zip(*samples, strict=True)))

    @abstractmethod
    def draw(self, rng: np.random.Generator) -> Batch:
        """One sample, without the dimension of the batch."""

    def random_scene(self, rng: np.random.Generator) -> int:
        """The number of a scene, drawn by weight."""
        number = int(np.searchsorted(self.scene_ends, rng.random(), side="right"))
        return min(number, len(self.scene_ends) - 1)


class DistortedSamples(DrawnSamples):
    """Upright images, distorted."""

    def __init__(self, uprights: Examples, config: TrainConfig, *, seed: int, length: int) -> None:
        super().__init__(config.scenes, seed=seed, length=length)
        self.uprights, self.config = uprights, config
        self.texts = encoded(uprights, config.alphabet)

    def draw(self, rng: np.random.Generator) -> Batch:
        images, scenes = self.uprights.images, self.config.scenes
        chosen, number = int(rng.integers(len(images))), self.random_scene(rng)
        canvas, truth = self.distorted(rng, images[chosen], scenes[number])
        return one_sample(canvas, truth, int(self.uprights.labels[chosen]), number, self.texts[chosen])

    def distorted(self, rng: np.random.Generator, image: np.ndarray, scene: Scene) -> tuple[np.ndarray, np.ndarray]:
        """A canvas (*size, c) uint8, and where the corners of the upright frame lie on it, normalised."""
        images = self.uprights.images
        others = [images[i] for i in rng.integers(0, len(images), _CLUTTER_SOURCES)] if scene.clutter[1] else []
        drawn = draw(rng, image, others, scene, self.config.canvas, ink=self.config.foreground == "ink")
        canvas = drawn.canvas if self.config.channels == 3 else luminance(drawn.canvas)
        return canvas, _corners(drawn.truth)


class GivenSamples(Samples):
    """Examples as they are, all of them once an epoch; in training moved, turned and lit a little every time.

    Attributes:
        drawn: how many random numbers move and light a sample.
    """

    drawn = 8

    def __init__(
        self, examples: Examples, config: TrainConfig, *, seed: int, length: int | None = None, moved: bool
    ) -> None:
        super().__init__(seed=seed, length=length or len(examples))
        self.examples, self.config, self.moved = examples, config, moved
        self.texts = encoded(examples, config.alphabet)
        self.labels = torch.from_numpy(examples.labels)
        self._latest = -1, np.zeros(0, int), np.zeros((0, 0), np.float32)

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        rows, drawn = self.chosen(np.asarray(indices))
        images = [self.examples.images[row] for row in rows]
        sides = np.array([image.shape[1::-1] for image in images])
        to_canvas = self._to_canvas(sides, drawn)
        side, channels = self.config.canvas, self.config.channels
        canvas = np.empty((len(images), side, side, channels), np.uint8)
        for place, image, matrix in zip(canvas, images, _in_pixels(to_canvas, sides, side), strict=True):
            if not self.moved and image.shape == place.shape:
                place[:] = image
            else:
                _draw_on(place, image, matrix)
        if self.moved and self.config.augment.light:
            _relight(canvas, 1 + self.config.augment.light * drawn[:, 6:8])
        truth = np.full((len(images), 4, 2), np.nan)
        if self.examples.corners is not None:
            truth = self.examples.corners[rows] @ to_canvas[:, :, :2].mT + to_canvas[:, None, :, 2]
        planar = torch.from_numpy(canvas).permute(0, 3, 1, 2)
        scene = torch.zeros(len(images), dtype=torch.long)
        return Batch(planar, torch.from_numpy(truth), self.labels[rows], scene, self.texts[rows])

    def chosen(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Which example each sample shows, and its random numbers, −1…1."""
        if not self.moved:
            return indices % len(self.examples), np.zeros((len(indices), self.drawn))
        epochs, places = np.divmod(indices, len(self.examples))
        rows, drawn = np.empty(len(indices), int), np.empty((len(indices), self.drawn))
        for epoch in np.unique(epochs):
            order, numbers = self._epoch(int(epoch))
            now = epochs == epoch
            rows[now], drawn[now] = order[places[now]], numbers[places[now]]
        return rows, drawn

    def _epoch(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """The order of the examples in an epoch, and random numbers for every place in it."""
        if epoch != self._latest[0]:
            rng = np.random.default_rng((self.seed, epoch))
            order = rng.permutation(len(self.examples))
            self._latest = epoch, order, rng.uniform(-1, 1, (len(order), self.drawn)).astype(np.float32)
        return self._latest[1:]

    def _to_canvas(self, sides: np.ndarray, drawn: np.ndarray) -> np.ndarray:
        """From images of (width, height) to the canvas that they fill, and are moved on, normalised: (b, 2, 3)."""
        fitted = sides / sides.max(axis=1, keepdims=True) if self.config.fit == "letterbox" else np.ones(sides.shape)
        linear, shift = np.eye(2), np.zeros((len(sides), 2))
        if self.moved:
            linear, shift = _moves(self.config.augment, drawn)
        return np.concatenate((linear * fitted[:, None, :], shift[:, :, None]), axis=2)


def _moves(by: Augment, drawn: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Linear maps (b, 2, 2) and shifts (b, 2) of the canvas, normalised."""
    angle, shear = np.radians(by.rotation) * drawn[:, 0], by.shear * drawn[:, 1]
    sides = by.scale ** (drawn[:, 2:3] + 0.3 * drawn[:, 3:4] * np.array([1, -1]))
    cos, sin = np.cos(angle), np.sin(angle)
    sheared = np.stack((cos, shear * cos - sin, sin, shear * sin + cos), axis=1).reshape(-1, 2, 2)
    return sheared * sides[:, None, :], by.shift * drawn[:, 4:6]


def _in_pixels(to_canvas: np.ndarray, sides: np.ndarray, side: int) -> np.ndarray:
    """The maps in OpenCV's pixels, whose origin is the centre of the first."""
    linear = to_canvas[:, :, :2] * (side / sides)[:, None, :]
    middle = (sides - 1)[:, :, None] / 2
    shift = (to_canvas[:, :, 2:] + 1) * side / 2 - 0.5 - linear @ middle
    return np.concatenate((linear, shift), axis=2)


def _draw_on(canvas: np.ndarray, image: np.ndarray, matrix: np.ndarray) -> None:
    """The image on the canvas (side, side, c), its border continued."""
    if image.shape[2] != canvas.shape[2]:
        image = luminance(image) if canvas.shape[2] == 1 else np.repeat(image, 3, axis=2)
    size = canvas.shape[1::-1]
    image, matrix = _shrunk(image, matrix)
    cv2.warpAffine(image, matrix, size, canvas, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def _shrunk(image: np.ndarray, matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The image area-averaged to about the size at which it is drawn, where that is much smaller, and the map of that.

    What `rectify` shows to the nets is averaged, too.
    """
    height, width, channels = image.shape
    factor = math.sqrt(abs(np.linalg.det(matrix[:, :2])))
    if factor > _ALMOST:
        return image, matrix
    small = max(1, round(width * factor)), max(1, round(height * factor))
    shrunk = cv2.resize(image, small, interpolation=cv2.INTER_AREA).reshape(small[1], small[0], channels)
    by = np.array((width / small[0], height / small[1]))
    linear = matrix[:, :2] * by
    return shrunk, np.column_stack((linear, matrix[:, 2] + matrix[:, :2] @ (by / 2 - 0.5)))


def _relight(canvases: np.ndarray, factors: np.ndarray) -> None:
    """Contrast, then brightness, times their factors (b, 2)."""
    means = canvases.mean(axis=(1, 2, 3))
    for canvas, mean, (contrast, brightness) in zip(canvases, means.tolist(), factors.tolist(), strict=True):
        cv2.addWeighted(canvas, contrast, canvas, 0.0, mean * (brightness - contrast), canvas)


def batches(
    samples: Samples, batch_size: int, *, first: int = 0, workers: int = 1, part: tuple[int, int] = (0, 1)
) -> Iterator[Batch]:
    """Batches in order, starting with batch number `first`; drawn by worker processes if there are any.

    Of each batch the share `part` = (k, n) alone: the k-th of n parts, of equal sizes where n divides the batch.
    """
    if workers:
        cv2.setNumThreads(1)  # a worker forked from a process with OpenCV's threads would wait for them for ever
    loader = DataLoader(
        samples,
        batch_sampler=_Parts(len(samples), batch_size, first, *part),
        num_workers=workers,
        collate_fn=_arrays,
        worker_init_fn=partial(_make_way, os.getpid()),
        prefetch_factor=4 if workers else None,
    )
    for arrays in loader:
        yield Batch(*map(torch.from_numpy, arrays))


class _Parts:
    """The indices of each batch."""

    def __init__(self, length: int, batch_size: int, first: int, part: int, parts: int) -> None:
        self.starts = range(first * batch_size, length, batch_size)
        self.length, self.batch_size, self.part, self.parts = length, batch_size, part, parts

    def __len__(self) -> int:
        return len(self.starts)

    def __iter__(self) -> Iterator[list[int]]:
        for start in self.starts:
            whole = range(start, min(start + self.batch_size, self.length))
            ends = [len(whole) * number // self.parts for number in (self.part, self.part + 1)]
            yield list(whole[ends[0] : ends[1]])


def _arrays(batch: Any) -> list[np.ndarray]:
    """A batch as it goes through a pipe; tensors go as files of shared memory, slower to open than to copy."""
    return [part.numpy() for part in batch]


def _make_way(parent: int, _worker: int) -> None:
    """A worker uses one thread, and only what the network leaves: otherwise that waits for its slower half.

    Ctrl-C reaches it, too, but is not for it: the run ends when it has saved its state. So does a SIGTERM to a whole
    service or job; of one to the worker alone the second counts, with which a loader ends those that do not end.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda number, _: signal.signal(number, signal.SIG_DFL))
    if hasattr(os, "nice"):
        os.nice(10)
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: int) -> None:
    """Ends this process when its parent was killed: it would wait for ever to hand over a batch that nobody takes."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def one_sample(
    canvas: np.ndarray, truth: np.ndarray, label: int, scene: int, text: Int64[Tensor, " characters"] | None = None
) -> Batch:
    """Canvas (*size, c), truth (2n, d), label, number of the scene and text, as one row of a batch."""
    planar = np.ascontiguousarray(np.moveaxis(canvas, -1, 0))
    text = torch.zeros(0, dtype=torch.long) if text is None else text
    return Batch(torch.from_numpy(planar), torch.from_numpy(truth), torch.tensor(label), torch.tensor(scene), text)


def encoded(examples: Examples, alphabet: str) -> Int64[Tensor, "n characters"]:
    """Transcriptions as indices into the alphabet from 1 on, filled up with 0; one past the last for any other."""
    if not examples.texts or not alphabet:
        return torch.zeros((len(examples), 0), dtype=torch.long)
    index = {character: number for number, character in enumerate(alphabet, 1)}
    foreign = len(alphabet) + 1
    rows = [[index.get(character, foreign) for character in text or ""] for text in examples.texts]
    table = torch.zeros((len(rows), max(map(len, rows))), dtype=torch.long)
    for place, row in zip(table, rows, strict=True):
        place[: len(row)] = torch.tensor(row, dtype=torch.long)
    return table


def _corners(matrix: np.ndarray) -> np.ndarray:
    """Where a homography takes the corners of the frame, (4, 2)."""
    corners: np.ndarray = Projective.from_matrix(matrix)(BorderLayout(2).points)
    return corners
