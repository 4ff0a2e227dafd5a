"""From the paths a user names to the files to work on."""

import fnmatch
import functools
import os
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from stn_cli.errors import NoInputError, StorageError, UsageError
from stn_cli.images.formats import FORMAT_OF_SUFFIX, is_output

_GLOB_CHARACTERS = frozenset("*?[")


@dataclass(frozen=True, slots=True)
class Source:
    """An input file, and its name below the folder or pattern it was found through."""

    path: Path
    relative: PurePosixPath


def discover(
    inputs: Sequence[Path],
    recursive: bool = True,
    exclude: Path | None = None,
    known: Mapping[str, str] = FORMAT_OF_SUFFIX,
) -> list[Source]:
    """The image files that `inputs` name, each once, in the order of the inputs and sorted within each.

    A named file is taken whatever its suffix. A folder gives the files with a suffix of `known`, and a path that does
    not exist but holds `*`, `?` or `[` is matched as a pattern (`**` for any depth). From folders and patterns, names
    that begin with a dot, `*.rectified.*` and `*.inspect.*` are left out, and so is what lies below `exclude`, the
    output folder. Links to files are followed, links to folders are not; one that leads nowhere is given, to fail where
    it is read.

    Raises UsageError for a pattern that is none, NoInputError for a path that is not there and when nothing is found
    at all, and StorageError for a folder that cannot be listed.
    """
    canonical = canonical_names()
    excluded = None if exclude is None else os.path.realpath(exclude)
    found: dict[str, Source] = {}
    for given in inputs:
        for source in _expand(given, recursive, excluded, known):
            found.setdefault(canonical(source.path), source)
    if not found:
        named = ", ".join(map(str, inputs)) or "the command"
        suffixes = " ".join(sorted(known))
        raise NoInputError(f"no image in {named} (looked for {suffixes})")
    return list(found.values())


def canonical_names() -> Callable[[Path], str]:
    """A function from a path to the one absolute spelling of it, which looks each folder up once.

    Links are resolved in the folder only, so that a link and the file it points to stay two names.
    """
    folders = functools.cache(os.path.realpath)
    return lambda path: f"{folders(path.parent)}{os.sep}{path.name}"


def _expand(given: Path, recursive: bool, excluded: str | None, known: Container[str]) -> Iterable[Source]:
    try:
        is_folder = given.is_dir()
        exists = is_folder or given.exists()
    except OSError as error:
        raise StorageError(f"cannot look at {given}: {error.strerror}") from error
    if is_folder:
        return sorted(_walk(given, recursive, excluded, known), key=_sort_key)
    if exists:
        return [Source(given, PurePosixPath(given.name))]
    matches = sorted(_match(given, excluded, known), key=_sort_key)
    if not matches:
        reason = "matches no image" if _GLOB_CHARACTERS & set(str(given)) else "does not exist"
        reason = "is no file: nothing is read from stdin" if str(given) == "-" else reason
        raise NoInputError(f"{given} {reason}")
    return matches


def _sort_key(source: Source) -> tuple[str, ...]:
    return source.relative.parts


def _walk(root: Path, recursive: bool, excluded: str | None, known: Container[str]) -> Iterator[Source]:
    """The images below `root`. Beside each folder goes its real path, to be compared with `excluded`."""
    pending = [(root, PurePosixPath(), os.path.realpath(root))]
    while pending:
        folder, below, real = pending.pop()
        for entry in _list(folder):
            if entry.name.startswith("."):
                continue
            if entry.is_dir(follow_symlinks=False):
                real_child = f"{real}{os.sep}{entry.name}"
                if recursive and real_child != excluded:
                    pending.append((folder / entry.name, below / entry.name, real_child))
            elif _is_input_name(entry.name, known) and _is_file(entry):
                yield Source(folder / entry.name, below / entry.name)


def _list(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError as error:
        raise StorageError(f"cannot list the folder {folder}: {error.strerror}") from error


def _is_input_name(name: str, known: Container[str]) -> bool:
    return os.path.splitext(name)[1].lower() in known and not is_output(name)  # noqa: PTH122  of many names


def _is_file(entry: os.DirEntry[str]) -> bool:
    # The first question costs no system call.
    return entry.is_file(follow_symlinks=False) or (entry.is_symlink() and _may_be_file(Path(entry.path)))


def _may_be_file(path: Path) -> bool:
    """A link that leads nowhere counts: whoever reads it will say so."""
    return path.is_file() or not path.exists()


def _match(pattern: Path, excluded: str | None, known: Container[str]) -> Iterator[Source]:
    """The images that a pattern matches, named below the part of it that holds no glob character."""
    parts = pattern.parts
    first = next((i for i, part in enumerate(parts) if _GLOB_CHARACTERS & set(part)), None)
    if first is None:
        return
    prefix, rest = Path(*parts[:first]), parts[first:]
    if rest[-1] == "**":
        rest = (*rest, "*")
    if any("**" in part and part != "**" for part in rest):
        raise UsageError(f"{pattern} is no pattern", remedy="`**` stands alone between slashes.")
    real = os.path.realpath(prefix)
    if excluded is not None and Path(real).is_relative_to(excluded):
        excluded = None  # the output folder holds all that was asked for
    if prefix.is_dir():
        yield from _matching(rest, Source(prefix, PurePosixPath()), real, excluded, known)


def _matching(
    parts: Sequence[str], folder: Source, real: str, excluded: str | None, known: Container[str]
) -> Iterator[Source]:
    """The images below a folder that the parts of a pattern match; as in `_walk`."""
    part, *behind = parts
    if part == "**":
        yield from _matching(behind, folder, real, excluded, known)
    for entry in _list(folder.path):
        if entry.name.startswith(".") or not (part == "**" or fnmatch.fnmatch(entry.name, part)):
            continue
        here = Source(folder.path / entry.name, folder.relative / entry.name)
        if entry.is_dir(follow_symlinks=False):
            child, left = f"{real}{os.sep}{entry.name}", parts if part == "**" else behind
            if left and child != excluded:
                yield from _matching(left, here, child, excluded, known)
        elif not behind and _is_input_name(entry.name, known) and _is_file(entry):
            yield here
