"""Samples of volumes: examples as they are, moved a little, or upright ones whose distortion is known."""

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from stn_cli.annotations import Float64
from stn_cli.geometry import Affine3d, Transform, corners, grid, letterbox, volume_size
from stn_cli.geometry.arrays import like
from stn_cli.networks.limited import affine3d
from stn_cli.sampling.differentiable import sample
from stn_cli.sampling.kinds import Resample
from stn_cli.training.config import Augment, Scene
from stn_cli.training.samples import Batch, DistortedSamples, GivenSamples
from stn_cli.training.seams import is_seamless

_Around = Literal["the same", "box", "ball", "nothing"]
_NOISE = 12.0
"""Grey levels, at most."""
_LONGEST_STEP = 2.0
"""Voxels from one reading to the next: trilinear reading skips none up to here, and is eight times as fast."""
_MOST_ENLARGED, _LEAST_BALL = 3.0, 0.5
"""A flat volume would have to grow beyond recognition to hide its edges, and the largest ball in it shows nothing."""


class GivenVolumes(GivenSamples):
    """Volumes as they are, on a cubic canvas; in training moved, turned and lit a little every time."""

    drawn = 15

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        rows, drawn = self.chosen(np.asarray(indices))
        moves = _moves(self.config.augment, drawn) if self.moved else affine3d(torch.zeros(len(rows), 12))
        side = self.config.canvas
        canvas = np.empty((len(rows), 1, side, side, side), np.uint8)
        for place, row, theta, light in zip(canvas, rows, moves, drawn[:, 13:], strict=True):
            volume = self.examples.images[row]
            values = _read(volume, _frame(volume) @ Affine3d(theta.double()), side)
            if self.moved:
                contrast, brightness = 1 + self.config.augment.light * light
                values = contrast * (values - values.mean()) + brightness * values.mean()
            place[0] = _grey(values)
        unknown = torch.full((len(rows), 8, 3), math.nan, dtype=torch.float64)
        scene = torch.zeros(len(rows), dtype=torch.long)
        return Batch(torch.from_numpy(canvas), unknown, self.labels[rows], scene, self.texts[rows])


class DistortedVolumes(DistortedSamples):
    """Upright volumes turned about all axes, scaled and moved; their frame is a cube."""

    def distorted(self, rng: np.random.Generator, image: np.ndarray, scene: Scene) -> tuple[np.ndarray, np.ndarray]:
        canvas, truth = _drawn(rng, image, scene, self.config.canvas)
        return canvas, truth(like(corners(3), truth.theta)).numpy()


def _drawn(rng: np.random.Generator, volume: np.ndarray, scene: Scene, side: int) -> tuple[np.ndarray, Affine3d]:
    """A canvas (side, side, side, 1) uint8, and where the upright frame lies on it."""
    extent = math.exp(rng.uniform(*np.log(scene.extent)))
    angles, shears = np.radians(scene.rotation) * rng.uniform(-1, 1, 3), scene.shear * rng.uniform(-1, 1, 3)
    shift = max(0.0, 1 - extent) * scene.reach * rng.uniform(-1, 1, 3)
    around, covering = _around(rng, volume, scene, _pose(1.0, angles, shears, np.zeros(3)))
    if around == "nothing":
        extent, shift = covering, np.zeros(3)
    truth = _pose(extent, angles, shears, shift)
    seen = _frame(volume) @ truth.inverse()
    values = _read(volume, seen, side)
    if around in ("box", "ball"):
        cover = _cover(seen(like(grid((side,) * 3), truth.theta)), is_round=around == "ball", volume=volume)
        ground = rng.uniform(values.min(), values.max() + 1)
        values = ground + cover.numpy().reshape(values.shape) * (values - ground)
    values = values + rng.standard_normal(values.shape, dtype=np.float32) * rng.uniform(0, _NOISE)
    return _grey(values)[..., None], truth


def _around(rng: np.random.Generator, volume: np.ndarray, scene: Scene, turned: Affine3d) -> tuple[_Around, float]:
    """What lies about a volume on its canvas, and how many times larger it is if that is `nothing`.

    A volume whose border has one value goes on as it ends. Of others, `scene.edges` show the faces of their box; the
    rest is cut to a ball, or covers the canvas, so that no face tells how the volume is turned.
    """
    if is_seamless(volume):
        return "the same", 1.0
    if rng.random() < scene.edges:
        return "box", 1.0
    covering = rng.uniform(1.0, 1.25) * _covering(volume, turned)
    if rng.random() < 0.5 and covering <= _MOST_ENLARGED:
        return "nothing", covering
    return "box" if min(volume.shape[:3]) < _LEAST_BALL * max(volume.shape[:3]) else "ball", 1.0


def _covering(volume: np.ndarray, pose: Transform) -> float:
    """How many times larger the volume has to be, in a pose about the middle, to cover the whole canvas."""
    within = _frame(volume)(pose.inverse()(like(corners(3), pose.theta)))
    return float(within.abs().max())


def _pose(extent: float, angles: np.ndarray, shears: np.ndarray, shift: np.ndarray) -> Affine3d:
    """From the upright frame to the canvas."""
    step = np.concatenate((np.full(3, math.log(extent)), angles, shears, shift))
    return Affine3d(affine3d(torch.from_numpy(step)[None])[0])


def _moves(by: Augment, drawn: np.ndarray) -> Float64[Tensor, "b 12"]:
    """θ of as many small moves of a canvas."""
    scale = math.log(by.scale) * (drawn[:, :1] + 0.3 * drawn[:, 1:4])
    turned = math.radians(by.rotation) * drawn[:, 4:7]
    return affine3d(torch.from_numpy(np.hstack((scale, turned, by.shear * drawn[:, 7:10], by.shift * drawn[:, 10:13]))))


def _frame(volume: np.ndarray) -> Affine3d:
    """From a cube to the volume (d, h, w, 1) that lies in its middle, aspect kept."""
    return Affine3d(torch.from_numpy(letterbox(volume.shape[:3], (1, 1, 1)).theta))


def _read(volume: np.ndarray, seen: Transform, side: int) -> np.ndarray:
    """What a canvas shows, (side, side, side) float32, the volume's border continued."""
    values = torch.from_numpy(volume[..., 0].astype(np.float32))[None, None]
    step = max(volume_size(Affine3d(seen.theta), volume.shape[:3])) / side
    resample: Resample = "auto" if step > _LONGEST_STEP else "bilinear"
    read: np.ndarray = sample(values, Affine3d(seen.theta.float()), (side,) * 3, resample=resample)[0, 0].numpy()
    return read


def _cover(points: Tensor, *, is_round: bool, volume: np.ndarray) -> Tensor:
    """1 inside the volume, or inside the largest ball in it, at points that are stated against it; else 0."""
    sides = torch.tensor(volume.shape[2::-1])
    round_ = torch.linalg.vector_norm(points * sides / sides.min(), dim=1) <= 1
    inside = round_ if is_round else (points.abs() <= 1).all(dim=1)
    return inside.float()


def _grey(values: np.ndarray) -> np.ndarray:
    grey: np.ndarray = np.clip(np.rint(values), 0, 255).astype(np.uint8)
    return grey
