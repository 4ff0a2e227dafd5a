"""MNIST addition (Jaderberg et al. 2015, section 4.3 and table 4): two transformers side by side against one.

    python -m benchmarks.addition MNIST --work DIR [--heads 1 2] [--transform KIND]

Two digits, each turned, scaled and moved at random, lie in the red and the green channel of a 42×42 image; the class is
their sum. Images are drawn from MNIST's training digits and, for the test part, from its test digits.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
import tarfile
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from benchmarks.commands import seconds_of_training, stn_train
from benchmarks.provenance import RESULTS, provenance, write_report
from stn_cli.training.examples.files import open_files
from stn_cli.training.examples.idx import read_idx

SIDE, SEED, BATCH = 42, 23, 512
COUNTS = {"train": 200_000, "test": 10_000}
ROTATION, SCALES = 45.0, (0.7, 1.2)


def placed(rng: np.random.Generator, digit: np.ndarray) -> np.ndarray:
    """The digit turned by up to ±45°, scaled and moved, where it still lies on the square."""
    scale = rng.uniform(*SCALES)
    matrix = np.asarray(cv2.getRotationMatrix2D((13.5, 13.5), rng.uniform(-ROTATION, ROTATION), scale), np.float64)
    reach = (SIDE - 20 * scale) / 2
    matrix[:, 2] += (SIDE - 1) / 2 - 13.5 + rng.uniform(-1, 1, 2) * max(0.0, reach * 0.8)
    drawn: np.ndarray = cv2.warpAffine(digit, matrix, (SIDE, SIDE), flags=cv2.INTER_LINEAR)
    return drawn


def written(images: np.ndarray, labels: np.ndarray, part: str, number: int) -> tuple[int, bytes]:
    """The sum of two digits, and their image as PNG."""
    rng = np.random.default_rng((SEED, len(part), number))
    first, second = rng.integers(len(images), size=2)
    pixels = np.zeros((SIDE, SIDE, 3), np.uint8)
    pixels[..., 0], pixels[..., 1] = placed(rng, images[first]), placed(rng, images[second])
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", compress_level=1)
    return int(labels[first]) + int(labels[second]), buffer.getvalue()


def write_sums(mnist: Path, target: Path) -> None:
    """Writes the images into an archive of class folders, unless it is there."""
    if target.exists():
        return
    files = open_files(mnist)
    draft = target.with_suffix(".draft")
    with tarfile.open(draft, "w") as archive, ProcessPoolExecutor() as pool:
        for part, prefix in (("train", "train"), ("test", "t10k")):
            images = read_idx(files, f"{prefix}-images-idx3-ubyte.gz")
            labels = read_idx(files, f"{prefix}-labels-idx1-ubyte.gz")
            make = partial(written, images, labels, part)
            for number, (total, png) in enumerate(pool.map(make, range(COUNTS[part]), chunksize=1000)):
                entry = tarfile.TarInfo(f"{part}/{total}/{number:06d}.png")
                entry.size = len(png)
                archive.addfile(entry, io.BytesIO(png))
    draft.replace(target)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("mnist", type=Path)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--heads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--transform", default="affine")
    parser.add_argument("--steps", type=int, default=6000)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--precision", default="float32")
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    archive = arguments.work / "addition.tar"
    write_sums(arguments.mnist, archive)
    found = {}
    for heads in arguments.heads:
        run = arguments.work / f"addition-{arguments.transform}-{heads}"
        options = ["--transform", arguments.transform, "--heads", str(heads), "--output", "28x28"]
        options += ["--steps", str(arguments.steps), "--batch-size", str(BATCH)]
        options += ["--device", arguments.device, "--workers", str(arguments.workers)]
        options += ["--precision", arguments.precision]
        stn_train([archive], run, options)
        test = json.loads((run / "report.json").read_text(encoding="utf-8"))["test"]
        found[str(heads)] = {
            "error_percent": 100 * (1 - test["accuracy"]),
            "error_percent_bypassed": 100 * (1 - test["accuracy_unrectified"]),
            "seconds_of_training": seconds_of_training(run),
        }
    report = {**provenance("addition", sys.argv[1:]), "steps": arguments.steps, "heads": found}
    write_report(RESULTS / f"addition-{arguments.transform}.json", report)


if __name__ == "__main__":
    main()
