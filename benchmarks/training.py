"""`stn train` as a process of its own, timed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path


def stn_train(data: list[Path], run: Path, options: list[str]) -> float:
    """Trains into `run`, or goes on there; returns the seconds that this call took. What it says goes to the screen."""
    root = Path(__file__).parents[1]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    started = time.monotonic()
    command = [sys.executable, "-m", "stn_cli", "train", *map(str, data), "-o", str(run), *options]
    subprocess.run(command, env=environment, check=True)
    return time.monotonic() - started


def seconds_of_training(run: Path) -> float:
    """What the log says of a run that nothing interrupted."""
    lines = (run / "log.jsonl").read_text(encoding="utf-8").splitlines()
    return float(max(json.loads(line).get("seconds", 0.0) for line in lines))
