"""Processes that rectify. One that crashes, hangs or runs out of memory takes down a single input.

Decoders are the part of the program that strangers' bytes reach. They run in processes of their own, which are handed
a few inputs at a time. Where a process ends before it has answered, or does not answer in time, another one takes its
place and does what it left, one input at a time: so the one that is to blame shows, and becomes a failure.
"""

from __future__ import annotations

import atexit
import ctypes
import gc
import math
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from queue import SimpleQueue
from types import TracebackType
from typing import TYPE_CHECKING, NamedTuple, Self

from stn_cli.checkpoints import Checkpoint
from stn_cli.engines.devices import may_be_accelerated
from stn_cli.errors import ImageError, ModelError, StnError
from stn_cli.rectify.options import RectifyOptions

if TYPE_CHECKING:  # what works is loaded where it works
    from stn_cli.rectify.outcome import Group
    from stn_cli.rectify.pipeline import Pipeline
    from stn_cli.rectify.plan import Job
    from stn_cli.rectify.volumes import VolumePipeline

_GIVEN = 2
"""Tasks that a process has at a time: the one that it works on, and the next."""
_AHEAD = 4
"""Tasks for each process that may be under way or done while an earlier one is not."""
_TRIES = 3
"""Processes that may be lost one after another before they have opened the model."""
_GARBAGE = 20_000
"""Objects after which cycles are looked for. Records are many objects and no cycles: Python's own 700 cost 6 %."""
_PR_SET_PDEATHSIG = 1
_TASK_BYTES = 8 << 20
"""Of the files of a task together, but for a single file that is larger."""


class Task(NamedTuple):
    """Inputs that are handed out together, and the number of the first."""

    first: int
    jobs: Sequence[Job]


Work = Callable[[Connection, Checkpoint, str, RectifyOptions, int], None]
"""What a process does: `work_off`."""


class Crew:
    """Processes that share the jobs of a run. A context manager, which ends them.

    On a CPU there is one for each of `options.workers`; an accelerator is shared by the threads of one. The first one
    starts at once, and opens the model while the jobs are planned.
    """

    def __init__(self, checkpoint: Checkpoint, device: str, options: RectifyOptions, work: Work | None = None) -> None:
        self.checkpoint, self.options = checkpoint, options
        self._most = 1 if may_be_accelerated(device) else options.workers
        self._order = (work or work_off, checkpoint, device, options, options.workers // self._most)
        self._again: deque[Task] = deque()
        self._lost_early = 0
        self._members = [_Member(*self._order)]

    def wait_until_open(self) -> None:
        """Raises ModelError or DeviceError if the model cannot be run."""
        while not self._members[0].is_open:
            self._answers()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._disband()

    def run(
        self, jobs: Sequence[Job], is_stopped: Callable[[], bool] = lambda: False
    ) -> Iterator[tuple[Sequence[Job], Group]]:
        """Yields jobs with their records and crops, to be committed, in the order of the jobs.

        Failures of single inputs become records; a StorageError or ModelError ends the run. Once `is_stopped`, what
        was begun is finished, and no more.
        """
        count = min(self._most, len(jobs))
        self._members += [_Member(*self._order) for _ in range(count - len(self._members))]
        new = tasks(jobs, min(self.options.batch_size, math.ceil(len(jobs) / count)))
        done: dict[int, tuple[Sequence[Job], Group]] = {}
        expected = 0
        while True:
            self._hand_out(new, len(done), is_stopped)
            if expected in done:
                some, group = done.pop(expected)
                expected += len(some)
                yield some, group
            elif any(member.given for member in self._members):
                done.update((task.first, (task.jobs, group)) for task, group in self._answers())
            else:
                return

    def _hand_out(self, new: Iterator[Task], done: int, is_stopped: Callable[[], bool]) -> None:
        """Gives each member its next tasks; what another one left comes first."""
        while True:
            member = min(self._members, key=lambda member: len(member.given))
            under_way = done + sum(len(member.given) for member in self._members)
            if len(member.given) == _GIVEN:
                return
            if self._again:
                member.give(self._again.popleft())
            elif under_way >= _AHEAD * len(self._members) or is_stopped() or (task := next(new, None)) is None:
                return
            else:
                member.give(task)

    def _answers(self) -> list[tuple[Task, Group]]:
        """Waits until members answer, or fail to."""
        left = min(member.since for member in self._members) + self.options.time_limit - time.monotonic()
        timeout = None if left == math.inf else max(0.0, left)
        ready = wait([member.connection for member in self._members], timeout)
        answers = []
        for number, member in enumerate(self._members):
            if member.connection in ready:
                try:
                    answers += member.receive()
                    self._lost_early = 0
                except (EOFError, OSError):
                    answers += self._replace(number, f"ended the process that worked on it ({member.fate()})")
            elif time.monotonic() > member.since + self.options.time_limit:
                answers += self._replace(number, f"took longer than {self.options.time_limit:g} seconds")
        return answers

    def _replace(self, number: int, what_it_did: str) -> list[tuple[Task, Group]]:
        """Puts another in the place of a member; returns the failure, if it is known whose it is."""
        member = self._members[number]
        member.end()
        self._lost_early += not member.is_open
        if self._lost_early >= _TRIES:
            raise ModelError(f"opening the model {what_it_did}")
        self._members[number] = _Member(*self._order)
        if not member.given or not member.is_open or member.is_gone:
            self._again.extendleft(reversed(member.given))
            return []
        blamed, *left = member.given
        alone = [Task(blamed.first + i, [job]) for i, job in enumerate(blamed.jobs)]
        self._again.extendleft(reversed(left if len(alone) == 1 else [*alone, *left]))
        if len(alone) > 1:
            return []
        from stn_cli.rectify.outcome import Group, Provenance, failed_record  # noqa: PLC0415  nothing is lost every day

        origin = Provenance.of(self.checkpoint, self.options)
        return [(blamed, Group([failed_record(blamed.jobs[0], origin, ImageError(what_it_did))], [], []))]

    def _disband(self) -> None:
        for member in self._members:
            member.end()


class _Member:
    """One process.

    Attributes:
        given: what it has not answered yet; it works on the first of them.
        is_open: it has opened the model.
        is_gone: it had ended before it was given the last of them, which is not to blame.
        since: when it began with that, by the monotonic clock; infinite if there is none, or no model yet.
    """

    def __init__(self, work: Work, *arguments: object) -> None:
        context = multiprocessing.get_context("spawn")  # a fork would copy locks that threads of libraries hold
        self.connection, theirs = context.Pipe()
        self._process = context.Process(target=work, args=(theirs, *arguments), daemon=True)
        with _one_thread_each(), _deaf():
            self._process.start()
        atexit.register(self._process.kill)  # before multiprocessing sends a SIGTERM that it does not hear, and waits
        theirs.close()
        self.given: deque[Task] = deque()
        self.since = math.inf
        self.is_open = self.is_gone = False

    def give(self, task: Task) -> None:
        self.given.append(task)
        try:
            self.connection.send(task.jobs)
        except OSError:  # its answers end, too
            self.is_gone = True
        self._begin()

    def receive(self) -> list[tuple[Task, Group]]:
        """What it says: first that the model is open, then an answer for each task. Raises what it had to raise.

        Raises EOFError or OSError if it has ended.
        """
        said: Group | Exception | None = self.connection.recv()
        if isinstance(said, Exception):
            raise said
        self.is_open = True
        answers = [] if said is None else [(self.given.popleft(), said)]
        self._begin()
        return answers

    def fate(self) -> str:
        """How it ended."""
        self._process.join(1)
        code = self._process.exitcode
        if code is None or code >= 0:
            return f"exit code {code}"
        return signal.Signals(-code).name + (", out of memory?" if -code == signal.SIGKILL else "")

    def end(self) -> None:
        self._process.kill()
        self._process.join()
        atexit.unregister(self._process.kill)
        self.connection.close()

    def _begin(self) -> None:
        self.since = time.monotonic() if self.is_open and self.given else math.inf


@contextmanager
def _one_thread_each() -> Iterator[None]:
    """NumPy's products are small here, and a process that shares them among threads waits for these most of its time.

    BLAS reads this when it is loaded, so it is said to processes that are about to start.
    """
    before = {name: os.environ.get(name) for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")}
    os.environ.update(dict.fromkeys(before, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextmanager
def _deaf() -> Iterator[None]:
    """A process started here never hears of SIGINT and SIGTERM, not even while it is loading.

    Both reach all processes of a terminal or a job at once, but the first process alone decides what ends, and when.
    What is blocked stays so in a process that is started; signals to this one wait for the end of the block.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    resource_tracker.ensure_running()  # the first process would start it, and it unblocks both
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def tasks(jobs: Sequence[Job], most: int) -> Iterator[Task]:
    """Small files many to a task, `most` at most; a large one alone."""
    first = size = 0
    for number, job in enumerate(jobs):
        more = _size(job)
        if number > first and (number - first == most or size + more > _TASK_BYTES):
            yield Task(first, jobs[first:number])
            first, size = number, 0
        size += more
    if first < len(jobs):
        yield Task(first, jobs[first:])


def work_off(connection: Connection, checkpoint: Checkpoint, device: str, options: RectifyOptions, cores: int) -> None:
    """What a process of a crew does: says None when it is ready, then answers each sequence of jobs by a Group.

    An exception takes the place of what it would have said.
    """
    for number in (signal.SIGINT, signal.SIGTERM):  # where they cannot be blocked
        signal.signal(number, signal.SIG_IGN)
    _die_with_parent()
    given: SimpleQueue[Sequence[Job]] = SimpleQueue()
    threading.Thread(target=_take_in, args=(connection, given), daemon=True).start()
    if not os.environ.get("STN_DEBUG"):
        _silence()
    import cv2  # noqa: PLC0415  the process that hands out the tasks does without

    from stn_cli.engines.devices import open_engine  # noqa: PLC0415
    from stn_cli.rectify.pipeline import Pipeline  # noqa: PLC0415

    pipeline: Pipeline | VolumePipeline
    try:
        cv2.setNumThreads(cores)
        threads = cores if may_be_accelerated(device) else 1
        engine = open_engine(checkpoint, device, options.head - 1)
        if checkpoint.header.model.dims == 3:
            from stn_cli.rectify.volumes import VolumePipeline  # noqa: PLC0415  imports torch

            pipeline = VolumePipeline(engine, options)
        else:
            pipeline = Pipeline(engine, options, threads)
    except StnError as error:
        connection.send(error)
        return
    gc.freeze()
    gc.set_threshold(_GARBAGE)
    connection.send(None)
    while True:
        connection.send(_answer(pipeline, given.get()))


def _answer(pipeline: Pipeline | VolumePipeline, jobs: Sequence[Job]) -> Group | StnError:
    try:
        return pipeline.run(jobs)
    except StnError as error:
        return error
    except Exception as error:  # not all exceptions can be sent
        return StnError(f"internal: {type(error).__name__}: {error}")


def _take_in(connection: Connection, given: SimpleQueue[Sequence[Job]]) -> None:
    """Receives tasks as they come: whoever hands them out never waits for one who waits for an answer to be received.

    Where there is nobody left to hand out tasks, there is nobody to commit what is written: the process ends at once.
    """
    with suppress(EOFError, OSError):
        while True:
            given.put(connection.recv())
    os._exit(1)


def _die_with_parent() -> None:
    """As `_take_in` sees to, but also where a decoder hangs and lets no other thread run: prctl(2)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _silence() -> None:
    """Decoders print to the terminal, past Python, what is wrong with a file."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(nowhere, stream)


def _size(job: Job) -> int:
    try:
        return job.source.path.stat().st_size
    except (OSError, ValueError):
        return 0
