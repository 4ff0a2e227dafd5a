"""Files that lie beside an image and say what it shows."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import PurePosixPath

from stn_cli.errors import TrainingDataError
from stn_cli.training.examples.files import Files
from stn_cli.training.examples.found import Found
from stn_cli.training.examples.tables import Row, read_entry

_SIDECARS = (".json", ".cls", ".txt", ".gt.txt")
"""In this order, so that what JSON says in passing gives way to what a file of its own says."""


def sidecars_of(name: str, there: set[str]) -> tuple[str, ...]:
    """Of the files that are there, those of the image, in the order in which they are read."""
    stem = name[: -len(PurePosixPath(name).suffix)]
    key = f"{name.rpartition('/')[0]}/{name.rpartition('/')[2].partition('.')[0]}".lstrip("/")
    candidates = (f"{base}{suffix}" for base in dict.fromkeys((stem, key)) for suffix in _SIDECARS)
    return tuple(candidate for candidate in candidates if candidate in there)


def row_of(files: Files, name: str, sidecars: Sequence[str], found: Found) -> Row:
    """What they say of the image; one that is not UTF-8 is reported, and says nothing."""
    row = Row(name)
    for sidecar in sidecars:
        try:
            data = files.read(sidecar)
        except OSError as error:
            raise TrainingDataError(f"{files.where(sidecar)} cannot be read: {error.strerror}") from error
        if sidecar.endswith(".json"):
            row = read_entry(data, name, files.where(sidecar))
        elif sidecar.endswith(".cls"):
            row = replace(row, class_name=_text(data, sidecar, found))
        else:
            row = replace(row, text=_transcription(data, sidecar, found))
    return row


def _transcription(data: bytes, name: str, found: Found) -> str | None:
    text = _text(data, name, found)
    if text is None or not _is_yolo(text):
        return text
    remedy = "Put one box for each image into a table of labels: file, class, x1, y1, x2, y2, width and height."
    found.report("the file holds YOLO's boxes, and is not read", remedy, [name])
    return None


def _is_yolo(text: str) -> bool:
    """Lines of a class's number, and the centre and size of a box as shares of the image's sides."""
    try:
        rows = [[float(value) for value in line.split()] for line in text.splitlines()]
    except ValueError:
        return False
    return bool(rows) and all(len(row) == 5 and row[0].is_integer() and max(row[1:]) <= 1 for row in rows)


def _text(data: bytes, name: str, found: Found) -> str | None:
    try:
        return data.decode("utf-8-sig").strip()
    except UnicodeDecodeError:
        found.report("the file is not UTF-8, and is not read", "Save it as UTF-8.", [name])
        return None
