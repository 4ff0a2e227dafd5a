"""The test sets of the digit benchmark: every MNIST test digit, distorted once, with its true transform.

Convention: a truth matrix maps points (x, y) of the canonical 28×28 digit frame to points of the image, in
corner-based pixels (the first pixel's centre is at 0.5, 0.5); that is the records' `pixel_matrix` for a crop of
28×28. An image is a pure function of (seed, set, index), whatever the number of digits asked for. Pillow draws it, in
floating-point coordinates, so that the images do not depend on the library that `stn` itself samples with.
"""

from __future__ import annotations

import gzip
import sys
from dataclasses import dataclass
from math import ceil, cos, sin
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SIDE = 28  # of the MNIST frame
RTS_CANVAS = 42
CLUTTER_CANVAS = 60
CLUTTER_PATCHES, PATCH = 6, 6
PHOTO_CANVAS = (200, 800)
LUMINANCE = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601
SMALLEST_CONTRAST = 60  # of 255, in luminance, between the digit and every point of its background
RECIPE = 1  # raise it when the images change, so that stored sets are written anew

Rendered: TypeAlias = tuple[np.ndarray, np.ndarray]  # image (h, w[, 3]) uint8 and truth matrix (3, 3)


@dataclass(frozen=True)
class DigitSet:
    """A rendered set: the folder of its images and, per digit, the truth and two small crops.

    `matrices` is (n, 3, 3); `unrectified` (the whole image) and `true_pose` are (n, 28, 28[, 3]) uint8.
    """

    folder: Path
    labels: np.ndarray
    matrices: np.ndarray
    unrectified: np.ndarray
    true_pose: np.ndarray

    def image_path(self, index: int) -> Path:
        return self.folder / f"{index:05d}.png"


def read_idx(path: Path) -> np.ndarray:
    """Read one gzipped idx file of bytes: a magic number whose last byte is the rank, the sizes, the data."""
    with gzip.open(path) as file:
        content = file.read()
    shape = np.frombuffer(content, ">i4", count=content[3], offset=4)
    return np.frombuffer(bytearray(content), np.uint8, offset=4 + 4 * content[3]).reshape(shape)


def read_mnist(folder: Path, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Return images (n, 28, 28) uint8 and labels (n,) of the split `train` or `t10k`."""
    images, labels = (read_idx(folder / f"{split}-{kind}-ubyte.gz") for kind in ("images-idx3", "labels-idx1"))
    return images, labels


def placement(angle: float, scale: float, centre: tuple[float, float]) -> np.ndarray:
    """Return the matrix that puts the digit frame at `centre`, scaled and turned by `angle` radians (x to y)."""
    linear = scale * np.array([[cos(angle), -sin(angle)], [sin(angle), cos(angle)]])
    matrix = np.eye(3)
    matrix[:2, :2] = linear
    matrix[:2, 2] = centre - linear @ (SIDE / 2, SIDE / 2)
    return matrix


def warp(image: np.ndarray, matrix: np.ndarray, side: int) -> np.ndarray:
    """Read a crop of side×side through an output-to-source matrix; bicubic, area-averaged where it shrinks.

    Beyond the image a grey one is black, a colour one goes on as at its edge.
    """
    pad = max(image.shape) // 2 if image.ndim == 3 else 0
    source = Image.fromarray(np.pad(image, ((pad, pad), (pad, pad), (0, 0)), mode="edge") if pad else image)
    factor = max(1, ceil(np.sqrt(abs(np.linalg.det(matrix[:2, :2]))) - 1e-6))
    fine = matrix @ np.diag([1 / factor, 1 / factor, 1.0])
    fine[:2, 2] += pad
    size = (side * factor, side * factor)
    crop = source.transform(size, Image.Transform.AFFINE, tuple(fine[:2].ravel()), Image.Resampling.BICUBIC)
    return np.asarray(crop.reduce(factor))


def shrink(image: Image.Image) -> np.ndarray:
    """Resize to 28×28 as the reader wants it: area-averaged when it shrinks, bicubic when it grows."""
    method = Image.Resampling.BOX if min(image.size) >= SIDE else Image.Resampling.BICUBIC
    return np.asarray(image.resize((SIDE, SIDE), method))


def _upright(digits: np.ndarray, index: int, rng: np.random.Generator) -> Rendered:  # noqa: ARG001
    return digits[index], np.eye(3)


def _rotated(digits: np.ndarray, index: int, rng: np.random.Generator) -> Rendered:
    matrix = placement(np.radians(rng.uniform(-90, 90)), 1, (SIDE / 2, SIDE / 2))
    return warp(digits[index], np.linalg.inv(matrix), SIDE), matrix


def _rts_matrix(digit: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draw angle, scale and a centre that keeps the box of the digit's ink inside the 42×42 canvas."""
    angle, scale = np.radians(rng.uniform(-45, 45)), rng.uniform(0.7, 1.2)
    rows, columns = np.nonzero(digit)
    box = [(x, y, 1) for x in (columns.min(), columns.max() + 1) for y in (rows.min(), rows.max() + 1)]
    corners = (placement(angle, scale, (0, 0)) @ np.transpose(box))[:2]
    return placement(angle, scale, tuple(rng.uniform(-corners.min(axis=1), RTS_CANVAS - corners.max(axis=1))))


def _rts(digits: np.ndarray, index: int, rng: np.random.Generator) -> Rendered:
    matrix = _rts_matrix(digits[index], rng)
    return warp(digits[index], np.linalg.inv(matrix), RTS_CANVAS), matrix


def _cluttered(digits: np.ndarray, index: int, rng: np.random.Generator) -> Rendered:
    canvas = np.zeros((CLUTTER_CANVAS, CLUTTER_CANVAS), np.uint8)
    x, y = rng.integers(0, CLUTTER_CANVAS - SIDE, 2, endpoint=True)
    canvas[y : y + SIDE, x : x + SIDE] = digits[index]
    patches = 0
    while patches < CLUTTER_PATCHES:
        other = rng.integers(len(digits))
        left, top = rng.integers(0, SIDE - PATCH, 2, endpoint=True)
        patch = digits[other, top : top + PATCH, left : left + PATCH]
        if other == index or patch.max() < 128:
            continue
        left, top = rng.integers(0, CLUTTER_CANVAS - PATCH, 2, endpoint=True)
        target = canvas[top : top + PATCH, left : left + PATCH]
        np.maximum(target, patch, out=target)
        patches += 1
    return canvas, placement(0, 1, (x + SIDE / 2, y + SIDE / 2))


def _value_noise(side: int, rng: np.random.Generator) -> np.ndarray:
    total = np.zeros((side, side), np.float32)
    cells = rng.integers(2, 6)
    for octave in range(5):
        lattice = Image.fromarray(rng.uniform(-1, 1, (cells << octave, cells << octave)).astype(np.float32))
        total += np.asarray(lattice.resize((side, side), Image.Resampling.BICUBIC)) / 2**octave
    return total


def _texture(side: int, rng: np.random.Generator) -> np.ndarray:
    """Mix gradient, value noise, stripes and checks, mostly of one or two kinds, into -1..1."""
    angle = rng.uniform(0, 2 * np.pi)
    x = np.linspace(-0.5, 0.5, side, dtype=np.float32)
    u = np.cos(angle) * x[None] + np.sin(angle) * x[:, None]
    v = np.cos(angle) * x[:, None] - np.sin(angle) * x[None]
    cycles = 2 * np.pi * rng.uniform(3, 15)
    checks = np.sign(np.sin(cycles * u)) * np.sign(np.sin(cycles * v))
    kinds = [2 * u, _value_noise(side, rng), np.sin(cycles * u), checks]
    weights = rng.dirichlet([0.5] * len(kinds)).astype(np.float32)
    return np.clip(sum(weight * kind for weight, kind in zip(weights, kinds, strict=True)), -1, 1)


def _colours(rng: np.random.Generator, depth: float) -> tuple[np.ndarray, np.ndarray]:
    """Draw ink and background that stay the contrast apart when the background varies by ±depth."""
    while True:
        ink, background = rng.uniform(0, 255, (2, 3)).astype(np.float32)
        if abs((ink - background) @ LUMINANCE) >= SMALLEST_CONTRAST + depth:
            return ink, background


def _photo(digits: np.ndarray, index: int, rng: np.random.Generator) -> Rendered:
    side = int(rng.integers(*PHOTO_CANVAS, endpoint=True))
    matrix = np.diag([side / RTS_CANVAS, side / RTS_CANVAS, 1.0]) @ _rts_matrix(digits[index], rng)
    depth = rng.uniform(5, 40)
    ink, background = _colours(rng, depth)
    tint = rng.uniform(0.5, 1.5, 3).astype(np.float32)
    tint *= depth / (tint @ LUMINANCE)
    image = background + tint * _texture(side, rng)[..., None]
    alpha = warp(digits[index], np.linalg.inv(matrix), side)[..., None] / np.float32(255)
    image = np.clip(image, 0, 255) * (1 - alpha) + ink * alpha
    image += np.float32(rng.uniform(0, 6)) * rng.standard_normal(image.shape, np.float32)
    return np.clip(np.rint(image), 0, 255).astype(np.uint8), matrix


_RENDERERS: dict[str, Callable[[np.ndarray, int, np.random.Generator], Rendered]] = {
    "upright": _upright,
    "R": _rotated,
    "RTS": _rts,
    "TC": _cluttered,
    "RTS-photo": _photo,
}
SETS = tuple(_RENDERERS)


def render(name: str, digits: np.ndarray, index: int, seed: int) -> Rendered:
    """Return one image of a set and its truth matrix."""
    return _RENDERERS[name](digits, index, np.random.default_rng([seed, index, *name.encode()]))


def load_or_render(name: str, folder: Path, mnist: tuple[np.ndarray, np.ndarray], count: int, seed: int) -> DigitSet:
    """Return the first `count` digits of a set, written to `folder` unless they are there already."""
    digits, labels = mnist
    truth_path = folder / "truth.npz"
    made_with = np.array([RECIPE, count, seed])
    if truth_path.exists():
        with np.load(truth_path) as stored:
            truth = dict(stored)
        if np.array_equal(truth["made_with"], made_with):
            fields = (truth[key] for key in ("label", "matrix", "unrectified", "true_pose"))
            return DigitSet(folder, *fields)
        truth_path.unlink()
        for stale in folder.glob("[0-9]*.png"):
            stale.unlink()
    folder.mkdir(parents=True, exist_ok=True)
    print(f"{name}: writing {count} images", file=sys.stderr)
    matrices, unrectified, true_pose = [], [], []
    for index in range(count):
        pixels, matrix = render(name, digits, index, seed)
        image = Image.fromarray(pixels)
        image.save(folder / f"{index:05d}.png", compress_level=1)
        matrices.append(matrix)
        unrectified.append(shrink(image))
        true_pose.append(warp(pixels, matrix, SIDE))
    result = DigitSet(folder, labels[:count], np.array(matrices), np.array(unrectified), np.array(true_pose))
    np.savez_compressed(  # last: it marks the set as complete
        truth_path,
        made_with=made_with,
        label=result.labels,
        matrix=result.matrices,
        unrectified=result.unrectified,
        true_pose=result.true_pose,
    )
    return result
