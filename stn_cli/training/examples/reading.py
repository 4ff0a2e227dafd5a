"""From folders and archives to examples: what lies there is recognised, and what is wrong with it is said."""

import unicodedata
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Literal

import numpy as np

from stn_cli.errors import TrainingDataError
from stn_cli.images import FORMAT_OF_SUFFIX
from stn_cli.images.formats import RECORDS, is_output
from stn_cli.images.volumes import VOLUME_OF_SUFFIX, holds_volume
from stn_cli.training.examples.decoding import Decoded, decoded_images
from stn_cli.training.examples.files import Files, open_files
from stn_cli.training.examples.folders import Folders
from stn_cli.training.examples.found import Entry, Found, Reading
from stn_cli.training.examples.idx import idx_pairs, read_idx_pair
from stn_cli.training.examples.known import PARTS, Dataset, Examples, Part
from stn_cli.training.examples.outputs import output_folders, recorded_crops
from stn_cli.training.examples.sidecars import row_of, sidecars_of
from stn_cli.training.examples.splits import held_out, part_called
from stn_cli.training.examples.tables import SUFFIXES, Row, read_table, table_names

_OURS = (RECORDS, "log.jsonl")
_FEW_LABELS = 10
"""Labels of no name are classes if each is given to so many images or more, on average; else transcriptions."""


def read_examples(roots: Sequence[Path], reading: Reading | None = None) -> Dataset:
    """All images of the folders and archives, in parts; classes of one name are one class.

    They are volumes where these are at least as many as images: `.npy`, if the first has three dimensions, and TIFFs,
    if the first has several grey pages that are alike.

    Raises:
        TrainingDataError: a folder is missing or damaged, or fewer than two images can be read.
        UsageError: `group_by` is no expression, or does not match a name.
    """
    reading = reading or Reading()
    found = Found()
    opened = [open_files(root) for root in roots]
    found.volumes = _are_volumes(opened, reading)
    for files in opened:
        _find(files, reading, found)
    rows = [entry.row for entry in found.entries]
    if any(row.text for row in rows) or _label_means(rows, reading) == "text":
        reading = replace(reading, longest_side=max(reading.longest_side, reading.widest_word))
    decoded = decoded_images(found, reading)
    if len(decoded) < 2:
        raise _too_few(len(decoded), roots, found)
    known = _known(decoded, reading, found)
    numbers, split = _split(decoded, known.labels, reading)
    train, validation, test = (known.chosen(np.flatnonzero(numbers == number)) for number in range(len(PARTS)))
    if not len(validation) and len(train):
        found.report(
            "all images are equal, or of one group, so that none can be held out",
            "Validation sees those of training.",
            [str(r) for r in roots],
        )
        validation = train
    if len(train):
        _check_classes(train, validation, found)
    return Dataset(train, validation, test, _layout(found.layouts), split, found.problems)


def _too_few(count: int, roots: Sequence[Path], found: Found) -> TrainingDataError:
    what = f"only {count} images can be used of {', '.join(map(str, roots))}; two are the least"
    remedy = "Name a folder of images or volumes, of class sub-folders, of MNIST's idx files, or tar archives."
    if found.problems:
        first = found.problems[0]
        what, remedy = f"{what}: {first.what} ({', '.join(first.where[:3])})", first.remedy
    return TrainingDataError(what, remedy=remedy)


def _find(files: Files, reading: Reading, found: Found) -> None:
    pairs = [] if found.volumes else list(idx_pairs(files))
    for images, labels in pairs:
        _find_idx(files, images, labels, found)
    names = _names(files, volumes=found.volumes)
    others = sorted(set(_names(files, volumes=not found.volumes)) - set(names))
    stray = "the image lies among volumes" if found.volumes else "the array lies among images"
    found.report(stray, "Leave it, or move it away.", others)
    tables = table_names(files)
    if reading.labels is not None:
        _find_listed(files, _given_table(files, reading.labels), names, found)
    elif tables:
        rows = [(table.rpartition("/")[0], row) for table in tables for row in _table(files, table)]
        _find_listed(files, rows, names, found)
    elif unmade := _not_made_by_stn(files, names):
        _find_plain(files, unmade, reading, found)
        made = sorted(set(names) - set(unmade))
        found.report("stn has made the image", "Give it another name if it is to be learned from.", made)
        tables = [name for name in files.names if suffix_of(name) in SUFFIXES and PurePosixPath(name).name not in _OURS]
        found.report("the table is not read", "Name it with --labels, or call it labels.", tables)
    elif not pairs:
        suffixes = " ".join(sorted(FORMAT_OF_SUFFIX.keys() | VOLUME_OF_SUFFIX.keys()))
        raise TrainingDataError(f"no image in {files.root} (looked for {suffixes}, and idx files)")


def _not_made_by_stn(files: Files, names: Sequence[str]) -> list[str]:
    """Without crops and pictures by their names, and without crops of what is here as well, by their records."""
    crops = recorded_crops(files)
    return [name for name in names if not is_output(name) and name not in crops]


def _are_volumes(opened: Sequence[Files], reading: Reading) -> bool:
    """A few arrays beside images are features, masks or labels; images beside as many volumes are previews."""
    kinds: dict[str, list[tuple[Files, str]]] = {"image": [], "array": [], "tiff": []}
    for files in opened:
        for name in files.names:
            if kind := _kind(suffix_of(name)):
                kinds[kind].append((files, name))
    flat, arrays, tiffs = kinds["image"], kinds["array"], kinds["tiff"]
    if _first_is_volume(tiffs):
        stacks = tiffs
    else:
        stacks, flat = [], flat + tiffs
    if flat and not _first_is_volume(arrays):
        arrays = []
    volumes, has_idx = len(arrays) + len(stacks), any(True for files in opened for _ in idx_pairs(files))
    if reading.volumes is False:
        return len(arrays) > 0 and not flat and not tiffs and not has_idx  # there is nothing else
    if reading.volumes is True:
        return volumes > 0
    return volumes > 0 and volumes >= len(flat) and not has_idx


def _kind(suffix: str) -> Literal["array", "tiff", "image"] | None:
    if suffix in VOLUME_OF_SUFFIX:
        return "array" if suffix == ".npy" else "tiff"
    return "image" if suffix in FORMAT_OF_SUFFIX else None


def _first_is_volume(named: Sequence[tuple[Files, str]]) -> bool:
    for files, name in named[:1]:
        with suppress(OSError):  # which is said when it is read
            return holds_volume(files.read(name))
    return False


def _names(files: Files, *, volumes: bool) -> list[str]:
    """Of what may be images, or volumes."""
    known = VOLUME_OF_SUFFIX if volumes else FORMAT_OF_SUFFIX
    return [name for name in files.names if suffix_of(name) in known]


def suffix_of(name: str) -> str:
    return PurePosixPath(name).suffix.lower()


def _find_idx(files: Files, images_name: str, labels_name: str | None, found: Found) -> None:
    images, labels = read_idx_pair(files, images_name, labels_name)
    pieces = images_name.rpartition("/")[2].split("-")  # t10k-images-…, emnist-letters-test-images-…
    part = next((part for piece in pieces if (part := part_called(piece))), None)
    found.layouts.append("idx files")
    if labels is not None:
        found.classes |= {str(label) for label in range(int(labels.max(initial=0)) + 1)}
    for number, image in enumerate(images):
        row = Row(images_name, class_name=None if labels is None else str(labels[number]))
        name = f"{images_name}[{number}]"
        found.entries.append(Entry(name, lambda image=image: image[..., None], row, part))  # type: ignore[misc]


def _given_table(files: Files, path: Path) -> list[tuple[str, Row]]:
    """The rows of a table that a person named: a file, or one below the root."""
    if path.suffix.lower() not in SUFFIXES:
        raise TrainingDataError(f"{path} is not a table of labels", remedy=f"Its name ends in {', '.join(SUFFIXES)}.")
    name = path.as_posix()
    if not path.exists() and name in files.names:
        return [(name.rpartition("/")[0], row) for row in _table(files, name)]
    try:
        return [("", row) for row in read_table(path.read_bytes(), str(path))]
    except OSError as error:
        raise TrainingDataError(f"{path} cannot be read: {error.strerror}") from error


def _table(files: Files, name: str) -> list[Row]:
    try:
        return read_table(files.read(name), files.where(name))
    except OSError as error:
        raise TrainingDataError(f"{files.where(name)} cannot be read: {error.strerror}") from error


def _find_listed(files: Files, rows: Sequence[tuple[str, Row]], names: Sequence[str], found: Found) -> None:
    """Images that a table lists, by their paths beside the table, in `images/` there, or below the root."""
    there = {_composed(name): name for name in names} | {name: name for name in names}
    rows_of, missing, again = dict[str, Row](), [], []
    for folder, row in rows:
        spelled = row.file.replace("\\", "/").removeprefix("./").removeprefix(f"{files.root.absolute().as_posix()}/")
        beside = f"{folder}/" if folder else ""
        places = (beside + spelled, f"{beside}images/{spelled}", spelled)
        name = next((there[n] for place in places for n in (place, _composed(place)) if n in there), None)
        if name is None:
            missing.append(row.file)
            continue
        if name in rows_of:
            again.append(name)
        rows_of[name] = row
    found.layouts.append("table of labels")
    found.report("the table has no rows", "Add one for each image.", [] if rows else [str(files.root)])
    folders, by_class = Folders.of(rows_of), not any(map(_says_what, rows_of.values()))
    for name, row in rows_of.items():
        part = _part_named(row) or folders.part_of(name) or files.part
        found.take(files, name, _of_class(row, folders.class_of(name)) if by_class else row, part)
    silent = [] if by_class else [name for name, row in rows_of.items() if not _says_what(row)]
    found.report("the table does not say what the image shows", "Fill in its class, or its text.", silent)
    found.report("the table lists the image more than once: the last row counts", "Take the others out.", again)
    remedy = "Put them there, or take the rows out; paths are those below the table's folder, suffix and all."
    found.report("the table lists files that are not there", remedy, missing)
    unlisted = [name for name in names if name not in rows_of]
    found.report("the table does not list the image", "Add a row for it, or move it away.", unlisted)


def _composed(name: str) -> str:
    """As one and the same whichever way its accents are written: macOS has them apart from their letters."""
    return unicodedata.normalize("NFC", name)


def _find_plain(files: Files, names: Sequence[str], reading: Reading, found: Found) -> None:
    """Images with a file beside each that says what it shows, in folders that do, or just images."""
    there, folders = set(files.names), Folders.of(names)
    beside = {name: sidecars for name in names if (sidecars := sidecars_of(name, there))}
    rows_of = {name: row_of(files, name, sidecars, found) for name, sidecars in beside.items()}
    told = [name for name, row in rows_of.items() if _says_what(row) or row.corners is not None]
    if told and (2 * len(told) >= len(names) or reading.label_means is not None):
        found.layouts.append("a file of labels beside each image")
        alone = sorted(set(names) - set(told))
        by_class = not any(map(_says_what, rows_of.values()))
        found.report("no file beside the image says what it shows", "Add one, or move the image away.", alone)
        for name in told:
            row = _of_class(rows_of[name], folders.class_of(name)) if by_class else rows_of[name]
            found.take(files, name, row, folders.part_of(name) or files.part)
        return
    stray = [beside[name][-1] for name in told]
    found.report("few images have such a file beside them: it is not read", "Add the others, or move it away.", stray)
    outputs, folders_below = output_folders(files), (f"{folder}/" for folder in files.folders)
    below = [name for name in folders_below if name.startswith(folders.outer) and not name.startswith(outputs)]
    classes = {folders.class_of(name) for name in (*names, *below)} - {None}
    used = {folders.class_of(name) for name in names} - {None}
    by_class = len(used) > 1
    found.layouts.append("class folders" if by_class else "volumes" if found.volumes else "images")
    for name in names:
        row = _of_class(Row(name), folders.class_of(name)) if by_class else Row(name)
        found.take(files, name, row, folders.part_of(name) or files.part)
    if by_class:
        stray = [name for name in names if folders.class_of(name) is None]
        found.report("the image lies in no class folder", "Move it into one, or away.", stray)
        empty = sorted(name for name in classes - used if name is not None)
        found.report("the class has no image", "Fill its folder, or remove it.", empty)


def _part_named(row: Row) -> Part | None:
    """By the table; a part of another name must not be learned from by mistake."""
    part = part_called(row.part)
    if row.part and part is None:
        raise TrainingDataError(
            f"the table says that {row.file} is of the part {row.part!r}",
            remedy="Parts are train, validation and test; call the column otherwise if it means something else.",
        )
    return part


def _says_what(row: Row) -> bool:
    return bool(row.class_name or row.label or row.text)


def _of_class(row: Row, folder: str | None) -> Row:
    return replace(row, class_name=None if folder is None else _as_text(folder))


def _as_text(name: str) -> str:
    """A file's name as JSON can hold it: bytes that are not UTF-8 as `\\xXX`."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _known(decoded: Sequence[Decoded], reading: Reading, found: Found) -> Examples:
    rows = [one.entry.row for one in decoded]
    are_classes = _label_means(rows, reading) == "class"
    guessed = [row.label for row in rows if row.label is not None and reading.label_means is None]
    if not are_classes and len(guessed) >= 2 * len(set(guessed)):
        remedy = "If they are classes, call the column class, or say --objective classify."
        found.report("the labels are taken for texts, as few images share one", remedy, sorted(set(guessed)))
    names = [row.class_name or (row.label if are_classes else None) for row in rows]
    texts = [row.text or (None if are_classes else row.label) for row in rows]
    classes = tuple(sorted(found.classes | {name for name in names if name is not None}, key=_natural))
    number = {name: index for index, name in enumerate(classes)}
    labels = np.array([-1 if name is None else number[name] for name in names], dtype=np.int64)
    unknown = np.full((4, 2), np.nan)
    corners = np.stack([unknown if one.corners is None else one.corners for one in decoded])
    return Examples(
        tuple(one.pixels for one in decoded),
        labels,
        classes,
        tuple(texts) if any(text is not None for text in texts) else (),
        corners if np.isfinite(corners).any() else None,
        tuple(_as_text(one.entry.name) for one in decoded),
    )


def _label_means(rows: Sequence[Row], reading: Reading) -> Literal["class", "text"]:
    labels = [row.label for row in rows if row.label is not None]
    if reading.label_means is not None or not labels:
        return reading.label_means or "class"
    return "class" if len(labels) >= _FEW_LABELS * len(set(labels)) else "text"


def _natural(name: str) -> tuple[bool, int, str]:
    """Numbers by value, and before words."""
    return (False, int(name), name) if name.isdecimal() else (True, 0, name)


def _split(decoded: Sequence[Decoded], labels: np.ndarray, reading: Reading) -> tuple[np.ndarray, str]:
    """The number of the part of each image, and how it came about."""
    parts: list[Part | None] = [one.entry.part for one in decoded]
    named = [part or "train" for part in parts]
    numbers = np.array([PARTS.index(part) for part in named])
    if "validation" in named:
        return numbers, "as the data names the parts"
    rest = np.flatnonzero(numbers == 0)
    keys = [one.key for one, number in zip(decoded, numbers, strict=True) if number == 0]
    out = held_out(keys, labels[rest].tolist(), reading.validation_share)
    numbers[rest[out]] = PARTS.index("validation")
    how = f"groups by {reading.group_by}" if reading.group_by else "a hash of each image"
    begun = "the test part is named; " if "test" in named else ""
    return numbers, f"{begun}{reading.validation_share:.0%} held out for validation by {how}"


def _check_classes(train: Examples, validation: Examples, found: Found) -> None:
    for part, name in ((train, "training"), (validation, "validation")):
        missing = [part.classes[number] for number in range(len(part.classes)) if not (part.labels == number).any()]
        found.report(f"the class has no image for {name}", "Add images of it, or split the data yourself.", missing)


def _layout(layouts: Sequence[str]) -> str:
    return " + ".join(f"{layout} ({count}×)" if count > 1 else layout for layout, count in Counter(layouts).items())
