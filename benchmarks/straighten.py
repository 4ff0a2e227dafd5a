"""A folder of upright pictures, 500 traffic signs, as all that there is to learn from: how straight do others come out?

    python -m benchmarks.straighten GTSRB/train.tar --work DIR

The last frame of 500 tracks, chosen by a hash of their names; `stn train` holds a tenth of them out, and distorts
both by its own defaults. No class, box or other frame is used.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import re
import sys
import tarfile
from pathlib import Path

from PIL import Image

from benchmarks.provenance import RESULTS, provenance, write_report
from benchmarks.training import stn_train

COUNT = 500
FRAME = re.compile(r"(\d+)/(\d+)_(\d+)\.\w+")
KEPT = ("samples", "right", "error_median", "rotation_median", "rotation_p95", "rotation_within_15")


def write_signs(archive: Path, folder: Path) -> None:
    """Writes the pictures into the folder, unless they are there."""
    if folder.is_dir() and len(list(folder.iterdir())) == COUNT:
        return
    folder.mkdir(parents=True, exist_ok=True)
    with tarfile.open(archive) as members:
        latest: dict[str, str] = {}
        for name in sorted(members.getnames()):
            if match := FRAME.search(name):
                latest[f"{match[1]}-{match[2]}"] = name
        chosen = sorted(latest, key=lambda track: hashlib.sha256(track.encode()).digest())[:COUNT]
        for track in chosen:
            file = members.extractfile(latest[track])
            assert file is not None
            Image.open(io.BytesIO(file.read())).save(folder / f"{track}.png")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("archive", type=Path)
    parser.add_argument("--work", type=Path, required=True)
    arguments = parser.parse_args()
    signs, run = arguments.work / "upright", arguments.work / "straighten"
    write_signs(arguments.archive, signs)
    seconds = stn_train([signs], run, [])
    columns = json.loads((run / "report.json").read_text(encoding="utf-8"))
    found = {key: columns["held out"][key] for key in KEPT}
    write_report(
        RESULTS / "straighten.json", {**provenance("straighten", sys.argv[1:]), "seconds": seconds, "held_out": found}
    )


if __name__ == "__main__":
    main()
