"""`stn train` and `stn rectify` as processes of their own, timed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.provenance import REPOSITORY

if TYPE_CHECKING:
    from collections.abc import Sequence


def stn_train(data: Sequence[Path], run: Path, options: Sequence[str]) -> float:
    """Trains into `run`, or goes on there; returns the seconds that this call took. What it says goes to the screen."""
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    started = time.monotonic()
    command = [sys.executable, "-m", "stn_cli", "train", *map(str, data), "-o", str(run), *options]
    subprocess.run(command, env=environment, check=True)
    return time.monotonic() - started


def seconds_of_training(run: Path) -> float:
    """What the log says of a run that nothing interrupted."""
    lines = (run / "log.jsonl").read_text(encoding="utf-8").splitlines()
    return float(max(json.loads(line).get("seconds", 0.0) for line in lines))


def stn_rectify(
    source: Path, out: Path, model: str, options: Sequence[str] = (), *, some_may_fail: bool = False
) -> float:
    """Rectifies into a fresh folder; returns the seconds it took. `some_may_fail`: whoever reads the records counts."""
    shutil.rmtree(out, ignore_errors=True)
    started = time.monotonic()
    command = [sys.executable, "-m", "stn_cli", "rectify", str(source), "-o", str(out), "-m", model, "-q", *options]
    status = subprocess.run(command, check=False).returncode
    if status != 0 and not (status == 3 and some_may_fail):
        raise SystemExit(f"stn rectify ended with {status}")
    return time.monotonic() - started


def records_of(out: Path, names: Sequence[str]) -> list[dict[str, Any]]:
    """The records of files of these names, in their order; one that is missing counts as failed."""
    lines = (out / "theta.jsonl").read_text(encoding="utf-8").splitlines()
    records = {Path(record["source"]["path"]).name: record for record in map(json.loads, lines)}
    return [records.get(name, {"status": "failed"}) for name in names]
