import os
from pathlib import Path, PurePosixPath

import pytest

from stn_cli.errors import NoInputError, StorageError
from stn_cli.images import Source, discover


@pytest.fixture
def tree(tmp_path):
    """Image names at three depths, among things that are no input."""
    names = ["b.png", "a.JPG", "sub/c.tif", "sub/deep/d.webp", "sub/img[1].bmp"]
    others = [
        "notes.txt",
        ".hidden.png",
        ".git/e.png",
        "b.rectified.png",
        "b.rectified.json",
        "b.inspect.png",
        "noext",
        "png",
    ]
    for name in names + others:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


def relatives(sources):
    return [str(source.relative) for source in sources]


def test_folder_gives_its_images_sorted_with_their_tree(tree):
    found = discover([tree])
    assert relatives(found) == ["a.JPG", "b.png", "sub/c.tif", "sub/deep/d.webp", "sub/img[1].bmp"]
    assert all(source.path == tree / source.relative for source in found)


def test_not_recursive_takes_only_the_top(tree):
    assert relatives(discover([tree], recursive=False)) == ["a.JPG", "b.png"]


@pytest.mark.parametrize(
    "name", ["noext", "notes.txt", ".hidden.png", "b.rectified.png", "b.inspect.png", "sub/img[1].bmp"]
)
def test_named_file_is_taken_whatever_its_name(tree, name):
    assert discover([tree / name]) == [Source(tree / name, PurePosixPath(Path(name).name))]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*.png", ["b.png"]),
        ("*/*.tif", ["sub/c.tif"]),
        ("**/*.[bt]*", ["sub/c.tif", "sub/img[1].bmp"]),
        ("**/d.webp", ["sub/deep/d.webp"]),
        ("sub/d*/*", ["deep/d.webp"]),
        ("sub/**", ["deep/d.webp", "c.tif", "img[1].bmp"]),
    ],
)
def test_pattern_is_expanded_below_its_plain_prefix(tree, pattern, expected):
    if pattern.startswith("sub/"):
        expected = sorted(expected)
    assert relatives(discover([tree / pattern])) == expected


def test_relative_pattern(tree, monkeypatch):
    monkeypatch.chdir(tree)
    assert discover([Path("*.png")]) == [Source(Path("b.png"), PurePosixPath("b.png"))]


def test_files_given_twice_are_taken_once(tree, monkeypatch):
    monkeypatch.chdir(tree)
    (tree / "alias").symlink_to(tree / "sub")
    given = [Path("b.png"), tree / "b.png", tree / "sub" / ".." / "b.png", Path("sub/c.tif"), Path("alias/c.tif")]
    assert relatives(discover([*given, tree])).count("b.png") == 1
    assert relatives(discover(given)) == ["b.png", "c.tif"]


def test_links_to_files_are_followed_and_links_to_folders_are_not(tree):
    (tree / "sub" / "up").symlink_to(tree)
    (tree / "link.png").symlink_to(tree / "b.png")
    (tree / "dangling.png").symlink_to(tree / "nowhere.png")
    (tree / "loop.png").symlink_to(tree / "loop.png")
    found = relatives(discover([tree]))
    assert "link.png" in found
    assert {"dangling.png", "loop.png"} <= set(found)  # to fail by name, not to be lost in silence
    assert len(found) == 8
    assert relatives(discover([tree / "**/*"])) == found
    assert relatives(discover([tree / "*/*.tif"])) == ["sub/c.tif"]


@pytest.mark.parametrize("pattern", ["**/*", "*/*", "sub/*/*.webp", "s?b/**/d*", "**/sub/*.tif", "**/**/*.webp"])
def test_patterns_match_what_pathlib_matches(tree, pattern):
    expected = {path for path in tree.glob(pattern) if path.suffix.lower() in (".png", ".jpg", ".tif", ".webp", ".bmp")}
    expected = {path for path in expected if not any(p.startswith(".") for p in path.relative_to(tree).parts)}
    expected = {path for path in expected if not any(x in path.name for x in (".rectified.", ".inspect."))}
    assert {source.path for source in discover([tree / pattern])} == expected


def test_output_folder_is_left_out(tree, monkeypatch):
    monkeypatch.chdir(tree)
    expected = ["a.JPG", "b.png", "sub/c.tif", "sub/img[1].bmp"]
    assert relatives(discover([tree], exclude=Path("sub/deep"))) == expected
    assert relatives(discover([tree / "**/*"], exclude=Path("sub/deep"))) == expected
    assert relatives(discover([tree / "sub/deep"], exclude=Path("sub/deep"))) == ["d.webp"]


@pytest.mark.parametrize("name", ["missing.png", "missing/*.png", "*.gif", "sub/missing[1]", "b.png/x.png"])
def test_missing_path_is_named(tree, name):
    with pytest.raises(NoInputError) as caught:
        discover([tree / "b.png", tree / name])
    assert str(tree / name) in str(caught.value)


def test_nothing_found_names_the_folder(tmp_path):
    (tmp_path / "notes.txt").touch()
    with pytest.raises(NoInputError, match=str(tmp_path)):
        discover([tmp_path])
    with pytest.raises(NoInputError):
        discover([])


def test_unreadable_folder(open_folder, ordinary_user):
    (open_folder / "sub").mkdir()
    (open_folder / "sub" / "a.png").touch()
    with ordinary_user():
        assert relatives(discover([open_folder])) == ["sub/a.png"]
    (open_folder / "sub").chmod(0)
    for given in (open_folder, open_folder / "**" / "*.png"):
        with ordinary_user(), pytest.raises(StorageError, match="sub"):
            discover([given])


def test_folder_that_cannot_be_listed(tree, monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(StorageError, match="Permission denied"):
        discover([tree])


def test_nothing_is_read_from_stdin():
    with pytest.raises(NoInputError, match="nothing is read from stdin"):
        discover([Path("-")])
