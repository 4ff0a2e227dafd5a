"""Does memory grow with the number of inputs, and how much does one large photograph take?

    python -m benchmarks.memory --work DIR

The peak of the memory of all processes of a run together, each page counted once however many share it (PSS), looked
at every 20 milliseconds. Words of 64x200 pixels, then a JPEG of 100 megapixels that is passed through or becomes crops
of several sizes.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
import simplejpeg

from benchmarks.provenance import RESULTS, provenance, write_report

if TYPE_CHECKING:
    from collections.abc import Sequence

FEW, MANY = 1000, 20_000
LARGE = (8192, 12_288)
CROPS = {
    "passed through": ["--min-confidence", "1"],
    "a crop of 1 Mpx": ["--always", "--size", "816x1224"],
    "a crop of 25 Mpx": ["--always", "--size", "4096x6144"],
    "a crop of all of its pixels": ["--always", "--size", "8192x12288"],
}


def memory(process: int) -> int:
    """Bytes that a process and its descendants hold."""
    try:
        lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
        children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    own = sum(1024 * int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return own + sum(memory(int(child)) for child in children)


def peak(source: Path, out: Path, options: Sequence[str]) -> int:
    """Bytes that a run took at most."""
    shutil.rmtree(out, ignore_errors=True)
    command = [sys.executable, "-m", "stn_cli", "rectify", str(source), "-o", str(out), "--device", "cpu", "-q"]
    run, most = subprocess.Popen([*command, *options]), 0
    while run.poll() is None:
        most = max(most, memory(run.pid))
        time.sleep(0.02)
    if run.returncode != 0:
        raise RuntimeError(f"{command} ended with exit code {run.returncode}")
    return most


def copies(file: Path, folder: Path, count: int) -> Path:
    """Links to one file."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        link = folder / f"{number:05d}{file.suffix}"
        if not link.exists():
            os.link(file, link)
    return folder


def write_photo(path: Path, size: tuple[int, int]) -> Path:
    """Write a JPEG of words and noise."""
    pixels = np.random.default_rng(0).integers(120, 136, (*size, 3), dtype=np.uint8)
    height = size[0] / 8
    for row in range(1, 8):
        place = (size[1] // 20, round(row * height))
        cv2.putText(pixels, "straight", place, cv2.FONT_HERSHEY_SIMPLEX, height / 40, (20, 20, 20), round(height / 12))
    path.write_bytes(simplejpeg.encode_jpeg(pixels, 90))
    return path


def main(argv: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.memory", description=__doc__.partition("\n")[0])
    parser.add_argument("--work", type=Path, required=True, help="folder for inputs and outputs")
    parser.add_argument("--output", type=Path, default=RESULTS / "memory.json")
    args = parser.parse_args(argv)
    args.work.mkdir(parents=True, exist_ok=True)
    word = write_photo(args.work / "word.jpg", (64, 200))
    found = {
        f"{count} words": peak(copies(word, args.work / str(count), count), args.work / "out", ["--always"])
        for count in (FEW, MANY)
    }
    print(f"{MANY} against {FEW} words: {found[f'{MANY} words'] / found[f'{FEW} words']:.3f} x", flush=True)
    photo, decoded = write_photo(args.work / "photo.jpg", LARGE), 3 * LARGE[0] * LARGE[1]
    for title, options in CROPS.items():
        found[title] = peak(photo, args.work / "out", [*options, "--workers", "1"])
        print(f"100 Mpx, {title}: {found[title] / decoded:.3f} x its {decoded / 1e6:.0f} MB decoded", flush=True)
    write_report(args.output, provenance("memory", argv) | {"bytes": found, "decoded": decoded})


if __name__ == "__main__":
    main(sys.argv[1:])
