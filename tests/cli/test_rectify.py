"""`stn rectify` as a user runs it: a process, files in, files out."""

import json
import math
import os
import pty
import shutil
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
from PIL import Image

from stn_cli.errors import StorageError
from stn_cli.rectify.ledger import Ledger
from stn_cli.rectify.options import RectifyOptions
from stn_cli.rectify.plan import plan
from tests.running import ROOT, SAMPLES, TRUTH, records, rectify, stn


@pytest.fixture(scope="module")
def rectified(tmp_path_factory):
    out = tmp_path_factory.mktemp("out")
    run = rectify(SAMPLES, "-o", out)
    assert run.returncode == 0, run.stderr
    return out


def test_every_sample_gets_one_record_and_one_crop(rectified):
    found = records(rectified)
    assert set(found) == set(TRUTH)
    for name, record in found.items():
        assert record["schema"] == "stn.theta/1"
        with Image.open(rectified / name) as crop:
            assert crop.size == (record["output"]["width"], record["output"]["height"])


@pytest.mark.parametrize("name", TRUTH)
def test_the_pose_is_near_the_truth(rectified, name):
    found = np.array(records(rectified)[name]["pixel_matrix"])
    true = np.array(TRUTH[name]["pixel_matrix"])
    size = records(rectified)[name]["output"]
    centre = found @ [size["width"] / 2, size["height"] / 2, 1] - true @ [14, 14, 1]
    side = 28 * math.hypot(true[0, 0], true[1, 0])
    turned = math.atan2(found[1, 0], found[0, 0]) - math.atan2(true[1, 0], true[0, 0])
    assert np.hypot(*centre[:2]) < 0.15 * side
    assert abs(math.degrees(math.remainder(turned, 2 * math.pi))) < 30


def test_the_label_of_most_samples_is_read(rectified):
    right = [records(rectified)[name]["label"]["value"] == str(entry["digit"]) for name, entry in TRUTH.items()]
    assert np.mean(right) >= 0.9


def test_an_image_without_a_digit_passes_through_unless_all_is_to_be_rectified(tmp_path):
    grey = np.full((40, 56), 128, np.uint8)
    Image.fromarray(grey).save(tmp_path / "grey.png")
    assert rectify("grey.png", "-o", "default", cwd=tmp_path).returncode == 0
    record = records(tmp_path / "default")["grey.png"]
    assert record["status"] == "unchanged"
    assert record["reason"].startswith("confidence 0.")
    with Image.open(tmp_path / "default" / "grey.png") as crop:
        np.testing.assert_array_equal(np.asarray(crop), grey)
    assert rectify("grey.png", "-o", "all", "--min-confidence", "0", cwd=tmp_path).returncode == 0
    assert records(tmp_path / "all")["grey.png"]["status"] == "done"


def test_a_single_image_lands_beside_the_input(tmp_path):
    image = tmp_path / "img.png"
    image.write_bytes((SAMPLES / "rotated-1.png").read_bytes())
    run = rectify("img.png", cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    assert sorted(p.name for p in tmp_path.iterdir()) == ["img.png", "img.rectified.json", "img.rectified.png"]


def test_json_goes_to_stdout_and_nothing_else(tmp_path):
    run = rectify(SAMPLES / "rotated-1.png", "-o", tmp_path / "out", "--json", "-q")
    assert json.loads(run.stdout)["status"] == "done"
    assert run.stderr == ""


def test_records_go_to_stdout_also_while_a_terminal_shows_progress(tmp_path):
    terminal, screen = pty.openpty()
    command = [sys.executable, "-m", "stn_cli", "rectify", "-m", "digits", str(SAMPLES), "-o", str(tmp_path), "--json"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm", "COLUMNS": "100"}
    with (tmp_path / "stdout").open("wb") as stdout:
        run = subprocess.Popen(command, stdout=stdout, stderr=screen, env=environment)
    os.close(screen)
    shown = b""
    while True:
        try:
            shown += os.read(terminal, 1 << 16)
        except OSError:  # the other end has closed
            break
    os.close(terminal)
    assert run.wait() == 0
    lines = (tmp_path / "stdout").read_text().splitlines()
    assert [json.loads(line)["status"] for line in lines] == ["done"] * len(TRUTH)
    assert f"{len(TRUTH)}/{len(TRUTH)}" in shown.decode()


def test_the_work_goes_on_when_nobody_reads_the_records(tmp_path):
    many = tmp_path / "in"
    many.mkdir()
    for number in range(60):
        (many / f"{number}.png").write_bytes((SAMPLES / "rotated-1.png").read_bytes())
    rectify = f"{sys.executable} -m stn_cli rectify -m digits {many} -o {tmp_path / 'out'} --json -q"
    command = f"{rectify} | head -c 1; exit ${{PIPESTATUS[0]}}"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    run = subprocess.run(["bash", "-c", command], capture_output=True, text=True, env=environment, check=False)
    assert (run.returncode, run.stderr) == (0, "")
    assert len(records(tmp_path / "out")) == 60


def test_a_terminal_that_knows_no_greek_is_written_to_all_the_same():
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    command = [sys.executable, "-m", "stn_cli", "models", "info", "digits"]
    run = subprocess.run(command, capture_output=True, env=environment, check=False)
    assert run.returncode == 0, run.stderr


def test_dry_run_writes_nothing(tmp_path):
    run = rectify(SAMPLES, "-o", tmp_path / "out", "-n")
    assert run.returncode == 0
    assert len(run.stdout.splitlines()) == len(TRUTH)
    assert not (tmp_path / "out").exists()


def test_size_is_forced(tmp_path):
    assert rectify(SAMPLES / "photo-1.jpg", "-o", tmp_path, "--size", "32x24").returncode == 0
    with Image.open(tmp_path / "photo-1.jpg") as crop:
        assert crop.size == (24, 32)


def test_height_is_forced_and_the_width_follows(tmp_path):
    Image.fromarray(np.full((40, 56), 128, np.uint8)).save(tmp_path / "grey.png")
    run = rectify(SAMPLES / "photo-1.jpg", tmp_path / "grey.png", "-o", tmp_path / "out", "--height", "20")
    assert run.returncode == 0, run.stderr
    with Image.open(tmp_path / "out" / "photo-1.jpg") as crop, Image.open(tmp_path / "out" / "grey.png") as copy:
        assert crop.size == (20, 20)  # the frame of a digit is a square
        assert copy.size == (28, 20)  # passed through, in its own proportions


def test_always_rectifies_what_no_confidence_speaks_for(tmp_path):
    Image.fromarray(np.full((40, 56), 128, np.uint8)).save(tmp_path / "grey.png")
    assert rectify("grey.png", "-o", "out", "--always", cwd=tmp_path).returncode == 0
    assert records(tmp_path / "out")["grey.png"]["status"] == "done"


def test_colour_and_format_follow_the_input(rectified):
    with Image.open(rectified / "photo-2.jpg") as crop:
        assert (crop.format, crop.mode) == ("JPEG", "RGB")
    with Image.open(rectified / "rotated-1.png") as crop:
        assert (crop.format, crop.mode) == ("PNG", "L")


def test_existing_outputs_stop_the_run_before_it_writes(tmp_path):
    (tmp_path / "rotated-1.png").write_bytes(b"mine")
    run = rectify(SAMPLES, "-o", tmp_path)
    assert run.returncode == 6
    assert "exists already" in run.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["rotated-1.png"]
    assert (tmp_path / "rotated-1.png").read_bytes() == b"mine"


def test_skip_leaves_what_is_there_without_a_record(tmp_path):
    (tmp_path / "rotated-1.png").write_bytes(b"mine")
    run = rectify(SAMPLES / "rotated-1.png", SAMPLES / "rotated-2.png", "-o", tmp_path, "--on-exists", "skip")
    assert run.returncode == 0
    assert "1 done, 1 skipped" in run.stderr
    assert list(records(tmp_path)) == ["rotated-2.png"]


def test_overwrite_leaves_one_record_an_input(tmp_path):
    for _ in range(2):
        assert rectify(SAMPLES / "rotated-1.png", "-o", tmp_path, "--force").returncode == 0
    assert len((tmp_path / "theta.jsonl").read_text().splitlines()) == 1


def png_chunk(name, data):
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def bomb():
    """A PNG that says it is 30,000×30,000, and holds next to nothing."""
    header = struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)
    chunks = (b"IHDR", header), (b"IDAT", zlib.compress(bytes(1000))), (b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(*chunk) for chunk in chunks)


def test_bad_files_fail_alone(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    bad = {
        "empty.png": b"",
        "text.png": b"not an image",
        "cut.jpg": (SAMPLES / "photo-1.jpg").read_bytes()[:900],
        "bomb.png": bomb(),
        "unreadable.png": (SAMPLES / "rotated-1.png").read_bytes(),
    }
    for name, data in bad.items():
        (folder / name).write_bytes(data)
    (folder / "unreadable.png").chmod(0)
    if os.access(folder / "unreadable.png", os.R_OK):  # nothing is unreadable to the superuser but what is not there
        (folder / "unreadable.png").unlink()
        (folder / "unreadable.png").symlink_to(tmp_path / "gone.png")
    (folder / "good.png").write_bytes((SAMPLES / "rotated-1.png").read_bytes())
    run = rectify(folder, "-o", tmp_path / "out")
    assert run.returncode == 3
    found = records(tmp_path / "out")
    assert {name: record["status"] for name, record in found.items()} == dict.fromkeys(bad, "failed") | {
        "good.png": "done"
    }
    assert all(found[name]["error"]["message"] and found[name]["error"]["remedy"] for name in bad)
    assert "--salvage" in found["cut.jpg"]["error"]["remedy"]
    assert run.stderr.count(found["cut.jpg"]["error"]["remedy"]) == 1
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["good.png", "theta.jsonl"]
    assert "Traceback" not in run.stderr
    assert "NaN" not in (tmp_path / "out" / "theta.jsonl").read_text()


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["rectify", "nowhere.png"], 4),
        (["rectify", SAMPLES, "-m", "no-such-model", "-o", "out"], 5),
        (["rectify", SAMPLES, "--size", "big", "-o", "out"], 2),
        (["rectify", SAMPLES, "--size", "32x32", "--height", "32", "-o", "out"], 2),
        (["rectify", SAMPLES, "--height", "0", "-o", "out"], 2),
        (["rectify", SAMPLES, "--always", "--min-confidence", "0.5", "-o", "out"], 2),
        (["rectify", SAMPLES, "--format", "gif", "-o", "out"], 2),
        (["rectify", SAMPLES, "--fill", "nocolour", "-o", "out"], 2),
        (["rectify"], 2),
        (["rectify", "a**.png"], 2),
        (["models", "info", "no-such-model"], 5),
        (["rectify", SAMPLES, "-o", "out", "--device", "cuda" if sys.platform == "darwin" else "mps"], 7),
        (["rectify", SAMPLES, "-o", "out", "--device", "quantum"], 2),
    ],
)
def test_exit_codes(tmp_path, arguments, code):
    run = stn(*arguments, cwd=tmp_path)
    assert run.returncode == code, run.stderr
    assert run.stderr
    assert "Traceback" not in run.stderr
    assert list(tmp_path.iterdir()) == []


def test_folders_in_a_folder_are_left_alone_if_one_asks(tmp_path):
    (tmp_path / "in" / "deep").mkdir(parents=True)
    for place in ("in/here.png", "in/deep/there.png"):
        shutil.copy(SAMPLES / "rotated-1.png", tmp_path / place)
    assert rectify("in", "-o", "out", "--no-recursive", cwd=tmp_path).returncode == 0
    assert set(records(tmp_path / "out")) == {"here.png"}


def test_what_has_more_pixels_than_allowed_fails(tmp_path):
    with Image.open(SAMPLES / "photo-1.jpg") as image:
        pixels = image.width * image.height
    for most, code in ((pixels, 0), (pixels - 1, 3)):
        run = rectify(SAMPLES / "photo-1.jpg", "-o", tmp_path / str(most), "--max-pixels", most)
        assert run.returncode == code, run.stderr


def test_a_defect_of_ours_is_exit_1_and_shows_where_if_one_asks(tmp_path):
    code = (
        "from stn_cli.rectify.options import RectifyOptions as R\n"
        "from stn_cli.__main__ import main\n"
        "R.check_dims = lambda *_: 1 / 0\n"
        "main()"
    )
    command = [sys.executable, "-c", code, "rectify", SAMPLES / "rotated-1.png", "-o", "out"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    plain, traced = (
        subprocess.run(command, cwd=tmp_path, env=each, capture_output=True, text=True, check=False)
        for each in (environment, {**environment, "STN_DEBUG": "1"})
    )
    assert plain.returncode == traced.returncode == 1
    assert "error: internal: ZeroDivisionError" in plain.stderr
    assert "STN_DEBUG=1" in plain.stderr
    assert "Traceback" not in plain.stderr
    assert "check_dims" in traced.stderr
    assert not list(tmp_path.iterdir())


def test_two_inputs_of_one_output_are_refused(tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "x.png").write_bytes((SAMPLES / "rotated-1.png").read_bytes())
    run = rectify("a", "b", "-o", "out", cwd=tmp_path)
    assert run.returncode == 6
    assert not (tmp_path / "out").exists()


def test_two_inputs_of_one_record_are_refused(tmp_path):
    for name in ("x.png", "x.jpg"):
        (tmp_path / name).write_bytes((SAMPLES / "rotated-1.png").read_bytes())
    run = rectify("x.png", "x.jpg", cwd=tmp_path)
    assert run.returncode == 6
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.jpg", "x.png"]


def test_a_record_that_is_there_is_not_overwritten(tmp_path):
    (tmp_path / "x.png").write_bytes((SAMPLES / "rotated-1.png").read_bytes())
    (tmp_path / "x.rectified.json").write_text("mine")
    assert rectify("x.png", cwd=tmp_path).returncode == 6
    assert (tmp_path / "x.rectified.json").read_text() == "mine"


def test_an_image_without_a_digit_passes_through_bit_for_bit(tmp_path):
    pixels = np.zeros((40, 30, 4), np.uint8)
    pixels[..., :3] = np.random.default_rng(0).integers(0, 256, (40, 30, 3))  # colour under no alpha at all
    Image.fromarray(pixels).save(tmp_path / "x.png")
    run = rectify("x.png", "-o", "out", "--min-confidence", "1", "--format", "tiff", cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    (record,) = records(tmp_path / "out").values()
    assert record["status"] == "unchanged"
    with Image.open(tmp_path / "out" / "x.tif") as crop:
        assert np.array_equal(np.asarray(crop), pixels)


def test_everything_in_the_output_folder_itself_may_be_asked_for(tmp_path):
    (tmp_path / "scan.png").write_bytes((SAMPLES / "rotated-1.png").read_bytes())
    assert rectify("*.png", "-o", ".", "--format", "webp", cwd=tmp_path).returncode == 0
    assert (tmp_path / "scan.webp").is_file()


def test_a_name_that_a_crop_could_not_have_is_said_before_anything_is_written(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    for name in ("short.png", f"{'n' * 246}.png"):
        (folder / name).write_bytes((SAMPLES / "rotated-1.png").read_bytes())
    run = rectify("in", cwd=tmp_path)
    assert run.returncode == 8
    assert "too long a name" in run.stderr
    assert "-o" in run.stderr
    assert len(list(folder.iterdir())) == 2
    assert rectify("in", "-o", "out", cwd=tmp_path).returncode == 0


def test_a_photograph_that_lies_on_its_side_comes_out_upright_also_where_it_passes_through(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (30, 40), np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6
    for name in ("x.png", "x.jpg"):
        Image.fromarray(pixels).save(tmp_path / name, exif=exif)
    assert rectify("x.png", "x.jpg", "-o", "out", "--min-confidence", "1", cwd=tmp_path).returncode == 0
    for name, record in records(tmp_path / "out").items():
        assert record["status"] == "unchanged"
        with Image.open(tmp_path / "out" / name) as crop:
            assert crop.getexif().get(0x0112, 1) == 1
            assert crop.size == (record["output"]["width"], record["output"]["height"]) == (30, 40)
    with Image.open(tmp_path / "out" / "x.png") as crop:
        assert np.array_equal(np.asarray(crop), np.rot90(pixels, -1))


def test_what_passes_through_is_the_file_itself_and_no_conversion_is_noted(tmp_path):
    Image.new("CMYK", (40, 30), (9, 99, 0, 30)).save(tmp_path / "print.jpg")
    pages = [Image.new("L", (40, 30), level) for level in (10, 200)]
    pages[0].save(tmp_path / "pages.tif", save_all=True, append_images=pages[1:])
    pages[0].save(tmp_path / "phone.jpg", "MPO", save_all=True, append_images=pages[1:])
    names = ("print.jpg", "pages.tif", "phone.jpg")
    assert rectify(*names, "-o", "out", "--min-confidence", "1", cwd=tmp_path).returncode == 0
    for name, record in records(tmp_path / "out").items():
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / name).read_bytes()
        assert "notes" not in record
    run = rectify("print.jpg", "-o", "png", "--min-confidence", "1", "--format", "png", cwd=tmp_path)
    assert run.returncode == 0
    assert records(tmp_path / "png")["print.jpg"]["notes"] == ["CMYK converted to RGB without a profile"]


def test_an_output_folder_that_cannot_be_made_is_exit_8(tmp_path):
    (tmp_path / "file").write_text("in the way")
    run = rectify(SAMPLES / "rotated-1.png", "-o", tmp_path / "file")
    assert run.returncode == 8
    assert "Traceback" not in run.stderr


def test_an_output_folder_that_is_not_writable_is_exit_8(open_folder, ordinary_user):
    jobs = plan([SAMPLES / "rotated-1.png"], RectifyOptions(out=open_folder / "out")).jobs
    (open_folder / "out").mkdir(mode=0o555)
    with (
        ordinary_user(),
        pytest.raises(StorageError, match="cannot write") as raised,
        Ledger(open_folder / "out", jobs),
    ):
        pass
    assert raised.value.exit_code == 8
    assert list((open_folder / "out").iterdir()) == []


def test_rectify_on_the_cpu_never_imports_torch(tmp_path):
    (tmp_path / "torch.py").write_text("raise RuntimeError('imported')")
    run = subprocess.run(
        [sys.executable, "-m", "stn_cli", "rectify", SAMPLES / "rotated-1.png", "-o", "out", "--device", "cpu"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": f"{tmp_path}:{ROOT}"},
        check=False,
    )
    assert run.returncode == 0


def test_nothing_is_left_in_the_users_home(tmp_path):
    (tmp_path / "home").mkdir()
    run = subprocess.run(
        [sys.executable, "-m", "stn_cli", "rectify", SAMPLES / "rotated-1.png", "-o", "out"],
        cwd=tmp_path,
        env={"HOME": str(tmp_path / "home"), "PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)},
        check=False,
    )
    assert run.returncode == 0
    assert list((tmp_path / "home").rglob("*")) == []


@pytest.mark.parametrize("closed", ["0<&-", "1>&-", "2>&-", "1>&- 2>&-", "0<&- 1>&- 2>&-"])
@pytest.mark.parametrize("option", ["", "--json"])
def test_streams_may_be_closed(tmp_path, closed, option):
    command = f"{sys.executable} -m stn_cli rectify {SAMPLES / 'rotated-1.png'} -o out {option} {closed}"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    assert (
        subprocess.run(["bash", "-c", command], cwd=tmp_path, env=environment, check=False, timeout=60).returncode == 0
    )
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["rotated-1.png", "theta.jsonl"]


WORDS = ROOT / "sample_images" / "words"
WORD_TRUTH = json.loads((WORDS / "truth.json").read_text())


@pytest.fixture(scope="module")
def words(tmp_path_factory):
    out = tmp_path_factory.mktemp("words")
    run = stn("rectify", WORDS, "-o", out)
    assert run.returncode == 0, run.stderr
    return out


@pytest.mark.parametrize("name", WORD_TRUTH)
def test_the_default_model_finds_words_where_they_are(words, name):
    record = records(words)[name]
    found, true = np.array(record["fiducials"]), np.array(WORD_TRUTH[name]["fiducials"])
    height = np.linalg.norm(true[10:] - true[:10], axis=1).mean()
    assert np.linalg.norm(found - true, axis=1).mean() < 0.3 * height
    assert record["confidence"] > 0.5


def test_a_straight_word_stays_as_it_is(words):
    record = records(words)["straight.png"]
    assert record["status"] == "unchanged"
    assert record["reason"].startswith("it is straight already")
    assert (words / "straight.png").read_bytes() == (WORDS / "straight.png").read_bytes()


def test_a_bent_word_becomes_as_long_as_its_arc(words):
    record = records(words)["ring.jpg"]
    found = np.array(record["fiducials"])
    length = np.linalg.norm(np.diff(found.reshape(2, 10, 2), axis=1), axis=2).sum(axis=1).mean()
    height = np.linalg.norm(found[10:] - found[:10], axis=1).mean()
    # Its margins: 0.3 heights beyond each end, 0.1 above and below.
    assert record["output"]["width"] == pytest.approx(length + 0.6 * height, rel=0.05)
    assert record["output"]["height"] == pytest.approx(1.2 * height, rel=0.1)


@pytest.mark.parametrize(
    ("out", "code", "message"),
    [
        ("in", 6, "would replace itself: the output folder is that of the inputs"),
        ("notes", 8, "notes is a file, and the output goes into a folder"),
    ],
)
def test_an_output_folder_that_is_none_is_refused(out, code, message, tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.png").write_bytes((SAMPLES / "rotated-1.png").read_bytes())
    (tmp_path / "notes").write_text("mine")
    run = rectify("in", "-o", out, cwd=tmp_path)
    assert (run.returncode, message in run.stderr) == (code, True), run.stderr
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a.png", "in", "notes"]


def test_a_file_is_named_for_the_crop_of_a_single_input(tmp_path):
    image, other = SAMPLES / "rotated-1.png", SAMPLES / "photo-1.jpg"
    assert rectify(image, "-o", "new/straight.bmp", cwd=tmp_path).returncode == 0
    assert rectify(image, "-o", "folder", "--format", "bmp", cwd=tmp_path).returncode == 0
    crop = tmp_path / "new" / "straight.bmp"
    assert crop.read_bytes() == (tmp_path / "folder" / "rotated-1.bmp").read_bytes()
    record = json.loads((tmp_path / "new" / "straight.json").read_text())
    assert (record["status"], record["output"]["relative"]) == ("done", "./straight.bmp")
    assert sorted(path.name for path in crop.parent.iterdir()) == ["straight.bmp", "straight.json"]

    again = rectify(image, "-o", "new/straight.bmp", "--json", cwd=tmp_path)
    assert json.loads(again.stdout)["reason"] == "an earlier run did the same"
    before = crop.read_bytes()
    refused = rectify(other, "-o", "new/straight.bmp", cwd=tmp_path)
    assert (refused.returncode, "straight.bmp exists already" in refused.stderr) == (6, True), refused.stderr
    assert crop.read_bytes() == before


def test_crops_of_earlier_runs_are_no_inputs_unless_their_folder_is_named(tmp_path):
    (tmp_path / "scans").mkdir()
    (tmp_path / "scans" / "a.png").write_bytes((SAMPLES / "rotated-1.png").read_bytes())
    assert rectify("scans", "-o", "scans/straight/2024", cwd=tmp_path).returncode == 0
    (tmp_path / "scans" / "straight" / "2024" / "mine.png").write_bytes((SAMPLES / "photo-1.jpg").read_bytes())
    for given in ("scans", "scans/**/*.png"):
        run = rectify(given, "-o", "out", "--force", cwd=tmp_path)
        assert (run.returncode, "left out: 1 crop of earlier runs" in run.stderr) == (0, True), run.stderr
        assert set(records(tmp_path / "out")) == {"a.png", "mine.png"}
    again = rectify("scans/straight/2024", "-o", "twice", cwd=tmp_path)
    assert (again.returncode, set(records(tmp_path / "twice"))) == (0, {"a.png", "mine.png"})
    (tmp_path / "scans" / "a.png").unlink()
    (tmp_path / "scans" / "straight" / "2024" / "mine.png").unlink()
    nothing = rectify("scans", "-o", "more", cwd=tmp_path)
    assert (nothing.returncode, "name the folder in which they lie" in nothing.stderr) == (4, True)


def test_a_folder_may_be_called_as_a_file_is(tmp_path):
    (tmp_path / "crops.png").mkdir()
    assert rectify(SAMPLES / "rotated-1.png", "-o", "crops.png", cwd=tmp_path).returncode == 0
    assert {path.name for path in (tmp_path / "crops.png").iterdir()} == {"rotated-1.png", "theta.jsonl"}


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("a.png", "b.png", "-o", "c.png"), 2, "-o names one file, c.png, and there are 2 inputs"),
        (("a.png", "-o", "a.png"), 6, "a.png would replace itself: the output file is the input"),
        (("a.png", "-o", "c.gif"), 2, ".gif is not a format to write"),
        (("a.png", "-o", "c.npy"), 2, ".npy is not a format to write"),
        (("a.png", "-o", "c.png", "--format", "jpeg"), 2, "--format says jpeg, and -o names c.png"),
        (("a.png", "-o", "mine.png"), 6, "mine.json exists already"),
    ],
)
def test_a_file_that_cannot_be_the_crop_is_refused(arguments, code, message, tmp_path):
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes((SAMPLES / "rotated-1.png").read_bytes())
    (tmp_path / "mine.json").write_text("{}")
    run = rectify(*arguments, cwd=tmp_path)
    assert (run.returncode, message in run.stderr) == (code, True), run.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "b.png", "mine.json"]


def test_what_is_not_what_its_name_says_is_noted(tmp_path):
    (tmp_path / "photo.jpg").write_bytes((SAMPLES / "rotated-1.png").read_bytes())
    with Image.open(SAMPLES / "rotated-1.png") as image:
        image.convert("P").save(tmp_path / "palette.png")
        image.point(lambda level: 255 * (level > 99)).convert("1").save(tmp_path / "bilevel.png")
    assert rectify(".", "-o", "out", cwd=tmp_path).returncode == 0
    notes = {name: record["notes"] for name, record in records(tmp_path / "out").items()}
    assert notes["photo.jpg"] == ["named as JPEG, and written so, but the file holds PNG"]
    assert rectify("photo.jpg", "-o", "one.png", cwd=tmp_path).returncode == 0
    assert json.loads((tmp_path / "one.json").read_text()).get("notes") is None
    assert notes["palette.png"] == ["P converted to RGB"]
    assert notes["bilevel.png"] == ["1 converted to L"]


def test_a_model_of_nearly_that_name_is_suggested():
    run = stn("rectify", SAMPLES, "-m", "Digit")
    assert run.returncode == 5
    assert "Do you mean digits?" in run.stderr
