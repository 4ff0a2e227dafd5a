"""A model with several heads: each writes its own crop, and what is read is read from all of them."""

import json

import numpy as np
import pytest

from stn_cli.checkpoints import open_checkpoint
from stn_cli.engines.engine import small_copy
from stn_cli.engines.onnx_engine import OnnxEngine
from stn_cli.engines.torch_engine import TorchEngine
from stn_cli.engines.verify import verify
from stn_cli.images import decode
from tests.running import SAMPLES, records, stn
from tests.training.drawn import dataset, trained

NAMES = ("photo-1.jpg", "rotated-1.png")


@pytest.fixture(scope="module")
def two_headed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("heads")
    trained(dataset(), folder / "run", heads=2, steps=20, validate_every=20, localizer_scale=30.0)
    (folder / "photos").mkdir()
    for name in NAMES:
        (folder / "photos" / name).write_bytes((SAMPLES / name).read_bytes())
    return folder


def test_it_reproduces_itself_on_both_engines(two_headed):
    checkpoint = open_checkpoint(str(two_headed / "run"))
    assert {"localizer.onnx", "head-2-localizer.onnx", "classifier.onnx"} == set(checkpoint.header.graphs)
    assert len(list(verify(checkpoint))) >= 4
    images = [decode(two_headed / "photos" / name).pixels for name in NAMES]
    smalls, sizes = [small_copy(image) for image in images], [image.shape[:2] for image in images]
    found = []
    for head in (0, 1):
        onnx, torch = OnnxEngine(checkpoint, head=head), TorchEngine(checkpoint, "cpu", head)
        ours, theirs = onnx.locate(smalls, sizes), torch.locate(smalls, sizes)
        np.testing.assert_allclose(ours.transforms.theta, theirs.transforms.theta, atol=1e-4)
        assert [label for label, _ in ours.labels] == [label for label, _ in theirs.labels]
        found.append(ours)
    assert np.abs(found[0].transforms.theta - found[1].transforms.theta).max() > 0.01
    assert found[0].labels == found[1].labels


def test_each_head_writes_its_own_crops(two_headed, tmp_path):
    run = stn("rectify", two_headed / "photos", "-m", two_headed / "run", "-o", tmp_path / "out", "--always")
    assert run.returncode == 0, run.stderr
    crops = {}
    for head in (1, 2):
        folder = tmp_path / "out" / f"head-{head}"
        assert set(records(folder)) == set(NAMES)
        crops[head] = {name: (folder / name).read_bytes() for name in NAMES}
    assert crops[1] != crops[2]
    again = stn("rectify", two_headed / "photos", "-m", two_headed / "run", "-o", tmp_path / "out", "--always")
    assert again.stderr.count("2 skipped") == 2


def test_what_stops_one_head_stops_all(two_headed, tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "broken.png").write_bytes(b"")
    run = stn("rectify", "in", "-m", two_headed / "run", "-o", "out", "--fail-fast", cwd=tmp_path)
    assert run.returncode == 3
    assert not (tmp_path / "out" / "head-2").exists()


def test_one_head_alone_is_written_where_one_asks(two_headed, tmp_path):
    out = tmp_path / "second"
    run = stn(
        "rectify", two_headed / "photos", "-m", two_headed / "run", "-o", out, "--head", "2", "--json", "--always"
    )
    assert run.returncode == 0, run.stderr
    engine = OnnxEngine(open_checkpoint(str(two_headed / "run")), head=1)
    for name, record in zip(NAMES, map(json.loads, run.stdout.splitlines()), strict=True):
        image = decode(two_headed / "photos" / name).pixels
        (location,) = engine.locate([small_copy(image)], [image.shape[:2]])
        np.testing.assert_allclose(record["transform"]["theta"], location.transform.theta, atol=1e-6)
        assert (out / name).exists()


@pytest.mark.parametrize("arguments", [["--head", "3", "-o", "out"], [], ["-o", "photos/out"], ["-o", "one.png"]])
def test_a_head_that_is_not_there_and_crops_that_would_collide_are_refused(two_headed, arguments):
    run = stn("rectify", "photos", "-m", "run", *arguments, cwd=two_headed)
    assert run.returncode == 2, run.stderr
    assert "heads" in run.stderr
    assert not (two_headed / "photos" / "out").exists()
