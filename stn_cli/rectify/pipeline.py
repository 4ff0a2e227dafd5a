"""The pipeline: decode → locate in batches → warp → encode → write under a name for the time being → record.

Memory does not grow with the number of inputs: a few images are decoded ahead while a batch is finished. What is
written is committed together with its records by `ledger`.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor, wait
from typing import Any, NamedTuple

from stn_cli.engines.engine import Engine, Located, Location, Small, small_copy
from stn_cli.errors import DeviceError, StorageError
from stn_cli.images import (
    FORMAT_OF_SUFFIX,
    SHRINKS,
    Encoded,
    FileData,
    Image,
    Shrink,
    Size,
    Staged,
    contained_pillow,
    decode_data,
    encode,
    read_file,
    readable,
    stage,
    withdraw,
)
from stn_cli.rectify.crop import Decision, decide, render, resampling, shrink_at_first, shrink_for
from stn_cli.rectify.options import RectifyOptions
from stn_cli.rectify.outcome import Group, Provenance, failed, failed_record, output_record, skipped_record
from stn_cli.rectify.plan import Job
from stn_cli.rectify.record import Record, complete, describe_all, source_record
from stn_cli.sampling.warp import Reading

_BATCH_BYTES = 128 << 20
"""Pixels of one batch at most, but for a single image that is larger."""


class Decoded(NamedTuple):
    """A job with its image, or with the reason why there is none: it is done already, or cannot be read."""

    job: Job
    file: FileData | None = None
    image: Image | None = None
    small: Small | None = None
    done: str | None = None
    error: Exception | None = None


class Ready(NamedTuple):
    """What is known of an image before its crop is read.

    Attributes:
        described: the fields of its record that follow from transforms.
        shrunk: how many times smaller the image is from which it is read.
    """

    location: Location
    decision: Decision
    described: Mapping[str, Any]
    shrunk: int
    reading: Reading | None


class Pipeline:
    """Runs jobs through an engine, in this thread or, if there are to be several, in a pool of them."""

    def __init__(self, engine: Engine, options: RectifyOptions, threads: int = 1) -> None:
        self.engine, self.options = engine, options
        self.pool: Executor = ThreadPoolExecutor(threads) if threads > 1 else _Here()
        self._most_at_once = options.batch_size
        self.ahead = 2 * threads if threads > 1 else 0
        self.origin = Provenance.of(engine.checkpoint, options)
        self.formats = readable(options.allow_formats)

    def run(self, jobs: Sequence[Job]) -> Group:
        """The crops of some jobs, written and ready to be committed.

        Failures of single inputs become records. Raises StorageError or ModelError for what concerns all of them, and
        leaves nothing behind then.
        """
        done = Group([], [], [])
        try:
            with contained_pillow.around():
                self._run(jobs, done)
        except BaseException:
            withdraw(done.staged)
            raise
        return done

    def _run(self, jobs: Sequence[Job], done: Group) -> None:
        for batch in _batches(self._decoded_ahead(jobs)):
            futures = self._finish_batch(batch, done.warnings)
            done.staged.extend(crop for future in futures if not future.exception() and (crop := future.result()[1]))
            done.records.extend(future.result()[0] for future in futures)

    def _decoded_ahead(self, jobs: Sequence[Job]) -> Iterator[Decoded]:
        """In order; a few images at most are decoded ahead of the consumer."""
        waiting: deque[Future[Decoded]] = deque()
        for job in jobs:
            waiting.append(self.pool.submit(self._decode, job))
            if len(waiting) > self.ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()

    def _decode(self, job: Job) -> Decoded:
        try:
            done = self.origin.why_left(job, self.options)
            if done is not None:
                return Decoded(job, done=done)
            file = read_file(job.source.path)
            image = self._image(file, lambda size: shrink_at_first(size, self.options))
            return Decoded(job, file, image, small_copy(image.pixels))
        except Exception as error:  # whatever a decoder does is the failure of its file
            return Decoded(job, error=error)

    def _image(self, file: FileData, shrink: Shrink) -> Image:
        options = self.options
        return decode_data(
            file, max_pixels=options.max_pixels, formats=self.formats, salvage=options.salvage, shrink=shrink
        )

    def _finish_batch(
        self, batch: Sequence[Decoded], warnings: list[str]
    ) -> list[Future[tuple[Record, Staged | None]]]:
        images = [decoded.image for decoded in batch if decoded.image is not None]
        smalls = [decoded.small for decoded in batch if decoded.small is not None]
        ready = iter(self._ready(smalls, images, warnings))
        found = [next(ready) if decoded.image is not None else None for decoded in batch]
        futures = [self.pool.submit(self._finish, *each) for each in zip(batch, found, strict=True)]
        wait(futures)
        return futures

    def _ready(self, smalls: Sequence[Small], images: Sequence[Image], warnings: list[str]) -> list[Ready]:
        """All that is found out about a batch before its crops are read."""
        sizes = [image.size for image in images]
        locations: list[Location] = []
        decisions: list[Decision] = []
        for located in self._locate(smalls, sizes, warnings):
            some = sizes[len(locations) : len(locations) + len(located)]
            locations += located
            decisions += decide(located, some, self.options, self.engine.checkpoint.header)
        shrunk = [_shrunk(image, decision) for image, decision in zip(images, decisions, strict=True)]
        turned = [number for number, decision in enumerate(decisions) if decision.unchanged is None]
        readings = self.engine.readings(
            [decisions[number].transform for number in turned],
            [(sizes[number][0] // shrunk[number], sizes[number][1] // shrunk[number]) for number in turned],
            [decisions[number].size for number in turned],
            resampling(self.options, self.engine.checkpoint.header),
        )
        reading_of = dict(zip(turned, readings, strict=True))
        found = zip(locations, decisions, describe_all(locations, decisions, sizes), shrunk, strict=True)
        return [Ready(*each, reading_of.get(number)) for number, each in enumerate(found)]

    def _locate(self, smalls: Sequence[Small], sizes: Sequence[Size], warnings: list[str]) -> Iterator[Located]:
        """As many at once as the memory of the device is known to hold."""
        first = 0
        while first < len(smalls):
            some = slice(first, first + self._most_at_once)
            try:
                located = self.engine.locate(smalls[some], sizes[some], self.pool.map)
            except self.engine.out_of_memory as error:
                tried = len(smalls[some])
                if tried == 1:
                    raise DeviceError("the device has not enough memory for a single image") from error
                self._most_at_once = tried // 2
                warnings.append(f"the device has not enough memory for {tried} images at once: batches are halved")
            else:
                first += len(located)
                yield located

    def _finish(self, decoded: Decoded, ready: Ready | None) -> tuple[Record, Staged | None]:
        """Warps, encodes and writes one image, under a name for the time being."""
        job, file, image = decoded.job, decoded.file, decoded.image
        if file is None or image is None or ready is None:
            return self._without_image(decoded), None
        record = self._record(job, image)
        try:
            is_copied = ready.decision.unchanged is not None and self._can_copy(job, image)
            encoded = Encoded(file.data, ()) if is_copied else self._encoded(job, file, image, ready)
            complete(record, ready.location, ready.decision, ready.described)
            record.output = output_record(job, ready.decision.size, encoded.data)
            record.notes = [] if is_copied else [*record.notes, *encoded.notes]  # decoding changed nothing of a copy
            record.notes += self._promised(job, image)
            return record, stage(job.target, encoded.data)
        except StorageError:
            raise
        except Exception as error:  # whatever happens to one image must not end the run
            return failed(record, error), None

    def _encoded(self, job: Job, file: FileData, image: Image, ready: Ready) -> Encoded:
        is_fine = ready.shrunk == image.shrunk
        pixels = image.pixels if is_fine else self._image(file, lambda _: ready.shrunk).pixels
        crop = render(self.engine, pixels, ready.decision, self.options, ready.reading)
        del pixels  # a large image is gone before another copy of its crop is made
        return encode(
            crop,
            job.format,
            quality=self.options.quality,
            optimize=self.options.optimize,
            icc_profile=image.icc_profile,
            jpeg_tables=image.jpeg_tables,
        )

    def _promised(self, job: Job, image: Image) -> list[str]:
        """A note where a file is not what its name says: the crop is, or names would have to change."""
        named = FORMAT_OF_SUFFIX.get(job.source.path.suffix.lower())
        if self.options.format is not None or named != job.format or image.format in (named, "MPO"):
            return []
        return [f"named as {named}, and written so, but the file holds {image.format}"]

    def _can_copy(self, job: Job, image: Image) -> bool:
        """The file itself is the output: it is whole, stored upright, and nothing was asked that would change it."""
        options = self.options
        asked = options.size, options.height, options.quality
        is_plain = image.damage is None and image.exif_orientation == 1
        named = "JPEG" if image.format == "MPO" else image.format
        return asked == (None, None, None) and named == job.format and is_plain

    def _record(self, job: Job, image: Image) -> Record:
        return Record(
            source=source_record(job.source.path, image),
            status="failed",
            model=self.origin.model,
            options_sha256=self.origin.options_sha256,
            notes=list(image.notes),
        )

    def _without_image(self, decoded: Decoded) -> Record:
        if decoded.error is not None:
            return failed_record(decoded.job, self.origin, decoded.error)
        return skipped_record(decoded.job, decoded.done)


class _Here(Executor):
    """Runs what is submitted at once, in this thread."""

    def submit(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(function(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future

    def map(
        self,
        function: Callable[..., Any],
        /,
        *arguments: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = 1,
    ) -> Iterator[Any]:
        del timeout, chunksize  # nothing is waited for
        return map(function, *arguments)


def _batches(decoded: Iterator[Decoded]) -> Iterator[list[Decoded]]:
    batch: list[Decoded] = []
    size = 0
    for item in decoded:
        batch.append(item)
        size += item.image.pixels.nbytes if item.image is not None else 0
        if size >= _BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _shrunk(image: Image, decision: Decision) -> int:
    """By how much the image may be smaller from which the crop is read: not more than it is already."""
    if image.shrunk == 1:
        return 1
    most = min(image.shrunk, shrink_for(decision, image.size))
    return max(factor for factor in SHRINKS if factor <= most)
