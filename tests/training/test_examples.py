"""Data as people have it: every layout is recognised, split without leaks, and what is wrong with it is said."""

import gzip
import io
import json
import os
import struct
import tarfile
import unicodedata
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from stn_cli.engines.engine import small_copy
from stn_cli.errors import TrainingDataError, UsageError
from stn_cli.training.defaults import objectives_of
from stn_cli.training.examples import Reading, decoding, joined
from stn_cli.training.examples import read_examples as read
from stn_cli.training.examples.found import Entry, Found
from stn_cli.training.examples.tables import Row


def png(level, size=(20, 12)):
    """An image of one grey level, which tells it apart."""
    buffer = io.BytesIO()
    PIL.Image.new("L", size, level).save(buffer, "PNG")
    return buffer.getvalue()


def write(root, files):
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return root


def tar(path, files):
    with tarfile.open(path, "w") as archive:
        for name, content in files.items():
            data = content if isinstance(content, bytes) else content.encode()
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def joined_parts(dataset):
    return joined([dataset.train, dataset.validation, dataset.test])


def known(dataset, part=None):
    """Grey level → class or text, over all parts or in one."""
    found = {}
    for examples in (dataset.train, dataset.validation, dataset.test) if part is None else (part,):
        for number, image in enumerate(examples.images):
            label = examples.classes[examples.labels[number]] if examples.labels[number] >= 0 else None
            found[int(image[0, 0, 0])] = examples.texts[number] if examples.texts else label
    return found


CLASSES = {
    f"{name}/{level}.png": png(level)
    for name, levels in (("cat", range(10)), ("dog", range(10, 20)))
    for level in levels
}
EXPECTED = {level: "cat" if level < 10 else "dog" for level in range(20)}


def test_class_folders(tmp_path):
    dataset = read([write(tmp_path, CLASSES)])
    assert known(dataset) == EXPECTED
    assert dataset.classes == ("cat", "dog")
    assert dataset.layout == "class folders"
    assert set(known(dataset, dataset.validation).values()) == {"cat", "dog"}


@pytest.mark.parametrize("outer", ["signs/", "data/2024/images/"])
def test_folders_that_hold_everything_say_nothing(tmp_path, outer):
    wrapped = {f"{outer}{name}": content for name, content in CLASSES.items()}
    for root in (write(tmp_path / "folder", wrapped), tar(tmp_path / "all.tar", wrapped)):
        assert known(read([root])) == EXPECTED
    parted = {f"{outer}{'test' if n % 2 else 'train'}/{name}": c for n, (name, c) in enumerate(CLASSES.items())}
    dataset = read([write(tmp_path / "parted", parted | {"__MACOSX/._x.png": b"no image"})])
    assert known(dataset) == EXPECTED
    assert set(known(dataset, dataset.test)) == set(range(1, 20, 2))


def test_an_archive_of_class_folders_is_read_like_the_folder(tmp_path):
    folder = read([write(tmp_path / "folder", CLASSES)])
    archive = read([tar(tmp_path / "all.tar", CLASSES)])
    assert known(archive, archive.validation) == known(folder, folder.validation)
    assert known(archive) == EXPECTED


def test_a_class_is_called_what_json_can_hold(tmp_path):
    for name in (b"caf\xe9", b"tea"):
        folder = tmp_path / os.fsdecode(name)
        folder.mkdir()
        for level in range(4):
            (folder / f"{level}.png").write_bytes(png(10 * len(name) + level))
    dataset = read([tmp_path])
    assert dataset.classes == ("caf\\xe9", "tea")
    json.dumps([*dataset.train.names, *dataset.classes]).encode()
    (tmp_path / "labels.jsonl").write_text(
        '{"file": "tea/0.png", "class": "\\ud800"}\n{"file": "tea/1.png", "class": "b"}\n'
    )
    assert read([tmp_path]).classes == ("\\ud800", "b")


def test_shards_of_webdataset_in_a_folder(tmp_path):
    samples = {f"{level:06d}": level for level in range(20)}
    for shard in range(4):
        files = {}
        for key, level in list(samples.items())[5 * shard : 5 * shard + 5]:
            files |= {f"{key}.img.png": png(level), f"{key}.cls": str(level % 2), f"{key}.note": "no label"}
        tar(tmp_path / f"shard-{shard:03d}.tar", files)
    assert known(read([tmp_path])) == {level: str(level % 2) for level in range(20)}
    by_name = sorted(tmp_path.iterdir())
    assert known(read(by_name)) == known(read([tmp_path]))


def test_shards_of_class_folders_whose_names_repeat_lose_nothing(tmp_path):
    for shard in range(3):
        files = {
            f"{name}/{n}.png": png(100 * c + 10 * shard + n) for c, name in enumerate(("cat", "dog")) for n in range(4)
        }
        tar(tmp_path / f"train-{shard:03d}.tar", files)
    found = known(read([tmp_path]))
    assert found == {
        100 * c + 10 * s + n: "cd"[c] + ("at", "og")[c] for c in (0, 1) for s in range(3) for n in range(4)
    }


def test_archives_of_parts_and_classes(tmp_path):
    for number, name in enumerate(("cat-train", "cat-test", "dog-train", "dog-test")):
        tar(tmp_path / f"{name}.tar", {f"{n}.png": png(10 * number + n) for n in range(4)})
    dataset = read([tmp_path])
    assert known(dataset) == {10 * m + n: ("cat", "dog")[m // 2] for m in range(4) for n in range(4)}
    assert set(known(dataset, dataset.test)) == {10 * m + n for m in (1, 3) for n in range(4)}


def test_folders_that_stn_made_are_classes_like_others(tmp_path):
    record = {"source": {"relative": "../../raw/cat/0.png"}, "output": {"relative": "./0.png"}}
    files = CLASSES | {f"{name}/theta.jsonl": json.dumps(record) for name in ("cat", "dog")}
    assert known(read([write(tmp_path / "data", files)])) == EXPECTED


def test_files_beside_half_of_the_images_are_read(tmp_path):
    files = {f"{level}.png": png(level) for level in range(9)} | {f"{level}.txt": f"t{level}" for level in range(4)}
    assert not read([write(tmp_path, files)]).train.texts
    assert known(read([tmp_path], Reading(label_means="text"))) == {level: f"t{level}" for level in range(4)}
    (tmp_path / "4.txt").write_text("t4")
    assert known(read([tmp_path])) == {level: f"t{level}" for level in range(5)}


def test_shards_whose_names_repeat_lose_nothing(tmp_path):
    for shard in range(4):
        levels = range(5 * shard, 5 * shard + 5)
        files = {f"{number}.png": png(level) for number, level in enumerate(levels)}
        tar(tmp_path / f"{shard:05d}.tar", files | {f"{n}.cls": "ab"[n % 2] for n in range(5)})
    assert known(read([tmp_path])) == {level: "ab"[level % 5 % 2] for level in range(20)}


def test_archives_that_end_in_a_digit_are_classes_by_name(tmp_path):
    for digit in range(3):
        tar(tmp_path / f"digit{digit}.tar", {f"{n}.png": png(10 * digit + n) for n in range(4)})
    expected = {10 * digit + n: f"digit{digit}" for digit in range(3) for n in range(4)}
    assert known(read([tmp_path])) == expected


def test_transcriptions_beside_the_images(tmp_path):
    files = {f"{level}.png": png(level) for level in range(12)} | {
        f"{level}.gt.txt": f"wörd{level}\n" for level in range(12)
    }
    dataset = read([write(tmp_path, files)])
    assert known(dataset) == {level: f"wörd{level}" for level in range(12)}
    assert dataset.classes == ()
    assert dataset.train.alphabet.startswith("0123")


def test_boxes_of_yolo_are_no_transcriptions(tmp_path):
    boxes = {name.replace(".png", ".txt"): "3 0.5 0.51 0.25 1\n0 .1 0.2 1.0 3e-05\n" for name in CLASSES}
    dataset = read([write(tmp_path, CLASSES | boxes)])
    assert known(dataset) == EXPECTED
    (told,) = [problem for problem in dataset.problems if "YOLO" in problem.what]
    assert set(told.where) == set(boxes)


def test_numbers_are_transcriptions(tmp_path):
    files = {f"{level}.png": png(level) for level in range(6)} | {f"{level}.txt": f"{level} 0.5" for level in range(6)}
    assert known(read([write(tmp_path, files)])) == {level: f"{level} 0.5" for level in range(6)}


@pytest.mark.parametrize(("in_folder", "in_table"), [("NFD", "NFC"), ("NFC", "NFD")])
def test_names_in_a_table_are_found_whichever_way_their_accents_are_written(tmp_path, in_folder, in_table):
    files = {unicodedata.normalize(in_folder, f"é{level}.png"): png(level) for level in range(4)}
    rows = unicodedata.normalize(in_table, "".join(f"é{level}.png,{'ab'[level % 2]}\n" for level in range(4)))
    dataset = read([write(tmp_path, files | {"labels.csv": "file,class\n" + rows})])
    assert known(dataset) == {0: "a", 1: "b", 2: "a", 3: "b"}


def test_json_beside_an_image_takes_nothing_from_its_class(tmp_path):
    files = {f"{level}.png": png(level) for level in range(4)} | {f"{level}.cls": "ab"[level % 2] for level in range(4)}
    files |= {f"{level}.json": '{"taken": "in May"}' for level in range(4)}
    assert known(read([write(tmp_path, files)])) == {0: "a", 1: "b", 2: "a", 3: "b"}


def test_an_image_beside_the_class_folders_is_named_and_changes_nothing_else(tmp_path):
    dataset = read([write(tmp_path, CLASSES | {"stray.png": png(99)})])
    assert objectives_of(dataset) == ("classify",)
    assert known(dataset) == EXPECTED | {99: None}
    (stray,) = [problem for problem in dataset.problems if "no class folder" in problem.what]
    assert stray.where == ("stray.png",)


def test_a_stray_note_beside_an_image_changes_nothing(tmp_path):
    dataset = read([write(tmp_path, CLASSES | {"cat/1.txt": "blurred", "dog/11.json": '{"text": "ok"}'})])
    assert known(dataset) == EXPECTED
    (told,) = [problem for problem in dataset.problems if "is not read" in problem.what]
    assert set(told.where) == {"cat/1.txt", "dog/11.json"}


def test_classes_are_those_of_the_folders_where_files_beside_the_images_tell_corners_alone(tmp_path):
    corners = {name.replace(".png", ".json"): '{"x1": 1, "y1": 2, "x2": 11, "y2": 8}' for name in CLASSES}
    dataset = read([write(tmp_path, CLASSES | corners)])
    assert known(dataset) == EXPECTED
    assert np.isfinite(dataset.train.corners).all()


def test_json_beside_the_images_tells_corners(tmp_path):
    corners = [[2, 1], [18, 1], [18, 11], [2, 11]]
    files = {f"{level}.png": png(level) for level in range(4)}
    files |= {f"{level}.json": json.dumps({"text": "a", "corners": corners}, indent=1) for level in range(4)}
    dataset = read([write(tmp_path, files)])
    expected = np.array([[2, 1], [18, 1], [2, 11], [18, 11]]) / [10, 6] - 1
    assert np.allclose(dataset.train.corners, expected)


TABLES = {
    "labels.tsv": "0.png\tcat\n1.png\tdog\n2.png\tcat\n3.png\tdog\n",
    "labels.csv": '"file","class"\n0.png,cat\n1.png,dog\n"2.png",cat\n3.png,dog\n',
    "LABELS.CSV": "Class;Filename\ncat;0.png\ndog;1.png\ncat;2.png\ndog;3.png\n",
    "labels.jsonl": "".join(
        json.dumps({"path": f"{n}.png", "category": ("cat", "dog")[n % 2]}) + "\n" for n in range(4)
    ),
}


@pytest.mark.parametrize("name", TABLES)
@pytest.mark.parametrize("folder", ["", "images/"])
def test_a_table_of_classes(tmp_path, name, folder):
    write(tmp_path, {f"{folder}{level}.png": png(level) for level in range(4)} | {name: TABLES[name]})
    dataset = read([tmp_path], Reading(label_means="class"))
    assert known(dataset) == {0: "cat", 1: "dog", 2: "cat", 3: "dog"}
    assert not [problem for problem in dataset.problems if "not there" in problem.what]


def test_labels_of_no_name_are_words_unless_many_images_share_each(tmp_path):
    words = {f"{level}.png": png(level) for level in range(40)}
    write(
        tmp_path / "words", words | {"labels.tsv": "".join(f"{level}.png\tword{level // 2}\n" for level in range(40))}
    )
    write(
        tmp_path / "classes", words | {"labels.tsv": "".join(f"{level}.png\tkind{level % 4}\n" for level in range(40))}
    )
    assert known(read([tmp_path / "words"])) == {level: f"word{level // 2}" for level in range(40)}
    assert read([tmp_path / "classes"]).classes == ("kind0", "kind1", "kind2", "kind3")
    assert read([tmp_path / "words"], Reading(label_means="class")).classes[:2] == ("word0", "word1")


def test_boxes_are_stated_against_the_size_that_the_table_names(tmp_path):
    rows = "".join(f"{level}.png,40,24,10,6,30,18\n" for level in range(4))
    write(tmp_path, {f"{level}.png": png(level) for level in range(4)})
    write(tmp_path, {"boxes.csv": "file,width,height,roi_x1,roi_y1,roi_x2,roi_y2\n" + rows})
    dataset = read([tmp_path], Reading(labels=tmp_path / "boxes.csv"))
    box = [[-0.5, -0.5], [0.5, -0.5], [-0.5, 0.5], [0.5, 0.5]]
    assert np.allclose(dataset.train.corners, box)
    assert not dataset.train.texts


@pytest.mark.parametrize(
    ("header", "row"),
    [
        ("x1,y1,x2,y2", "12,10,2,4"),
        ("x,y,w,h", "2,4,10,6"),
        ("x,y,width,height", "2,4,10,6"),
        ("bbox_x,bbox_y,bbox_w,bbox_h", "2,4,10,6"),
    ],
)
def test_boxes_of_all_kinds(tmp_path, header, row):
    write(tmp_path, {f"{level}.png": png(level) for level in range(4)})
    rows = "".join(f"{level}.png,{row if level else ',,,'}\n" for level in range(4))
    dataset = joined_parts(read([write(tmp_path, {"labels.csv": f"file,{header}\n{rows}"})]))
    expected = np.array([[2, 4], [12, 4], [2, 10], [12, 10]]) / [10, 6] - 1
    known_boxes = dataset.corners[[int(image[0, 0, 0]) > 0 for image in dataset.images]]
    assert np.allclose(known_boxes, expected)
    assert np.isnan(dataset.corners).any(axis=(1, 2)).sum() == 1


def test_a_box_outside_of_its_image_is_named_and_not_learned_from(tmp_path):
    write(tmp_path, {f"{level}.png": png(level) for level in range(3)})
    rows = "file,x1,y1,x2,y2\n0.png,100,100,140,120\n1.png,1,1,9,9\n2.png,1,1,9,9\n"
    dataset = read([write(tmp_path, {"labels.csv": rows})])
    assert np.isfinite(joined_parts(dataset).corners).all(axis=(1, 2)).sum() == 2
    (problem,) = [problem for problem in dataset.problems if "outside of its image" in problem.what]
    assert problem.where == ("0.png",)


def test_a_table_below_the_root_can_be_named_and_leaves_the_classes_to_the_folders(tmp_path):
    rows = "".join(f"{name},1,1,5,5\n" for name in CLASSES)
    archive = tar(tmp_path / "all.tar", CLASSES | {"roi.csv": f"file,x1,y1,x2,y2\n{rows}"})
    dataset = read([archive], Reading(labels=Path("roi.csv")))
    assert known(dataset) == EXPECTED
    assert np.isfinite(dataset.train.corners).all()


def test_a_flat_folder(tmp_path):
    dataset = read([write(tmp_path, {f"{level}.png": png(level) for level in range(10)})])
    assert known(dataset) == dict.fromkeys(range(10))
    assert (len(dataset.train), len(dataset.validation)) in ((9, 1), (8, 2))


def idx(array):
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()


def test_idx_files_with_a_test_part(tmp_path):
    images = np.arange(30, dtype=np.uint8)[:, None, None] * np.ones((1, 5, 4), np.uint8)
    labels = (np.arange(30) % 3).astype(np.uint8)
    files = {
        "train-images-idx3-ubyte.gz": gzip.compress(idx(images[:20])),
        "train-labels-idx1-ubyte.gz": gzip.compress(idx(labels[:20])),
        "t10k-images-idx3-ubyte": idx(images[20:]),
        "t10k-labels-idx1-ubyte": idx(labels[20:]),
    }
    dataset = read([write(tmp_path, files)])
    assert known(dataset) == {level: str(level % 3) for level in range(30)}
    assert set(known(dataset, dataset.test)) == set(range(20, 30))
    assert len(dataset.validation)


@pytest.mark.parametrize("content", [b"", b"\0\0\x08\x03", b"\0\0\x08\x03\0\0\0\x09", b"\0\0\x0d\x03" + b"\0" * 12])
def test_a_damaged_idx_file_is_refused(tmp_path, content):
    with pytest.raises(TrainingDataError, match="train-images-idx3-ubyte"):
        read([write(tmp_path, {"train-images-idx3-ubyte": content})])


@pytest.mark.parametrize(("train", "held_out"), [("train", "val"), ("training", "validation"), ("train", "valid")])
def test_parts_that_folders_name(tmp_path, train, held_out):
    files = {f"{train}/cat/1.png": png(1), f"{train}/dog/2.png": png(2), f"{held_out}/cat/3.png": png(3)}
    dataset = read([write(tmp_path, files | {"test/dog/4.png": png(4)})])
    assert known(dataset, dataset.train) == {1: "cat", 2: "dog"}
    assert known(dataset, dataset.validation) == {3: "cat"}
    assert known(dataset, dataset.test) == {4: "dog"}
    assert dataset.split == "as the data names the parts"


@pytest.mark.parametrize("names", [("valid", "invalid"), ("car", "train", "plane"), ("test", "dev-board")])
def test_a_class_may_be_called_like_a_part(tmp_path, names):
    levels = range(10 * len(names))
    files = {f"{names[level // 10]}/{level}.png": png(level) for level in levels}
    dataset = read([write(tmp_path, files)])
    assert known(dataset) == {level: names[level // 10] for level in levels}
    assert not dataset.problems


def test_two_parts_are_parts_beside_another_folder(tmp_path):
    files = {f"{part}/{name}/{n}.png": png(n) for n, (part, name) in enumerate(("train", c) for c in "abab")}
    files |= {"val/a/8.png": png(8), "val/b/9.png": png(9), "extra/a/5.png": png(5)}
    dataset = read([write(tmp_path, files)])
    assert known(dataset, dataset.validation) == {8: "a", 9: "b"}


def test_parts_that_archives_name(tmp_path):
    for number, name in enumerate(("train-000", "train-001", "val-000")):
        tar(tmp_path / f"{name}.tar", {f"{c}/{10 * number + n}.png": png(10 * number + n) for n, c in enumerate("ab")})
    dataset = read([tmp_path])
    assert known(dataset, dataset.train) == {0: "a", 1: "b", 10: "a", 11: "b"}
    assert known(dataset, dataset.validation) == {20: "a", 21: "b"}


def test_parts_that_shards_name(tmp_path):
    for part, levels in (("train", range(8)), ("val", range(8, 12)), ("test", range(12, 20))):
        files = {f"{level}.png": png(level) for level in levels}
        tar(tmp_path / f"set-{part}-000000.tar", files | {f"{level}.cls": str(level % 2) for level in levels})
    for roots in ([tmp_path], sorted(tmp_path.iterdir())):
        dataset = read(roots)
        assert [len(part) for part in (dataset.train, dataset.validation, dataset.test)] == [8, 4, 8]


def test_a_part_of_another_name_is_not_learned_from(tmp_path):
    write(tmp_path, {f"{level}.png": png(level) for level in range(4)})
    write(tmp_path, {"labels.csv": "file,class,split\n0.png,a,train\n1.png,b,train\n2.png,a,tset\n3.png,b,val\n"})
    with pytest.raises(TrainingDataError, match=r"2\.png is of the part 'tset'"):
        read([tmp_path])


def test_parts_that_a_table_names(tmp_path):
    rows = "".join(f"{level}.png,{'ab'[level % 2]},{'train' if level < 6 else 'val'}\n" for level in range(8))
    write(tmp_path, {f"{level}.png": png(level) for level in range(8)} | {"labels.csv": f"file,class,split\n{rows}"})
    dataset = read([tmp_path])
    assert set(known(dataset, dataset.validation)) == {6, 7}


def test_equal_images_stay_together_and_more_images_move_none(tmp_path):
    copies = {f"{kind}/{level}-{copy}.png": png(level) for level in range(60) for copy in range(3) for kind in ("a",)}
    copies |= {f"b/{level}.png": png(level) for level in range(60, 120)}
    dataset = read([write(tmp_path, copies)])
    train, held_out = set(known(dataset, dataset.train)), set(known(dataset, dataset.validation))
    assert not train & held_out
    assert 4 <= len(held_out) <= 25
    grown = read([write(tmp_path, {f"b/{level}.png": png(level) for level in range(120, 180)})])
    assert held_out <= set(known(grown, grown.validation))


def test_how_large_images_are_kept_holds_no_other_ones_out(tmp_path):
    rng = np.random.default_rng(3)
    for number in range(30):
        pixels = rng.integers(0, 256, (90, 150), dtype=np.uint8)
        PIL.Image.fromarray(pixels).save(tmp_path / f"{number}.png")
    small, large = (read([tmp_path], Reading(longest_side=side)) for side in (40, 512))
    assert small.validation.names == large.validation.names
    assert 0 < len(small.validation) < 15


def test_a_named_part_needs_no_groups(tmp_path):
    files = {f"train/a/t{number // 3}_{number}.png": png(number) for number in range(12)}
    dataset = read([write(tmp_path, files | {"test/a/other.png": png(99)})], Reading(group_by=r"/(t\d)_"))
    assert set(known(dataset, dataset.test)) == {99}


def test_groups_stay_together(tmp_path):
    frames = {
        f"{kind}/{track:02d}_{frame}.png": png(30 * kind + 5 * track + frame)
        for kind in range(2)
        for track in range(5)
        for frame in range(5)
    }
    dataset = read([write(tmp_path, frames)], Reading(group_by=r"^(\d+/\d+)_", validation_share=0.3))
    train, held_out = ({level // 5 for level in known(dataset, part)} for part in (dataset.train, dataset.validation))
    assert not train & held_out
    assert {track // 6 for track in held_out} == {0, 1}, "each class holds out a track"


@pytest.mark.parametrize(("pattern", "said"), [("(", "not a regular expression"), (r"track(\d)", "does not match")])
def test_groups_that_cannot_be_told_are_named(tmp_path, pattern, said):
    with pytest.raises(UsageError, match=said):
        read([write(tmp_path, CLASSES)], Reading(group_by=pattern))


def test_what_is_wrong_is_said_with_a_remedy(tmp_path):
    files = CLASSES | {"cow/broken.png": b"no image", "labels.txt": "not a table"}
    (tmp_path / "ant").mkdir()
    problems = {problem.what: problem for problem in read([write(tmp_path, files)]).problems}
    assert problems["the image cannot be read"].where[0].startswith("cow/broken.png: ")
    assert problems["the class has no image"].where == ("ant",)
    assert all(problem.remedy for problem in problems.values())


def test_what_a_table_lists_and_what_is_there_are_compared(tmp_path):
    write(tmp_path, {f"{level}.png": png(level) for level in range(5)})
    write(tmp_path, {"labels.tsv": "0.png\ta\n1.png\tb\n2.png\ta\nlost.png\tb\n"})
    problems = {problem.what: problem.where for problem in read([tmp_path]).problems}
    assert problems["the table lists files that are not there"] == ("lost.png",)
    assert problems["the table does not list the image"] == ("3.png", "4.png")


def test_what_a_table_may_leave_out(tmp_path):
    write(tmp_path, {f"{level}.png": png(level) for level in range(4)})
    write(tmp_path, {"labels.csv": "file,class\n0.png,a,\n1.png,b,,\n2.png,a\n3.png,b\n"})
    assert known(read([tmp_path])) == {0: "a", 1: "b", 2: "a", 3: "b"}
    write(tmp_path, {"labels.csv": "file,class,width,height\n0.png,a,20,\n1.png,b,,\n2.png,a,20,12\n3.png,b,20,12\n"})
    assert known(read([tmp_path])) == {0: "a", 1: "b", 2: "a", 3: "b"}
    corners = ",".join(f"{axis}{n}" for n in range(1, 5) for axis in "xy")
    rows = f"file,{corners}\n0.png,2,4,12,10,,,,\n1.png,2,4,12,4,12,10,2,10\n"
    dataset = joined_parts(read([write(tmp_path, {"labels.csv": rows})]))
    np.testing.assert_allclose(dataset.corners[0], dataset.corners[1])


def test_rows_that_say_nothing_or_say_it_twice_are_named(tmp_path):
    write(tmp_path, {f"{level}.png": png(level) for level in range(4)})
    write(tmp_path, {"labels.csv": "file,class\n0.png,a\n1.png,b\n2.png\n3.png,a\n1.png,a\n"})
    dataset = read([tmp_path])
    assert known(dataset) == {0: "a", 1: "a", 2: None, 3: "a"}
    problems = {problem.what: problem.where for problem in dataset.problems}
    assert problems["the table does not say what the image shows"] == ("2.png",)
    assert problems["the table lists the image more than once: the last row counts"] == ("1.png",)


@pytest.mark.parametrize("first", ["Hello; world", "a;b;c", ";"])
def test_a_text_may_hold_a_semicolon(tmp_path, first):
    write(tmp_path, {"0.png": png(0), "1.png": png(1), "labels.csv": f"0.png,{first}\n1.png,Bye\n"})
    assert known(read([tmp_path], Reading(label_means="text"))) == {0: first, 1: "Bye"}


BROKEN = {
    "more than columns": "file,text\n0.png,Hello, world\n1.png,Bye\n",
    "shares of a side": "file,x1,y1,x2,y2\n0.png,0.1,0.1,0.9,0.9\n1.png,0,0,1,1\n",
    "half a box": "file,x1,y1,x2,y2\n0.png,1,1,,9\n1.png,1,1,9,9\n",
    "a mirror image": "file,x1,y1,x2,y2,x3,y3,x4,y4\n0.png,0,0,0,9,9,9,9,0\n1.png,0,0,9,0,9,9,0,9\n",
    "no area": "file,x1,y1,x2,y2\n0.png,0,0,0,0\n1.png,0,0,5,5\n",
    "not utf-8": b"\xff\xfe0.png\tcat\n",
    "no files": "class,text\ncat,a,b\n",
    "one column": "0.png\n1.png\n",
    "json list": "[1]\n",
    "half json": '{"file": \n',
    "bad box": "file,x1,y1,x2,y2\n0.png,1,2,three,4\n",
    "endless box": "file,x1,y1,x2,y2\n0.png,1,2,inf,4\n",
    "no name": "file,class\n,cat\n",
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_table_that_makes_no_sense_is_named(tmp_path, name):
    suffix = "jsonl" if "json" in name else "csv"
    write(tmp_path, {"0.png": png(0), "1.png": png(1), f"labels.{suffix}": BROKEN[name]})
    with pytest.raises(TrainingDataError, match=rf"labels\.{suffix}"):
        read([tmp_path])


@pytest.mark.parametrize("cut", [0, 300, 600, 1500])
def test_a_cut_archive_is_refused(tmp_path, cut):
    whole = tar(tmp_path / "whole.tar", CLASSES).read_bytes()
    (tmp_path / "cut.tar").write_bytes(whole[:cut])
    with pytest.raises(TrainingDataError, match=r"cut\.tar"):
        read([tmp_path / "cut.tar"])


def test_an_archive_never_leads_outside_of_it(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "secret.png").write_bytes(png(77))
    archive = tar(tmp_path / "in" / "evil.tar", CLASSES | {"../outside.png": png(99), "/etc/passwd.png": png(98)})
    with tarfile.open(archive, "a") as more:
        for name, target in (("link", tmp_path / "secret.png"), ("near", "../../secret.png")):
            link = tarfile.TarInfo(f"cat/{name}.png")
            link.type, link.linkname = tarfile.SYMTYPE, str(target)
            more.addfile(link)
    found = known(read([archive]))
    assert found.items() >= EXPECTED.items()
    assert 77 not in found
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["evil.tar", "in", "secret.png"]


@pytest.mark.parametrize(
    ("table", "said"),
    [("file,class\n", "has no rows"), ("file,class\n/elsewhere/0.png,a\n", "lists files that are not there")],
)
def test_of_too_little_the_reason_is_said(tmp_path, table, said):
    with pytest.raises(TrainingDataError, match=said):
        read([write(tmp_path, {"0.png": png(0), "1.png": png(1), "labels.csv": table})])


def test_paths_may_be_whole(tmp_path):
    rows = "".join(f"{tmp_path}/{level}.png,{'ab'[level % 2]}\n" for level in range(4))
    files = {f"{level}.png": png(level) for level in range(4)}
    assert known(read([write(tmp_path, files | {"labels.csv": rows})])) == {0: "a", 1: "b", 2: "a", 3: "b"}


def test_texts_that_may_be_classes_are_said_to_be_texts(tmp_path):
    rows = "file,label\n" + "".join(f"{level}.png,{'ab'[level % 2]}\n" for level in range(8))
    files = {f"{level}.png": png(level) for level in range(8)}
    dataset = read([write(tmp_path, files | {"labels.csv": rows})])
    assert any("taken for texts" in problem.what for problem in dataset.problems)
    assert not read([tmp_path], Reading(label_means="text")).problems


def test_files_of_labels_are_utf_8(tmp_path):
    write(tmp_path, {"0.png": png(0), "1.png": png(1), "0.txt": "é".encode("latin-1"), "1.txt": "a"})
    with pytest.raises(TrainingDataError, match=r"is not UTF-8, and is not read \(0\.txt\)"):
        read([tmp_path], Reading(label_means="text"))
    stray = read([write(tmp_path / "classes", CLASSES | {"cat/0.txt": "é".encode("latin-1")})])
    assert known(stray) == EXPECTED


def test_what_is_packed_is_to_be_unpacked(tmp_path):
    (tmp_path / "signs.tar.gz").write_bytes(b"")
    with pytest.raises(TrainingDataError) as raised:
        read([tmp_path / "signs.tar.gz"])
    assert "Unpack" in raised.value.remedy


def test_images_that_all_hold_are_counted_once(tmp_path):
    dataset = read([write(tmp_path, {f"{number}.png": png(7) for number in range(5)})])
    assert len(joined_parts(dataset)) == 5


def test_too_little_and_nothing_are_refused(tmp_path):
    for folder, files in (("none", {}), ("one", {"a.png": png(1)}), ("broken", {f"{n}.png": b"x" for n in range(3)})):
        (tmp_path / folder).mkdir()
        with pytest.raises(TrainingDataError, match=folder):
            read([write(tmp_path / folder, files)])
    with pytest.raises(TrainingDataError, match="not there"):
        read([tmp_path / "nowhere"])


def test_more_images_than_the_memory_holds_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(decoding, "_half_of_memory", lambda: 1000)
    with pytest.raises(TrainingDataError, match="half of this machine's memory"):
        read([write(tmp_path, CLASSES)])


def test_images_larger_than_training_needs_are_kept_smaller(tmp_path):
    write(tmp_path, {"a.png": png(1, (400, 100)), "b.png": png(2, (30, 60))})
    dataset = read([tmp_path], Reading(longest_side=80))
    assert {part.images[0].shape[:2] for part in (dataset.train, dataset.validation)} == {(20, 80), (60, 30)}


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_training_sees_what_rectify_shows_its_nets(dtype, channels, tmp_path):
    pixels = np.random.default_rng(0).integers(0, np.iinfo(dtype).max + 1, (9, 7, channels)).astype(dtype)
    (kept,) = decoding.decoded_images(Found([Entry("x", lambda: pixels, Row("x"), None)]), Reading())
    np.testing.assert_allclose(kept.pixels / 255, small_copy(pixels), atol=1 / 255)


def test_what_stn_has_made_is_not_learned_from_unless_a_table_names_it(tmp_path):
    made = {"cat/0.rectified.png": png(90), "cat/0.rectified.json": "{}", "dog/10.inspect.png": png(91)}
    record = {"source": {"relative": "../cat/0.png"}, "output": {"relative": "./cat/0.png"}}
    made |= {"out/theta.jsonl": json.dumps(record), "out/cat/0.png": png(92)}
    dataset = read([write(tmp_path, CLASSES | made | {"theta.jsonl": "{}"})])
    assert known(dataset) == EXPECTED
    assert [len(problem.where) for problem in dataset.problems] == [3]
    crops = {f"{level}.rectified.png": png(level) for level in range(8)}
    rows = "".join(f"{name},{'even' if int(name[0]) % 2 == 0 else 'odd'}\n" for name in crops)
    named = read([write(tmp_path / "named", crops | {"labels.csv": f"file,class\n{rows}"})])
    assert known(named) == {level: "even" if level % 2 == 0 else "odd" for level in range(8)}


def test_a_table_of_another_name_is_not_passed_over_in_silence(tmp_path):
    dataset = read([write(tmp_path, CLASSES | {"gt.csv": "file,text\ncat/0.png,zero\n"})])
    assert known(dataset) == EXPECTED
    assert [(problem.what, problem.where) for problem in dataset.problems] == [("the table is not read", ("gt.csv",))]
