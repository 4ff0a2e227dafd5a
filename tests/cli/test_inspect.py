"""`stn inspect` as a user runs it: a picture beside the image, numbers on stdout."""

import json

import numpy as np
import pytest
from PIL import Image

from stn_cli.geometry import BorderLayout, ThinPlateSpline
from stn_cli.reports.inspection import reading_angle
from tests.running import ROOT, SAMPLES, TRUTH, stn

NAME = "photo-2.jpg"
WORDS = ROOT / "sample_images" / "words"


@pytest.fixture(scope="module")
def inspected(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inspected")
    (folder / NAME).write_bytes((SAMPLES / NAME).read_bytes())
    run = stn("inspect", folder / NAME, "-m", "digits", "--json")
    assert run.returncode == 0, run.stderr
    return folder, json.loads(run.stdout)


def test_the_picture_shows_the_image_and_the_crop(inspected):
    folder, record = inspected
    with Image.open(folder / "photo-2.inspect.png") as picture, Image.open(folder / NAME) as image:
        assert picture.mode == "RGB"
        assert picture.width > image.width + record["crop"]["width"]
        drawn, colours = np.asarray(picture), {(213, 94, 0), (0, 114, 178)}
    assert colours <= set(map(tuple, np.unique(drawn.reshape(-1, 3), axis=0)))  # upper and lower fiducials


def test_the_numbers_are_those_of_rectify(inspected, tmp_path):
    folder, record = inspected
    run = stn("rectify", folder / NAME, "-m", "digits", "-o", tmp_path, "--json")
    written = json.loads(run.stdout)
    for field in ("transform", "outline", "fiducials", "confidence", "status", "label", "quality"):
        assert record[field] == written[field], field
    assert (record["crop"]["width"], record["crop"]["height"]) == tuple(
        written["output"][side] for side in ("width", "height")
    )
    true = np.array(TRUTH[NAME]["pixel_matrix"])
    angle = np.degrees(np.arctan2(true[1, 0], true[0, 0]))
    assert abs(record["frame"]["angle"] - angle) < 25


@pytest.mark.parametrize("degrees", [0, 30, 135, -100])
def test_the_reading_angle_is_that_of_the_word(degrees):
    angle, layout, size = np.radians(degrees), BorderLayout(10), (80, 200)
    along, down = np.array([np.cos(angle), np.sin(angle)]), np.array([-np.sin(angle), np.cos(angle)])
    pixels = [100, 40] + layout.points[:, :1] * 30 * along + layout.points[:, 1:] * 8 * down
    frame = ThinPlateSpline((pixels / [100, 40] - 1).ravel(), layout)
    assert reading_angle(frame, size) == pytest.approx(degrees, abs=1e-6)


def test_an_existing_picture_stays_unless_it_may_be_overwritten(inspected):
    folder, _ = inspected
    before = (folder / "photo-2.inspect.png").stat().st_mtime_ns
    run = stn("inspect", folder / NAME, "-m", "digits")
    assert run.returncode == 6 and "exists already" in run.stderr
    assert (folder / "photo-2.inspect.png").stat().st_mtime_ns == before
    assert stn("inspect", folder / NAME, "-m", "digits", "--on-exists", "overwrite").returncode == 0


def test_a_picture_does_not_replace_its_image(tmp_path):
    Image.new("L", (30, 30), 90).save(tmp_path / "a.png")
    before = (tmp_path / "a.png").read_bytes()
    run = stn("inspect", tmp_path / "a.png", "-m", "digits", "-o", tmp_path / "a.png", "--on-exists", "overwrite")
    assert run.returncode == 6
    assert (tmp_path / "a.png").read_bytes() == before


@pytest.mark.parametrize(("content", "code"), [(None, 4), (b"no image", 3), (b"", 3)])
def test_what_is_no_image_is_named(tmp_path, content, code):
    if content is not None:
        (tmp_path / "a.png").write_bytes(content)
    run = stn("inspect", tmp_path / "a.png", "-m", "digits")
    assert run.returncode == code
    assert "a.png" in run.stderr and "Traceback" not in run.stderr
    assert not list(tmp_path.glob("*.inspect.*"))


def test_an_unknown_model_is_named(tmp_path):
    run = stn("inspect", SAMPLES / NAME, "-m", "nowhere", "-o", tmp_path / "x.png")
    assert run.returncode == 5 and "nowhere" in run.stderr


def test_a_picture_is_a_png(tmp_path):
    run = stn("inspect", SAMPLES / NAME, "-m", "digits", "-o", tmp_path / "seen.jpg")
    assert run.returncode == 2 and "does not end in .png" in run.stderr
    assert not list(tmp_path.iterdir())


def test_always_shows_what_would_pass_through(tmp_path):
    word = WORDS / "straight.png"
    asked, forced = (
        json.loads(stn("inspect", word, "--json", "-o", tmp_path / f"{len(more)}.png", *more).stdout)
        for more in ((), ("--always",))
    )
    assert (asked["status"], forced["status"]) == ("unchanged", "done")
    assert asked["reason"] and not forced.get("reason")
    with Image.open(word) as image:
        assert (asked["crop"]["width"], asked["crop"]["height"]) == image.size
