"""How near is `stn rectify` to the cost of reading and writing the files? Whole processes, and warps alone.

    python -m benchmarks.speed DATA --work DIR --peers PYTHON

DATA holds `text/` and `mnist/`; PYTHON is an interpreter that has torch, torchvision, kornia and scikit-image, whose
versions need not be those of stn. Compared in one run, the contestants taking turns, each the median of ROUNDS:

- *floor*: the same files decoded and encoded again at the same quality, into an empty folder, and the model's bare
  passes in ONNX Runtime, in as many processes as there are cores, and nothing else; without the start of the processes;
- *script*: what people write with PyTorch: DataLoader, ToTensor, a localization net, `affine_grid`, `grid_sample`,
  `save_image`;
- warps of a 1080p image: OpenCV's own, kornia, torchvision, scikit-image.

Nothing else should be running.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from benchmarks.provenance import RESULTS, provenance, write_report
from benchmarks.workloads import QUALITY, digit_files, measure, word_files
from stn_cli.checkpoints import open_checkpoint
from stn_cli.checkpoints.header import graph_names
from stn_cli.geometry import Affine, Projective, ThinPlateSpline
from stn_cli.geometry.layouts import RibbonLayout
from stn_cli.rectify.engine import OnnxEngine
from stn_cli.sampling.warp import warp

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

WORDS, DIGITS, BATCH = 5000, 10_000, 64
SIZE = (1080, 1920)


def run_stn(folder: Path, out: Path, model: str) -> None:
    """The real command, into a fresh folder."""
    shutil.rmtree(out, ignore_errors=True)
    command = [sys.executable, "-m", "stn_cli", "rectify", str(folder), "-o", str(out), "-m", model, "-q"]
    subprocess.run([*command, "--device", "cpu"], check=True)


def work_floor(job: tuple[list[Path], Path, str]) -> float:
    """Decode and encode files by OpenCV, for small ones as fast as any, and pass as many views through the nets."""
    files, out, model = job
    cv2.setNumThreads(1)
    engine = OnnxEngine(open_checkpoint(model))
    graphs = graph_names(engine.model)
    shapes = [(stage.input_size, stage.repeat) for stage in engine.model.stages]
    shapes += [(engine.model.classifier.input_size, 1)] if engine.model.classifier else []
    views = [np.zeros((BATCH, engine.model.channels, *size), np.float32) for size, _ in shapes]
    started = time.perf_counter()
    for file in files:
        pixels = cv2.imdecode(np.frombuffer(file.read_bytes(), np.uint8), cv2.IMREAD_UNCHANGED)
        options = [cv2.IMWRITE_JPEG_QUALITY, QUALITY] if file.suffix == ".jpg" else [cv2.IMWRITE_PNG_COMPRESSION, 1]
        _, data = cv2.imencode(file.suffix, pixels, options)
        (out / file.name).write_bytes(data.tobytes())
    for _ in range(0, len(files), BATCH):
        for graph, view, (_, repeat) in zip(graphs, views, shapes, strict=True):
            for _ in range(repeat):
                engine.infer(graph, view)
    return time.perf_counter() - started


def floor_seconds(files: list[Path], out: Path, model: str) -> float:
    """What no rectifier can save: the slower of as many processes as there are cores."""
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    cores = os.cpu_count() or 1
    os.environ["OPENBLAS_NUM_THREADS"] = "1"
    with multiprocessing.get_context("spawn").Pool(cores) as pool:
        return max(pool.map(work_floor, [(files[number::cores], out, model) for number in range(cores)]))


SCRIPT = """
import sys, torch, torch.nn as nn, torch.nn.functional as F
from pathlib import Path
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms
from torchvision.utils import save_image
class Folder(Dataset):
    def __init__(self, root):
        self.files = sorted(Path(root).iterdir())
        self.load = transforms.Compose([transforms.Resize((64, 192)), transforms.ToTensor()])
    def __len__(self): return len(self.files)
    def __getitem__(self, i): return self.load(Image.open(self.files[i]).convert("RGB")), i
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        layers, last = [], 3
        for width in (24, 48, 80, 128):
            layers += [nn.Conv2d(last, width, 3, 2, 1), nn.BatchNorm2d(width), nn.ReLU()]
            last = width
        self.convolutions, self.fc = nn.Sequential(*layers, nn.Flatten()), nn.Sequential(
            nn.Linear(128 * 4 * 12, 192), nn.ReLU(), nn.Linear(192, 6))
        nn.init.zeros_(self.fc[2].weight)
        self.fc[2].bias.data = torch.tensor([1.0, 0, 0, 0, 1, 0])
    def forward(self, x): return self.fc(self.convolutions(x)).view(-1, 2, 3)
data, net, out = Folder(sys.argv[1]), Net().eval(), Path(sys.argv[2])
with torch.no_grad():
    for images, numbers in DataLoader(data, batch_size=64, num_workers=2):
        grid = F.affine_grid(net(images), images.shape, align_corners=False)
        for image, i in zip(F.grid_sample(images, grid, align_corners=False), numbers):
            save_image(image, out / data.files[i].name)
"""


def run_script(python: str, folder: Path, out: Path) -> None:
    """The usual script; its net is smaller than ours, and its crops are all of one size."""
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    subprocess.run([python, "-c", SCRIPT, str(folder), str(out)], check=True)


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
    """Seconds of warps of a 1080p uint8 image; every peer gets the type that it takes, its grid is part of the work."""
    height, width = SIZE
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (*SIZE, 3), dtype=np.uint8)
    affine = Affine(np.array([0.9, 0.2, 0.05, -0.2, 0.9, 0.0]))
    projective = Projective(np.array([0.9, 0.1, 0.02, -0.1, 0.9, 0.0, 0.05, 0.03]))
    spline = ThinPlateSpline(TARGETS.ravel(), LAYOUT)
    map_x, map_y = rng.uniform(0, 1000, (2, *SIZE)).astype(np.float32)
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


def with_floor(
    files: list[Path], folder: Path, out: Path, model: str, rounds: int, script: str | None = None
) -> dict[str, dict[str, float]]:
    """Seconds of the command, of its floor, and of the usual script."""
    floors: list[float] = []
    contestants: dict[str, Callable[[], object]] = {
        "stn": lambda: run_stn(folder, out, model),
        "floor": lambda: floors.append(floor_seconds(files, out, model)),
    }
    if script is not None:
        contestants["script"] = lambda: run_script(script, folder, out)
    seconds = measure(contestants, rounds)
    counted = floors[1:]
    seconds["floor"] = {"median": statistics.median(counted), "least": min(counted), "most": max(counted)}
    return seconds


def show(title: str, seconds: dict[str, dict[str, float]]) -> None:
    """Print medians, and how many times that of `stn` each is."""
    own = seconds["stn"]["median"]
    for name, values in seconds.items():
        spread = f"{values['least']:.4g} to {values['most']:.4g}"
        ratio = values["median"] / own
        print(f"{title:12} {name:24} {values['median']:9.4g} s  ({spread})  {ratio:6.3f} x stn", flush=True)


def main(argv: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed", description=__doc__.partition("\n")[0])
    parser.add_argument("data", type=Path, help="folder that holds text/ and mnist/")
    parser.add_argument("--work", type=Path, required=True, help="folder for inputs and outputs")
    parser.add_argument("--peers", required=True, help="interpreter that has torch, torchvision, kornia, scikit-image")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", nargs="+", choices=("words", "digits", "warps"), default=("words", "digits", "warps"))
    parser.add_argument("--output", type=Path, default=RESULTS / "speed.json")
    args = parser.parse_args(argv)
    words, digits, out = args.work / "words", args.work / "digits", args.work / "out"
    results: dict[str, Any] = {}
    if "words" in args.only:
        files = word_files(args.data, words, WORDS)
        results["words"] = with_floor(files, words, out, "text", args.rounds, args.peers)
    if "digits" in args.only:
        files = digit_files(args.data, digits, DIGITS)
        results["digits"] = with_floor(files, digits, out, "digits", args.rounds)
    if "warps" in args.only:
        results |= warps(args.peers, args.rounds)
    for title, seconds in results.items():
        show(title, seconds)
    write_report(args.output, provenance("speed", argv) | {"seconds": results})


if __name__ == "__main__":
    main(sys.argv[1:])
