"""Does a run that is killed again and again end like one that nothing disturbed?

    python -m benchmarks.kills DATA --work DIR

500 files of `text/` are rectified by two workers; chains of three runs are killed by SIGKILL at random moments, and a
fourth ends by itself. Then crops, records and everything else in the folder must equal those of an undisturbed run.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.provenance import RESULTS, provenance, write_report

if TYPE_CHECKING:
    from collections.abc import Sequence

FILES, CHAIN, SEED = 500, 3, 0


def command(folder: Path) -> list[str]:
    options = ["--device", "cpu", "--workers", "2", "--batch-size", "16", "-q"]
    return [sys.executable, "-m", "stn_cli", "rectify", str(folder / "in"), "-o", str(folder / "out"), *options]


def outcome(out: Path) -> dict[str, object]:
    """Return every file below a folder: its bytes, of records the lines whatever their order."""
    files = {str(path.relative_to(out)): path.read_bytes() for path in out.rglob("*") if path.is_file()}
    return {name: sorted(data.splitlines()) if name.endswith(".jsonl") else data for name, data in files.items()}


def differences(outcome: dict[str, object], expected: dict[str, object]) -> list[str]:
    """Return what is not the same, a line each."""
    differing = []
    for name in sorted(outcome.keys() | expected.keys()):
        mine, theirs = outcome.get(name), expected.get(name)
        if isinstance(mine, list) and isinstance(theirs, list):
            differing += [f"{name}: + {line!r}" for line in mine if line not in theirs]
            differing += [f"{name}: - {line!r}" for line in theirs if line not in mine]
        if mine != theirs:
            differing.append(f"{name}: {'missing' if mine is None else 'not the same' if theirs else 'too many'}")
    return differing


def kill_within(folder: Path, seconds: float) -> bool:
    """Start a run and kill it; return whether it was still running."""
    run = subprocess.Popen(command(folder))
    try:
        run.wait(seconds)
    except subprocess.TimeoutExpired:
        os.kill(run.pid, signal.SIGKILL)
        run.wait()
        return True
    return False


def main(argv: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.kills", description=__doc__.partition("\n")[0])
    parser.add_argument("data", type=Path, help="folder that holds text/")
    parser.add_argument("--work", type=Path, required=True, help="folder for inputs and outputs")
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--output", type=Path, default=RESULTS / "kills.json")
    args = parser.parse_args(argv)
    shutil.rmtree(args.work, ignore_errors=True)
    (args.work / "in").mkdir(parents=True)
    for source in sorted(path for path in (args.data / "text").rglob("images/*") if path.is_file())[:FILES]:
        shutil.copy(source, args.work / "in")
    started = time.perf_counter()
    subprocess.run(command(args.work), check=True)
    whole = time.perf_counter() - started
    expected = outcome(args.work / "out")
    rng, kills, chains, equal, missed = random.Random(SEED), 0, 0, 0, 0
    while kills < args.kills:
        shutil.rmtree(args.work / "out")
        for _ in range(CHAIN):
            done = kill_within(args.work, rng.uniform(0.2, 1.0) * whole)
            kills, missed = kills + done, missed + (not done)
        subprocess.run(command(args.work), check=True)
        chains += 1
        differing = differences(outcome(args.work / "out"), expected)
        equal += not differing
        print(f"{kills} kills, {equal} of {chains} chains equal", *differing, sep="\n  ", flush=True)
    result = {
        "files": len(expected),
        "kills": kills,
        "runs_that_ended_before": missed,
        "chains": chains,
        "equal": equal,
    }
    write_report(args.output, provenance("kills", argv) | result)


if __name__ == "__main__":
    main(sys.argv[1:])
