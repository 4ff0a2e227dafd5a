"""Every write, rename, flush and open of a run fails once, and is the last thing before a kill once.

After each, the same run again ends as one that nothing disturbed: the same crops, the same records, nothing else.
"""

import errno
import io
import json
import os
import shutil
import traceback
from functools import partial
from hashlib import sha256

import pytest

from stn_cli.checkpoints import open_checkpoint
from stn_cli.engines.onnx_engine import OnnxEngine
from stn_cli.errors import StnError
from stn_cli.images import storage
from stn_cli.rectify.crew import tasks
from stn_cli.rectify.ledger import Ledger
from stn_cli.rectify.options import RectifyOptions
from stn_cli.rectify.pipeline import Pipeline
from stn_cli.rectify.plan import plan
from tests.running import SAMPLES

INPUTS = ("rotated-1.png", "rotated-2.png", "photo-1.jpg", "cluttered-1.png")
ENDED, FAILED, KILLED, DEFECT = 0, 3, 137, 99
WAYS = ("ENOSPC", "EIO", "EACCES", "kill")


class Faults:
    """Counts what a process asks of its files below a folder, and makes the n-th of it fail or be the last."""

    def __init__(self, folder, nth, way):
        self.folder, self.nth, self.way, self.count = str(folder), nth, way, 0

    def install(self):
        calls = [(os, name) for name in ("open", "replace", "fsync", "unlink", "truncate", "mkdir")]
        for module, name in [*calls, (storage, "_sync_file_system")]:
            setattr(module, name, partial(self.guarded, getattr(module, name)))
        io.open = partial(self.opened, io.open)

    def guarded(self, call, *args, **kwargs):
        if isinstance(args[0], int) or str(args[0]).startswith(self.folder):
            self.fault()
        return call(*args, **kwargs)

    def opened(self, call, path, *args, **kwargs):
        if not str(path).startswith(self.folder):
            return call(path, *args, **kwargs)
        self.fault()
        return Guarded(call(path, *args, **kwargs), self)

    def fault(self):
        self.count += 1
        if self.count == self.nth:
            if self.way == "kill":
                os._exit(KILLED)
            number = getattr(errno, self.way)
            raise OSError(number, os.strerror(number))


class Guarded:
    """A file whose writes can fail."""

    def __init__(self, file, faults):
        self.file, self.faults = file, faults

    def __getattr__(self, name):
        return getattr(self.file, name)

    def __iter__(self):
        return iter(self.file)

    def __enter__(self):
        self.file.__enter__()
        return self

    def __exit__(self, *args):
        return self.file.__exit__(*args)

    def write(self, data):
        self.faults.fault()
        return self.file.write(data)

    def writelines(self, lines):
        self.faults.fault()
        return self.file.writelines(lines)


@pytest.fixture(scope="module")
def engine():
    return OnnxEngine(open_checkpoint("digits"))  # no thread of it is lost by a fork


def rectify(engine, folder, out):
    options = RectifyOptions(out=out, batch_size=2, workers=1)
    jobs = plan([folder / "in"], options).jobs
    statuses = set()
    with Ledger(out, jobs) as ledger:
        pipeline = Pipeline(engine, options)
        for task in tasks(jobs, options.batch_size):
            group = pipeline.run(task.jobs)
            ledger.commit(task.jobs, group)
            statuses |= {record.status for record in group.records}
    return FAILED if "failed" in statuses else ENDED


def in_child(engine, folder, out, faults=None):
    """The exit code of a run in a process of its own; the faults' count, where there are any, goes to a file."""
    child = os.fork()
    if child == 0:
        code = DEFECT
        try:
            if faults is not None:
                faults.install()
            code = rectify(engine, folder, out)
        except StnError as error:
            code = error.exit_code
        except BaseException:
            traceback.print_exc()
        if faults is not None:
            (folder / "count").write_text(str(faults.count))
        os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def start(folder):
    """The inputs afresh, and nothing else."""
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "in").mkdir(parents=True)
    for name in INPUTS:
        shutil.copy(SAMPLES / name, folder / "in")


def recorded(out):
    """The records that are whole; those beside the inputs are one to a file, and there or not."""
    path = out / "theta.jsonl"
    lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith(b"\n")]


def outcome(folder):
    """Crops byte by byte, and records whatever their order."""
    files = {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    del files[next(path for path in files if path.name == "count")]
    return {path: sorted(data.splitlines()) if path.suffix == ".jsonl" else data for path, data in files.items()}


@pytest.mark.parametrize("beside", [False, True], ids=["into a folder", "beside the inputs"])
def test_a_run_that_was_disturbed_ends_like_one_that_was_not(engine, tmp_path, beside):
    folder = tmp_path / "run"
    out = None if beside else folder / "out"
    start(folder)
    assert in_child(engine, folder, out, Faults(folder, 0, "")) == ENDED
    expected, count = outcome(folder), int((folder / "count").read_text())
    assert len(expected) == len(INPUTS) * (3 if beside else 2) + (not beside)
    assert count > 30
    for nth in range(1, count + 1):
        for way in WAYS:
            start(folder)
            disturbed = in_child(engine, folder, out, Faults(folder, nth, way))
            assert disturbed == KILLED if way == "kill" else disturbed in (ENDED, 3, 8), (nth, way)
            if disturbed == ENDED:
                assert outcome(folder) == expected, (nth, way)
            for record in recorded(folder / "out"):
                if output := record.get("output"):
                    crop = folder / "out" / output["relative"]
                    assert sha256(crop.read_bytes()).hexdigest() == output["sha256"], (nth, way)
            (folder / "count").write_text("")
            assert in_child(engine, folder, out) == ENDED, (nth, way)
            assert outcome(folder) == expected, (nth, way)
