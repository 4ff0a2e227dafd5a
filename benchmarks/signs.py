"""Traffic signs from their classes alone: accuracy with and without a transformer, and where it looks (GTSRB).

    python -m benchmarks.signs GTSRB/train.tar --work DIR [--transform attention] [--seeds 3]

Tracks are kept together, a fifth of them is held out. The boxes of `roi.csv` are measured against, never learned from.
A track has thirty frames, which are read alike: one track more is 0.37 points, so that single runs say little.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from pathlib import Path
from typing import Any

from benchmarks.commands import seconds_of_training, stn_train
from benchmarks.provenance import RESULTS, provenance, write_report

READING = ["--labels", "roi.csv", "--group-by", r"^(\d+/\d+)_", "--validation-share", "0.2"]
KEPT = ("accuracy", "accuracy_unrectified", "iou", "zoom_mean", "zoom_spread")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("archive", type=Path)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--transform", default="attention")
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    runs: list[dict[str, Any]] = []
    for seed in range(arguments.seeds):
        run = arguments.work / f"signs-{arguments.transform}-{seed}"
        options = [*READING, "--transform", arguments.transform, "--objective", "classify", "--seed", str(seed)]
        stn_train([arguments.archive], run, options)
        stn_train([arguments.archive], run, [*options, "--baseline"])
        columns = json.loads((run / "report.json").read_text(encoding="utf-8"))
        held_out = {name: {key: found[key] for key in KEPT if key in found} for name, found in columns.items()}
        runs.append({"seed": seed, "seconds": seconds_of_training(run), **held_out})
        print(json.dumps(runs[-1]), flush=True)
    means = {
        name: {key: statistics.mean(run[name][key] for run in runs) for key in runs[0][name]}
        for name in runs[0]
        if name not in ("seed", "seconds")
    }
    report = {**provenance("signs", sys.argv[1:]), "transform": arguments.transform, "means": means, "runs": runs}
    write_report(RESULTS / f"signs-{arguments.transform}.json", report)


if __name__ == "__main__":
    main()
