"""Are words read better when `stn rectify -m text` has straightened them? Judged by recognisers that it never saw.

Every crop of a development set is read raw and rectified by each engine (see `recognisers`). A reading is right when
its letters a–z and digits are those of the label, in any case. Beside the gain stand the pairs that changed, fixed and
harmed, with an exact McNemar test.

    python -m benchmarks.text DATA --work DIR

DATA holds `text/`; DIR keeps the turned set, the crops and all readings: raw crops are read once for all models.
The set `turned` is `straight_dev` with every crop turned by a random angle; its reference is the unturned crops.
Reading all 5,715 crops takes a minute on one core with Tesseract and three with each PP-OCR.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shlex
import shutil
import sys
import zlib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from benchmarks.commands import records_of, stn_rectify
from benchmarks.provenance import RESULTS, provenance, write_report
from benchmarks.recognisers import ENGINES, CachedReader, engine_version, normalise

if TYPE_CHECKING:
    from collections.abc import Sequence

SETS = ("perspective_dev", "incidental_dev", "straight_dev", "turned")
UPRIGHT = "straight_dev"  # of which `turned` is made
RECIPE = 1  # raise it when the turned images change, so that a stored set is written anew
NEAR = 15  # degrees
TILE, LINE, COLUMNS = (260, 110), 15, 2  # of a contact sheet, in pixels


@dataclass(frozen=True)
class TextSet:
    """Crops in one folder, in the order of their names, and what they say.

    `angles` and `reference`, of the turned set: clockwise degrees and the unturned crops.
    """

    name: str
    folder: Path
    files: list[Path]
    texts: list[str]
    angles: np.ndarray | None = None
    reference: list[Path] | None = None


def load_set(name: str, data: Path, work: Path, count: int | None, seed: int) -> TextSet:
    """Return a set, or an evenly spread part of it; what is not a folder of the data is written to `work`."""
    source = data / "text" / (UPRIGHT if name == "turned" else name)
    lines = (source / "labels.tsv").read_text(encoding="utf-8").splitlines()
    rows = sorted(line.split("\t") for line in lines)
    if count is not None and count < len(rows):
        rows = [rows[i * len(rows) // count] for i in range(count)]
    names, texts = [row[0] for row in rows], [row[1] for row in rows]
    originals = [source / "images" / file for file in names]
    part = "" if len(rows) == len(lines) else f".{len(rows)}"
    if name == "turned":
        folder = work / f"turned.{RECIPE}.{seed}{part}"
        angles = np.array([turn_angle(seed, file) for file in names])
        files = write_turned(folder, originals, angles)
        return TextSet(name, folder / "images", files, texts, angles, originals)
    if not part:
        return TextSet(name, source / "images", originals, texts)
    folder = work / f"{name}{part}"
    folder.mkdir(parents=True, exist_ok=True)
    return TextSet(name, folder, [Path(shutil.copy(file, folder)) for file in originals], texts)


def turn_angle(seed: int, name: str) -> float:
    """Return the angle of a file, in 0–360 degrees, whatever other files there are."""
    return float(np.random.default_rng([seed, zlib.crc32(name.encode())]).uniform(0, 360))


def turn(image: Image.Image, angle: float) -> Image.Image:
    """Turn clockwise on a canvas that holds all of it, filled with the median colour of the border.

    By Pillow, so that the turned crops do not depend on the library that `stn` itself samples with.
    """
    pixels = np.asarray(image)
    border = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    fill = tuple(round(float(value)) for value in np.median(border, axis=0))
    return image.rotate(-angle, Image.Resampling.BICUBIC, expand=True, fillcolor=fill)


def write_turned(folder: Path, originals: list[Path], angles: np.ndarray) -> list[Path]:
    """Write the turned crops and the true angles, unless it was done before; return the crops' paths."""
    files, truth = [folder / "images" / f"{file.stem}.png" for file in originals], folder / "angles.json"
    if not truth.exists():
        (folder / "images").mkdir(parents=True, exist_ok=True)
        for original, file, angle in zip(originals, files, angles, strict=True):
            with Image.open(original) as image:
                turn(image.convert("RGB"), angle).save(file)
        pairs = {file.name: angle for file, angle in zip(files, angles, strict=True)}
        truth.write_text(json.dumps(pairs, indent=1), encoding="utf-8")
    return files


def crop_paths(out: Path, records: list[dict[str, Any]]) -> list[Path]:
    """Return where the crops lie; of an input that failed a path that does not exist."""
    return [out / Path(record.get("output", {}).get("path", "none")).name for record in records]


def mcnemar(fixed: int, harmed: int) -> float:
    """Return the exact two-sided p of so uneven a split of the pairs that changed."""
    changed = fixed + harmed
    tail = sum(math.comb(changed, k) for k in range(min(fixed, harmed) + 1))
    return min(1.0, 2 * tail / 2**changed)


def compare(before: np.ndarray, after: np.ndarray) -> dict[str, Any]:
    """Return the gain in points from one judgement (n) bool of the crops to another, and its pairs."""
    fixed, harmed = int(np.sum(~before & after)), int(np.sum(before & ~after))
    gain = 100 * (fixed - harmed) / len(before)
    return {"gain": gain, "fixed": fixed, "harmed": harmed, "p": mcnemar(fixed, harmed)}


def right(readings: list[str], texts: list[str]) -> np.ndarray:
    """Tell which readings say what the labels say."""
    return np.array([normalise(read) == normalise(text) for read, text in zip(readings, texts, strict=True)])


def per_cent(judged: np.ndarray) -> float:
    """Return the share of what is true."""
    return 100 * float(np.mean(judged))


def reading_direction(record: dict[str, Any]) -> float:
    """Return the angle, clockwise from the image's x axis, of the crop's top border; NaN of an input that failed.

    The mean of the border's directions over its length in the crop, which for an arc is that of its middle.
    """
    if record["status"] == "unchanged":
        return 0.0
    if not record.get("outline"):
        return math.nan
    outline = np.array(record["outline"])
    steps = np.diff(outline[: len(outline) // 4 + 1], axis=0)
    x, y = (steps / np.maximum(np.linalg.norm(steps, axis=1, keepdims=True), 1e-9)).mean(axis=0)
    return math.degrees(math.atan2(y, x))


def orientation(records: list[dict[str, Any]], angles: np.ndarray) -> dict[str, float]:
    """Return in per cent how often the reading direction is near the true one, and near its opposite."""
    predicted = np.array([reading_direction(record) for record in records])
    errors = np.abs((predicted - angles + 180) % 360 - 180)
    known = errors[np.isfinite(errors)]
    measures = {"within_15": per_cent(errors <= NEAR), "upside_down": per_cent(errors >= 180 - NEAR)}
    return measures | ({"median_error": float(np.median(known))} if len(known) else {})


def measure_set(crops: TextSet, readers: dict[str, CachedReader], args: argparse.Namespace) -> dict[str, Any]:
    """Return every measure of one set; draw its worst cases when asked to."""
    result: dict[str, Any] = {"count": len(crops.files)}
    records, outputs = None, None
    if not args.baseline_only:
        out = args.work / f"{crops.name}.{Path(args.model).name}.out"
        result["seconds"] = stn_rectify(crops.folder, out, args.model, shlex.split(args.options), some_may_fail=True)
        records = records_of(out, [file.name for file in crops.files])
        outputs = crop_paths(out, records)
        result["statuses"] = dict(Counter(record["status"] for record in records))
        result["model"] = next((record["model"] for record in records if record.get("model")), None)
        if crops.angles is not None:
            result["orientation"] = orientation(records, crops.angles)
    result["engines"] = {}
    readings: dict[str, tuple[list[str], list[str]]] = {}
    for engine, reader in readers.items():
        raw = reader.read(crops.files)
        measures = {"raw": per_cent(right(raw, crops.texts))}
        reference = reader.read(crops.reference) if crops.reference else None
        if reference:
            measures["reference"] = per_cent(right(reference, crops.texts))
        if outputs:
            rectified = reader.read(outputs)
            measures |= measure_pairs(raw, rectified, reference, crops.texts)
            readings[engine] = (reference or raw, rectified)
        result["engines"][engine] = measures
    if args.worst and outputs:
        sheet = contact_sheet(crops, outputs, records or [], readings, args.worst)
        sheet.save(args.work / f"{crops.name}.{Path(args.model).name}.worst.png")
    return result


def measure_pairs(
    raw: list[str], rectified: list[str], reference: list[str] | None, texts: list[str]
) -> dict[str, Any]:
    """Return the rectified accuracy, against the raw crops and, where there is one, against the reference."""
    after = right(rectified, texts)
    measures = {"rectified": per_cent(after)} | compare(right(raw, texts), after)
    if reference:
        measures["against_reference"] = compare(right(reference, texts), after)
    return measures


def worst_first(readings: dict[str, tuple[list[str], list[str]]], texts: list[str]) -> np.ndarray:
    """Return the indices of the crops that some engine misreads; first those that rectifying made most misread."""
    before, after = (np.array([right(pair[i], texts) for pair in readings.values()]) for i in (0, 1))
    harmed, misread = (before & ~after).sum(axis=0), (~after).sum(axis=0)
    order = np.lexsort((-misread, -harmed))
    return order[misread[order] > 0]


def contact_sheet(
    crops: TextSet,
    outputs: list[Path],
    records: list[dict[str, Any]],
    readings: dict[str, tuple[list[str], list[str]]],
    count: int,
) -> Image.Image:
    """Draw the worst crops beside what became of them; below, the truth and how each engine read before and after.

    Of the turned set, the reading before is that of the unturned crop.
    """
    worst = worst_first(readings, crops.texts)[:count]
    width, height = 2 * TILE[0] + 10, TILE[1] + LINE * (len(readings) + 1) + 8
    sheet = Image.new("RGB", (COLUMNS * width, max(-(-len(worst) // COLUMNS), 1) * height), "dimgray")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(LINE - 3)
    for place, index in enumerate(worst):
        x, y = place % COLUMNS * width, place // COLUMNS * height
        for column, path in enumerate((crops.files[index], outputs[index])):
            if path.exists():
                paste(sheet, path, (x + column * (TILE[0] + 2), y))
        confidence = records[index].get("confidence")
        sure = "" if confidence is None else f" {confidence:.2f}"
        caption = f"{crops.files[index].name}  {crops.texts[index]}  ({records[index]['status']}{sure})"
        draw.text((x + 2, y + TILE[1]), caption, "white", font)
        for line, (engine, (before, after)) in enumerate(readings.items(), 1):
            was, now = (bool(right([read[index]], [crops.texts[index]])[0]) for read in (before, after))
            colour = "white" if now else "salmon" if was else "lightgray"
            caption = f"{engine}: {before[index] or '(nothing)'} -> {after[index] or '(nothing)'}"
            draw.text((x + 2, y + TILE[1] + line * LINE), caption, colour, font)
    return sheet


def paste(sheet: Image.Image, path: Path, corner: tuple[int, int]) -> None:
    """Paste an image, scaled to fit a tile."""
    with Image.open(path) as image:
        scale = min(TILE[0] / image.width, TILE[1] / image.height)
        size = (max(round(image.width * scale), 1), max(round(image.height * scale), 1))
        sheet.paste(image.convert("RGB").resize(size, Image.Resampling.BICUBIC), corner)


def print_table(results: dict[str, dict[str, Any]]) -> None:
    """Print one line per set and engine, in per cent and points, and what became of each set's crops."""
    columns = {"raw": ".1f", "rectified": ".1f", "gain": "+.1f", "fixed": "d", "harmed": "d", "p": ".2g"}
    columns["reference"] = ".1f"
    print(f"{'set':17}{'crops':>6}  {'engine':10}" + "".join(f"{title:>10}" for title in columns))
    for name, result in results.items():
        for engine, measures in result["engines"].items():
            cells = [format(measures[key], style) if key in measures else "–" for key, style in columns.items()]
            print(f"{name:17}{result['count']:6}  {engine:10}" + "".join(f"{cell:>10}" for cell in cells))
    for name, result in results.items():
        if "statuses" in result:
            counts = ", ".join(f"{count} {status}" for status, count in sorted(result["statuses"].items()))
            print(f"{name}: {counts}; {result['seconds']:.1f} s")
        if "orientation" in result:
            measures = result["orientation"]
            print(
                f"{name}: {measures['within_15']:.1f} % within {NEAR}° of the true direction, "
                f"{measures['upside_down']:.1f} % upside down"
            )


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.text", description=__doc__.partition("\n")[0])
    data = os.environ.get("STN_DATA")
    parser.add_argument("data", type=Path, nargs="?", default=data, help="folder that holds text/ [STN_DATA]")
    parser.add_argument("--work", type=Path, required=True, help="folder for the turned set, crops and readings")
    parser.add_argument("-m", "--model", default="text", help="model name or folder, as `stn rectify -m` takes it")
    parser.add_argument("--sets", nargs="+", choices=SETS, default=SETS)
    parser.add_argument("--engines", nargs="+", choices=list(ENGINES), default=list(ENGINES))
    parser.add_argument("--count", type=int, help="an evenly spread part of N crops of every set")
    parser.add_argument("--seed", type=int, default=0, help="of the turns")
    parser.add_argument("--options", default="", help='more options of `stn rectify`, such as "--min-confidence 0"')
    parser.add_argument("--baseline-only", action="store_true", help="do not rectify: read the raw crops only")
    parser.add_argument("--jobs", type=int, default=1, choices=(1, 2), help="processes that read")
    parser.add_argument("--worst", type=int, default=0, metavar="N", help="draw the N worst of each set to DIR")
    parser.add_argument("--output", type=Path, default=RESULTS / "text.json")
    args = parser.parse_args(argv)
    if args.data is None:
        parser.error("name the data folder or set STN_DATA")
    return args


def main(argv: Sequence[str]) -> None:
    args = parse(argv)
    readers = {engine: CachedReader(engine, args.work / "readings", args.jobs) for engine in args.engines}
    results = {}
    for name in args.sets:
        crops = load_set(name, args.data, args.work, args.count, args.seed)
        results[name] = measure_set(crops, readers, args)
    print_table(results)
    versions = {engine: engine_version(engine) for engine in args.engines}
    write_report(args.output, provenance("text", argv) | {"engines": versions, "sets": results})


if __name__ == "__main__":
    main(sys.argv[1:])
