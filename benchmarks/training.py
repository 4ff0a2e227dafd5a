"""`stn train` as a process of its own, timed."""

from __future__ import annotations

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
