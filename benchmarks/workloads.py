"""Files to be timed on, and how: contestants take turns."""

from __future__ import annotations

import os
import statistics
import time
from typing import TYPE_CHECKING

import cv2
import numpy as np

from benchmarks.digit_sets import read_mnist

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

_WORD_HEIGHT = 64
PHOTO = (3024, 4032)
QUALITY = 92
"""Of the JPEG files."""


def pixels_of(file: Path) -> np.ndarray:
    """Colours of an image, (h, w, 3) uint8 in OpenCV's order."""
    pixels = cv2.imread(str(file))
    if pixels is None:
        raise ValueError(f"{file} cannot be read as an image.")
    return pixels


def word_files(data: Path, folder: Path, count: int) -> list[Path]:
    """Write JPEG crops of 64 px height of all development sets, turned by a few degrees where they come again."""
    sources = sorted(path for path in (data / "text").rglob("images/*") if path.is_file())
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / f"{number:05d}.jpg" for number in range(count)]
    for number, file in enumerate(files):
        if not file.exists():
            pixels = pixels_of(sources[number % len(sources)])
            height, width = pixels.shape[:2]
            scale = _WORD_HEIGHT / height
            matrix = cv2.getRotationMatrix2D((width / 2, height / 2), 7.0 * (number // len(sources)), 1.0)
            turned = cv2.warpAffine(pixels, matrix, (width, height), borderMode=cv2.BORDER_REPLICATE)
            small = cv2.resize(turned, (max(8, round(width * scale)), _WORD_HEIGHT), interpolation=cv2.INTER_AREA)
            cv2.imwrite(str(file), small, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    return files


def digit_files(data: Path, folder: Path, count: int) -> list[Path]:
    """Write MNIST's test digits as PNG."""
    images, _ = read_mnist(data / "mnist", "t10k")
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / f"{number:05d}.png" for number in range(count)]
    for file, image in zip(files, images, strict=False):
        if not file.exists():
            cv2.imwrite(str(file), image)
    return files


def photo_files(data: Path, folder: Path, count: int) -> list[Path]:
    """Write JPEGs of 12 megapixels of single words; a tenth of them are different, the others are links to these."""
    sources = sorted(path for path in (data / "text").rglob("images/*") if path.is_file())[::7]
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / f"{number:05d}.jpg" for number in range(count)]
    rng = np.random.default_rng(0)
    for number, file in enumerate(files):
        original = files[number % (count // 10)]
        if not file.exists() and file != original:
            os.link(original, file)
        elif not file.exists():
            large = cv2.resize(pixels_of(sources[number]), PHOTO[::-1], interpolation=cv2.INTER_CUBIC)
            grain = np.asarray(rng.normal(0.0, 4.0, large.shape), np.float32)
            photo = np.clip(large + grain, 0, 255).astype(np.uint8)
            cv2.imwrite(str(file), photo, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    return files


def measure(contestants: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, dict[str, float]]:
    """Seconds of each, taking turns; the first round, which fills caches, does not count."""
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for number in range(rounds + 1):
        for name, run in contestants.items():
            started = time.perf_counter()
            run()
            if number:
                times[name].append(time.perf_counter() - started)
    return {
        name: {"median": statistics.median(values), "least": min(values), "most": max(values)}
        for name, values in times.items()
    }


def show(title: str, seconds: dict[str, dict[str, float]]) -> None:
    """Print medians, and how many times that of `stn` each is."""
    own = seconds["stn"]["median"]
    for name, values in seconds.items():
        spread = f"{values['least']:.4g} to {values['most']:.4g}"
        ratio = values["median"] / own
        print(f"{title:12} {name:24} {values['median']:9.4g} s  ({spread})  {ratio:6.3f} x stn", flush=True)
