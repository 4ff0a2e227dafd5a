"""Traffic signs from their classes alone: accuracy with and without a transformer, and where it looks (GTSRB).

    python -m benchmarks.signs GTSRB/train.tar --work DIR [--transform attention]

Tracks are kept together, a fifth of them is held out. The boxes of `roi.csv` are measured against, never learned from.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from benchmarks.commands import stn_train
from benchmarks.provenance import RESULTS, provenance, write_report

READING = ["--labels", "roi.csv", "--group-by", r"^(\d+/\d+)_", "--validation-share", "0.2"]
KEPT = ("accuracy", "accuracy_unrectified", "iou", "zoom_mean", "zoom_spread")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("archive", type=Path)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--transform", default="attention")
    arguments = parser.parse_args()
    run = arguments.work / f"signs-{arguments.transform}"
    options = [*READING, "--transform", arguments.transform, "--objective", "classify"]
    seconds = stn_train([arguments.archive], run, options)
    stn_train([arguments.archive], run, [*options, "--baseline"])
    columns = json.loads((run / "report.json").read_text(encoding="utf-8"))
    report = {
        **provenance("signs", sys.argv[1:]),
        "transform": arguments.transform,
        "seconds": seconds,
        "held_out": {
            name: {key: measures[key] for key in KEPT if key in measures} for name, measures in columns.items()
        },
    }
    write_report(RESULTS / f"signs-{arguments.transform}.json", report)


if __name__ == "__main__":
    main()
