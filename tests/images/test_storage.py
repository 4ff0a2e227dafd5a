"""Files that hold all of their content or none, one by one and in groups."""

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from stn_cli.errors import StorageError
from stn_cli.images import exclusive, publish, remove_leftovers, stage, write_atomically


def test_write_replaces_and_leaves_nothing_else(tmp_path):
    target = tmp_path / "out.png"
    write_atomically(target, b"old")
    write_atomically(target, b"new")
    assert target.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [target]


def test_written_file_has_the_usual_permissions(tmp_path):
    (tmp_path / "usual").touch()
    write_atomically(tmp_path / "ours", b"")
    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "usual").stat().st_mode


@pytest.mark.parametrize("step", ["replace", "fsync"])
def test_failed_write_leaves_the_old_file_and_no_temporary(tmp_path, monkeypatch, step):
    target = tmp_path / "out.png"
    target.write_bytes(b"old")
    during = []

    def fail(*args, **kwargs):
        during.extend(path.name for path in tmp_path.iterdir() if path != target)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, step, fail)
    with pytest.raises(StorageError, match=r"out\.png.*No space left"):
        write_atomically(target, b"new")
    assert target.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [target]
    assert len(during) == 1
    assert during[0].startswith(".stn-")
    assert during[0].endswith(".tmp")


@pytest.mark.parametrize("name", ["missing/out.png", "n" * 300])
def test_write_where_it_cannot_be(tmp_path, name):
    with pytest.raises(StorageError, match=Path(name).name):
        write_atomically(tmp_path / name, b"")
    assert list(tmp_path.iterdir()) == []


def test_a_group_takes_its_names_together(tmp_path):
    (tmp_path / "sub").mkdir()
    paths = [tmp_path / "a", tmp_path / "b", tmp_path / "sub" / "c"]
    staged = [stage(path, path.name.encode()) for path in paths]
    assert not any(path.exists() for path in paths)
    publish(staged)
    assert [path.read_bytes() for path in paths] == [b"a", b"b", b"c"]
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a", "b", "c", "sub"]


def test_of_a_group_that_cannot_be_named_nothing_stays_without_a_name(tmp_path):
    staged = [stage(tmp_path / name, b"new") for name in ("a", "b")]
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "in the way").touch()
    with pytest.raises(StorageError, match=r"cannot write .*b"):
        publish(staged)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


def leftover(folder, process):
    path = folder / f".stn-{process}-{'0' * 16}.tmp"
    path.touch()
    return path


def test_only_leftovers_of_the_dead_are_removed(tmp_path):
    dead = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    leftover(tmp_path, int(dead.stdout))
    ours = stage(tmp_path / "x", b"").temporary
    others = [tmp_path / name for name in (".stn-1-0.tmp", "stn.tmp", ".stn.tmp")]
    for path in others:
        path.touch()
    remove_leftovers(tmp_path, is_ours=False)
    assert sorted(tmp_path.iterdir()) == sorted([ours, *others])
    remove_leftovers(tmp_path, is_ours=True)
    assert sorted(tmp_path.iterdir()) == sorted(others)


def test_leftovers_of_the_dead_are_removed_before_anyone_has_asked_how_they_ended(tmp_path):
    with subprocess.Popen([sys.executable, "-c", ""], stdout=subprocess.PIPE) as ended:
        assert ended.stdout.read() == b""
        os.waitid(os.P_PID, ended.pid, os.WEXITED | os.WNOWAIT)
        left = leftover(tmp_path, ended.pid)
        remove_leftovers(tmp_path, is_ours=False)
    assert not left.exists()


def test_a_folder_is_locked_against_other_processes_until_its_holder_ends(tmp_path):
    ask = "import pathlib, sys, stn_cli.images as images; images.exclusive(pathlib.Path(sys.argv[1])).__enter__()"
    other = [sys.executable, "-c", ask, str(tmp_path)]
    with exclusive(tmp_path):
        refused = subprocess.run(other, capture_output=True, text=True, check=False)
    assert "StorageError: another run writes to" in refused.stderr
    assert subprocess.run(other, check=False).returncode == 0
    assert list(tmp_path.iterdir()) == []


def test_a_lock_is_not_held_by_what_was_forked(tmp_path):
    reader, writer = os.pipe()
    holder = os.fork()
    if holder == 0:
        with exclusive(tmp_path):
            orphan = os.fork()
            if orphan == 0:
                time.sleep(60)
                os._exit(0)
            os.write(writer, str(orphan).encode())
            time.sleep(60)
        os._exit(0)
    orphan = int(os.read(reader, 20))
    try:
        with pytest.raises(StorageError), exclusive(tmp_path):
            pass
        os.kill(holder, signal.SIGKILL)
        os.waitpid(holder, 0)
        with exclusive(tmp_path):
            pass
    finally:
        os.kill(orphan, signal.SIGKILL)
        os.close(reader)
        os.close(writer)
