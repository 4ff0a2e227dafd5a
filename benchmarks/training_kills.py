"""Does training that is killed ten times at random moments end with the same bytes as training that nothing disturbed?

    python -m benchmarks.training_kills MNIST --work DIR

One run of `stn train` is left alone. The other is killed by SIGKILL, each time at a moment drawn from its start to a
sixth of the time that the first took, and started again by the same command, until it has been killed ten times; then
it ends by itself. Weights, graphs, log (but for its clock) and every number of the last state are compared.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import torch

from benchmarks.provenance import REPOSITORY, RESULTS, provenance, write_report

KILLS, STEPS, SAVED_EVERY, SEED = 10, 1000, 50, 5
FILES = ("model.safetensors", "localizer.onnx", "classifier.onnx", "golden.safetensors")


def command(mnist: Path, run: Path) -> list[str]:
    config = run.parent / "kills.toml"
    config.write_text(f"validate_every = {SAVED_EVERY}\n", encoding="utf-8")
    options = ["--config", str(config), "--steps", str(STEPS), "--threads", "1", "-q"]
    return [sys.executable, "-m", "stn_cli", "train", str(mnist), "-o", str(run), *options]


def log_without_clock(run: Path) -> list[dict[str, object]]:
    lines = (run / "log.jsonl").read_text(encoding="utf-8").splitlines()
    return [{name: value for name, value in json.loads(line).items() if name != "seconds"} for line in lines]


def last_state(run: Path) -> dict[str, object]:
    state: dict[str, object] = torch.load(run / f"state-{STEPS}.pt", weights_only=True)
    return state


def equal(one: object, other: object) -> bool:
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(equal(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(equal, one, other))
    return bool(one == other)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("mnist", type=Path)
    parser.add_argument("--work", type=Path, required=True)
    arguments = parser.parse_args()
    whole, parts = arguments.work / "whole", arguments.work / "parts"
    for folder in (whole, parts):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    started = time.monotonic()
    subprocess.run(command(arguments.mnist, whole), check=True, cwd=REPOSITORY)
    seconds = time.monotonic() - started
    moments, rng, killed = [], random.Random(SEED), 0
    while killed < KILLS:
        run = subprocess.Popen(command(arguments.mnist, parts), cwd=REPOSITORY)
        moment = rng.uniform(0.0, seconds / 6)
        try:
            run.wait(moment)
        except subprocess.TimeoutExpired:
            run.send_signal(signal.SIGKILL)
            killed += run.wait() == -signal.SIGKILL
            states = sorted(int(path.stem.split("-")[1]) for path in parts.glob("state-*.pt"))
            moments.append({"second": round(moment, 2), "saved_step": states[-1] if states else 0})
            print(moments[-1], flush=True)
        else:
            raise SystemExit(f"the run ended after {killed} kills: train for more steps")
    subprocess.run(command(arguments.mnist, parts), check=True, cwd=REPOSITORY)
    found = {name: (whole / name).read_bytes() == (parts / name).read_bytes() for name in FILES}
    found |= {
        "log": log_without_clock(whole) == log_without_clock(parts),
        "state": equal(last_state(whole), last_state(parts)),
    }
    print(found)
    report = {**provenance("training_kills", sys.argv[1:]), "kills": moments, "equal": found}
    write_report(RESULTS / "training_kills.json", report)


if __name__ == "__main__":
    main()
