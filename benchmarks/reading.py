"""Does a recogniser read bent and turned words better behind a spatial transformer? Both from scratch, same budget.

    python -m benchmarks.reading FONTS --work DIR [--steps N] [--transform KIND]

Words are rendered in the fonts below FONTS, on arcs and waves, turned and in perspective, into a folder with a table of
labels; `stn train --objective read --baseline` then trains with the transformer and without. Validation words and fonts
are never trained on.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.commands import seconds_of_training, stn_train
from benchmarks.provenance import RESULTS, provenance, write_report
from stn_cli.training.text.config import TextConfig, TextScene
from stn_cli.training.text.drawing import draw_word
from stn_cli.training.text.samples import held_out_samples, read_lettering, training_samples

CANVAS, SEED, LONGEST = 96, 11, 10
SCENES = (
    TextScene(name="arc", weight=3.0, arcs=1.0, arc=(40.0, 160.0), rotation=25.0),
    TextScene(name="wave", waves=1.0, rotation=25.0),
    TextScene(name="turned", weight=2.0, rotation=50.0, perspective=0.25),
)
CONFIG = """
objectives = ["read"]
canvas = 96
precision = "bf16"
reader_widths = [24, 48, 64, 96]
reader_hidden = 128
augment = { rotation = 3.0, scale = 1.05, shear = 0.05, shift = 0.03, light = 0.3 }
validate_every = 1000
"""
COUNTS = {"train": 24_000, "validation": 3_000}


def write_words(fonts: Path, words: Path, folder: Path) -> None:
    """Renders the words, unless they are there."""
    if (folder / "labels.tsv").exists():
        return
    (folder / "images").mkdir(parents=True, exist_ok=True)
    config = TextConfig(words=str(words), masks=12_000, scenes=SCENES)
    lettering = read_lettering([fonts], config)
    rows = [("file", "text", "split")]
    for part, make in (("train", training_samples), ("validation", held_out_samples)):
        seed = SEED + len(part)
        samples = make(lettering, config, canvas=CANVAS, seed=seed, length=COUNTS[part], workers=2)
        written, index = 0, 0
        while written < COUNTS[part]:
            rng = np.random.default_rng((seed, index))
            scene = SCENES[samples.random_scene(rng)]
            drawn = draw_word(rng, samples.masks, samples.textures, scene, CANVAS)
            index += 1
            text = drawn.text.lower()
            if not (text.isascii() and text.isalnum() and 2 <= len(text) <= LONGEST):
                continue
            height, width = drawn.size
            top, left = (CANVAS - height) // 2, (CANVAS - width) // 2
            name = f"{part}-{written:05d}.png"
            Image.fromarray(drawn.canvas[top : top + height, left : left + width]).save(folder / "images" / name)
            rows.append((f"images/{name}", text, part))
            written += 1
    with (folder / "labels.tsv").open("w", encoding="utf-8", newline="") as table:
        csv.writer(table, delimiter="\t", lineterminator="\n").writerows(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("fonts", type=Path)
    parser.add_argument("--words", type=Path, default=Path("/usr/share/dict/words"))
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=5000)
    parser.add_argument("--transform", default="tps:border 2x5")
    arguments = parser.parse_args()
    words = arguments.work / "words"
    write_words(arguments.fonts, arguments.words, words)
    run = arguments.work / f"reading-{arguments.transform.replace(':', '-').replace(' ', '-')}"
    config = arguments.work / "reading.toml"
    config.write_text(CONFIG, encoding="utf-8")
    options = ["--config", str(config), "--transform", arguments.transform, "--steps", str(arguments.steps)]
    options += ["--output", "32x96", "--baseline"]
    stn_train([words], run, options)
    columns = json.loads((run / "report.json").read_text(encoding="utf-8"))
    found = {"with": columns["held out"]["words"], "without": columns["held out, no transformer"]["words"]}
    report = {
        **provenance("reading", sys.argv[1:]),
        "transform": arguments.transform,
        "steps": arguments.steps,
        "seconds_of_training": seconds_of_training(run),
        "words_right": found,
        "points": 100 * (found["with"] - found["without"]),
    }
    write_report(RESULTS / "reading.json", report)


if __name__ == "__main__":
    main()
