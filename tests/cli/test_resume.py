"""The same command again does what is not done yet, and nothing else."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
from PIL import Image

from stn_cli.rectify.finished import read_finished, read_journal, write_journal
from stn_cli.rectify.ledger import Ledger
from stn_cli.rectify.options import RectifyOptions
from stn_cli.rectify.plan import plan
from tests.running import SAMPLES, records, rectify, stn

ROTATED = sorted(SAMPLES.glob("rotated-*.png"))


@pytest.fixture
def folder(tmp_path):
    """A folder of copies, and where its crops go."""
    (tmp_path / "in").mkdir()
    for path in ROTATED:
        shutil.copy(path, tmp_path / "in")
    return tmp_path


def go(folder, *options, **more):
    return rectify("in", "-o", "out", *options, cwd=folder, **more)


def contents(folder):
    """Every file below, and when it was last written."""
    return {p.relative_to(folder): (p.read_bytes(), p.stat().st_mtime_ns) for p in folder.rglob("*") if p.is_file()}


def test_nothing_is_done_twice(folder):
    assert go(folder).returncode == 0
    before = contents(folder / "out")
    again = go(folder)
    assert again.returncode == 0
    assert f"{len(ROTATED)} skipped" in again.stderr
    assert contents(folder / "out") == before


def test_what_changed_is_done_again(folder):
    assert go(folder).returncode == 0
    changed, gone = (folder / "in" / path.name for path in ROTATED[:2])
    changed.write_bytes((SAMPLES / "cluttered-1.png").read_bytes())
    (folder / "out" / gone.name).unlink()
    run = go(folder)
    assert f"2 done, {len(ROTATED) - 2} skipped" in run.stderr
    fresh = rectify("in", "-o", "fresh", cwd=folder)
    assert fresh.returncode == 0
    for path in (changed, gone):
        assert (folder / "out" / path.name).read_bytes() == (folder / "fresh" / path.name).read_bytes()
    assert len((folder / "out" / "theta.jsonl").read_text().splitlines()) == len(ROTATED)


@pytest.mark.parametrize("options", [("--size", "20x20"), ("--always",), ("--quality", "3")])
def test_other_options_do_all_of_it_again(folder, options):
    assert go(folder).returncode == 0
    assert f"{len(ROTATED)} done" in go(folder, *options).stderr
    assert f"{len(ROTATED)} skipped" in go(folder, *options).stderr


def test_an_input_that_failed_is_tried_again(folder):
    broken = folder / "in" / ROTATED[0].name
    good = broken.read_bytes()
    broken.write_bytes(good[:50])
    assert go(folder).returncode == 3
    broken.write_bytes(good)
    run = go(folder)
    assert run.returncode == 0
    assert f"1 done, {len(ROTATED) - 1} skipped" in run.stderr
    assert {record["status"] for record in records(folder / "out").values()} == {"done"}


@pytest.mark.parametrize("again", [(), ("--force",)])
@pytest.mark.parametrize("out", [("-o", "out"), ()])
def test_an_input_that_breaks_and_is_repaired_stands_in_nobodys_way(folder, out, again):
    first = rectify("in", *out, cwd=folder)
    assert first.returncode == 0, first.stderr
    broken = folder / "in" / ROTATED[0].name
    crop = folder / "out" / broken.name if out else broken.with_suffix(".rectified.png")
    good, before = broken.read_bytes(), crop.read_bytes()
    broken.write_bytes(good[:50])
    for _ in range(2):
        assert rectify("in", *out, *again, cwd=folder).returncode == 3
    assert crop.read_bytes() == before
    lines = crop.with_suffix(".json").read_text() if not out else (folder / "out" / "theta.jsonl").read_text()
    (failed,) = [line for line in map(json.loads, lines.splitlines()) if line["status"] == "failed"]
    assert failed["stale"] == f"./{crop.name}"
    broken.write_bytes((SAMPLES / "cluttered-1.png").read_bytes())
    run = rectify("in", *out, cwd=folder)
    assert run.returncode == 0, run.stderr
    assert "1 done" in run.stderr
    assert crop.read_bytes() != before


def test_what_a_parallel_run_is_writing_in_a_sub_folder_is_left_alone(folder):
    (folder / "in" / "sub").mkdir()
    shutil.copy(ROTATED[0], folder / "in" / "sub")
    under_way = folder / "out" / "sub" / f".stn-{os.getpid()}-0123456789abcdef.tmp"
    under_way.parent.mkdir(parents=True)
    under_way.touch()
    assert go(folder).returncode == 0
    assert under_way.exists()


@pytest.mark.parametrize(
    ("path", "code"),
    [("in/rotated-1.png", 2), ("out/theta.jsonl", 2), ("in", 2), ("mine/e.jsonl", 8), ("mine", 6), ("e" * 300, 8)],
)
def test_a_list_of_errors_replaces_nothing_of_value(folder, path, code):
    (folder / "mine").write_text("a letter\n")
    before = contents(folder)
    run = go(folder, "--errors-to", path)
    assert run.returncode == code, run.stderr
    assert contents(folder) == before


def test_a_list_of_errors_does_not_replace_the_records_of_another_run(folder):
    assert rectify("in", "-o", "other", cwd=folder).returncode == 0
    before = contents(folder / "other")
    assert go(folder, "--errors-to", "other/theta.jsonl").returncode == 6
    assert contents(folder / "other") == before


def test_a_list_of_errors_is_written_again(folder):
    (folder / "in" / "broken.png").write_bytes(b"")
    for _ in range(2):
        assert go(folder, "--errors-to", "out/lists/e.jsonl").returncode == 3
    assert len((folder / "out" / "lists" / "e.jsonl").read_text().splitlines()) == 1


def test_a_kill_between_crop_and_record_is_made_good(folder):
    assert go(folder).returncode == 0
    path = folder / "out" / "theta.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole[:-40])  # a torn line
    (folder / "out" / ".stn-journal").write_text(f'"./{ROTATED[-1].name}"\n')
    (folder / "out" / f".stn-{os.getpid()}-0123456789abcdef.tmp").touch()
    assert f"1 done, {len(ROTATED) - 1} skipped" in go(folder).stderr
    assert path.read_bytes() == whole
    assert not list((folder / "out").glob(".*"))


def test_runs_beside_their_inputs_leave_each_others_journal_alone(folder):
    jobs, home, another = plan([folder / "in" / ROTATED[0].name], RectifyOptions()).jobs, folder / "in", "./b.png"
    with Ledger(None, jobs):
        write_journal(home, [another])
    assert read_journal(home) == {another}
    with Ledger(None, jobs):
        write_journal(home, [])
    assert read_journal(home) == set()


def test_of_a_doubled_line_the_last_counts_and_stays(folder):
    assert go(folder).returncode == 0
    path = folder / "out" / "theta.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    stale = json.loads(lines[0]) | {"options_sha256": "0" * 64}
    path.write_bytes(json.dumps(stale).encode() + b"\n" + b"".join(lines))
    assert f"{len(ROTATED)} skipped" in go(folder).stderr
    assert path.read_bytes().splitlines(keepends=True) == lines


@pytest.mark.parametrize("content", [b"corrected by hand", b""])
@pytest.mark.parametrize("height", [(), ("--height", "20")])
def test_a_crop_that_was_changed_is_not_replaced_and_not_taken_for_done(folder, content, height):
    assert go(folder).returncode == 0
    records = (folder / "out" / "theta.jsonl").read_bytes()
    mine = folder / "out" / ROTATED[0].name
    made = mine.read_bytes()
    mine.write_bytes(content)
    for others in ("done" if height else "skipped", "skipped"):
        run = go(folder, *height)
        assert run.returncode == 3
        assert "is no longer what stn made there" in run.stderr
        assert f"{len(ROTATED) - 1} {others}" in run.stderr
        assert mine.read_bytes() == content
    assert go(folder, *height, "--on-exists", "skip").returncode == 0
    assert mine.read_bytes() == content
    line = records.splitlines(keepends=True)[0]
    assert line in (folder / "out" / "theta.jsonl").read_bytes()  # what is known of it stays
    assert go(folder, *height, "--on-exists", "overwrite").returncode == 0
    if height:
        with Image.open(mine) as crop:
            assert crop.height == 20
    else:
        assert mine.read_bytes() == made


def test_what_stn_did_not_make_is_not_replaced(folder):
    (folder / "out").mkdir()
    (folder / "out" / ROTATED[1].name).write_bytes(b"mine")
    assert go(folder).returncode == 6
    assert (folder / "out" / ROTATED[1].name).read_bytes() == b"mine"
    assert f"{len(ROTATED) - 1} done, 1 skipped" in go(folder, "--on-exists", "skip").stderr
    assert (folder / "out" / ROTATED[1].name).read_bytes() == b"mine"
    assert go(folder).returncode == 6
    assert "1 done" in go(folder, "--on-exists", "overwrite").stderr


def test_without_resume_existing_outputs_stop_the_run(folder):
    assert go(folder).returncode == 0
    assert go(folder, "--no-resume").returncode == 6
    assert f"{len(ROTATED)} done" in go(folder, "--force").stderr
    assert len(read_finished(folder / "out" / "theta.jsonl")) == len(ROTATED)


def test_beside_the_input_a_record_is_the_memory_too(folder):
    for expected in ("1 done", "1 skipped"):
        run = rectify(ROTATED[0].name, cwd=folder / "in")
        assert run.returncode == 0
        assert expected in run.stderr


@pytest.mark.parametrize(
    ("number", "to"), [(signal.SIGINT, os.killpg), (signal.SIGTERM, os.killpg), (signal.SIGTERM, os.kill)]
)
def test_a_stop_keeps_what_was_finished_and_says_how_to_go_on(folder, number, to):
    for copy in range(60):
        shutil.copy(ROTATED[0], folder / "in" / f"copy-{copy}.png")
    command = [sys.executable, "-m", "stn_cli", "rectify", "in", "-o", "out", "-m", "digits", "--device", "cpu"]
    run = subprocess.Popen(
        [*command, "--batch-size", "1"], cwd=folder, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    path = folder / "out" / "theta.jsonl"
    while not (path.exists() and path.stat().st_size):
        assert run.poll() is None
        time.sleep(0.005)
    to(run.pid, number)
    _, said = run.communicate()
    assert run.returncode == 128 + number
    assert "the same command goes on" in said
    assert "failed" not in said
    assert "Traceback" not in said
    finished = read_finished(path)
    assert 0 < len(finished) < 60 + len(ROTATED)
    assert sorted(p.name for p in (folder / "out").glob("*.png")) == sorted(name.split("/")[-1] for name in finished)
    again = subprocess.run([*command, "--batch-size", "64"], cwd=folder, capture_output=True, text=True, check=False)
    assert f"{len(finished)} skipped" in again.stderr
    assert len(read_finished(path)) == 60 + len(ROTATED)


def test_a_second_interrupt_ends_at_once_and_leaves_what_a_next_run_clears(folder):
    for copy in range(60):
        shutil.copy(ROTATED[0], folder / "in" / f"copy-{copy}.png")
    command = [sys.executable, "-m", "stn_cli", "rectify", "in", "-o", "out", "-m", "digits", "--device", "cpu"]
    slow = [*command, "--size", "8000x8000", "--workers", "1"]  # it takes a minute, if nobody stops it
    run = subprocess.Popen(slow, cwd=folder, stderr=subprocess.PIPE, text=True, start_new_session=True)
    while not list(folder.glob("out/.*.tmp")):
        assert run.poll() is None
        time.sleep(0.005)
    run.send_signal(signal.SIGINT)
    assert "once more stops at once" in run.stderr.readline()
    run.send_signal(signal.SIGINT)
    _, said = run.communicate()
    assert run.returncode == 130
    assert "the same command goes on" in said
    assert "Traceback" not in said
    assert not list(folder.glob("out/*.png"))
    assert subprocess.run(command, cwd=folder, capture_output=True, check=False).returncode == 0
    assert len(list((folder / "out").iterdir())) == 60 + len(ROTATED) + 1


def test_an_interrupt_that_is_ignored_stays_so(folder):
    command = [
        "bash",
        "-c",
        f"trap '' INT; exec {sys.executable} -m stn_cli rectify in -o out -m digits --batch-size 1",
    ]
    run = subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE, text=True)
    while not (folder / "out" / "theta.jsonl").exists():
        assert run.poll() is None
        time.sleep(0.005)
    run.send_signal(signal.SIGINT)
    _, said = run.communicate()
    assert (run.returncode, "once more" in said) == (0, False)
    assert len(records(folder / "out")) == len(ROTATED)


def test_two_runs_into_one_folder_are_kept_apart(folder):
    from stn_cli.images import exclusive

    (folder / "out").mkdir()
    with exclusive(folder / "out"):
        run = go(folder)
    assert run.returncode == 8
    assert "another run writes to out" in run.stderr
    assert stn("rectify", "in", "-o", "out", "-m", "digits", cwd=folder).returncode == 0


@pytest.mark.parametrize(
    ("options", "failed"),
    [
        ((), 20),
        (("--fail-fast",), 1),
        (("--max-errors", "3"), 4),
        (("--max-errors", "50%"), 11),
        (("--max-errors", "100%"), 20),
    ],
)
def test_too_many_failures_stop_the_run_and_are_listed(tmp_path, options, failed):
    (tmp_path / "in").mkdir()
    for number in range(20):
        (tmp_path / "in" / f"{number:02d}.png").write_bytes(b"no image")
    run = rectify(
        "in", "-o", "out", "--batch-size", "1", "--workers", "1", "--errors-to", "e.jsonl", *options, cwd=tmp_path
    )
    assert run.returncode == 3
    errors = [json.loads(line) for line in (tmp_path / "e.jsonl").read_text().splitlines()]
    assert failed <= len(errors) <= failed + 3  # what had begun is finished
    assert all(error["status"] == "failed" and error["error"]["message"] for error in errors)
    assert len(read_finished(tmp_path / "out" / "theta.jsonl")) == len(errors)
    assert ("stopped after" in run.stderr) == (len(errors) < 20)


def test_a_limit_that_makes_no_sense_is_refused_before_anything_is_written(folder):
    run = go(folder, "--max-errors", "many")
    assert run.returncode == 2
    assert not (folder / "out").exists()


@pytest.mark.parametrize(
    ("place", "inputs", "out"), [("..", "{0}/in", "{0}/out"), ("work", "../in", "../out"), (".", "{1}/in", "{1}/out")]
)
def test_it_does_not_matter_from_where_and_how_the_folders_are_named(folder, place, inputs, out):
    assert go(folder).returncode == 0
    before = contents(folder / "out")
    (folder / "work").mkdir()
    named = (text.format(folder.name, folder) for text in (inputs, out))
    spelled, target = named
    again = rectify(spelled, "-o", target, cwd=folder / place)
    assert f"{len(ROTATED)} skipped" in again.stderr, again.stderr
    assert contents(folder / "out") == before


def test_links_to_the_folders_are_the_folders(folder):
    (folder / "far" / "away").mkdir(parents=True)
    (folder / "out").symlink_to(folder / "far" / "away", target_is_directory=True)
    assert go(folder).returncode == 0
    for record in records(folder / "out").values():
        assert (folder / "out" / record["source"]["relative"]).is_file()
        assert (folder / "out" / record["output"]["relative"]).is_file()
    again = rectify("in", "-o", "far/away", cwd=folder)
    assert f"{len(ROTATED)} skipped" in again.stderr, again.stderr


def test_what_is_done_again_from_elsewhere_counts(folder):
    assert go(folder).returncode == 0
    other = rectify(f"{folder.name}/in", "-o", f"{folder.name}/out", "--size", "20x20", cwd=folder.parent)
    assert f"{len(ROTATED)} done" in other.stderr
    assert f"{len(ROTATED)} done" in go(folder).stderr
    assert len((folder / "out" / "theta.jsonl").read_text().splitlines()) == len(ROTATED)


def test_what_has_moved_together_is_known(folder):
    assert go(folder).returncode == 0
    moved = folder / "archive"
    moved.mkdir()
    for name in ("in", "out"):
        (folder / name).rename(moved / name)
    assert f"{len(ROTATED)} skipped" in go(moved).stderr


@pytest.mark.parametrize("out", ["out", "../common", "{0}/absolute"])
def test_another_image_of_the_same_name_does_not_pass_for_the_first(folder, out):
    days = [folder / name for name in ("mon", "tue")]
    for day in days:
        shutil.copytree(folder / "in", day)
    target = out.format(folder) if out != "out" else folder / "out"
    assert rectify(".", "-o", target, cwd=days[0]).returncode == 0
    for inputs, place in ((".", days[1]), (days[1], days[1]), ("../tue", days[0])):
        run = rectify(inputs, "-o", target, cwd=place)
        assert run.returncode == 6, run.stderr
        assert "exists already" in run.stderr


def test_a_crop_that_a_person_made_is_an_input_like_others(folder):
    mine = folder / "in" / "rotated-1.rectified.png"
    shutil.copy(SAMPLES / "cluttered-1.png", mine)
    before = mine.read_bytes()
    run = rectify(folder / "in" / "rotated-1.png", mine, "--on-exists", "overwrite")
    assert run.returncode == 6, run.stderr
    assert mine.read_bytes() == before
    itself = rectify("rotated-1.rectified.png", "-o", ".", cwd=folder / "in")
    assert itself.returncode == 6
    assert "would replace itself" in itself.stderr


def test_a_dry_run_knows_what_is_done(folder):
    assert go(folder).returncode == 0
    (folder / "in" / ROTATED[0].name).write_bytes((SAMPLES / "cluttered-1.png").read_bytes())
    (folder / "in" / "broken.png").write_bytes(b"")
    before = contents(folder)
    planned = go(folder, "-n", "--json")
    skipped = [json.loads(line)["skip"] for line in planned.stdout.splitlines()]
    assert (len(skipped), sum(skipped)) == (len(ROTATED) + 1, len(ROTATED) - 1)
    assert f"2 to do, {len(ROTATED) - 1} skipped" in planned.stderr
    assert contents(folder) == before


def test_crops_that_a_pattern_of_the_shell_names_are_no_inputs(folder):
    images = sorted((folder / "in").glob("*.png"))
    assert rectify(*images).returncode == 0
    again = rectify(*sorted((folder / "in").glob("*.png")))
    assert again.returncode == 0, again.stderr
    assert f"{len(images)} inputs: {len(images)} skipped" in again.stderr


def test_crops_of_another_format_may_lie_among_the_inputs(folder):
    for _ in range(2):
        run = rectify("in", "-o", "in", "--format", "webp", cwd=folder)
        assert run.returncode == 0, run.stderr
    assert f"{len(ROTATED)} inputs: {len(ROTATED)} skipped" in run.stderr
    shutil.copy(SAMPLES / "cluttered-1.png", folder / "in")
    assert "1 done" in rectify("in", "-o", "in", "--format", "webp", cwd=folder).stderr


@pytest.mark.parametrize(("inputs", "out"), [("in", "{}/in"), ("{}/in", "in"), ("in", "../{}/in"), ("in/../in", "in")])
def test_the_folder_of_the_inputs_is_that_however_it_is_spelled(folder, inputs, out):
    for _ in range(2):
        names = (name.format(folder if name.startswith("{") else folder.name) for name in (inputs, out))
        run = rectify(next(names), "-o", next(names), "--format", "webp", cwd=folder)
        assert run.returncode == 0, run.stderr
    assert f"{len(ROTATED)} inputs: {len(ROTATED)} skipped" in run.stderr


def test_a_record_that_lacks_but_the_end_of_its_line_stays(folder):
    assert go(folder).returncode == 0
    path = folder / "out" / "theta.jsonl"
    before = path.read_bytes()
    path.write_bytes(before[:-1])
    for _ in range(2):
        assert f"{len(ROTATED)} skipped" in go(folder).stderr
        assert path.read_bytes() == before


def test_a_crop_that_would_be_replaced_by_another_is_not_dropped_in_silence(folder):
    assert go(folder).returncode == 0
    run = rectify(f"in/{ROTATED[0].name}", f"out/{ROTATED[0].name}", "-o", "out", cwd=folder)
    assert run.returncode == 6
    assert "would both be" in run.stderr
