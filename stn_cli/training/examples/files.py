"""Folders and tar archives look alike from here: names below a root, and bytes by name."""

import os
import re
import tarfile
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from stn_cli.errors import TrainingDataError
from stn_cli.training.examples.known import Part
from stn_cli.training.examples.splits import part_called

_SHARD = re.compile(r"(.+?)[-_.]\d+|\d{2,}")
"""`train-000123` and `000123`; not `digit7`, which is a name."""


class Files(ABC):
    """The files below a root, by their names there (`/` between the parts), in order; hidden ones are left out.

    Attributes:
        root: a folder or a tar archive.
        names: of the files.
        folders: names of the folders.
        part: that the archive's own name means: `signs-test-0001.tar` is of the test part.
    """

    root: Path
    part: Part | None = None
    names: tuple[str, ...]
    folders: tuple[str, ...]

    @abstractmethod
    def read(self, name: str) -> bytes:
        """What the file holds; OSError if it cannot be read."""

    def where(self, name: str) -> str:
        """The file, for a message."""
        return f"{self.root}/{name}"


class FolderFiles(Files):
    """Below a folder. A tar archive in it counts as a folder of its name; `x-000.tar`, `x-001.tar`… as one, `x`.

    Of names that are in that folder already, those of the later archive say which that is. Links to files are followed,
    links to folders are not.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        below = sorted(self._walk())
        self.folders = tuple(name for name, is_folder in below if is_folder)
        plain = [name for name, is_folder in below if not is_folder]
        self.archives = {name: TarFiles(root / name) for name in plain if name.endswith(".tar")}
        files = [name for name in plain if name not in self.archives]
        self._inside: dict[str, tuple[TarFiles, str]] = {}
        taken, folder_of = set(files), _folders_of(self.archives)
        for name, archive in self.archives.items():
            names = {inner: folder_of[name] + inner for inner in archive.names}
            if not taken.isdisjoint(names.values()):
                names = {inner: folder_of[name] + _told_apart(inner, by=PurePosixPath(name).stem) for inner in names}
            self._inside |= {here: (archive, inner) for inner, here in names.items()}
            taken.update(names.values())
        self.names = tuple(sorted([*files, *self._inside]))

    def read(self, name: str) -> bytes:
        if name in self._inside:
            archive, inner = self._inside[name]
            return archive.read(inner)
        return (self.root / name).read_bytes()

    def _walk(self) -> Iterator[tuple[str, bool]]:
        for folder, folders, files in os.walk(self.root, onerror=_fail):
            folders[:] = [name for name in folders if not _is_hidden(name)]
            below = Path(folder).relative_to(self.root).as_posix()
            for name in (*folders, *files):
                if not _is_hidden(name):
                    yield (name if below == "." else f"{below}/{name}"), name in folders


@dataclass(frozen=True)
class _Member:
    offset: int
    size: int


class TarFiles(Files):
    """In an uncompressed tar archive, such as the shards of WebDataset; read where they lie, never unpacked."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.part = _part_of(_without_number(root.name.removesuffix(".tar")))
        members = dict(self._members())
        self._at: Mapping[str, _Member] = {name: member for name, member in members.items() if member is not None}
        self.names = tuple(sorted(self._at))
        self.folders = tuple(sorted(name for name, member in members.items() if member is None))

    def read(self, name: str) -> bytes:
        member = self._at[name]
        with self.root.open("rb") as archive:
            archive.seek(member.offset)
            return archive.read(member.size)

    def _members(self) -> Iterator[tuple[str, _Member | None]]:
        try:
            with tarfile.open(self.root, "r:") as archive:
                for info in archive:
                    name = info.name.removeprefix("./").strip("/")
                    if any(map(_is_hidden, name.split("/"))):
                        continue
                    if info.isdir():
                        yield name, None
                    elif info.isreg():
                        yield name, _Member(info.offset_data, info.size)
        except (tarfile.TarError, OSError, EOFError) as error:
            raise TrainingDataError(
                f"{self.root} cannot be read as a tar archive: {error}",
                remedy="A compressed one has to be decompressed first; a cut one fetched again.",
            ) from error


def open_files(root: Path) -> Files:
    """A folder or a tar archive; TrainingDataError if it is neither, or cannot be listed."""
    if root.is_dir():
        return FolderFiles(root)
    if root.is_file() and root.name.endswith(".tar"):
        return TarFiles(root)
    reason = "is neither a folder nor a tar archive" if root.exists() else "is not there"
    is_packed = root.name.endswith((".tar.gz", ".tgz", ".zip", ".tar.bz2", ".tar.xz", ".7z"))
    remedy = "Unpack it, and name the folder." if is_packed else "Name a folder with images, or .tar archives."
    raise TrainingDataError(f"{root} {reason}", remedy=remedy)


def _folders_of(archives: Iterable[str]) -> dict[str, str]:
    """What comes before the names inside each archive: nothing, or a folder with its `/`.

    `x-train-001` is of the folder `train`, or of `train/x` where there is a `y-train-001` as well.
    """
    split = {}
    for archive in archives:
        beside, slash, name = archive.rpartition("/")
        own = _without_number(name.removesuffix(".tar"))
        part = _part_of(own)
        split[archive] = beside + slash, part, re.sub(r"[-_.]?[^-_.]*$", "", own) if part else own
    several = len({rest for _, part, rest in split.values() if part}) > 1
    return {
        archive: "".join((before, f"{part}/" if part else "", f"{rest}/" if rest and (several or not part) else ""))
        for archive, (before, part, rest) in split.items()
    }


def _told_apart(name: str, *, by: str) -> str:
    """Another name in the same folder, so that that says what it did of classes."""
    folder, slash, file = name.rpartition("/")
    return f"{folder}{slash}{by}~{file}"


def _without_number(stem: str) -> str:
    """What the shards of one set have in common; nothing, where they are but numbered."""
    shard = _SHARD.fullmatch(stem)
    return (shard[1] or "") if shard else stem


def _part_of(stem: str) -> Part | None:
    return part_called(re.split(r"[-_.]", stem)[-1])


def _is_hidden(name: str) -> bool:
    """Of whoever has a dot before it, and what macOS puts into archives."""
    return name.startswith(".") or name == "__MACOSX"


def _fail(error: OSError) -> None:
    raise TrainingDataError(
        f"{error.filename} cannot be listed: {error.strerror}", remedy="Check its permissions."
    ) from error
