"""When, where and with what a result was measured."""

from __future__ import annotations

import json
import os
import platform
import re
import shlex
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

REPOSITORY = Path(__file__).resolve().parent.parent
RESULTS = REPOSITORY / "benchmarks" / "results"
_PACKAGES = ("torch", "onnxruntime", "numpy", "opencv-python-headless", "pillow")


def provenance(benchmark: str, argv: Sequence[str]) -> dict[str, Any]:
    """Date, command, commit, machine and versions; of absolute paths only the last part."""
    relative = [re.sub(r"(?<![^=])/(\S*/)?", "", argument.rstrip("/")) for argument in argv]
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": shlex.join(["python", "-m", f"benchmarks.{benchmark}", *relative]),
        "commit": _commit(),
        "machine": {"cpu": _cpu() if sys.platform == "linux" else platform.processor(), "cores": os.cpu_count()},
        "versions": {"python": platform.python_version()} | {name: version(name) for name in _PACKAGES},
    }


def write_report(path: Path, report: dict[str, Any]) -> None:
    """Writes a report as JSON without NaN."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(report, indent=1, allow_nan=False) + "\n", encoding="utf-8")


def _cpu() -> str:
    with Path("/proc/cpuinfo").open() as file:
        return next((line.split(":")[1].strip() for line in file if line.startswith("model name")), "unknown")


def _commit() -> str | None:
    command = ["git", "-C", str(REPOSITORY), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip() or None
