"""Where records go: one `theta.jsonl` in the output folder, or one JSON file beside each crop."""

import os
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Self

import msgspec

from stn_cli.errors import StorageError
from stn_cli.images import write_atomically
from stn_cli.rectify.plan import RECORDS, Job
from stn_cli.rectify.record import Record, path_text


class RecordSink:
    """A context manager that takes records in order.

    Earlier lines of `theta.jsonl` stay, but for those of inputs that this run does again. An input that is skipped
    keeps its earlier line.
    """

    def __init__(self, out: Path | None, jobs: Sequence[Job]) -> None:
        self.path = None if out is None else out / RECORDS
        self.jobs = jobs
        self.recorded: set[str] = set()
        self.file: IO[bytes] | None = None

    def __enter__(self) -> Self:
        if self.path is not None:
            self._open(self.path)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self.file is not None:
            try:
                with self.file as file:
                    os.fsync(file.fileno())
            except OSError as failure:
                if error is None:
                    raise StorageError(f"cannot write {self.path}: {failure.strerror}") from failure

    def add(self, job: Job, record: Record) -> None:
        """Writes the record; StorageError if it cannot be written."""
        line = record.to_json() + b"\n"
        if self.file is None:
            if not (job.skip and job.record.exists()):
                write_atomically(job.record, line)
        elif not (job.skip and record.source.path in self.recorded):
            try:
                self.file.write(line)
            except OSError as error:
                raise StorageError(f"cannot write {self.path}: {error.strerror}") from error

    def _open(self, path: Path) -> None:
        redone = {path_text(job.source.path) for job in self.jobs if not job.skip}
        try:
            lines = path.read_bytes().splitlines() if path.exists() else []
            kept = {source: line for line in lines if (source := _source_of(line)) not in redone}
            self.recorded = {source for source in kept if source is not None}
            path.parent.mkdir(parents=True, exist_ok=True)
            if lines:
                write_atomically(path, b"".join(line + b"\n" for line in kept.values()))
            self.file = path.open("ab", buffering=0)
        except OSError as error:
            raise StorageError(f"cannot write {path}: {error.strerror}") from error


def _source_of(line: bytes) -> str | None:
    """The input that a line speaks of; None for what is no record."""
    try:
        return str(msgspec.json.decode(line)["source"]["path"])
    except (msgspec.DecodeError, KeyError, TypeError):
        return None
