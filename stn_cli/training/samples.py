"""The endless stream of training samples, each a pure function of (seed, index)."""

import os
import signal
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import cv2
import numpy as np
import torch
from jaxtyping import Float64, Int64, UInt8
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from stn_cli.geometry import BorderLayout, Projective
from stn_cli.training.config import Scene, TrainConfig
from stn_cli.training.scenes import Drawn, draw
from stn_cli.training.sources import Uprights
from stn_cli.training.text.config import TextScene

_CLUTTER_SOURCES = 8


class Batch(NamedTuple):
    """Samples.

    Attributes:
        canvas: the images that the model sees.
        truth: where the border points (`border 2xN`) of the upright frame lie on the canvas, normalised; NaN where
            that is not known. Four corners are enough where the frame is not bent.
        label: class indices, −1 where there is none.
        scene: indices into the configuration's scenes.
    """

    canvas: UInt8[Tensor, "b c side side"]
    truth: Float64[Tensor, "b 2n 2"]
    label: Int64[Tensor, " b"]
    scene: Int64[Tensor, " b"]


class Samples(Dataset[Batch], ABC):
    """Sample i draws a scene, and what is in it, by a generator seeded with (seed, i)."""

    def __init__(self, scenes: Sequence[Scene | TextScene], *, seed: int, length: int) -> None:
        self.scenes, self.seed, self.length = tuple(scenes), seed, length
        weights = np.array([scene.weight for scene in scenes], dtype=float)
        self.scene_ends = np.cumsum(weights / weights.sum()) if len(weights) else weights

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Batch:
        return self.draw(np.random.default_rng((self.seed, index)))

    @abstractmethod
    def draw(self, rng: np.random.Generator) -> Batch:
        """One sample, without the dimension of the batch."""

    def random_scene(self, rng: np.random.Generator) -> int:
        """The number of a scene, drawn by weight."""
        number = int(np.searchsorted(self.scene_ends, rng.random(), side="right"))
        return min(number, len(self.scene_ends) - 1)


class UprightSamples(Samples):
    """Upright images, distorted."""

    def __init__(self, uprights: Uprights, config: TrainConfig, *, seed: int, length: int) -> None:
        super().__init__(config.scenes, seed=seed, length=length)
        self.uprights, self.config = uprights, config

    def draw(self, rng: np.random.Generator) -> Batch:
        chosen = int(rng.integers(len(self.uprights.images)))
        image, label = self.uprights.images[chosen], int(self.uprights.labels[chosen])
        if not self.scenes:
            return one_sample(_fitted(image, self.config.canvas), np.full((4, 2), np.nan), label, 0)
        number = self.random_scene(rng)
        drawn = self._draw(rng, image, self.config.scenes[number])
        return one_sample(drawn.canvas, _corners(drawn.truth), label, number)

    def _draw(self, rng: np.random.Generator, image: np.ndarray, scene: Scene) -> Drawn:
        images = self.uprights.images
        others = [images[i] for i in rng.integers(0, len(images), _CLUTTER_SOURCES)] if scene.clutter[1] else []
        return draw(rng, image, others, scene, self.config.canvas, ink=self.config.foreground == "ink")


def batches(samples: Samples, batch_size: int, *, first: int = 0, workers: int = 1) -> Iterator[Batch]:
    """Batches in order, starting with batch number `first`; drawn by worker processes if there are any."""
    if workers:
        cv2.setNumThreads(1)  # a worker forked from a process with OpenCV's threads would wait for them for ever
    indices = range(first * batch_size, len(samples))
    loader = DataLoader(
        samples,
        batch_size=batch_size,
        sampler=indices,
        num_workers=workers,
        collate_fn=_collate,
        worker_init_fn=_make_way,
        prefetch_factor=4 if workers else None,
    )
    yield from loader


def _make_way(_worker: int) -> None:
    """A worker uses one thread, and only what the network leaves: otherwise that waits for its slower half.

    Ctrl-C reaches it, too, but is not for it: the run ends when it has saved its state.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if hasattr(os, "nice"):
        os.nice(10)
    cv2.setNumThreads(1)
    torch.set_num_threads(1)


def one_sample(canvas: np.ndarray, truth: np.ndarray, label: int, scene: int) -> Batch:
    """Canvas (side, side, c), truth (2n, 2), label and number of the scene, as one row of a batch."""
    planar = np.ascontiguousarray(canvas.transpose(2, 0, 1))
    return Batch(torch.from_numpy(planar), torch.from_numpy(truth), torch.tensor(label), torch.tensor(scene))


def _corners(matrix: np.ndarray) -> np.ndarray:
    """Where a homography takes the corners of the frame, (4, 2)."""
    corners: np.ndarray = Projective.from_matrix(matrix)(BorderLayout(2).points)
    return corners


def _collate(samples: list[Batch]) -> Batch:
    return Batch(*(torch.stack(column) for column in zip(*samples, strict=True)))


def _fitted(image: np.ndarray, side: int) -> np.ndarray:
    """The whole image on the square canvas, aspect kept, its border continued."""
    height, width = image.shape[:2]
    scale = side / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    small = small.reshape(size[1], size[0], -1)
    top, left = (side - size[1]) // 2, (side - size[0]) // 2
    bottom, right = side - size[1] - top, side - size[0] - left
    whole = cv2.copyMakeBorder(small, top, bottom, left, right, cv2.BORDER_REPLICATE).reshape(side, side, -1)
    return np.repeat(whole, 3, axis=2) if whole.shape[2] == 1 else whole
