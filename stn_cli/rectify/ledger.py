"""The records of a run, which are also its memory: the same command again does only what is not done yet.

With an output folder they are the lines of its `theta.jsonl`, otherwise one JSON file beside each crop.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from stn_cli.errors import OutputExistsError, StorageError
from stn_cli.images import exclusive, make_folder, publish, remove_leftovers, stage
from stn_cli.images.formats import RECORDS
from stn_cli.rectify.finished import is_record, last_lines, read_journal, write_journal
from stn_cli.rectify.plan import Job, prepare_folders
from stn_cli.rectify.record import Record, relative_text

if TYPE_CHECKING:
    from stn_cli.rectify.outcome import Group


class Ledger:
    """A context manager that commits groups of crops: all of them take their names, then their records are written.

    It keeps other runs out of its folder. Earlier lines of `theta.jsonl` stay, but for those of inputs that this run
    does again; of an input there is one line when it ends. A line torn by a kill is dropped.
    """

    def __init__(self, out: Path | None, jobs: Sequence[Job]) -> None:
        self.out = out
        self._jobs = jobs
        self._folders: list[Path] = []
        self._targets: dict[Path, set[str]] = {}
        self._announced: dict[Path, set[str]] = {}
        self._file: FileIO | None = None
        self._open = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as opened:
            if self.out is not None:
                make_folder(self.out)
                opened.enter_context(exclusive(self.out))
                self._file = opened.enter_context(_open_to_append(self.out / RECORDS))
            self._folders = prepare_folders(self._jobs, self.out)
            self._targets = _by_home(self._jobs)
            self._announced = {home: read_journal(home) & targets for home, targets in self._targets.items()}
            self._open = opened.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with self._open:  # the lock is held until all is done
            for folder in self._folders:
                remove_leftovers(folder, is_ours=folder == self.out)
            if kind is not None:
                return
            if self.out is not None:
                _keep_last_lines(self.out / RECORDS)
            for home in self._announced:
                self._write_journal(home)

    def commit(self, jobs: Sequence[Job], group: Group) -> None:
        """Crops and records of some jobs, to the disk; StorageError if that fails.

        An input that was skipped, or whose crop was changed by somebody, keeps the record that it has.
        """
        pairs = zip(jobs, group.records, strict=True)
        new = [(job, record) for job, record in pairs if record.status != "skipped" and not _is_theirs(record)]
        by_home = _by_home([job for job, _ in new])
        for home, targets in by_home.items():
            self._announced[home] |= targets
            self._write_journal(home)
        publish(group.staged)
        if new:
            self._write(new)
        for home, targets in by_home.items():
            self._announced[home] -= targets

    def _write_journal(self, home: Path) -> None:
        """What others announce there stays: beside the inputs several runs may go on at once."""
        write_journal(home, (read_journal(home) - self._targets[home]) | self._announced[home])

    def _write(self, new: Sequence[tuple[Job, Record]]) -> None:
        for job, record in new:
            record.source.relative = relative_text(job.source.path, job.record.parent)
            if record.output is not None:
                record.output.relative = relative_text(job.target, job.record.parent)
            if record.status == "failed" and job.is_made:
                record.stale = relative_text(job.target, job.record.parent)
        lines = [record.to_json() + b"\n" for _, record in new]
        if self._file is None:
            publish([stage(job.record, line) for (job, _), line in zip(new, lines, strict=True)])
            return
        try:
            left = memoryview(b"".join(lines))
            while left:
                left = left[self._file.write(left) :]
            os.fsync(self._file.fileno())
        except OSError as error:
            raise StorageError(f"cannot write {self._file.name}: {error.strerror}") from error


def _is_theirs(record: Record) -> bool:
    """What would have been replaced is no longer what the record of an earlier run says."""
    return record.error is not None and record.error.type == OutputExistsError.__name__


def _by_home(jobs: Sequence[Job]) -> dict[Path, set[str]]:
    """The crops of jobs, by the folder of their records, and seen from there."""
    found: dict[Path, set[str]] = {}
    for job in jobs:
        found.setdefault(job.record.parent, set()).add(relative_text(job.target, job.record.parent))
    return found


def _keep_last_lines(path: Path) -> None:
    """One line an input: the last."""
    numbers = last_lines(path)
    if numbers is not None:
        publish([stage(path, _chosen_lines(path, set(numbers)))])


def _chosen_lines(path: Path, numbers: set[int]) -> Iterator[bytes]:
    with path.open("rb") as file:
        yield from (line for number, line in enumerate(file) if number in numbers)


def _open_to_append(path: Path) -> FileIO:
    """The file, without a last line that is torn; one that lacks nothing but its end gets that."""
    try:
        file = path.open("a+b", buffering=0)  # closing it after a failure has nothing left to fail with
        whole = _whole_lines(file)
        file.seek(whole)
        rest = file.readall()
        if is_record(rest):
            file.write(b"\n")
        elif rest:
            file.truncate(whole)
    except OSError as error:
        raise StorageError(f"cannot write {path}: {error.strerror}") from error
    return file


def _whole_lines(file: FileIO) -> int:
    """Length of the file up to the end of its last line."""
    end = file.seek(0, os.SEEK_END)
    while end > 0:
        start = max(0, end - (1 << 16))
        file.seek(start)
        found = file.read(end - start).rfind(b"\n")
        if found >= 0:
            return start + found + 1
        end = start
    return 0
