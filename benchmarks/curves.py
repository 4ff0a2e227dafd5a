"""Would more training still help? The error on held-out samples against the samples seen, from the logs of `text`.

    python -m benchmarks.curves

Every part of the training has its configuration and its log in `models/text/`; the parts are joined in order. What is
held out is drawn as each part draws: more is turned in the third than before, more is short in the fourth, and in the
last, in which the net for the direction learns alone, more again, on larger canvases.
"""

from __future__ import annotations

import argparse
import json
import sys
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.provenance import REPOSITORY, RESULTS, provenance, write_report

if TYPE_CHECKING:
    from collections.abc import Sequence

FOLDER = REPOSITORY / "models" / "text"
PARTS = (
    ("first.toml", "first.jsonl"),
    ("second.toml", "second.jsonl"),
    ("third.toml", "third.jsonl"),
    ("fourth.toml", "fourth.jsonl"),
    ("config.toml", "log.jsonl"),
)
MEASURES = {
    "error_median": "median error, text heights",
    "rotation_within_15": "direction within 15°",
    "turned_over": "upside down",
}


def read_curve(folder: Path) -> list[dict[str, Any]]:
    """Return, for every validation of all parts, the samples seen so far and the measures of every scene."""
    curve, before = [], 0
    for config, log in PARTS:
        batch = tomllib.loads((folder / config).read_text(encoding="utf-8"))["batch_size"]
        entries = [json.loads(line) for line in (folder / log).read_text(encoding="utf-8").splitlines()]
        for entry in entries:
            if "validation" in entry:
                scenes = {"all": entry["validation"]["overall"], **entry["validation"]["scenes"]}
                rows = {name: {key: scene[key] for key in MEASURES} for name, scene in scenes.items()}
                curve.append({"samples": before + batch * entry["step"], "part": config, **rows})
        before += batch * max(entry["step"] for entry in entries)
    return curve


def draw(curve: list[dict[str, Any]], path: Path) -> None:
    """Draw one chart per measure, a line per scene and part."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 3.6), layout="constrained")
    for axes, (key, title) in zip(figure.subplots(1, len(MEASURES)), MEASURES.items(), strict=True):
        for number, scene in enumerate(name for name in curve[0] if name not in ("samples", "part")):
            for part, _ in PARTS:
                rows = [row for row in curve if row["part"] == part]
                label = scene if part == PARTS[0][0] else None
                axes.plot(
                    [row["samples"] / 1e6 for row in rows],
                    [row[scene][key] for row in rows],
                    f"C{number}.-",
                    label=label,
                )
        axes.set(title=title, xlabel="million samples")
        axes.grid(alpha=0.3)
        axes.set_yscale("log" if key == "error_median" else "linear")
    axes.legend()
    figure.savefig(path, dpi=80)


def main(argv: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.curves", description=__doc__.partition("\n")[0])
    parser.add_argument("--output", type=Path, default=RESULTS / "curves.json")
    parser.add_argument("--picture", type=Path, default=RESULTS / "curves.png")
    args = parser.parse_args(argv)
    curve = read_curve(FOLDER)
    draw(curve, args.picture)
    write_report(args.output, provenance("curves", argv) | {"curve": curve})


if __name__ == "__main__":
    main(sys.argv[1:])
