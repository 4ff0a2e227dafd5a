"""What will be done, decided before anything is written."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from stn_cli.errors import OutputExistsError, StorageError
from stn_cli.images import FORMAT_OF_SUFFIX, SUFFIXES, Source, discover, find_collisions, output_format, output_path
from stn_cli.rectify.options import RectifyOptions

RECORDS = "theta.jsonl"


@dataclass(frozen=True)
class Job:
    """One input, where its crop goes, in which format, and where its record goes.

    `skip` says that the output is there already and stays.
    """

    source: Source
    target: Path
    format: str
    record: Path
    skip: bool = False


def plan(inputs: Sequence[Path], options: RectifyOptions) -> list[Job]:
    """The jobs, in the order of the inputs.

    Raises:
        NoInputError: nothing to do.
        OutputExistsError: an output exists and `on_exists` is `error`, or two inputs would write one output.
        StorageError: the output folder cannot be made.
    """
    sources = discover(inputs, options.recursive, options.out)
    jobs = [_job(source, options) for source in sources]
    collisions = find_collisions([(job.source, job.target) for job in jobs])
    if options.out is None:
        collisions = collisions or find_collisions([(job.source, job.record) for job in jobs])
    if collisions:
        first = collisions[0]
        raise OutputExistsError(
            f"{first.source.path} and {first.other.path} would both be {first.target}"
            + (f", and so for {len(collisions) - 1} more" if len(collisions) > 1 else ""),
            remedy="Rename one of them, choose another folder with -o, or rectify them in separate runs.",
        )
    existing = [job for job in jobs if job.skip]
    if existing and options.on_exists == "error":
        more = f", and {len(existing) - 1} more" if len(existing) > 1 else ""
        raise OutputExistsError(f"{existing[0].target} exists already{more}")
    if options.on_exists == "overwrite":
        return [Job(job.source, job.target, job.format, job.record) for job in jobs]
    return jobs


def prepare_folders(jobs: Sequence[Job]) -> None:
    """Makes the folders of the outputs; StorageError if one cannot be made."""
    for folder in sorted({path.parent for job in jobs for path in (job.target, job.record)}):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StorageError(f"cannot create the folder {folder}: {error.strerror}") from error


def _job(source: Source, options: RectifyOptions) -> Job:
    # The name decides the format, not the content, so that all outputs are known before the first file is read.
    promised = FORMAT_OF_SUFFIX.get(source.path.suffix.lower(), "PNG")
    format = output_format(promised, np.uint8, 1, options.format)
    target = output_path(source, options.out, SUFFIXES[format])
    record = options.out / RECORDS if options.out is not None else target.with_suffix(".json")
    # `os.path.exists`: a name that is too long for the file system does not exist; writing it will say why.
    exists = os.path.exists(target) or (options.out is None and os.path.exists(record))  # noqa: PTH110
    return Job(source, target, format, record, skip=exists)
