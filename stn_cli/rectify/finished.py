"""What earlier runs finished, by their records: the same command again need not do that again."""

import hashlib
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import msgspec

from stn_cli.errors import StorageError

JOURNAL = ".stn-journal"
"""Beside the records: the crops that are about to take their names, and have no record yet if the run is killed."""


class Finished(NamedTuple):
    """An input that has a record.

    Attributes:
        key: of what its crop depended on; None of an input that failed.
        output: where its crop went, or that of an earlier run is still, seen from the folder of the record.
        crop: of its crop, as `digest` has it, where there is a key.
    """

    key: bytes | None
    output: str | None
    crop: bytes | None = None


class _Source(msgspec.Struct):
    relative: str
    sha256: str | None = None


class _Model(msgspec.Struct):
    sha256: str


class _Output(msgspec.Struct):
    relative: str
    sha256: str | None = None


class _Line(msgspec.Struct):
    """As much of a record as it takes."""

    source: _Source
    status: str
    model: _Model | None = None
    options_sha256: str | None = None
    output: _Output | None = None
    stale: str | None = None


_DAMAGED = (msgspec.DecodeError, UnicodeDecodeError)
_decoder = msgspec.json.Decoder(_Line)


def job_key(source_sha256: str, model_sha256: str, options_sha256: str) -> bytes:
    """Of all that the content of a crop depends on; 16 bytes."""
    return digest("\n".join((source_sha256, model_sha256, options_sha256)))


def digest(text: str) -> bytes:
    """16 bytes in the place of longer text, of which many are kept."""
    return hashlib.blake2b(text.encode(), digest_size=16).digest()


def read_finished(path: Path) -> dict[str, Finished]:
    """By the path of the input, seen from the folder of the records, what the last of its lines says.

    Nothing if there is no file. Lines that are no records are left out.
    """
    found = {}
    for _, source, finished in _lines(path):
        if source is not None and finished is not None:
            found[source] = finished
    return found


def read_journal(folder: Path) -> set[str]:
    """Crops that a killed run may have put in place without their records, seen from their folder."""
    try:
        lines = (folder / JOURNAL).read_bytes().splitlines()
    except FileNotFoundError:
        return set()
    except OSError as error:
        raise StorageError(f"cannot read {folder / JOURNAL}: {error.strerror}") from error
    names = set()
    for line in lines:
        with suppress(*_DAMAGED):  # torn: nothing had taken its name yet
            names.add(msgspec.json.decode(line, type=str))
    return names


def write_journal(folder: Path, crops: Iterable[str]) -> None:
    """One JSON string a line; no file where there are none."""
    lines = [msgspec.json.encode(crop) + b"\n" for crop in sorted(crops)]
    try:
        if lines:
            (folder / JOURNAL).write_bytes(b"".join(lines))
        else:
            (folder / JOURNAL).unlink(missing_ok=True)
    except OSError as error:
        raise StorageError(f"cannot write {folder / JOURNAL}: {error.strerror}") from error


def holds_failures(path: Path) -> bool:
    """Whether every line of a file is the record of a failure; of an empty one, too."""
    try:
        return all(_decoder.decode(line).status == "failed" for line in path.read_bytes().splitlines())
    except (OSError, *_DAMAGED):
        return False


def is_record(line: bytes) -> bool:
    """Whether all of a record is there: one whose writing was interrupted lacks its end."""
    try:
        _decoder.decode(line)
    except _DAMAGED:
        return False
    return True


def last_lines(path: Path) -> list[int] | None:
    """Numbers of the lines to keep, the last one of every input; None if that is all of them."""
    last: dict[str, int] = {}
    others, count = [], 0
    for number, source, _ in _lines(path):
        count += 1
        if source is None:
            others.append(number)
        else:
            last[source] = number
    kept = len(last) + len(others)
    return None if kept == count else sorted([*last.values(), *others])


def _lines(path: Path) -> Iterator[tuple[int, str | None, Finished | None]]:
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file):
                try:
                    record = _decoder.decode(line)
                except _DAMAGED:  # also where a field is missing
                    yield number, None, None
                else:
                    yield number, record.source.relative, _finished(record)
    except FileNotFoundError:
        return
    except OSError as error:
        raise StorageError(f"cannot read {path}: {error.strerror}") from error


def _finished(record: _Line) -> Finished:
    output = record.stale if record.output is None else record.output.relative
    source, model, options = record.source.sha256, record.model, record.options_sha256
    if record.status not in ("done", "unchanged") or source is None or model is None or options is None:
        return Finished(None, output)
    crop = record.output.sha256 if record.output is not None else None
    return Finished(job_key(source, model.sha256, options), output, None if crop is None else digest(crop))
