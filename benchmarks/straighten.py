"""A folder of upright pictures, 500 traffic signs, as all that there is to learn from: how straight do others come out?

    python -m benchmarks.straighten GTSRB/train.tar --work DIR

The last frame of 500 tracks, chosen by a hash of their names; `stn train` holds a tenth of them out, and distorts
both by its own defaults. No class, box or other frame is used.

Then 300 other signs, each turned by up to ±45° and cut from the inside of its picture, so that no edge of a picture
gives the angle away.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import math
import re
import sys
import tarfile
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from benchmarks.commands import seconds_of_training, stn_train
from benchmarks.provenance import RESULTS, provenance, write_report
from stn_cli.checkpoints import open_checkpoint
from stn_cli.engines.devices import open_engine
from stn_cli.engines.engine import small_copy
from stn_cli.reports.inspection import reading_angle

COUNT, OTHERS, MOST_TURN, SIDE, SEED = 500, 300, 45.0, 60, 7
FRAME = re.compile(r"(\d+)/(\d+)_(\d+)\.\w+")
KEPT = ("samples", "right", "error_median", "rotation_median", "rotation_p95", "rotation_within_15")


def read_signs(archive: Path) -> dict[str, Image.Image]:
    """The last frames of all those tracks, by name, in the order of a hash."""
    with tarfile.open(archive) as members:
        latest: dict[str, str] = {}
        for name in sorted(members.getnames()):
            if match := FRAME.search(name):
                latest[f"{match[1]}-{match[2]}"] = name
        chosen = sorted(latest, key=lambda track: hashlib.sha256(track.encode()).digest())[: COUNT + OTHERS]
        files = {track: members.extractfile(latest[track]) for track in chosen}
        return {track: Image.open(io.BytesIO(file.read())) for track, file in files.items() if file is not None}


def turned_inside(sign: np.ndarray, degrees: float) -> np.ndarray:
    """A square turned clockwise by so much, as large as lies inside the picture (h, w, 3)."""
    height, width = sign.shape[:2]
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    half = min(height, width) / 2 / (abs(cos) + abs(sin)) - 1
    step = 2 * half / SIDE  # pixels of the picture for one of the square, about whose middle it turns
    linear = step * np.array([[cos, sin], [-sin, cos]])
    middle = np.array([(width - 1) / 2, (height - 1) / 2]) - linear @ np.full(2, (SIDE - 1) / 2)
    to_picture = np.concatenate((linear, middle[:, None]), axis=1)
    way = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    square: np.ndarray = cv2.warpAffine(sign, to_picture, (SIDE, SIDE), flags=way, borderMode=cv2.BORDER_REPLICATE)
    return square


def rotation_left(model: Path, signs: Sequence[np.ndarray]) -> dict[str, float]:
    """By how many degrees the model errs on signs that are turned and show no edge."""
    engine = open_engine(open_checkpoint(str(model)), "cpu")
    angles = np.random.default_rng(SEED).uniform(-MOST_TURN, MOST_TURN, len(signs))
    turned = [turned_inside(sign, angle) for sign, angle in zip(signs, angles.tolist(), strict=True)]
    located = engine.locate([small_copy(image) for image in turned], [(SIDE, SIDE)] * len(turned))
    found = np.array([reading_angle(location.transform, (SIDE, SIDE)) for location in located])
    errors = np.abs((found - angles + 180) % 360 - 180)
    return {
        "signs": len(signs),
        "before_median": float(np.median(np.abs(angles))),
        "median": float(np.median(errors)),
        "p95": float(np.quantile(errors, 0.95)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("archive", type=Path)
    parser.add_argument("--work", type=Path, required=True)
    arguments = parser.parse_args()
    signs, run = arguments.work / "upright", arguments.work / "straighten"
    pictures = read_signs(arguments.archive)
    signs.mkdir(parents=True, exist_ok=True)
    for track in list(pictures)[:COUNT]:
        pictures[track].save(signs / f"{track}.png")
    stn_train([signs], run, [])
    columns = json.loads((run / "report.json").read_text(encoding="utf-8"))
    others = [np.array(picture.convert("RGB")) for picture in list(pictures.values())[COUNT:]]
    report = {
        **provenance("straighten", sys.argv[1:]),
        "seconds_of_training": seconds_of_training(run),
        "held_out": {key: columns["held out"][key] for key in KEPT},
        "others_without_edges": rotation_left(run, others),
    }
    write_report(RESULTS / "straighten.json", report)


if __name__ == "__main__":
    main()
