"""Warps of a 1080p image, and a shrink of a large one, against those of other libraries.

    python -m benchmarks.warps --peers PYTHON

PYTHON is an interpreter that has torch, torchvision, kornia and scikit-image, whose versions need not be those of stn.
The contestants take turns, each the median of ROUNDS; every one gets the type that it takes, and making its grid is
part of the work. Nothing else should be running.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

from benchmarks.provenance import RESULTS, provenance, write_report
from benchmarks.workloads import measure, show
from stn_cli.geometry import Affine, Attention, Projective, ThinPlateSpline
from stn_cli.geometry.layouts import RibbonLayout
from stn_cli.sampling.warp import warp

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

SIZE = (1080, 1920)
SHRINK, LARGE = 30, (3000, 3990)

AFFINE = np.array([[0.9, 0.2, 30.0], [-0.2, 0.9, 200.0]])
HOMOGRAPHY = np.vstack((AFFINE, [1e-5, 2e-5, 1.0]))
LAYOUT = RibbonLayout(10)
TARGETS = LAYOUT.points + 0.04 * np.sin(3 * LAYOUT.points[:, ::-1])

PEERS = """
import json, sys, time, statistics, numpy as np, torch, kornia
import torchvision.transforms.v2.functional as vision
from skimage.transform import ThinPlateSplineTransform, warp
given = json.loads(sys.argv[1])
height, width = size = given["size"]
pixels = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
tensor = torch.from_numpy(pixels).permute(2, 0, 1).contiguous()
floats = tensor[None].float() / 255
affine, homography = (torch.tensor(given[name])[None].float() for name in ("affine", "homography"))
source, target = (torch.tensor(given[name])[None].float() for name in ("points", "targets"))
half = np.array([width / 2, height / 2])
ends = [[0, 0], [width - 1, 0], [width - 1, height - 1], [0, height - 1]]
moved = [[40, 30], [width - 60, 10], [width - 20, height - 50], [10, height - 20]]
bilinear = vision.InterpolationMode.BILINEAR
def spline():
    kernel, flat = kornia.geometry.transform.get_tps_transform(source, target)
    return kornia.geometry.transform.warp_image_tps(floats, source, kernel, flat)
def scikit_image():
    transform = ThinPlateSplineTransform()
    transform.estimate((np.array(given["points"]) + 1) * half, (np.array(given["targets"]) + 1) * half)
    return warp(pixels, transform)
contestants = {
    "affine": {
        "torchvision": lambda: vision.affine(tensor, 12.0, [30, 20], 1.1, [0.0, 0.0], bilinear),
        "kornia": lambda: kornia.geometry.transform.warp_affine(floats, affine, size),
    },
    "projective": {
        "torchvision": lambda: vision.perspective(tensor, ends, moved, bilinear),
        "kornia": lambda: kornia.geometry.transform.warp_perspective(floats, homography, size),
    },
    "spline": {"kornia": spline, "scikit-image": scikit_image},
}
found = {}
for title, peers in contestants.items():
    found[title] = {}
    for name, run in peers.items():
        run()
        times = []
        for _ in range(given["rounds"]):
            started = time.perf_counter()
            run()
            times.append(time.perf_counter() - started)
        found[title][name] = {"median": statistics.median(times), "least": min(times), "most": max(times)}
print(json.dumps(found))
"""


def warps(python: str, rounds: int) -> dict[str, dict[str, dict[str, float]]]:
    """Seconds of each contestant."""
    height, width = SIZE
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (*SIZE, 3), dtype=np.uint8)
    affine = Affine(np.array([0.9, 0.2, 0.05, -0.2, 0.9, 0.0]))
    projective = Projective(np.array([0.9, 0.1, 0.02, -0.1, 0.9, 0.0, 0.05, 0.03]))
    spline = ThinPlateSpline(TARGETS.ravel(), LAYOUT)
    map_x, map_y = rng.uniform(0, 1000, (2, *SIZE)).astype(np.float32)
    large, small = rng.integers(0, 256, (*LARGE, 3), dtype=np.uint8), (LARGE[0] // SHRINK, LARGE[1] // SHRINK)
    smooth_x, smooth_y = np.meshgrid(*(np.arange(side, dtype=np.float32) + 0.3 for side in (width, height)))
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    ours: dict[str, dict[str, Callable[[], object]]] = {
        "affine": {
            "stn": lambda: warp(pixels, affine, SIZE),
            "opencv": lambda: cv2.warpAffine(pixels, AFFINE, (width, height), flags=flags),
        },
        "projective": {
            "stn": lambda: warp(pixels, projective, SIZE),
            "opencv": lambda: cv2.warpPerspective(pixels, HOMOGRAPHY, (width, height), flags=flags),
        },
        "spline": {
            "stn": lambda: warp(pixels, spline, SIZE),
            "opencv remap": lambda: cv2.remap(pixels, smooth_x, smooth_y, cv2.INTER_LINEAR),
            "opencv remap, scattered": lambda: cv2.remap(pixels, map_x, map_y, cv2.INTER_LINEAR),
        },
        "shrink": {
            "stn": lambda: warp(large, Attention.identity(), small),
            "opencv area": lambda: cv2.resize(large, small[::-1], interpolation=cv2.INTER_AREA),
        },
    }
    seconds = {title: measure(contestants, rounds) for title, contestants in ours.items()}
    given = {
        "size": SIZE,
        "rounds": rounds,
        "affine": AFFINE.tolist(),
        "homography": HOMOGRAPHY.tolist(),
        "points": LAYOUT.points.tolist(),
        "targets": TARGETS.tolist(),
    }
    peers = subprocess.run([python, "-c", PEERS, json.dumps(given)], check=True, capture_output=True, text=True)
    for title, found in json.loads(peers.stdout).items():
        seconds[title] |= found
    return seconds


def main(argv: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.warps", description=__doc__.partition("\n")[0])
    parser.add_argument("--peers", required=True, help="interpreter that has torch, torchvision, kornia, scikit-image")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--output", type=Path, default=RESULTS / "warps.json")
    args = parser.parse_args(argv)
    results = warps(args.peers, args.rounds)
    for title, seconds in results.items():
        show(title, seconds)
    write_report(args.output, provenance("warps", argv) | {"seconds": results})


if __name__ == "__main__":
    main(sys.argv[1:])
