"""Volumes: digits extruded from MNIST, upright, are all that there is to learn from: how straight do others come out?

    python -m benchmarks.volumes MNIST --work DIR [--steps 1000]

3,000 training digits, each six to twelve slices thick, as `.npy` of 28×28×28. Then 300 test digits, turned by SciPy by
up to ±45° about an axis of any direction, scaled by 0.7 to 1 and moved in cubes of 40 voxels, through `stn rectify`.
What is left is measured between the rotations of the records and the true ones; digits slant by themselves, so that the
turn in their own plane is told apart from the tilt of that plane.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np
from scipy import ndimage
from scipy.spatial.transform import Rotation

from benchmarks.commands import records_of, seconds_of_training, stn_rectify, stn_train
from benchmarks.digit_sets import read_mnist
from benchmarks.measures import spread
from benchmarks.provenance import RESULTS, provenance, write_report

COUNT, OTHERS, SIDE, MOST_TURN, SCALES, SEED = 3000, 300, 40, 45.0, (0.7, 1.0), 7


def extruded(digit: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(28, 28, 28) uint8: a plate in the shape of a digit, in the middle."""
    volume, thickness = np.zeros((28, 28, 28), np.uint8), int(rng.integers(3, 7))
    volume[14 - thickness : 14 + thickness] = digit
    return volume


def turned(volume: np.ndarray, rotation: Rotation, scale: float, shift: np.ndarray) -> np.ndarray:
    """In a cube of `SIDE` voxels; `rotation` and `shift` (voxels) are of points (x, y, z), arrays lie z, y, x."""
    to_upright = np.flip(rotation.inv().as_matrix()) / scale
    middle = np.full(3, (SIDE - 1) / 2) + shift[::-1]
    offset = np.full(3, (len(volume) - 1) / 2) - to_upright @ middle
    made: np.ndarray = ndimage.affine_transform(volume.astype(np.float32), to_upright, offset, (SIDE,) * 3, order=1)
    return made.round().astype(np.uint8)


def drawn(rng: np.random.Generator) -> tuple[Rotation, float, np.ndarray]:
    axis = rng.standard_normal(3)
    rotation = Rotation.from_rotvec(np.radians(rng.uniform(-MOST_TURN, MOST_TURN)) * axis / np.linalg.norm(axis))
    scale = float(np.exp(rng.uniform(*np.log(SCALES))))
    return rotation, scale, rng.uniform(-1, 1, 3) * (SIDE - 28 * scale) / 4


def found_rotation(theta: list[float]) -> Rotation:
    """The rotation nearest to the linear part of θ, crop → cube."""
    left, _, right = np.linalg.svd(np.array(theta).reshape(3, 4)[:, :3])
    return Rotation.from_matrix(left @ np.diag([1, 1, np.linalg.det(left @ right)]) @ right)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("mnist", type=Path)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--steps", type=int)
    arguments = parser.parse_args()
    rng = np.random.default_rng(SEED)
    upright, others, run = (arguments.work / name for name in ("upright", "turned", "run"))
    upright.mkdir(parents=True, exist_ok=True)
    others.mkdir(exist_ok=True)
    images, _ = read_mnist(arguments.mnist, "train")
    for number, digit in enumerate(images[:COUNT]):
        np.save(upright / f"{number:05d}.npy", extruded(digit, rng))
    tests, _ = read_mnist(arguments.mnist, "t10k")
    truths = []
    for number, digit in enumerate(tests[:OTHERS]):
        rotation, scale, shift = drawn(rng)
        np.save(others / f"{number:05d}.npy", turned(extruded(digit, rng), rotation, scale, shift))
        truths.append(rotation)
    stn_train([upright], run, [] if arguments.steps is None else ["--steps", str(arguments.steps)])
    stn_rectify(others, arguments.work / "crops", str(run), ["--always"])
    records = records_of(arguments.work / "crops", [f"{number:05d}.npy" for number in range(OTHERS)])
    left = [
        found_rotation(record["transform"]["theta"]) * truth.inv()
        for record, truth in zip(records, truths, strict=True)
    ]
    tilt = [
        np.arccos(np.clip((truth.inv() * rest * truth).as_matrix()[2, 2], -1, 1))
        for rest, truth in zip(left, truths, strict=True)
    ]
    columns = json.loads((run / "report.json").read_text(encoding="utf-8"))
    report = {
        **provenance("volumes", sys.argv[1:]),
        "seconds_of_training": seconds_of_training(run),
        "held_out": columns["held out"],
        "others": {
            "before": spread(np.degrees([truth.magnitude() for truth in truths])),
            "rotation_left": spread(np.degrees([rest.magnitude() for rest in left])),
            "tilt_left": spread(np.degrees(tilt)),
        },
    }
    write_report(RESULTS / "volumes.json", report)


if __name__ == "__main__":
    main()
