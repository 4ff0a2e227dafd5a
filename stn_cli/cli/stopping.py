"""A first Ctrl-C, or SIGTERM, asks a run to finish what it has begun; a second one ends it at once."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

from stn_cli.cli.output import say


@dataclass
class GentleStop:
    """The signal that asked for a stop, or None."""

    signal: int | None = None

    @property
    def exit_code(self) -> int:
        """130 for SIGINT, 143 for SIGTERM, as shells say it."""
        return 128 + (self.signal or 0)


@contextmanager
def stops_gently() -> Iterator[GentleStop]:
    """Takes SIGINT and SIGTERM as a wish; the same signal again has its usual effect.

    One that is ignored stays so: Ctrl-C is not meant for what a shell runs in the background.
    """
    stop = GentleStop()

    def ask(number: int, _frame: FrameType | None) -> None:
        stop.signal = number
        signal.signal(number, before[number])
        say("finishing what has begun; once more stops at once")

    heeded = [number for number in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(number) != signal.SIG_IGN]
    before = {int(number): signal.signal(number, ask) for number in heeded}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
