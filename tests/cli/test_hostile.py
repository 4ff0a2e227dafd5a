"""Files, names and limits that strangers and systems come up with: every input is accounted for."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from tests.corpus import corpus, encoded, picture
from tests.running import ROOT, SAMPLES, rectify

TWO_GIGABYTES = 2 << 30


@pytest.fixture(scope="module")
def outcome(tmp_path_factory):
    """Of the run over the corpus: exit code, what it said, records by the names of the inputs, folder, memory."""
    folder = tmp_path_factory.mktemp("corpus")
    for name, data, _ in corpus():
        path = folder / "in" / Path(name).suffix[1:] / name  # apart, or their crops would have equal names
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    command = [sys.executable, "-m", "stn_cli", "rectify", "in", "-o", "out", "-m", "digits", "--time-limit", "60"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with (folder / "stderr").open("wb") as stderr:
        run = subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.DEVNULL, stderr=stderr)
        _, status, usage = os.wait4(run.pid, 0)
    run.returncode = os.waitstatus_to_exitcode(status)
    said, memory = (folder / "stderr").read_text(), 1024 * usage.ru_maxrss
    lines = [json.loads(line) for line in (folder / "out" / "theta.jsonl").read_text().splitlines()]
    return run.returncode, said, {Path(line["source"]["path"]).name: line for line in lines}, folder, memory


def test_the_corpus_is_large_and_of_many_kinds():
    entries = list(corpus())
    assert len({name for name, _, _ in entries}) == len(entries) >= 300
    assert {must for _, _, must in entries} == {True, False, None}


def test_no_file_of_the_corpus_brings_anything_but_its_record(outcome):
    code, said, records, folder, memory = outcome
    assert code == 3
    assert "Traceback" not in said
    assert "internal" not in said
    assert "unexpected" not in said
    failed = [record for record in records.values() if record["status"] == "failed"]
    remedies = {record["error"]["remedy"] for record in failed}
    lines = said.splitlines()
    assert all(line.startswith("failed: ") for line in lines[: len(failed)])
    assert lines[len(failed)].startswith(f"{len(records)} inputs: ")
    assert sorted(lines[len(failed) + 1 :]) == sorted(remedies)
    assert len(remedies) < 4
    assert set(records) == {name for name, _, _ in corpus()}
    assert len((folder / "out" / "theta.jsonl").read_text().splitlines()) == len(records)
    assert memory <= TWO_GIGABYTES


def test_what_is_valid_is_rectified_and_what_is_broken_fails(outcome):
    _, _, records, folder, _ = outcome
    for name, _, must in corpus():
        if must is not None:
            assert (records[name]["status"] in ("done", "unchanged")) == must, name
    for record in records.values():
        if record["status"] != "failed":
            with Image.open(folder / record["output"]["path"]) as crop:
                crop.load()
                assert crop.size == (record["output"]["width"], record["output"]["height"])
        else:
            assert record["error"]["type"] == "ImageError"
            assert "output" not in record


NAMES = [
    b"new\nline.png",
    b"escape\x1b[2J\x1b[31m.png",
    b"tab\tand\rreturn.png",
    b"not-utf-8-\xff\xfe.png",
    rb"text-\xff.png",
    b"n" * 251 + b".png",
    " ünïcödé  .png".encode(),
    "right\u202eto-left.png".encode(),
    "no\xa0break, soft\xadhyphen \U0001fae9.png".encode(),
    b"-o.png",
    b"'quotes\"$(touch ran).png",
    b"{braces} %s.png",
]


@pytest.mark.parametrize("is_broken", [False, True], ids=["whole", "broken"])
def test_names_are_shown_escaped_and_recorded_without_loss(tmp_path, is_broken):
    (tmp_path / "in").mkdir()
    for name in map(os.fsdecode, NAMES):
        (tmp_path / "in" / name).write_bytes(b"broken" if is_broken else (SAMPLES / "rotated-1.png").read_bytes())
    run = rectify("in", "-o", "out", "-v", "--json", cwd=tmp_path)
    assert run.returncode == (3 if is_broken else 0)
    shown = run.stderr + run.stdout
    assert "\x1b" not in shown
    assert "\u202e" not in shown
    assert len(run.stdout.splitlines()) == len(NAMES)
    lines = (tmp_path / "out" / "theta.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [json.loads(line) for line in run.stdout.splitlines()]
    recorded = {json.loads(line)["source"]["path"] for line in lines}
    told_apart = [name.replace(rb"\xff", rb"\x5cxff") for name in NAMES]
    assert recorded == {f"in/{name.decode('utf-8', 'backslashreplace')}" for name in told_apart}
    if not is_broken:
        made = [os.fsencode(path.name) for path in (tmp_path / "out").iterdir()]
        assert sorted(made) == sorted([*NAMES, b"theta.jsonl"])
    assert not (tmp_path / "ran").exists()


def test_results_are_json_also_where_a_pipe_knows_no_letters(tmp_path):
    (tmp_path / "größe\xa0\U0001f600.png").write_bytes((SAMPLES / "rotated-1.png").read_bytes())
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "ascii"}
    command = [sys.executable, "-m", "stn_cli", "rectify", ".", "-m", "digits", "-o", "out", "--json"]
    run = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, check=True)
    assert json.loads(run.stdout.decode("ascii"))["source"]["path"] == "größe\xa0\U0001f600.png"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_results_that_cannot_be_written_end_the_run_with_a_reason(tmp_path):
    command = [sys.executable, "-m", "stn_cli", "models", "list"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with Path("/dev/full").open("wb") as full:
        run = subprocess.run(command, env=environment, stdout=full, stderr=subprocess.PIPE, check=False)
    assert run.returncode == 8, run.stderr
    assert b"cannot write the results: No space left" in run.stderr


def test_the_work_goes_on_when_nobody_reads_what_is_said(tmp_path):
    (tmp_path / "in").mkdir()
    for number in range(30):
        (tmp_path / "in" / f"{number}.png").write_bytes((SAMPLES / "rotated-1.png").read_bytes())
    command = [sys.executable, "-m", "stn_cli", "rectify", "in", "-m", "digits", "-o", "out", "-v"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    reader, writer = os.pipe()
    os.close(reader)
    run = subprocess.run(command, cwd=tmp_path, env=environment, stderr=writer, check=False)
    os.close(writer)
    assert run.returncode == 0
    assert len(list((tmp_path / "out").glob("*.png"))) == 30


def test_an_input_that_vanishes_or_may_not_be_read_is_a_failure_of_its_own(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.png").symlink_to("nowhere.png")
    (tmp_path / "in" / "b.png").write_bytes((SAMPLES / "rotated-1.png").read_bytes())
    run = rectify("in", "-o", "out", cwd=tmp_path)
    assert run.returncode == 3
    assert "a.png: cannot be read: no such file" in run.stderr
    assert "1 done, 1 failed" in run.stderr


def test_a_pipe_that_nobody_writes_to_takes_its_time_limit_and_no_more(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "good.png").write_bytes((SAMPLES / "rotated-1.png").read_bytes())
    run = rectify("pipe.png", "good.png", "-o", "out", "--time-limit", "4", cwd=tmp_path)
    assert run.returncode == 3
    assert "pipe.png: took longer than 4 seconds" in run.stderr
    assert "1 done, 1 failed" in run.stderr


def test_a_limit_on_memory_fails_what_does_not_fit(tmp_path):
    (tmp_path / "large.png").write_bytes(encoded(Image.new("RGB", (12_000, 12_000)), "PNG"))
    (tmp_path / "small.png").write_bytes((SAMPLES / "rotated-1.png").read_bytes())
    code = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_AS, (900 << 20, 900 << 20))\n"
        "from stn_cli.__main__ import main; main()"
    )
    command = ["rectify", "large.png", "small.png", "-o", "out", "-m", "digits", "--device", "cpu", "--workers", "2"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    run = subprocess.run(
        [sys.executable, "-c", code, *command],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 3, run.stderr
    assert "large.png: does not fit into memory" in run.stderr
    assert "1 done, 1 failed" in run.stderr


def test_salvage_marks_what_it_read(tmp_path):
    whole = encoded(picture(), "JPEG")
    (tmp_path / "cut.jpg").write_bytes(whole[: len(whole) * 3 // 4])
    (tmp_path / "whole.jpg").write_bytes(whole)
    assert rectify("cut.jpg", "whole.jpg", "-o", "out", cwd=tmp_path).returncode == 3
    run = rectify("cut.jpg", "whole.jpg", "-o", "out", "--salvage", cwd=tmp_path)
    assert run.returncode == 0
    assert "1 of them damaged" in run.stderr
    lines = (tmp_path / "out" / "theta.jsonl").read_text().splitlines()
    damage = {json.loads(line)["source"]["path"]: json.loads(line)["source"].get("damage") for line in lines}
    assert damage == {"cut.jpg": "is truncated", "whole.jpg": None}
    passed = rectify("cut.jpg", "-o", "passed", "--salvage", "--min-confidence", "1", cwd=tmp_path)
    assert passed.returncode == 0
    with Image.open(tmp_path / "passed" / "cut.jpg") as crop:
        crop.load()  # what could be read, whole again


def test_a_format_that_is_allowed_is_found_in_folders_and_read(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.tga").write_bytes(encoded(picture(), "TGA"))
    assert rectify("in", "-o", "out", cwd=tmp_path).returncode == 4
    assert rectify("in", "-o", "out", "--allow-format", "tga", cwd=tmp_path).returncode == 0
    assert (tmp_path / "out" / "a.png").is_file()
    run = rectify("in", "-o", "out", "--allow-format", "EPS", cwd=tmp_path)
    assert run.returncode == 2
    assert "refused" in run.stderr


def test_an_input_is_never_replaced(tmp_path):
    data = (SAMPLES / "rotated-1.png").read_bytes()
    (tmp_path / "a.png").write_bytes(data)
    (tmp_path / "link").mkdir()
    (tmp_path / "link" / "a.png").symlink_to(tmp_path / "a.png")
    for inputs, out in ((["a.png"], "."), (["link"], "."), (["a.png", "link/a.png"], "link")):
        run = rectify(*inputs, "-o", out, "--force", cwd=tmp_path)
        assert run.returncode == 6, run.stderr
        assert (tmp_path / "a.png").read_bytes() == data
    assert (tmp_path / "link" / "a.png").is_symlink()
