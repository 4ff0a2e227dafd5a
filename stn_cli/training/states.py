"""The states of a run from which it can go on: the last few, each of them whole."""

import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from stn_cli.errors import StorageError, UsageError
from stn_cli.images import write_atomically

_NAME = re.compile(r"state-(\d+)\.pt")


class States:
    """Files `state-STEP.pt` in the folder of a run; the newest `keep` of them stay."""

    def __init__(self, run: Path, keep: int) -> None:
        self.run, self.keep = run, keep

    def save(self, step: int, state: dict[str, Any]) -> None:
        """Writes the state, then removes what is too old. Raises StorageError, and keeps the older states then."""
        buffer = io.BytesIO()
        torch.save(state, buffer)
        write_atomically(self.run / f"state-{step}.pt", buffer.getvalue())
        for path in self._found()[self.keep :]:
            path.unlink(missing_ok=True)

    def restore(self, load: Callable[[dict[str, Any]], None]) -> list[str]:
        """Hands the newest state to `load`, or the one before where that one is damaged.

        Returns what was wrong with those that were passed over. Raises StorageError if there are states, but all of
        them are damaged, and what `load` says of one that is whole, and not of this run.
        """
        damaged = []
        for path in self._found():
            try:
                load(torch.load(path, weights_only=True, map_location="cpu"))  # wherever it was written
            except UsageError:
                raise
            except Exception as error:  # a damaged archive raises nearly anything
                damaged.append(f"{path} cannot be resumed from: {error}")
            else:
                return damaged
        if damaged:
            raise StorageError(damaged[0], remedy=f"Remove state-*.pt from {self.run} to start the run anew.")
        return []

    def _found(self) -> list[Path]:
        """Newest first."""
        numbered = [(int(match[1]), path) for path in self.run.iterdir() if (match := _NAME.fullmatch(path.name))]
        return [path for _, path in sorted(numbered, reverse=True)]
