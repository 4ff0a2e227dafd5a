"""What will be done, decided before anything is written."""

import errno
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from stn_cli.errors import NoInputError, OutputExistsError, StorageError, UsageError
from stn_cli.images import (
    SUFFIXES,
    Source,
    discover,
    find_collisions,
    format_of_suffix,
    make_folder,
    output_format,
    output_path,
    readable,
    remove_leftovers,
)
from stn_cli.images.discover import canonical_names
from stn_cli.images.formats import FORMAT_OF_SUFFIX, RECORDS
from stn_cli.images.volumes import VOLUME_OF_SUFFIX, VOLUME_SUFFIXES, volume_format
from stn_cli.rectify.finished import Finished, read_finished, read_journal
from stn_cli.rectify.options import RectifyOptions
from stn_cli.rectify.record import relative_text


@dataclass(frozen=True)
class Job:
    """One input.

    Attributes:
        target, format, record: where its crop goes, in which format, and where its record goes.
        exists: something is there that this run must not take for its own.
        is_made: an earlier run is known to have made what is there.
        key: of what an earlier run made here, which stays if the run would make the same; see `finished.job_key`.
        crop: of that crop itself, as `finished.digest` has it.
    """

    source: Source
    target: Path
    format: str
    record: Path
    exists: bool = False
    is_made: bool = False
    key: bytes | None = None
    crop: bytes | None = None


class Plan(NamedTuple):
    """What a run will do.

    Attributes:
        jobs: in the order of the inputs.
        left_out: crops in folders below the inputs whose records say that an earlier run made them.
    """

    jobs: list[Job]
    left_out: int


def plan(inputs: Sequence[Path], options: RectifyOptions, dims: int = 2) -> Plan:
    """The jobs of a model of images (`dims` is 2), or of volumes (3).

    Raises:
        UsageError: an option is of images, and the model of volumes, or the other way round; a file is named for the
            crop and there are several inputs, or another format is wanted than its suffix says.
        NoInputError: nothing to do.
        OutputExistsError: an output exists and `on_exists` is `error`, or two inputs would write one output.
        StorageError: the output folder cannot be made.
    """
    options.check_dims(dims)
    folder = folder_of(options.out)
    if folder is not None and os.path.exists(folder) and not os.path.isdir(folder):  # noqa: PTH110, PTH112
        raise StorageError(f"{folder} is a file, and the output goes into a folder", remedy="Name another one with -o.")
    known = VOLUME_OF_SUFFIX if dims == 3 else format_of_suffix(readable(options.allow_formats))
    found = discover(inputs, options.recursive, folder, known)
    sources = _without_crops(found)
    if not sources:
        raise NoInputError(
            f"earlier runs made all {len(found)} images below the inputs",
            remedy="To rectify crops again, name the folder in which they lie.",
        )
    if folder is None and options.out is not None and len(sources) > 1:
        raise UsageError(
            f"-o names one file, {options.out}, and there are {len(sources)} inputs",
            remedy="Name a folder with -o, or leave it out, and each crop gets a name of its own beside its image.",
        )
    memory = _Memory(folder)
    choose = _volume_format if dims == 3 else _image_format
    jobs = [_job(source, options, memory, known, choose) for source in sources]
    jobs = _inputs_alone(jobs, () if folder is None else inputs)
    _refuse_collisions(jobs, options.out)
    existing = [job for job in jobs if job.exists]
    if existing and options.on_exists == "error":
        first, *others = existing
        there = first.target if os.path.lexists(first.target) else first.record
        raise OutputExistsError(f"{there} exists already" + (f", and {len(others)} more" if others else ""))
    return Plan(jobs, len(found) - len(sources))


def folder_of(out: Path | None) -> Path | None:
    """The folder of all outputs; None if they lie beside the inputs, or `out` is to be a single image, or volume.

    That is what it ends as their names do for, unless there is such a folder.
    """
    if out is None or os.path.isdir(out):  # noqa: PTH112  a name that the system refuses is no folder
        return out
    return None if out.suffix.lower() in FORMAT_OF_SUFFIX.keys() | VOLUME_OF_SUFFIX.keys() else out


def _inputs_alone(jobs: Sequence[Job], meant: Sequence[Path]) -> list[Job]:
    """Without crops that an earlier run is known to have made beside others of them, but for those that are meant.

    Beside the inputs a shell's pattern names both; where the output folder is that of the inputs, both lie there.
    """
    canonical = canonical_names()
    pairs = [(canonical(job.source.path), canonical(job.target)) for job in jobs]
    made = {target for job, (source, target) in zip(jobs, pairs, strict=True) if not job.exists and target != source}
    made.difference_update(map(canonical, meant))
    return [job for job, (source, _) in zip(jobs, pairs, strict=True) if source not in made]


def _refuse_collisions(jobs: Sequence[Job], out: Path | None) -> None:
    collisions = find_collisions([(job.source, job.target) for job in jobs])
    if folder_of(out) is None:
        collisions = collisions or find_collisions([(job.source, job.record) for job in jobs])
    if not collisions:
        return
    first, *others = collisions
    if first.source is first.other:
        what = "file is the input" if first.target == out else "folder is that of the inputs"
        raise OutputExistsError(
            f"{first.target} would replace itself: the output {what}",
            remedy="Choose another one with -o, or leave it out, and crops get names of their own beside them.",
        )
    raise OutputExistsError(
        f"{first.source.path} and {first.other.path} would both be {first.target}"
        + (f", and so for {len(others)} more" if others else ""),
        remedy="Rename one of them, choose another folder with -o, or rectify them in separate runs.",
    )


def _without_crops(sources: Sequence[Source]) -> list[Source]:
    """Without what records in a folder below an input say that it was made."""

    @cache
    def made_in(folder: Path) -> frozenset[str]:
        with suppress(StorageError):  # records that cannot be read say nothing
            return frozenset(
                finished.output for finished in read_finished(folder / RECORDS).values() if finished.output
            )
        return frozenset()

    def is_made(source: Source) -> bool:
        depth = len(source.relative.parts) - 1  # what is named, or lies in a folder that is named, was meant
        return any(
            relative_text(source.path, folder) in made
            for folder in source.path.parents[:depth]
            if (made := made_in(folder))
        )

    return [source for source in sources if not is_made(source)]


def prepare_folders(jobs: Sequence[Job], out: Path | None) -> list[Path]:
    """Makes the folders of the outputs, free of what killed runs left; StorageError if one cannot be made.

    Other runs are kept out of `out` itself, not of the folders in it: one may write to such a folder as its own.
    """
    folders = sorted({path.parent for job in jobs for path in (job.target, job.record)})
    for folder in folders:
        make_folder(folder)
        remove_leftovers(folder, is_ours=folder == out)
    return folders


class _Memory:
    """What earlier runs finished, or had begun when they were killed."""

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder
        self.in_folder = {} if folder is None else read_finished(folder / RECORDS)
        self.journal = cache(read_journal)

    def recall(self, source: Path, target: Path, record: Path) -> Finished | None:
        """What is known of an input; None if nothing shows that what is there was made by an earlier run."""
        output = relative_text(target, record.parent)
        if output in self.journal(record.parent):
            return Finished(None, output)
        finished = self.in_folder if self.folder is not None else read_finished(record)
        return finished.get(relative_text(source, record.parent))


# The name decides the format, not the content, so that all outputs are known before the first file is read.


def _image_format(promised: str | None, requested: str | None) -> tuple[str, str]:
    """The format to write, and its suffix."""
    format = output_format(promised or "PNG", np.uint8, 1, requested)
    return format, SUFFIXES[format]


def _volume_format(promised: str | None, requested: str | None) -> tuple[str, str]:
    format = volume_format(promised or "NPY", requested)
    return format, VOLUME_SUFFIXES[format]


def _format_of_file(
    file: Path, requested: str | None, choose: Callable[[str | None, str | None], tuple[str, str]]
) -> str:
    format, _ = choose(None, file.suffix)
    if requested is not None and choose(None, requested)[0] != format:
        raise UsageError(f"--format says {requested}, and -o names {file}", remedy="Leave one of them out.")
    return format


def _job(
    source: Source,
    options: RectifyOptions,
    memory: _Memory,
    known: Mapping[str, str],
    choose: Callable[[str | None, str | None], tuple[str, str]],
) -> Job:
    folder = memory.folder
    if options.out is not None and folder is None:
        format, target = _format_of_file(options.out, options.format, choose), options.out
    else:
        format, suffix = choose(known.get(source.path.suffix.lower()), options.format)
        target = output_path(source, folder, suffix, known)
    record = target.with_suffix(".json") if folder is None else folder / RECORDS
    target_exists = _exists(target)
    exists = target_exists or (folder is None and _exists(record))
    earlier = memory.recall(source.path, target, record) if exists else None
    is_made = target_exists and earlier is not None and earlier.output == relative_text(target, record.parent)
    if earlier is None or not options.resume or (target_exists and not is_made):
        return Job(source, target, format, record, exists=exists, is_made=is_made)
    key, crop = (earlier.key, earlier.crop) if is_made else (None, None)
    return Job(source, target, format, record, is_made=is_made, key=key, crop=crop)


def _exists(path: Path) -> bool:
    try:
        path.lstat()
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise StorageError(
                f"{path} would be too long a name", remedy="Name a folder with -o, or give the input a shorter name."
            ) from error
        return False
    return True
