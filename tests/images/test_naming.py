import unicodedata
from pathlib import Path, PurePosixPath

import pytest

from stn_cli.images import Source, find_collisions, output_path


def source(path, relative=None):
    return Source(Path(path), PurePosixPath(relative or Path(path).name))


@pytest.mark.parametrize(
    ("name", "suffix", "beside", "inside"),
    [
        ("img.png", ".png", "img.rectified.png", "img.png"),
        ("img.JPG", ".jpg", "img.rectified.JPG", "img.JPG"),
        ("img.jpeg", ".jpg", "img.rectified.jpeg", "img.jpeg"),
        ("img.jpeg", ".png", "img.rectified.png", "img.png"),
        ("img.tiff", ".tif", "img.rectified.tiff", "img.tiff"),
        ("img.gif", ".png", "img.rectified.png", "img.png"),
        ("img.pgm", ".ppm", "img.rectified.pgm", "img.pgm"),
        ("img.pbm", ".ppm", "img.rectified.ppm", "img.ppm"),
        ("img.v2.png", ".png", "img.v2.rectified.png", "img.v2.png"),
        ("scan.001", ".png", "scan.001.rectified.png", "scan.001.png"),
        ("scan", ".png", "scan.rectified.png", "scan.png"),
    ],
)
def test_output_path(name, suffix, beside, inside):
    given = source(f"in/sub/{name}", f"sub/{name}")
    assert output_path(given, None, suffix) == Path("in/sub") / beside
    assert output_path(given, Path("out"), suffix) == Path("out/sub") / inside


def test_distinct_outputs_do_not_collide(tmp_path):
    sources = [source(tmp_path / name) for name in ("a.png", "b.png", "c.gif")]
    assert find_collisions([(each, output_path(each, tmp_path / "out", ".png")) for each in sources]) == []
    assert find_collisions([(each, output_path(each, None, ".png")) for each in sources]) == []


@pytest.mark.parametrize(
    ("one", "two"),
    [
        ("a.png", "a.gif"),
        ("a.png", "A.png"),
        (unicodedata.normalize("NFC", "é.png"), unicodedata.normalize("NFD", "é.png")),
        (unicodedata.normalize("NFC", "É.png"), unicodedata.normalize("NFD", "é.png")),
        ("straße.png", "STRASSE.png"),
    ],
)
def test_outputs_that_some_file_system_takes_for_one(tmp_path, one, two):
    first, second = source(tmp_path / one), source(tmp_path / "sub" / two)
    out = tmp_path / "out"
    targets = [(each, output_path(each, out, ".png")) for each in (first, second)]
    assert find_collisions(targets) == [(second, first, targets[1][1])]


def test_output_equal_to_its_own_or_another_input(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "alias").symlink_to(tmp_path)
    a, b = source("a.png"), source("b.gif")
    assert find_collisions([(a, tmp_path / "a.png")]) == [(a, a, tmp_path / "a.png")]
    assert find_collisions([(a, Path("alias/A.png"))]) == [(a, a, Path("alias/A.png"))]
    assert find_collisions([(a, Path("x.png")), (b, Path("a.png"))]) == [(b, a, Path("a.png"))]


def test_output_equal_to_the_file_that_an_input_links_to(tmp_path):
    (tmp_path / "real.png").touch()
    (tmp_path / "link.png").symlink_to("real.png")
    link = source(tmp_path / "link.png")
    assert find_collisions([(link, tmp_path / "real.png")])
    assert find_collisions([(link, tmp_path / "link.png")])
    assert find_collisions([(link, tmp_path / "other.png")]) == []
