"""Bytes to the disk: each file holds either its former content or all of the new one, whatever happens meanwhile.

Files are written in groups: first all of them under names of their own, then one flush for the group, then each takes
its name. A flush of its own for every file would cost more than rectifying a small crop.
"""

import ctypes
import errno
import os
import re
import secrets
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from stn_cli.errors import OutputExistsError, StorageError

_TEMPORARY = re.compile(r"\.stn-(\d+)-[0-9a-f]{16}\.tmp")


class Staged(NamedTuple):
    """A file that is written, but not yet under its name."""

    path: Path
    temporary: Path


def make_folder(path: Path) -> None:
    """The folder, and those above it, if they are not there yet; StorageError if that cannot be."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"cannot create the folder {path}: {error.strerror}") from error


def check_free(*targets: Path) -> None:
    """OutputExistsError for the first that exists; StorageError where that cannot be looked at."""
    for target in targets:
        try:
            exists = target.exists()
        except OSError as error:
            raise StorageError(f"cannot look at {target}: {error.strerror}") from error
        if exists:
            remedy = "Choose another name with -o, or say --on-exists overwrite."
            raise OutputExistsError(f"{target} exists already", remedy=remedy)


def write_atomically(path: Path, data: bytes) -> None:
    """Writes one file, and returns when it is on the disk.

    The folder must exist. Raises StorageError, and leaves nothing behind then.
    """
    publish([stage(path, data)])


def stage(path: Path, data: bytes | Iterable[bytes]) -> Staged:
    """Writes the bytes, or parts, beside `path`; `publish` makes them the file.

    Raises StorageError, and leaves nothing behind then.
    """
    staged = Staged(path, path.with_name(f".stn-{os.getpid()}-{secrets.token_hex(8)}.tmp"))
    try:
        with staged.temporary.open("xb") as file:  # not mkstemp, whose files no one else may read
            file.writelines([data] if isinstance(data, bytes) else data)
    except OSError as error:
        withdraw([staged])
        raise _cannot_write(path, error) from error
    return staged


def publish(group: Sequence[Staged]) -> None:
    """Gives the files of a group their names once all of them are on the disk.

    Raises StorageError; files of the group that have no name yet then vanish.
    """
    folders = sorted({staged.path.parent for staged in group})
    try:
        _flush(group, folders)
        for staged in group:
            try:
                staged.temporary.replace(staged.path)
            except OSError as error:
                raise _cannot_write(staged.path, error) from error
        for folder in folders:
            with _opened(folder) as handle:
                _fsync(handle, folder)
    finally:
        withdraw(group)


def withdraw(group: Iterable[Staged]) -> None:
    """Removes what has no name yet."""
    for staged in group:
        with suppress(OSError):
            staged.temporary.unlink(missing_ok=True)


def remove_leftovers(folder: Path, *, is_ours: bool) -> None:
    """Removes what processes that were killed had not yet given a name.

    Args:
        is_ours: nobody else writes to the folder, so all of it is left over: also of a process whose number is now
            that of another. Otherwise what processes write that are alive is kept.
    """
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            match = _TEMPORARY.fullmatch(entry.name)
            if match is not None and (is_ours or not _is_alive(int(match[1]))):
                with suppress(OSError):
                    os.unlink(entry.path)  # noqa: PTH108  a path as the system gave it


@contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Keeps every other process that asks for it out of a folder, which must exist.

    Raises StorageError if one is there already. The lock ends with the process, however that ends, and is not held by
    what it forks.
    """
    try:
        import fcntl  # noqa: PLC0415  not on Windows, where nothing is locked
    except ImportError:
        yield
        return
    with _opened(folder) as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                raise StorageError(
                    f"another run writes to {folder}", remedy="Wait for it, stop it, or choose another folder with -o."
                ) from error  # other errors: a file system without locks
        _locks.add(handle)
        try:
            yield
        finally:
            _locks.discard(handle)


_locks: set[int] = set()


def _let_go() -> None:
    """A lock lasts until all processes have closed it: orphans of one that was killed would hold it on."""
    for handle in _locks:
        os.close(handle)
    _locks.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go)


def _flush(group: Sequence[Staged], folders: Sequence[Path]) -> None:
    """To the disk: file systems as a whole where the system can do that, else file after file."""
    if sys.platform == "linux" and len(group) > 1:
        for folder in folders:
            with _opened(folder) as handle:
                try:
                    _sync_file_system(handle)
                except OSError as error:
                    raise _cannot_write(folder, error) from error
        return
    for staged in group:
        with _opened(staged.temporary) as handle:
            _fsync(handle, staged.path)


def _sync_file_system(handle: int) -> None:
    """syncfs(2), which `os` does not have."""
    if ctypes.CDLL(None, use_errno=True).syncfs(handle) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _fsync(handle: int, path: Path) -> None:
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EROFS):  # a file system that cannot
            raise _cannot_write(path, error) from error


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    try:
        handle = os.open(path, os.O_RDONLY)
    except OSError as error:
        raise _cannot_write(path, error) from error
    try:
        yield handle
    finally:
        os.close(handle)


def _is_alive(process: int) -> bool:
    if os.name == "nt":  # where the question would end the process
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    try:  # one that has ended has a number until its parent asks how
        status = Path(f"/proc/{process}/stat").read_bytes()
    except OSError:
        return True
    return status.rpartition(b")")[2].split()[:1] != [b"Z"]


def _cannot_write(path: Path, error: OSError) -> StorageError:
    return StorageError(f"cannot write {path}: {error.strerror or error}")
