"""Processes that crash, hang or are killed: what they had been given is done by others, but for what is to blame."""

import ctypes
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from stn_cli.checkpoints import open_checkpoint
from stn_cli.errors import ModelError, StorageError
from stn_cli.rectify.crew import Crew, tasks, work_off
from stn_cli.rectify.ledger import Ledger
from stn_cli.rectify.options import RectifyOptions
from stn_cli.rectify.pipeline import Pipeline
from stn_cli.rectify.plan import plan
from tests.running import ROOT, SAMPLES

COPIES = 12


def crash():
    ctypes.string_at(0)


def hang():
    time.sleep(1000)


def hang_alone():
    ctypes.PyDLL(None).pause()  # no other thread gets to run


def exhaust_memory():
    os.kill(os.getpid(), signal.SIGKILL)  # as the system does it


def leave():
    os._exit(3)


FATES = {"crash": crash, "hang": hang, "alone": hang_alone, "exhaust_memory": exhaust_memory, "leave": leave}
SAID = {
    "crash": "SIGSEGV",
    "hang": "longer than 2 seconds",
    "alone": "longer than 2 seconds",
    "exhaust_memory": "out of memory",
    "leave": "exit code 3",
}


def work_badly(*arguments):
    """`work_off` with a decoder that does what the name of a file says."""
    decode = Pipeline._decode

    def decode_badly(self, job):
        FATES.get(job.source.path.stem.rpartition("-")[2], lambda: None)()
        os.write(2, b"noise of a decoder")
        return decode(self, job)

    Pipeline._decode = decode_badly
    work_off(*arguments)


def crash_at_once(*_):
    crash()


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "in").mkdir()
    for number in range(COPIES):
        shutil.copy(SAMPLES / "rotated-1.png", tmp_path / "in" / f"{number:02d}.png")
    return tmp_path


def options_of(folder, **more):
    return RectifyOptions(out=folder / "out", time_limit=2, **more)


def run(folder, work=None, after_each=None, **more):
    """The records, by the names of the inputs, in the order in which they came."""
    options = options_of(folder, **more)
    jobs = plan([folder / "in"], options).jobs
    records = {}
    with (
        Ledger(options.out, jobs) as ledger,
        Crew(open_checkpoint("digits"), "cpu", options, work) as crew,
    ):
        for some, group in crew.run(jobs):
            ledger.commit(some, group)
            records |= {job.source.path.name: r for job, r in zip(some, group.records, strict=True)}
            if after_each is not None:
                after_each(crew)
    return records


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("fate", FATES)
def test_only_what_is_to_blame_fails(folder, capfd, fate, workers):
    names = [f"{number:02d}.png" for number in range(COPIES)]
    for number in (0, 5, COPIES - 1):
        bad = f"{number:02d}-{fate}.png"
        (folder / "in" / names[number]).rename(folder / "in" / bad)
        names[number] = bad
    records = run(folder, work_badly, workers=workers, batch_size=4)
    assert list(records) == names
    failed = {name: record.error for name, record in records.items() if record.status == "failed"}
    assert list(failed) == [names[0], names[5], names[-1]]
    assert all(SAID[fate] in error.message for error in failed.values())
    assert sorted(p.name for p in (folder / "out").iterdir()) == sorted({*names, "theta.jsonl"} - set(failed))
    assert capfd.readouterr().err == ""


def test_records_do_not_depend_on_processes_or_tasks(folder):
    seen = []
    for workers, batch_size in ((1, 64), (3, 1), (2, 5)):
        shutil.rmtree(folder / "out", ignore_errors=True)
        records = run(folder, workers=workers, batch_size=batch_size)
        assert list(records) == sorted(records)
        seen.append([record.to_json() for record in records.values()])
    assert seen[0] == seen[1] == seen[2]


def test_processes_that_are_killed_are_replaced(folder):
    first = iter([True])

    def kill(crew):
        for member in crew._members if next(first, False) else ():
            member._process.kill()
            member._process.join()  # both are seen to be gone before anything is handed out alone

    records = run(folder, after_each=kill, workers=2, batch_size=2)
    assert {record.status for record in records.values()} == {"done"}
    assert len(records) == COPIES


def test_a_process_that_does_not_get_as_far_as_its_model_ends_the_run(folder):
    with pytest.raises(ModelError, match="SIGSEGV"):
        run(folder, crash_at_once)


def test_a_model_that_cannot_be_run_says_so_before_anything_is_written(folder, tmp_path):
    shutil.copytree(open_checkpoint("digits").path, tmp_path / "model")
    (tmp_path / "model" / "localizer.onnx").write_bytes(b"damaged")
    options = options_of(folder)
    with pytest.raises(ModelError, match=r"localizer\.onnx"):
        Crew(open_checkpoint(str(tmp_path / "model")), "cpu", options).wait_until_open()
    assert not (folder / "out").exists()


@pytest.mark.parametrize("who", ["a process of the crew", "the ledger"])
def test_a_disk_that_is_full_ends_the_run_and_leaves_nothing_but_what_is_whole(folder, who):
    options = options_of(folder, workers=2, batch_size=3, size=(400, 400) if who == "a process of the crew" else None)
    _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, most))
    try:
        jobs = plan([folder / "in"], options).jobs
        with (
            pytest.raises(StorageError, match="cannot write"),
            Ledger(options.out, jobs) as ledger,
            Crew(open_checkpoint("digits"), "cpu", options) as crew,
        ):
            for some, group in crew.run(jobs):
                ledger.commit(some, group)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
    assert not list((folder / "out").glob(".*.tmp"))
    records = run(folder)
    assert sorted(p.name for p in (folder / "out").iterdir()) == sorted([*records, "theta.jsonl"])
    assert len((folder / "out" / "theta.jsonl").read_bytes().splitlines()) == COPIES


def test_processes_end_with_the_one_that_started_them(folder):
    for number in range(COPIES, 400):
        os.link(folder / "in" / "00.png", folder / "in" / f"{number:03d}.png")
    command = [sys.executable, "-m", "stn_cli", "rectify", "in", "-o", "out", "-m", "digits", "--batch-size", "2"]
    assert_none_outlives(folder, command, at_least=2)


def test_processes_that_hang_end_with_the_one_that_started_them(folder):
    shutil.copy(SAMPLES / "rotated-1.png", folder / "in" / "99-alone.png")
    program = (
        "import pathlib, tests.rectify.test_crew as here; here.run(pathlib.Path(), here.work_badly, batch_size=12)"
    )
    assert_none_outlives(folder, [sys.executable, "-c", program], at_least=1)


def assert_none_outlives(folder, command, at_least):
    """Of the children of a command that is killed when the first records are written."""
    started = subprocess.Popen(
        command, cwd=folder, env={**os.environ, "PYTHONPATH": str(ROOT)}, stderr=subprocess.DEVNULL
    )
    records = folder / "out" / "theta.jsonl"
    while not (records.exists() and records.stat().st_size):
        assert started.poll() is None
        time.sleep(0.01)
    children = [int(pid) for pid in Path(f"/proc/{started.pid}/task/{started.pid}/children").read_text().split()]
    assert len(children) >= at_least
    started.kill()
    started.wait()
    deadline = time.monotonic() + 20
    while any(Path(f"/proc/{child}/exe").exists() for child in children):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_crew_that_nobody_ends_does_not_keep_its_process(tmp_path):
    (tmp_path / "forgets.py").write_text(
        "from stn_cli.checkpoints import open_checkpoint\n"
        "from stn_cli.rectify.crew import Crew\n"
        "from stn_cli.rectify.options import RectifyOptions\n"
        "if __name__ == '__main__':\n"
        "    crew = Crew(open_checkpoint('digits'), 'cpu', RectifyOptions(workers=1))\n"
        "    crew.wait_until_open()\n"
    )
    command = [sys.executable, str(tmp_path / "forgets.py")]
    subprocess.run(command, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=True, timeout=60)


def test_names_of_any_length_do_not_stop_the_exchange(folder):
    for number in range(200):
        deep = folder / "in" / "/".join(f"{number:03d}-{level:02d}-{'d' * 240}" for level in range(12))
        deep.mkdir(parents=True)
        os.link(folder / "in" / "00.png", deep / f"{number:03d}.png")
    records = run(folder, workers=2)
    assert len(records) == COPIES + 200
    assert {record.status for record in records.values()} == {"done"}


def test_small_files_are_handed_out_together_and_large_ones_alone(tmp_path):
    sizes = [1, 1, 1, 9 << 20, 1, 5 << 20, 5 << 20, 1]
    for number, size in enumerate(sizes):
        (tmp_path / f"{number}.png").touch()
        os.truncate(tmp_path / f"{number}.png", size)
    jobs = plan([tmp_path], RectifyOptions(out=tmp_path / "out")).jobs
    found = [[sizes[task.first + i] for i in range(len(task.jobs))] for task in tasks(jobs, 2)]
    assert found == [[1, 1], [1], [9 << 20], [1, 5 << 20], [5 << 20, 1]]
    assert [size for task in found for size in task] == sizes
