"""The endless stream of training samples, each a pure function of (seed, index)."""

import os
from collections.abc import Iterator
from typing import NamedTuple

import cv2
import numpy as np
import torch
from jaxtyping import Float64, Int64, UInt8
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from stn_cli.training.config import Scene, TrainConfig
from stn_cli.training.scenes import Drawn, draw
from stn_cli.training.sources import Uprights

_CLUTTER_SOURCES = 8


class Batch(NamedTuple):
    """Samples.

    Attributes:
        canvas: the images that the model sees.
        truth: homogeneous matrices, upright frame → canvas; NaN where no truth is known.
        label: class indices, −1 where there is none.
        scene: indices into the configuration's scenes.
    """

    canvas: UInt8[Tensor, "b 3 side side"]
    truth: Float64[Tensor, "b 3 3"]
    label: Int64[Tensor, " b"]
    scene: Int64[Tensor, " b"]


class Samples(Dataset[Batch]):
    """Sample i draws an image and a scene by a generator seeded with (seed, i)."""

    def __init__(self, uprights: Uprights, config: TrainConfig, *, seed: int, length: int) -> None:
        self.uprights, self.config, self.seed, self.length = uprights, config, seed, length
        weights = np.array([scene.weight for scene in config.scenes], dtype=float)
        self.scene_ends = np.cumsum(weights / weights.sum()) if len(weights) else weights

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Batch:
        rng = np.random.default_rng((self.seed, index))
        chosen = int(rng.integers(len(self.uprights.images)))
        image, label = self.uprights.images[chosen], int(self.uprights.labels[chosen])
        if not len(self.scene_ends):
            return _batch(_fitted(image, self.config.canvas), np.full((3, 3), np.nan), label, 0)
        number = int(np.searchsorted(self.scene_ends, rng.random(), side="right"))
        scene = self.config.scenes[min(number, len(self.scene_ends) - 1)]
        drawn = self._draw(rng, image, scene)
        return _batch(drawn.canvas, drawn.truth, label, number)

    def _draw(self, rng: np.random.Generator, image: np.ndarray, scene: Scene) -> Drawn:
        images = self.uprights.images
        others = [images[i] for i in rng.integers(0, len(images), _CLUTTER_SOURCES)] if scene.clutter[1] else []
        return draw(rng, image, others, scene, self.config.canvas, ink=self.config.foreground == "ink")


def batches(samples: Samples, *, first: int = 0, workers: int = 1) -> Iterator[Batch]:
    """Batches in order, starting with batch number `first`; drawn by worker processes if there are any."""
    config = samples.config
    indices = range(first * config.batch_size, len(samples))
    loader = DataLoader(
        samples,
        batch_size=config.batch_size,
        sampler=indices,
        num_workers=workers,
        collate_fn=_collate,
        worker_init_fn=_make_way,
        prefetch_factor=4 if workers else None,
    )
    yield from loader


def _make_way(_worker: int) -> None:
    """A worker uses one thread, and only what the network leaves: otherwise that waits for its slower half."""
    if hasattr(os, "nice"):
        os.nice(10)
    cv2.setNumThreads(1)
    torch.set_num_threads(1)


def _batch(canvas: np.ndarray, truth: np.ndarray, label: int, scene: int) -> Batch:
    planar = np.ascontiguousarray(canvas.transpose(2, 0, 1))
    return Batch(torch.from_numpy(planar), torch.from_numpy(truth), torch.tensor(label), torch.tensor(scene))


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
