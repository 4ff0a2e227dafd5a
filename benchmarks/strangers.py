"""How long does it take to refuse a stranger's checkpoint?

    python -m benchmarks.strangers --work DIR

Each of the spoilt checkpoints of the tests is handed to `stn rectify` and to `stn models verify`, whole processes.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.provenance import RESULTS, provenance, write_report
from stn_cli.checkpoints import open_checkpoint
from tests.checkpoints.strangers import DAMAGES

if TYPE_CHECKING:
    from collections.abc import Sequence

IMAGE = Path(__file__).resolve().parents[1] / "sample_images" / "digits" / "rotated-1.png"


def main(argv: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.strangers", description=__doc__.partition("\n")[0])
    parser.add_argument("--work", type=Path, required=True, help="folder for the checkpoints")
    parser.add_argument("--output", type=Path, default=RESULTS / "strangers.json")
    args = parser.parse_args(argv)
    seconds: dict[str, list[float]] = {}
    for name, (damage, _) in DAMAGES.items():
        shutil.rmtree(args.work, ignore_errors=True)
        folder = shutil.copytree(open_checkpoint("digits").path, args.work / "model")
        damage(folder)
        seconds[name] = []
        rectify = ("rectify", str(IMAGE), "-o", str(args.work / "out"), "--device", "cpu", "-m")
        for command in (rectify, ("models", "verify")):
            started = time.perf_counter()
            run = subprocess.run(
                [sys.executable, "-m", "stn_cli", *command, str(folder)], capture_output=True, check=False
            )
            seconds[name].append(round(time.perf_counter() - started, 3))
            if run.returncode != 5 or (args.work / "out").exists() or (folder / "ran").exists():
                sys.exit(f"{name}: {command[0]} ended with {run.returncode}")
    slowest = max(seconds, key=lambda name: max(seconds[name]))
    print(f"{len(seconds)} checkpoints refused with exit code 5; the slowest, {slowest}, in {max(seconds[slowest])} s")
    write_report(args.output, provenance("strangers", argv) | {"seconds_rectify_and_verify": seconds})


if __name__ == "__main__":
    main(sys.argv[1:])
