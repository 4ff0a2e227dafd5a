"""What becomes of an input, whatever pipeline works on it: left, done or failed, and by what it was made."""

import hashlib
import os
from typing import NamedTuple

import msgspec

from stn_cli.checkpoints import Checkpoint
from stn_cli.errors import OutputExistsError, StnError
from stn_cli.images import Staged, read_file
from stn_cli.rectify.finished import digest, job_key
from stn_cli.rectify.options import RectifyOptions
from stn_cli.rectify.plan import Job
from stn_cli.rectify.record import ErrorRecord, ModelRecord, OutputRecord, Record, SourceRecord, path_text

_AFFECTING = (
    *("size", "height", "resample", "fill", "format", "quality", "optimize"),
    *("min_confidence", "always", "max_pixels", "salvage", "head"),
)


class Group(NamedTuple):
    """The records of some jobs, in their order, and their crops, which have yet to take their names.

    Attributes:
        warnings: what a person should know of the run.
    """

    records: list[Record]
    staged: list[Staged]
    warnings: list[str]


class Provenance(NamedTuple):
    """By what a crop is made, beside its image."""

    model: ModelRecord
    options_sha256: str

    @classmethod
    def of(cls, checkpoint: Checkpoint, options: RectifyOptions) -> "Provenance":
        model = ModelRecord(name=checkpoint.header.name, sha256=checkpoint.sha256)
        return cls(model, options_digest(options))

    def why_left(self, job: Job, options: RectifyOptions) -> str | None:
        """Why a run leaves an input as it is, or None; reads it where an earlier run is known to have finished it.

        Raises ImageError if it cannot be read, and OutputExistsError if the crop has been changed since.
        """
        if job.exists and options.on_exists == "skip":
            there = job.target if os.path.lexists(job.target) else job.record
            return f"{path_text(there)} exists already"
        if job.key is None:
            return None
        would_make = job_key(read_file(job.source.path).sha256, self.model.sha256, self.options_sha256)
        if job.crop in (None, digest(read_file(job.target).sha256)):
            return "an earlier run did the same" if would_make == job.key else None
        if options.on_exists == "overwrite":
            return None
        changed = f"{path_text(job.target)} is no longer what stn made there"
        if options.on_exists == "skip":
            return changed
        raise OutputExistsError(changed, remedy="Move it away, or say --on-exists skip or overwrite.")


def options_digest(options: RectifyOptions) -> str:
    """SHA-256 of the options on which the content of a crop depends."""
    chosen = {name: getattr(options, name) for name in _AFFECTING}
    return hashlib.sha256(msgspec.json.encode(chosen, order="sorted")).hexdigest()


def skipped_record(job: Job, reason: str | None) -> Record:
    """Of an input that is left as it is."""
    return Record(source=SourceRecord(path=path_text(job.source.path)), status="skipped", reason=reason)


def failed_record(job: Job, origin: Provenance, error: Exception) -> Record:
    """Of an input of which nothing is known but that it failed."""
    source = SourceRecord(path=path_text(job.source.path))
    return failed(Record(source=source, status="failed", **origin._asdict()), error)


def output_record(job: Job, size: tuple[int, ...], data: bytes) -> OutputRecord:
    """Of a crop of (height, width) or (depth, height, width), in a file that holds `data`."""
    *depth, height, width = size
    return OutputRecord(
        path=path_text(job.target),
        sha256=hashlib.sha256(data).hexdigest(),
        width=width,
        height=height,
        depth=depth[0] if depth else None,
        format=job.format,
    )


def failed(record: Record, error: Exception) -> Record:
    """The record of an input with what went wrong."""
    record.status, kind = "failed", type(error).__name__
    if isinstance(error, StnError):
        record.error = ErrorRecord(type=kind, message=str(error), remedy=error.remedy)
    else:
        record.error = ErrorRecord(type=kind, message=f"unexpected {kind}: {error}")
    return record
