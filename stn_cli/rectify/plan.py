"""What will be done, decided before anything is written."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from stn_cli.errors import OutputExistsError, StorageError, UsageError
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
        exists: something is there that no earlier run is known to have made.
        key: of what an earlier run made here, which stays if the run would make the same; see `finished.job_key`.
    """

    source: Source
    target: Path
    format: str
    record: Path
    exists: bool = False
    key: bytes | None = None


def plan(inputs: Sequence[Path], options: RectifyOptions, dims: int = 2) -> list[Job]:
    """The jobs, in the order of the inputs; `dims` is 2 for a model of images, 3 for one of volumes.

    Raises:
        UsageError: an option is of images, and the model of volumes, or the other way round.
        NoInputError: nothing to do.
        OutputExistsError: an output exists and `on_exists` is `error`, or two inputs would write one output.
        StorageError: the output folder cannot be made.
    """
    options.check_dims(dims)
    if options.out is not None:
        _check_folder(options.out)
    known = VOLUME_OF_SUFFIX if dims == 3 else format_of_suffix(readable(options.allow_formats))
    sources = discover(inputs, options.recursive, options.out, known)
    memory = _Memory(options)
    choose = _volume_format if dims == 3 else _image_format
    jobs = [_job(source, options, memory, known, choose) for source in sources]
    if options.out is None:
        jobs = _inputs_alone(jobs)
    collisions = find_collisions([(job.source, job.target) for job in jobs])
    if options.out is None:
        collisions = collisions or find_collisions([(job.source, job.record) for job in jobs])
    if collisions:
        first = collisions[0]
        if first.source is first.other:
            raise OutputExistsError(
                f"{first.target} would replace itself: the output folder is that of the inputs",
                remedy="Choose another folder with -o, or leave it out, and crops get names of their own beside them.",
            )
        raise OutputExistsError(
            f"{first.source.path} and {first.other.path} would both be {first.target}"
            + (f", and so for {len(collisions) - 1} more" if len(collisions) > 1 else ""),
            remedy="Rename one of them, choose another folder with -o, or rectify them in separate runs.",
        )
    existing = [job for job in jobs if job.exists]
    if existing and options.on_exists == "error":
        more = f", and {len(existing) - 1} more" if len(existing) > 1 else ""
        raise OutputExistsError(f"{existing[0].target} exists already{more}")
    return jobs


def _check_folder(out: Path) -> None:
    if os.path.isdir(out):  # noqa: PTH112  a name that the system refuses is no folder; making it will say why
        return
    if os.path.exists(out):  # noqa: PTH110
        raise StorageError(f"{out} is a file, and the output goes into a folder", remedy="Name another one with -o.")
    if out.suffix.lower() in FORMAT_OF_SUFFIX.keys() | VOLUME_OF_SUFFIX.keys():
        raise UsageError(
            f"-o names a folder, and {out} looks like a file",
            remedy="Leave -o out, and the crop gets a name of its own beside its image; or name a folder.",
        )


def _inputs_alone(jobs: Sequence[Job]) -> list[Job]:
    """Without crops that an earlier run is known to have made beside others of them: a shell's pattern names both."""
    made = {job.target for job in jobs if not job.exists and job.target != job.source.path}
    return [job for job in jobs if job.source.path not in made]


def prepare_folders(jobs: Sequence[Job], *, are_ours: bool) -> list[Path]:
    """Makes the folders of the outputs, free of what killed runs left; StorageError if one cannot be made.

    `are_ours`: other runs are kept out of them.
    """
    folders = sorted({path.parent for job in jobs for path in (job.target, job.record)})
    for folder in folders:
        make_folder(folder)
        remove_leftovers(folder, is_ours=are_ours)
    return folders


class _Memory:
    """What earlier runs finished, or had begun when they were killed."""

    def __init__(self, options: RectifyOptions) -> None:
        self.options = options
        self.in_folder = {} if options.out is None or not options.resume else read_finished(options.out / RECORDS)
        self.journal = cache(read_journal)

    def recall(self, source: Path, target: Path, record: Path) -> Finished | None:
        """What is known of an input; None if nothing shows that what is there was made by an earlier run."""
        if not self.options.resume:
            return None
        output = relative_text(target, record.parent)
        if output in self.journal(record.parent):
            return Finished(None, output)
        finished = self.in_folder if self.options.out is not None else read_finished(record)
        return finished.get(relative_text(source, record.parent))


# The name decides the format, not the content, so that all outputs are known before the first file is read.


def _image_format(promised: str | None, requested: str | None) -> tuple[str, str]:
    """The format to write, and its suffix."""
    format = output_format(promised or "PNG", np.uint8, 1, requested)
    return format, SUFFIXES[format]


def _volume_format(promised: str | None, requested: str | None) -> tuple[str, str]:
    format = volume_format(promised or "NPY", requested)
    return format, VOLUME_SUFFIXES[format]


def _job(
    source: Source,
    options: RectifyOptions,
    memory: _Memory,
    known: Mapping[str, str],
    choose: Callable[[str | None, str | None], tuple[str, str]],
) -> Job:
    format, suffix = choose(known.get(source.path.suffix.lower()), options.format)
    target = output_path(source, options.out, suffix, known)
    record = options.out / RECORDS if options.out is not None else target.with_suffix(".json")
    # `os.path.exists`: a name that is too long for the file system does not exist; writing it will say why.
    target_exists = os.path.exists(target)  # noqa: PTH110
    exists = target_exists or (options.out is None and os.path.exists(record))  # noqa: PTH110
    earlier = memory.recall(source.path, target, record) if exists else None
    if earlier is None or (target_exists and earlier.output != relative_text(target, record.parent)):
        return Job(source, target, format, record, exists=exists)
    return Job(source, target, format, record, key=earlier.key if target_exists else None)
