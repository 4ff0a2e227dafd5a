"""How well does `stn rectify -m digits` straighten digits? Measured on MNIST.

Every test digit is distorted once per set (see `digit_sets`), rectified by the command, and read by a net that knows
clean upright MNIST only (see `reader`). Its accuracy on the crops is set against its accuracy on the distorted image
and on the crop at the true pose; the predicted pose is set against the true one.

    python -m benchmarks.digits DATA --work DIR

DATA holds `mnist/`; DIR keeps the sets, the trained reader and the crops. The sets take 5 GB and, the first time, 35
minutes on one core, nearly all of it for the reader (9) and the photo set (22; see `--photo-count`).
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from PIL import Image, ImageDraw

from benchmarks import reader
from benchmarks.commands import records_of, stn_rectify
from benchmarks.digit_sets import SETS, SIDE, DigitSet, load_or_render, read_mnist, shrink
from benchmarks.measures import calibration, spread
from benchmarks.provenance import RESULTS, provenance, write_report

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import nn

CENTRE_AND_CORNERS = np.array([[0.5, 0.5], [0, 0], [1, 0], [1, 1], [0, 1]])
LARGE_ANGLE = 15  # degrees
GOOD_CORNER_ERROR = 0.1  # of the frame's side
FLOORS = {"upright": 0.992, "R": 0.99, "RTS-photo": 0.98}  # of the reader at the true pose, else the judge is at fault
WORST_COUNT, WORST_COLUMNS, TILE = 40, 10, 84


@dataclass(frozen=True)
class Readings:
    """What the reader made of the crops of one set, and where they lie (None: the crop is in memory only)."""

    labels: np.ndarray
    digits: np.ndarray
    confidence: np.ndarray
    crops: np.ndarray
    paths: list[Path] | None = None

    @property
    def accuracy(self) -> float:
        return float(np.mean(self.digits == self.labels))

    def worst(self) -> np.ndarray:
        """Return the indices of the wrongly read digits, the surest first."""
        wrong = np.flatnonzero(self.digits != self.labels)
        return wrong[np.argsort(-self.confidence[wrong])][:WORST_COUNT]


def read_crops(net: nn.Module, crops: np.ndarray, labels: np.ndarray, paths: list[Path] | None = None) -> Readings:
    """Read (n, 28, 28[, 3]) uint8 crops; one whose file is missing reads −1, which is never right."""
    digits, confidence = reader.read(net, reader.ink(crops))
    if paths:
        digits = np.where([path.exists() for path in paths], digits, -1)
    return Readings(labels, digits, confidence, crops, paths)


def read_outputs(digits: DigitSet, out: Path) -> tuple[np.ndarray, list[Path]]:
    """Return the crops shrunk to 28×28, black where there is none, and their paths."""
    crops, paths = np.zeros_like(digits.true_pose), [out / f"{i:05d}.png" for i in range(len(digits.labels))]
    for crop, path in zip(crops, paths, strict=True):
        if path.exists():
            with Image.open(path) as image:
                crop[:] = shrink(image.convert("RGB" if crop.ndim == 3 else "L"))
    return crops, paths


def frames_of(records: list[dict[str, Any]]) -> np.ndarray:
    """Return the matrices (n, 3, 3) from the unit square to the image; NaN where a record has none."""
    frames = np.full((len(records), 3, 3), np.nan)
    for frame, record in zip(frames, records, strict=True):
        if record.get("pixel_matrix"):  # a failed input has none
            output = record["output"]
            frame[:] = np.array(record["pixel_matrix"]) @ np.diag([output["width"], output["height"], 1])
    return frames


def project(frames: np.ndarray) -> np.ndarray:
    """Return centre and corners of each frame in image pixels, (n, 5, 2)."""
    points = np.concatenate([CENTRE_AND_CORNERS, np.ones((5, 1))], axis=1) @ frames.transpose(0, 2, 1)
    return points[..., :2] / points[..., 2:]


def pose_errors(frames: np.ndarray, truth: np.ndarray) -> dict[str, np.ndarray]:
    """Compare frames, as `frames_of` returns them; lengths are in sides of the true frame, angles in degrees."""
    turn = [np.arctan2(matrix[:, 1, 0], matrix[:, 0, 0]) for matrix in (frames, truth)]
    area = [np.abs(np.linalg.det(matrix[:, :2, :2])) for matrix in (frames, truth)]
    away = np.linalg.norm(project(frames) - project(truth), axis=-1) / np.sqrt(area[1])[:, None]
    return {
        "angle": np.abs((np.degrees(turn[0] - turn[1]) + 180) % 360 - 180),
        "log_scale": np.log(area[0] / area[1]) / 2,
        "centre": away[:, 0],
        "corners": away[:, 1:].mean(axis=1),
    }


def stray_of_ones(images: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Tell how far the principal axes of the upright ones lie from their median, in degrees.

    Where the scale is not known, a turned "1" can hardly be told from one that was written aslant: a measure to set
    beside the residual rotation of the ones.
    """
    moments = [cv2.moments(image) for image in images[labels == 1]]
    axes = np.array([np.degrees(np.arctan2(2 * m["mu11"], m["mu20"] - m["mu02"])) / 2 for m in moments]) % 180
    return spread(np.abs(axes - np.median(axes)))


def measure_records(records: list[dict[str, Any]], digits: DigitSet) -> dict[str, Any]:
    """Return what the records say of pose, label and confidence, against the truth."""
    statuses = [record["status"] for record in records]
    frames = frames_of(records)
    posed = np.isfinite(frames).all(axis=(1, 2))
    result: dict[str, Any] = {
        "unchanged": statuses.count("unchanged") / len(records),
        "failed": statuses.count("failed") / len(records),
    }
    labels = [record.get("label") for record in records]
    if any(labels):
        read = [str(label["value"]) if label else "" for label in labels]
        result["label_accuracy"] = float(np.mean([a == str(b) for a, b in zip(read, digits.labels, strict=True)]))
    if not posed.any():
        return result
    errors = pose_errors(frames[posed], digits.matrices[posed] @ np.diag([SIDE, SIDE, 1]))
    of_digit = {str(d): spread(errors["angle"][digits.labels[posed] == d]) for d in np.unique(digits.labels[posed])}
    large = float(np.mean(errors["angle"] > LARGE_ANGLE))
    result["angle_degrees"] = spread(errors["angle"]) | {"large": large, "of_digit": of_digit}
    result["log_scale"] = spread(np.abs(errors["log_scale"])) | {"bias": float(np.median(errors["log_scale"]))}
    result["centre"] = spread(errors["centre"])
    result["corners"] = spread(errors["corners"])
    confidence = np.array([r.get("confidence") for r, ok in zip(records, posed, strict=True) if ok], float)
    known = np.isfinite(confidence)  # a missing confidence became NaN
    if known.any():
        right = errors["corners"] < GOOD_CORNER_ERROR
        result["calibration"] = calibration(confidence[known], right[known])
    return result


def contact_sheet(digits: DigitSet, readings: Readings, worst: np.ndarray) -> Image.Image:
    """Draw each input above its crop, with the true digit and the one that was read."""
    height, rows = 2 * TILE + 14, -(-len(worst) // WORST_COLUMNS)
    sheet = Image.new("RGB", (WORST_COLUMNS * (TILE + 4), max(rows, 1) * height), "dimgray")
    draw = ImageDraw.Draw(sheet)
    for place, index in enumerate(worst):
        x, y = place % WORST_COLUMNS * (TILE + 4), place // WORST_COLUMNS * height
        with Image.open(digits.image_path(index)) as image:
            sheet.paste(image.resize((TILE, TILE), Image.Resampling.BOX), (x, y))
        crop = Image.fromarray(readings.crops[index])
        sheet.paste(crop.resize((TILE, TILE), Image.Resampling.NEAREST), (x, y + TILE))
        draw.text((x + 2, y + 2 * TILE), f"{readings.labels[index]} read {readings.digits[index]}", "white")
    return sheet


def save_worst(folder: Path, digits: DigitSet, readings: Readings, worst: np.ndarray) -> None:
    """Copy the inputs, and the crops beside them, to a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for index in worst:
        shutil.copy(digits.image_path(index), folder)
        target = folder / f"{index:05d}.crop.png"
        if readings.paths and readings.paths[index].exists():
            shutil.copy(readings.paths[index], target)
        else:
            Image.fromarray(readings.crops[index]).save(target)


def check_judge(name: str, true_pose: Readings) -> None:
    """Stop when the reader does not read what it must at the true pose; small samples prove nothing."""
    floor = FLOORS.get(name, 0)
    if len(true_pose.labels) >= 1000 and true_pose.accuracy < floor:
        raise SystemExit(f"{name}: {true_pose.accuracy:.2%} read at the true pose, at least {floor:.1%} expected")


def measure_set(name: str, digits: DigitSet, net: nn.Module, args: argparse.Namespace) -> dict[str, Any]:
    """Return every measure of one set; write its worst cases when asked to."""
    true_pose = read_crops(net, digits.true_pose, digits.labels)
    check_judge(name, true_pose)
    result: dict[str, Any] = {
        "count": len(digits.labels),
        "accuracy_unrectified": read_crops(net, digits.unrectified, digits.labels).accuracy,
        "accuracy_true_pose": true_pose.accuracy,
    }
    shown = true_pose
    if not args.baseline_only:
        out = digits.folder.with_name(f"{digits.folder.name}.out")
        seconds = stn_rectify(digits.folder, out, args.model, some_may_fail=True)
        crops, paths = read_outputs(digits, out)
        shown = read_crops(net, crops, digits.labels, paths)
        result |= {"accuracy_rectified": shown.accuracy, "seconds": seconds}
        result |= measure_records(records_of(out, [path.name for path in paths]), digits)
    worst = shown.worst()
    if args.contact_sheet:
        contact_sheet(digits, shown, worst).save(args.contact_sheet.with_stem(f"{args.contact_sheet.stem}.{name}"))
    if args.save_worst:
        save_worst(args.save_worst / name, digits, shown, worst)
    return result


def print_table(results: dict[str, dict[str, Any]]) -> None:
    """Print one line per set; accuracies and shares in per cent, a dash for what was not measured."""
    columns = {
        "images": ("count", "{:d}"),
        "raw": ("accuracy_unrectified", "{:.2%}"),
        "true pose": ("accuracy_true_pose", "{:.2%}"),
        "rectified": ("accuracy_rectified", "{:.2%}"),
        "angle": ("angle_degrees.median", "{:.2f}°"),
        "p95": ("angle_degrees.p95", "{:.1f}°"),
        f">{LARGE_ANGLE}°": ("angle_degrees.large", "{:.2%}"),
        "log scale": ("log_scale.median", "{:.3f}"),
        "centre": ("centre.median", "{:.3f}"),
        "label": ("label_accuracy", "{:.2%}"),
        "unchanged": ("unchanged", "{:.2%}"),
        "ECE": ("calibration.ece", "{:.3f}"),
        "seconds": ("seconds", "{:.1f}"),
    }
    print(f"{'set':10}" + "".join(f"{title:>10}" for title in columns))
    for name, result in results.items():
        cells = []
        for key, style in columns.values():
            value: Any = result
            for part in key.split("."):
                value = value.get(part) if value else None
            cells.append("–" if value is None else style.format(value))
        print(f"{name:10}" + "".join(f"{cell:>10}" for cell in cells))
    print("95 % of angles within, digit by digit:")
    for name, result in results.items():
        of_digit = result.get("angle_degrees", {}).get("of_digit", {})
        print(f"{name:10}" + "".join(f"{digit:>4} {angle['p95']:5.1f}°" for digit, angle in of_digit.items()))


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.digits", description=__doc__.partition("\n")[0])
    data = os.environ.get("STN_DATA")
    parser.add_argument("data", type=Path, nargs="?", default=data, help="folder that holds mnist/ [STN_DATA]")
    parser.add_argument("--work", type=Path, required=True, help="folder for the sets, the reader and the crops")
    parser.add_argument("--model", default="digits", help="model name or folder, as `stn rectify -m` takes it")
    parser.add_argument("--sets", nargs="+", choices=SETS, default=SETS)
    parser.add_argument("--count", type=int, default=10_000, help="the first N digits of every set")
    parser.add_argument("--photo-count", type=int, default=10_000, help="the same, of RTS-photo")
    parser.add_argument("--seed", type=int, default=0, help="of the distortions")
    parser.add_argument("--baseline-only", action="store_true", help="do not rectify: the reader's figures only")
    parser.add_argument("--output", type=Path, default=RESULTS / "digits.json")
    parser.add_argument("--contact-sheet", type=Path, help="PNG of the 40 worst; the set's name is put in")
    parser.add_argument("--save-worst", type=Path, help="folder for the 40 worst inputs and crops of each set")
    args = parser.parse_args(argv)
    if args.data is None:
        parser.error("name the data folder or set STN_DATA")
    return args


def main(argv: Sequence[str]) -> None:
    args = parse(argv)
    net = reader.load_or_train(args.work / "reader.safetensors", *read_mnist(args.data / "mnist", "train"))
    mnist = read_mnist(args.data / "mnist", "t10k")
    clean = read_crops(net, *mnist)
    check_judge("upright", clean)
    results = {}
    for name in args.sets:
        count = min(args.count, args.photo_count) if name == "RTS-photo" else args.count
        folder = args.work / (name if count == len(mnist[0]) else f"{name}.{count}")
        results[name] = measure_set(name, load_or_render(name, folder, mnist, count, args.seed), net, args)
    ones = stray_of_ones(*mnist)
    print(f"reader on the clean test digits: {clean.accuracy:.2%}")
    print(f"upright ones stray from their median axis by {ones['median']:.1f}°, 95 % within {ones['p95']:.1f}°")
    print_table(results)
    report = {"reader_accuracy": clean.accuracy, "stray_of_ones": ones, "sets": results}
    write_report(args.output, provenance("digits", argv) | report)


if __name__ == "__main__":
    main(sys.argv[1:])
