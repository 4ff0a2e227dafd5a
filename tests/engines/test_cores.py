"""A process uses as many cores as it is granted, by the scheduler or by its control group."""

import os
import subprocess
import sys

import pytest

from stn_cli.engines import cores

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="a process has all cores here")


def test_a_process_that_may_use_one_core_works_on_one():
    core = min(os.sched_getaffinity(0))
    code = "import os; from stn_cli.engines.cores import available_cores as cores; "
    code += f"os.sched_setaffinity(0, {{{core}}}); print(cores())"
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "1\n"


@pytest.mark.parametrize(
    ("groups", "files", "expected"),
    [
        ("0::/\n", {"cpu.max": "200000 100000\n"}, 2),  # in a container of its own
        ("0::/\n", {"cpu.max": "150000 100000\n"}, 2),
        ("0::/\n", {"cpu.max": "20000 100000\n"}, 1),
        ("0::/\n", {"cpu.max": "max 100000\n"}, 64),
        ("0::/\n", {"cpu.max": "6400000 50000\n"}, 64),  # more than there are
        ("0::/\n", {}, 64),
        ("", {}, 64),
        ("no such lines", {"cpu.max": "200000 100000\n"}, 64),
        ("0::/a.slice/b.scope\n", {"a.slice/cpu.max": "300000 100000\n", "a.slice/b.scope/cpu.max": "max 100000\n"}, 3),
        ("0::/docker/1a2b\n", {"cpu.max": "200000 100000\n"}, 2),  # a path of the host's, which the container lacks
        ("0::/../sibling\n", {"cpu.max": "200000 100000\n"}, 2),
        ("4:cpu,cpuacct:/\n1:a=b:/\n", {"cpu/cpu.cfs_quota_us": "150000", "cpu/cpu.cfs_period_us": "50000"}, 3),
        ("4:cpu,cpuacct:/\n", {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, 64),
        (
            "2:cpu:/docker/1a2b\n0::/\n",
            {"cpu/docker/1a2b/cpu.cfs_quota_us": "100000", "cpu/docker/1a2b/cpu.cfs_period_us": "100000"},
            1,
        ),
    ],
)
def test_a_container_that_is_granted_some_time_works_on_as_many_cores(tmp_path, monkeypatch, groups, files, expected):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / "groups").write_text(groups)
    monkeypatch.setattr(cores, "_GROUPS", tmp_path)
    monkeypatch.setattr(cores, "_OF_THIS_PROCESS", tmp_path / "groups")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)))
    assert cores.available_cores() == expected
