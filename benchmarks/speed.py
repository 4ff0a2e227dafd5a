"""How near is `stn rectify` to the cost of reading and writing the files? Whole processes.

    python -m benchmarks.speed DATA --work DIR --peers PYTHON

DATA holds `text/` and `mnist/`; PYTHON is an interpreter that has torch and torchvision, whose versions need not be
those of stn. Compared in one run, the contestants taking turns, each the median of ROUNDS:

- *floor*: the same files decoded and crops of the same sizes encoded at the same quality, into an empty folder, and the
  model's bare passes in ONNX Runtime, in as many processes as there are cores, and nothing else; without their start;
- *script*: what people write with PyTorch: DataLoader, ToTensor, a localization net, `affine_grid`, `grid_sample`,
  `save_image`;
- *torch*: one image by the same pipeline with the torch engine on the CPU.

Photographs of 12 megapixels become crops of 1 megapixel, for which they have to be decoded whole, and of three
quarters of one, for which half their size does. Nothing else should be running.
"""

from __future__ import annotations

import argparse
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
import simplejpeg

from benchmarks.commands import stn_rectify
from benchmarks.provenance import RESULTS, provenance, write_report
from benchmarks.workloads import PHOTO, QUALITY, digit_files, measure, photo_files, pixels_of, show, word_files
from stn_cli.checkpoints import open_checkpoint
from stn_cli.checkpoints.header import CLASSIFIER, localizer_names
from stn_cli.engines.onnx_engine import OnnxEngine

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

WORDS, DIGITS, PHOTOS, BATCH = 5000, 10_000, 300, 64
CROPS = {"photos, 1 Mpx": (866, 1155), "photos, 0.76 Mpx": (PHOTO[0] // 4, PHOTO[1] // 4)}


def run_stn(source: Path, out: Path, model: str, size: tuple[int, int] | None = None) -> None:
    """The real command, into a fresh folder."""
    asked = [] if size is None else ["--always", "--size", f"{size[0]}x{size[1]}"]
    stn_rectify(source, out, model, ["--device", "cpu", *asked])


def decode(file: Path) -> np.ndarray:
    """By the library that is faster: simplejpeg for large JPEGs, OpenCV for what is small."""
    data = file.read_bytes()
    if len(data) > 1 << 20:
        return simplejpeg.decode_jpeg(data, "BGR")
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is None:
        raise ValueError(f"{file} cannot be read as an image.")
    return pixels


def work_floor(job: tuple[list[Path], Path, str, tuple[int, int] | None]) -> float:
    """Decode and encode files, and pass as many views through the nets."""
    files, out, model, size = job
    cv2.setNumThreads(1)
    engine = OnnxEngine(open_checkpoint(model))
    named = zip(localizer_names(engine.model), engine.model.stages, strict=True)
    passes = [(graph, len(stage.looks), stage.input_size) for graph, stage in named for _ in range(stage.repeat)]
    passes += [(CLASSIFIER, 1, engine.model.classifier.input_size)] if engine.model.classifier else []
    channels = engine.model.channels
    views = [(graph, np.zeros((BATCH, looks * channels, *shape), np.float32)) for graph, looks, shape in passes]
    started = time.perf_counter()
    for file in files:
        pixels = decode(file)
        if size is not None:
            pixels = pixels[: size[0], : size[1]]
        options = [cv2.IMWRITE_JPEG_QUALITY, QUALITY] if file.suffix == ".jpg" else [cv2.IMWRITE_PNG_COMPRESSION, 1]
        _, data = cv2.imencode(file.suffix, pixels, options)
        (out / file.name).write_bytes(data.tobytes())
    for _ in range(0, len(files), BATCH):
        for graph, view in views:
            engine.infer(graph, view)
    return time.perf_counter() - started


def floor_seconds(files: list[Path], out: Path, model: str, size: tuple[int, int] | None) -> float:
    """What no rectifier can save: the slower of as many processes as there are cores."""
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    cores = os.cpu_count() or 1
    os.environ["OPENBLAS_NUM_THREADS"] = "1"
    with multiprocessing.get_context("spawn").Pool(cores) as pool:
        return max(pool.map(work_floor, [(files[number::cores], out, model, size) for number in range(cores)]))


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


TORCH = """
import sys
from pathlib import Path
from stn_cli.checkpoints import open_checkpoint
from stn_cli.rectify.ledger import Ledger
from stn_cli.rectify.options import RectifyOptions
from stn_cli.rectify.pipeline import Pipeline
from stn_cli.rectify.plan import plan
from stn_cli.engines.torch_engine import TorchEngine
options = RectifyOptions(out=Path(sys.argv[2]))
jobs = plan([Path(sys.argv[1])], options).jobs
with Ledger(options.out, jobs) as ledger:
    ledger.commit(jobs, Pipeline(TorchEngine(open_checkpoint("text"), "cpu"), options).run(jobs))
"""


def run_torch(source: Path, out: Path) -> None:
    """The same pipeline with the other engine, in one process."""
    shutil.rmtree(out, ignore_errors=True)
    subprocess.run([sys.executable, "-c", TORCH, str(source), str(out)], check=True)


def with_floor(
    files: list[Path],
    out: Path,
    model: str,
    rounds: int,
    *,
    script: str | None = None,
    size: tuple[int, int] | None = None,
) -> dict[str, dict[str, float]]:
    """Seconds of the command, of its floor, and of the usual script."""
    folder = files[0].parent
    floors: list[float] = []
    contestants: dict[str, Callable[[], object]] = {
        "stn": lambda: run_stn(folder, out, model, size),
        "floor": lambda: floors.append(floor_seconds(files, out, model, size)),
    }
    if script is not None:
        contestants["script"] = lambda: run_script(script, folder, out)
    seconds = measure(contestants, rounds)
    counted = floors[1:]
    seconds["floor"] = {"median": statistics.median(counted), "least": min(counted), "most": max(counted)}
    return seconds


def main(argv: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed", description=__doc__.partition("\n")[0])
    parser.add_argument("data", type=Path, help="folder that holds text/ and mnist/")
    parser.add_argument("--work", type=Path, required=True, help="folder for inputs and outputs")
    parser.add_argument("--peers", required=True, help="interpreter that has torch and torchvision")
    parser.add_argument("--rounds", type=int, default=5)
    choices = ("image", "words", "digits", "photos")
    parser.add_argument("--only", nargs="+", choices=choices, default=choices)
    parser.add_argument("--output", type=Path, default=RESULTS / "speed.json")
    args = parser.parse_args(argv)
    out, rounds = args.work / "out", args.rounds
    results: dict[str, Any] = {}
    if "image" in args.only:
        image = args.work / "image.jpg"
        photo = pixels_of(photo_files(args.data, args.work / "photos", PHOTOS)[0])
        cv2.imwrite(str(image), cv2.resize(photo, (640, 480), interpolation=cv2.INTER_AREA))
        ours = {"stn": lambda: run_stn(image, out, "text"), "torch": lambda: run_torch(image, out)}
        results["one 640x480 JPEG"] = measure(ours, rounds)
    if "words" in args.only:
        files = word_files(args.data, args.work / "words", WORDS)
        results["words"] = with_floor(files, out, "text", rounds, script=args.peers)
    if "digits" in args.only:
        files = digit_files(args.data, args.work / "digits", DIGITS)
        results["digits"] = with_floor(files, out, "digits", rounds)
    if "photos" in args.only:
        files = photo_files(args.data, args.work / "photos", PHOTOS)
        results |= {title: with_floor(files, out, "text", rounds, size=size) for title, size in CROPS.items()}
    for title, seconds in results.items():
        show(title, seconds)
    write_report(args.output, provenance("speed", argv) | {"seconds": results})


if __name__ == "__main__":
    main(sys.argv[1:])
