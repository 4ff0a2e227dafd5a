"""Tables that say what is known of each file: `labels.tsv`, `.csv` or `.jsonl`.

Columns by name, in any order and capitals: the file; a class, a transcription, or a label that may be either; corners
or a box in pixels; the part (train, validation, test). A table without a row of names has the file and the label.

    file      file, filename, file_name, path, image, name
    class     class, category, classid, class_id
    text      text, transcription, word, words
    label     label, labels, or a second column without a name
    box       x1 y1 x2 y2, left top right bottom, xmin ymin xmax ymax, or x y w h; each perhaps with roi_, box_, bbox_,
              roi. or bbox. before it
    corners   x1 y1 … x4 y4, clockwise from the upper left of what is upright; in JSON also [[x, y], …]
    size      width and height of the image whose pixels these are, if it was resized since
    part      split, part, subset
"""

import csv
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np

from stn_cli.errors import TrainingDataError
from stn_cli.training.examples.files import Files

SUFFIXES = (".tsv", ".csv", ".jsonl")
_COLUMNS = {
    "file": ("file", "filename", "file_name", "path", "image", "name"),
    "class": ("class", "category", "classid", "class_id"),
    "text": ("text", "transcription", "word", "words"),
    "label": ("label", "labels"),
    "part": ("split", "part", "subset"),
}
_BOXES = (("x1", "y1", "x2", "y2"), ("left", "top", "right", "bottom"), ("xmin", "ymin", "xmax", "ymax"))
_CORNER_AND_SIZE = ("x", "y", "w", "h")
_CORNERS = tuple(f"{axis}{number}" for number in range(1, 5) for axis in "xy")
_PREFIXES = ("", "roi_", "box_", "bbox_", "roi.", "bbox.")


@dataclass(frozen=True, eq=False)
class Row:
    """What a table says of one file.

    Attributes:
        file: as the table has it.
        label: a class or a transcription, whichever that is.
        class_name, text: the one or the other, where the table says which.
        corners: (4, 2) in pixels, in the order of `border 2x2`.
        size: (width, height) of the image that they are stated against; None: of the file.
        part: as the table has it.
    """

    file: str
    label: str | None = None
    class_name: str | None = None
    text: str | None = None
    corners: np.ndarray | None = None
    part: str | None = None
    size: np.ndarray | None = None


def read_table(data: bytes, where: str) -> list[Row]:
    """The rows of a table; `where` ends with its suffix, and names it in errors.

    Raises:
        TrainingDataError: it is no such table, or has no column of files.
    """
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise TrainingDataError(f"{where} is not UTF-8: {error}", remedy="Save it as UTF-8.") from error
    entries = list(_json_entries(text, where) if where.endswith(".jsonl") else _delimited_entries(text, where))
    rows = [_row(entry, f"{where}, entry {number}") for number, entry in enumerate(entries, 1)]
    for number, row in enumerate(rows, 1):
        if not row.file:
            remedy = f"A column {' or '.join(_COLUMNS['file'])} is needed."
            raise TrainingDataError(f"{where}, entry {number} names no file", remedy=remedy)
    in_pixels = [row.corners for row in rows if row.corners is not None and row.size is None]
    if in_pixels and np.max(in_pixels) <= 1:
        raise TrainingDataError(
            f"{where} has boxes that are smaller than a pixel, as shares of a side would be",
            remedy="State them in pixels, or add columns width and height, of 1.",
        )
    return rows


def read_entry(data: bytes, file: str, where: str) -> Row:
    """What a JSON object beside a file says of it."""
    lines = data.decode("utf-8-sig", errors="replace").split()
    (entry,) = _json_entries(" ".join(lines), where) if lines else ({},)
    return replace(_row(entry, where), file=file)


def table_names(files: Files) -> list[str]:
    """The tables that are called `labels`."""
    stems = {f"labels{suffix}" for suffix in SUFFIXES}
    return [name for name in files.names if name.rpartition("/")[2].lower() in stems]


def _json_entries(text: str, where: str) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise TrainingDataError(f"{where}, line {number} is not JSON: {error}") from error
        if not isinstance(entry, dict):
            raise TrainingDataError(f"{where}, line {number} is not a JSON object")
        yield {str(name).strip().lower(): value for name, value in entry.items()}


def _comma_of(line: str) -> str:
    """Semicolons separate only where commas do not: a text may hold one."""
    names = [name.strip().lower() for name in line.split(",")]
    return ";" if ";" in line and len(names) != 2 and not set(names) & set(_COLUMNS["file"]) else ","


def _delimited_entries(text: str, where: str) -> Iterator[dict[str, Any]]:
    delimiter = "\t" if where.endswith(".tsv") else _comma_of(text.partition("\n")[0])
    try:
        lines = io.StringIO(text, newline="")
        if delimiter == "\t":  # whose quotation marks are just that
            rows = [row for row in csv.reader(lines, delimiter=delimiter, quoting=csv.QUOTE_NONE) if row]
        else:
            rows = [row for row in csv.reader(lines, delimiter=delimiter) if row]
    except csv.Error as error:
        raise TrainingDataError(f"{where} cannot be read: {error}") from error
    if not rows:
        return
    names = [name.strip().lower() for name in rows[0]]
    if not set(names) & set(_COLUMNS["file"]):
        names = ["file", "label"]
        if any(len(row) != len(names) for row in rows):
            raise TrainingDataError(
                f"{where} has no column of files, and not two columns either",
                remedy="Let its first line name the columns: file, and class or text.",
            )
    else:
        rows = rows[1:]
    for number, row in enumerate(rows, 1):
        if any(value.strip() for value in row[len(names) :]):
            quoted = 'Put a value that has the delimiter in it between quotation marks: "Hello, world".'
            raise TrainingDataError(
                f"{where}, entry {number} has {len(row)} values for {len(names)} columns",
                remedy="A tab stands between two columns, and nowhere else." if delimiter == "\t" else quoted,
            )
        yield dict(zip(names, (value.strip() for value in row), strict=False))  # the last ones may be left out


def _row(entry: dict[str, Any], where: str) -> Row:
    known = {meaning: _first(entry, names) for meaning, names in _COLUMNS.items()}
    file, part, entry = known["file"] or "", known["part"], _with_sides(entry)
    try:
        corners, size = _corners(entry), _numbers(entry, ("width", "height"))
    except (ValueError, TypeError) as error:
        raise TrainingDataError(f"{where}: its corners are no numbers of pixels: {error}") from error
    if corners is not None and not np.isfinite(corners).all():
        raise TrainingDataError(f"{where}: its corners are no finite numbers")
    area = None if corners is None else cv2.contourArea(corners[[0, 1, 3, 2]].astype(np.float32), oriented=True)
    if area == 0:
        raise TrainingDataError(
            f"{where}: its box has no area", remedy="Leave the columns of the box empty where it is not known."
        )
    if area is not None and area < 0:
        raise TrainingDataError(
            f"{where}: its corners run the wrong way round",
            remedy="They run clockwise from the upper left of what is upright.",
        )
    if size is not None and not (np.isfinite(size).all() and size.min() > 0):
        raise TrainingDataError(f"{where}: its width and height are no size")
    return Row(file, known["label"], known["class"], known["text"], corners, part, size)


def _first(entry: dict[str, Any], names: tuple[str, ...]) -> str | None:
    value = next((entry[name] for name in names if entry.get(name) not in (None, "")), None)
    # JSON may have halves of letters, which nothing else can hold.
    return None if value is None else str(value).encode("utf-8", "backslashreplace").decode("utf-8")


def _corners(entry: dict[str, Any]) -> np.ndarray | None:
    if isinstance(entry.get("corners"), list):
        points = np.array(entry["corners"], dtype=float).reshape(4, 2)
    elif (values := _numbers(entry, _CORNERS)) is not None:
        points = values.reshape(4, 2)
    elif (box := _box(entry)) is not None:
        (left, right), (top, bottom) = sorted(box[0::2]), sorted(box[1::2])
        points = np.array([(left, top), (right, top), (right, bottom), (left, bottom)])
    else:
        return None
    ordered: np.ndarray = points[[0, 1, 3, 2]]
    return ordered


def _with_sides(entry: dict[str, Any]) -> dict[str, Any]:
    """With `x, y, width, height` as the box that they are: width and height alone are of the image."""
    for prefix in _PREFIXES:
        x, y, width, height, w, h = (prefix + name for name in ("x", "y", "width", "height", "w", "h"))
        if entry.keys() >= {x, y, width, height} and not entry.keys() & {w, h}:
            rest = {name: value for name, value in entry.items() if name not in (width, height)}
            return {**rest, w: entry[width], h: entry[height]}
    return entry


def _box(entry: dict[str, Any]) -> np.ndarray | None:
    """Two opposite corners."""
    for names in _BOXES:
        if (box := _numbers(entry, names)) is not None:
            return box
    if (box := _numbers(entry, _CORNER_AND_SIZE)) is not None:
        return np.concatenate((box[:2], box[:2] + box[2:]))
    for names in (*_BOXES, _CORNER_AND_SIZE):
        for prefix in _PREFIXES:
            empty = [entry.get(prefix + name) in (None, "") for name in names if prefix + name in entry]
            if len(empty) == len(names) and any(empty) and not all(empty):
                raise ValueError(f"one of {', '.join(prefix + name for name in names)} is empty")
    return None


def _numbers(entry: dict[str, Any], names: tuple[str, ...]) -> np.ndarray | None:
    """The values of these columns, all with the same prefix; None if one is missing."""
    for prefix in _PREFIXES:
        values = [entry.get(prefix + name) for name in names]
        if all(value not in (None, "") for value in values):
            return np.array([float(str(value)) for value in values])
    return None
