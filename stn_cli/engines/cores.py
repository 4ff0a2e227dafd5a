"""How many cores this process may keep busy."""

import math
import os
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

_GROUPS = Path("/sys/fs/cgroup")
_OF_THIS_PROCESS = Path("/proc/self/cgroup")


def available_cores() -> int:
    """At least one: a scheduler, a container or `taskset` may leave a process few of the machine's cores.

    Counts are rounded up: `docker run --cpus 1.5` grants the time of one core and a half, which takes two to use.
    """
    if sys.platform != "linux":
        return os.cpu_count() or 1
    return max(1, min(len(os.sched_getaffinity(0)), math.ceil(min(_granted(), sys.maxsize))))


def _granted() -> float:
    """Cores' worth of time that Linux's control groups grant, of either version; infinite where none sets a limit."""
    return min((_limit(folder) for folder in _groups()), default=math.inf)


def _groups() -> Iterator[Path]:
    """The groups that limit this process's time: those that it is in, and those around them."""
    with suppress(OSError, ValueError):
        for line in _OF_THIS_PROCESS.read_text(encoding="utf-8").splitlines():
            _, controllers, group = line.split(":", 2)
            if not controllers or "cpu" in controllers.split(","):
                root = _GROUPS / "cpu" if controllers else _GROUPS
                inside = root / group.lstrip("/")
                yield from (folder for folder in (inside, *inside.parents) if folder.is_relative_to(root))


def _limit(folder: Path) -> float:
    with suppress(OSError, ValueError):  # no such file, or "max"
        quota, period = (folder / "cpu.max").read_text(encoding="utf-8").split()
        return int(quota) / int(period)
    with suppress(OSError, ValueError):
        quota, period = ((folder / f"cpu.cfs_{name}_us").read_text(encoding="utf-8") for name in ("quota", "period"))
        return int(quota) / int(period) if int(quota) > 0 else math.inf
    return math.inf
