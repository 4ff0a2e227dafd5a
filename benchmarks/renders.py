"""How near are the fiducials of `stn rectify -m text` to the truth, on renders in fonts and of words never trained on?

    python -m benchmarks.renders FONTS --work DIR [--count 3000]

FONTS is the folder that the model was trained from: the same fonts and words are held out as then, by the model's own
configuration. Errors are mean distances of the 20 fiducials from the true ones, in heights of the text.

Many renders are what nobody can read: tiny, faint, blurred, covered. So every measure is given twice: of all renders,
and of those that a recogniser (see `recognisers`) reads rightly when they are cropped at their true pose.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
from PIL import Image

from benchmarks.commands import records_of, stn_rectify
from benchmarks.measures import calibration, spread
from benchmarks.provenance import RESULTS, provenance, write_report
from benchmarks.recognisers import ENGINES, CachedReader, normalise
from stn_cli.checkpoints import open_checkpoint
from stn_cli.geometry import ThinPlateSpline, crop_size
from stn_cli.geometry.layouts import RibbonLayout
from stn_cli.rectify.crop import natural_size, with_margin
from stn_cli.sampling.warp import warp
from stn_cli.training.config import TrainConfig
from stn_cli.training.text.drawing import draw_word
from stn_cli.training.text.samples import held_out_samples, read_lettering

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stn_cli.training.text.config import TextConfig

SEED = 20_240_101
CANVAS = 96  # pixels along the longer side
LARGE_ARC = 120  # degrees
NEAR = 15
RIGHT = 0.25  # heights of the text


def write_renders(fonts: Path, config: TrainConfig, folder: Path, count: int) -> list[dict[str, Any]]:
    """Write `count` crops and return what is true of each; those that exist already are taken as they are."""
    truth = folder / "truth.json"
    if truth.exists():
        stored: list[dict[str, Any]] = json.loads(truth.read_text(encoding="utf-8"))
        return stored
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "images").mkdir(parents=True)
    text = judged_text(config)
    samples = held_out_samples(read_lettering([fonts], text), text, canvas=CANVAS, seed=SEED, length=count, workers=1)
    rows = []
    for index in range(count):
        rng = np.random.default_rng((SEED, index))
        number = samples.random_scene(rng)
        drawn = draw_word(rng, samples.masks, samples.textures, text.scenes[number], CANVAS)
        height, width = drawn.size
        top, left = (CANVAS - height) // 2, (CANVAS - width) // 2
        Image.fromarray(drawn.canvas[top : top + height, left : left + width]).save(folder / f"images/{index:05d}.png")
        points = (drawn.fiducials + 1) * (CANVAS / 2) - (left, top)
        rows.append(
            {
                "scene": text.scenes[number].name,
                "arc": drawn.arc,
                "text": drawn.text,
                "fiducials": points.tolist(),
            }
        )
    truth.write_text(json.dumps(rows), encoding="utf-8")
    return rows


def judged_text(config: TrainConfig) -> TextConfig:
    """Return what is written: the same for all models, whatever some of them saw more of in training."""
    assert config.text is not None
    return msgspec.structs.replace(config.text, short=0.0)


def true_crops(rows: list[dict[str, Any]], folder: Path, margin: tuple[float, float]) -> list[Path]:
    """Write the crops at the true poses, with the margin of the model, and return where they lie."""
    (folder / "true").mkdir(exist_ok=True)
    files = []
    for index, row in enumerate(rows):
        pixels = np.asarray(Image.open(folder / f"images/{index:05d}.png"))[..., None]
        size = pixels.shape[:2]
        points = 2 * np.array(row["fiducials"]) / (size[1], size[0]) - 1
        word = ThinPlateSpline(points.ravel(), RibbonLayout(10))
        frame = with_margin(word, margin, np.array(crop_size(word, size)))
        files.append(folder / f"true/{index:05d}.png")
        Image.fromarray(warp(pixels, frame, natural_size(crop_size(frame, size), size))[..., 0]).save(files[-1])
    return files


def legible(rows: list[dict[str, Any]], folder: Path, margin: tuple[float, float], reader: CachedReader) -> np.ndarray:
    """Tell which renders a recogniser reads at their true pose."""
    readings = reader.read(true_crops(rows, folder, margin))
    return np.array([normalise(row["text"]) == normalise(read) for row, read in zip(rows, readings, strict=True)])


def direction(points: np.ndarray) -> np.ndarray:
    """Return the reading direction of fiducials (n, 20, 2): at a right angle to the mean way down."""
    down = (points[:, 10:] - points[:, :10]).mean(axis=1)
    return np.stack((down[:, 1], -down[:, 0]), axis=1)


def angle_between(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return degrees, 0–180."""
    cross = a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]
    degrees: np.ndarray = np.abs(np.degrees(np.arctan2(cross, (a * b).sum(axis=1))))
    return degrees


def measure(rows: list[dict[str, Any]], records: list[dict[str, Any]]) -> dict[str, Any]:
    """Compare what was found with what is true."""
    true = np.array([row["fiducials"] for row in rows])
    found = np.array([record["fiducials"] for record in records])
    height = np.linalg.norm(true[:, 10:] - true[:, :10], axis=2).mean(axis=1)
    error = np.linalg.norm(found - true, axis=2).mean(axis=1) / height
    turned = angle_between(direction(found), direction(true))
    words = np.array([len(normalise(row["text"])) >= 2 for row in rows])
    scenes, arcs = np.array([row["scene"] for row in rows]), np.array([abs(row["arc"]) for row in rows])
    confidence = np.array([record["confidence"] for record in records])
    return {
        "error": spread(error),
        "error_by_scene": {str(name): spread(error[scenes == name]) for name in np.unique(scenes)},
        "error_of_large_arcs": spread(error[arcs > LARGE_ARC]),
        "orientation_within_15_degrees": float((turned[words] <= NEAR).mean()),
        "upside_down": float((turned[words] > 90).mean()),
        "folds": float(np.mean([record["quality"]["fold"] for record in records])),
        "calibration": calibration(confidence, error < RIGHT),
    }


def chosen(which: np.ndarray, *columns: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """Return of each list those items that are marked."""
    return [[item for item, mark in zip(column, which, strict=True) if mark] for column in columns]


def main(argv: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.renders", description=__doc__.partition("\n")[0])
    parser.add_argument("fonts", type=Path, help="the folder of fonts that the model was trained from")
    parser.add_argument("--work", type=Path, required=True, help="folder for the renders and the crops")
    parser.add_argument("-m", "--model", default="text", help="model name or folder, as `stn rectify -m` takes it")
    parser.add_argument("--count", type=int, default=3000)
    parser.add_argument("--reader", choices=list(ENGINES), default="PP-OCRv6", help="tells what is legible")
    parser.add_argument("--output", type=Path, default=RESULTS / "renders.json")
    args = parser.parse_args(argv)
    header = open_checkpoint(args.model).header
    config = msgspec.convert(header.training["config"], TrainConfig)
    drawn = hashlib.sha256(msgspec.json.encode((judged_text(config), CANVAS, str(args.fonts)))).hexdigest()[:8]
    folder = args.work / f"renders.{args.count}.{drawn}"
    rows = write_renders(args.fonts, config, folder, args.count)
    clear = legible(rows, folder, header.crop_margin, CachedReader(args.reader, args.work / "readings", 1))
    stn_rectify(folder / "images", folder / "out", args.model, ["--always"])
    records = records_of(folder / "out", [f"{index:05d}.png" for index in range(len(rows))])
    result = {"all": measure(rows, records), "legible": measure(*chosen(clear, rows, records))}
    for group, measures in result.items():
        for name, value in measures.items():
            print(f"{group:8} {name:32} {value if name != 'calibration' else value['ece']}")
    write_report(args.output, provenance("renders", argv) | {"reader": args.reader} | result)


if __name__ == "__main__":
    main(sys.argv[1:])
