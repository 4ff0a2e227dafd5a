"""MNIST on larger canvases, turned and scaled, among patches of other digits: images on which transformers collapse.

Training and test digits of 28×28 lie on 64×64, turned by up to ±60°, scaled by 0.6 to 1.2, anywhere, with eight patches
of 6×6 about them (after the cluttered sets of Jaderberg et al. 2015, appendix A.2).
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from benchmarks.digit_sets import placement, read_mnist, warp

if TYPE_CHECKING:
    from pathlib import Path

CANVAS, FRAME = 64, 28
COUNTS = {"train": 20_000, "t10k": 4000}
ROTATION, SCALES, PATCHES, PATCH = 60.0, (0.6, 1.2), 8, 6
_SEED = 31


def cluttered(digits: np.ndarray, index: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """An image (64, 64) uint8 and the corners (4, 2) of the digit's frame on it, clockwise, in pixels."""
    scale, angle = rng.uniform(*SCALES), np.radians(rng.uniform(-ROTATION, ROTATION))
    reach = (CANVAS - 20 * scale) / 2 * 0.8
    matrix = placement(angle, scale, tuple(CANVAS / 2 + rng.uniform(-reach, reach, 2)))
    image = np.array(warp(digits[index], np.linalg.inv(matrix), CANVAS))
    for _ in range(PATCHES):
        row, column = rng.integers(4, FRAME - 4 - PATCH, 2)
        patch = digits[rng.integers(len(digits)), row : row + PATCH, column : column + PATCH]
        row, column = rng.integers(0, CANVAS - PATCH, 2)
        target = image[row : row + PATCH, column : column + PATCH]
        np.maximum(target, patch, out=target)
    corners = np.array([(0, 0, 1), (FRAME, 0, 1), (FRAME, FRAME, 1), (0, FRAME, 1)])
    return image, (corners @ matrix.T)[:, :2]


def write_cluttered(mnist: Path, target: Path) -> None:
    """The images with their table of labels, unless they are there."""
    table = target / "labels.jsonl"
    if table.exists():
        return
    target.mkdir(parents=True, exist_ok=True)
    rows = []
    for part, count in COUNTS.items():
        digits, labels = read_mnist(mnist, part)
        for index in range(count):
            rng = np.random.default_rng((_SEED, len(part), index))
            image, corners = cluttered(digits, index, rng)
            name = f"{part}-{index:05d}.png"
            Image.fromarray(image).save(target / name, compress_level=1)
            split = "train" if part == "train" else "validation"
            row = {"file": name, "class": str(labels[index]), "split": split, "corners": corners.round(3).tolist()}
            rows.append(json.dumps(row) + "\n")
    table.write_text("".join(rows), encoding="utf-8")  # last: it marks the set as complete
