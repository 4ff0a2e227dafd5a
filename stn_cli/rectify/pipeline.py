"""The pipeline: decode → locate in batches → warp → encode → write → record.

Decoding, warping and encoding run in threads (they release the GIL); the nets run batched. A few images are decoded
ahead while a batch is finished: memory does not grow with the number of inputs.
"""

import hashlib
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

import msgspec

from stn_cli.errors import StnError, StorageError
from stn_cli.images import Encoded, Image, decode, encode, write_atomically
from stn_cli.rectify.crop import Decision, decide, render
from stn_cli.rectify.engine import Engine, Location, Small, small_copy
from stn_cli.rectify.options import RectifyOptions
from stn_cli.rectify.plan import Job, prepare_folders
from stn_cli.rectify.record import (
    ErrorRecord,
    ModelRecord,
    OutputRecord,
    Record,
    SourceRecord,
    complete,
    path_text,
    source_record,
)

_BATCH_BYTES = 128 << 20
"""Pixels of one batch at most, but for a single image that is larger."""
_AFFECTING = ("size", "height", "resample", "fill", "format", "quality", "min_confidence", "always", "max_pixels")


class Decoded(NamedTuple):
    """A job with its image, or with the reason why there is none."""

    job: Job
    image: Image | None
    small: Small | None
    error: Exception | None


class Pipeline:
    """Runs jobs through an engine."""

    def __init__(self, engine: Engine, options: RectifyOptions) -> None:
        self.engine, self.options = engine, options
        header = engine.checkpoint.header
        self.model = ModelRecord(name=header.name, sha256=engine.checkpoint.sha256)
        self.options_sha256 = options_digest(options)

    def run(self, jobs: Sequence[Job]) -> Iterator[tuple[Job, Record]]:
        """Writes the crops and yields the records, in the order of the jobs.

        A crop is in place before its record is yielded. Failures of single inputs become records; a StorageError
        or ModelError ends the run.
        """
        prepare_folders([job for job in jobs if not job.skip])
        with ThreadPoolExecutor(self.options.workers) as pool:
            for batch in _batches(_decoded_ahead(jobs, self.options, pool), self.options.batch_size):
                yield from self._finish_batch(batch, pool)

    def _finish_batch(self, batch: Sequence[Decoded], pool: ThreadPoolExecutor) -> Iterator[tuple[Job, Record]]:
        smalls = [decoded.small for decoded in batch if decoded.small is not None]
        sizes = [decoded.image.pixels.shape[:2] for decoded in batch if decoded.image is not None]
        located = iter(self.engine.locate(smalls, sizes, pool.map) if smalls else ())
        futures: list[tuple[Job, Future[Record]]] = []
        for job, image, _, error in batch:
            if image is not None:
                futures.append((job, pool.submit(self._finish, job, image, next(located))))
            else:
                futures.append((job, pool.submit(self._without_image, job, error)))
        for job, future in futures:
            yield job, future.result()

    def _finish(self, job: Job, image: Image, location: Location) -> Record:
        """Warps, encodes and writes one image."""
        record = self._record(job, image)
        try:
            decision = decide(location, image.pixels.shape[:2], self.options, self.engine.checkpoint.header)
            encoded = self._encoded(job, image, decision)
            complete(record, location, decision)
            record.output = _output(job, decision, encoded)
            record.notes = [*record.notes, *encoded.notes]
            write_atomically(job.target, encoded.data)
        except StorageError:
            raise
        except Exception as error:  # whatever happens to one image must not end the run
            return _failed(record, error)
        return record

    def _encoded(self, job: Job, image: Image, decision: Decision) -> Encoded:
        if decision.unchanged is not None and self._can_copy(job, image):
            return Encoded(job.source.path.read_bytes(), ())
        return encode(
            render(self.engine, image.pixels, decision, self.options),
            job.format,
            quality=self.options.quality,
            icc_profile=image.icc_profile,
            jpeg_tables=image.jpeg_tables,
        )

    def _can_copy(self, job: Job, image: Image) -> bool:
        """The file itself is the output: nothing was asked that would change it."""
        options = self.options
        asked = options.size, options.height, options.quality
        return asked == (None, None, None) and image.format == job.format

    def _record(self, job: Job, image: Image) -> Record:
        return Record(
            source=source_record(job.source.path, image),
            status="failed",
            model=self.model,
            options_sha256=self.options_sha256,
            notes=list(image.notes),
        )

    def _without_image(self, job: Job, error: Exception | None) -> Record:
        source = SourceRecord(path=path_text(job.source.path))
        if error is None:
            return Record(source=source, status="skipped", reason=f"{path_text(job.target)} exists already")
        return _failed(Record(source=source, status="failed", model=self.model), error)


def options_digest(options: RectifyOptions) -> str:
    """SHA-256 of the options on which the content of a crop depends."""
    chosen = {name: getattr(options, name) for name in _AFFECTING}
    return hashlib.sha256(msgspec.json.encode(chosen, order="sorted")).hexdigest()


def _decoded_ahead(jobs: Sequence[Job], options: RectifyOptions, pool: ThreadPoolExecutor) -> Iterator[Decoded]:
    """Decodes in threads, in order, at most two images a thread ahead of the consumer."""
    waiting: deque[Future[Decoded]] = deque()
    for job in jobs:
        waiting.append(pool.submit(_decode, job, options.max_pixels))
        if len(waiting) > 2 * options.workers:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def _decode(job: Job, max_pixels: int) -> Decoded:
    if job.skip:
        return Decoded(job, None, None, None)
    try:
        image = decode(job.source.path, max_pixels=max_pixels)
        return Decoded(job, image, small_copy(image.pixels), None)
    except Exception as error:  # whatever a decoder does is the failure of its file
        return Decoded(job, None, None, error)


def _batches(decoded: Iterator[Decoded], most: int) -> Iterator[list[Decoded]]:
    batch: list[Decoded] = []
    size = 0
    for item in decoded:
        batch.append(item)
        size += item.image.pixels.nbytes if item.image is not None else 0
        if len(batch) == most or size >= _BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _output(job: Job, decision: Decision, encoded: Encoded) -> OutputRecord:
    height, width = decision.size
    digest = hashlib.sha256(encoded.data).hexdigest()
    return OutputRecord(path=path_text(job.target), sha256=digest, width=width, height=height, format=job.format)


def _failed(record: Record, error: Exception) -> Record:
    message = str(error) if isinstance(error, StnError) else f"unexpected {type(error).__name__}: {error}"
    record.status = "failed"
    record.error = ErrorRecord(type=type(error).__name__, message=message)
    return record
