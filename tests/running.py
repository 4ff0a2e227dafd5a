"""The command as a user runs it, on the samples that come with it."""

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).parents[1]
SAMPLES = ROOT / "sample_images" / "digits"
STANDINS = ROOT / "tests" / "standins"
"""Packages that take the place of those which are not installed."""
HAS_TORCHVISION = find_spec("torchvision") is not None
TRUTH = json.loads((SAMPLES / "truth.json").read_text())


def stn(*arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "stn_cli", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=environment, check=False, timeout=120)


def rectify(*arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return stn("rectify", "-m", "digits", *arguments, cwd=cwd)


def records(folder: Path) -> dict[str, dict]:
    lines = [json.loads(line) for line in (folder / "theta.jsonl").read_text().splitlines()]
    return {Path(line["source"]["path"]).name: line for line in lines}
