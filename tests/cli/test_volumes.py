"""Volumes as a user has them: a folder of arrays and stacks in, straightened ones out."""

import json

import numpy as np
import pytest
import tifffile
import torch
from scipy import ndimage

import stn_cli
from stn_cli.checkpoints.export import write_checkpoint
from stn_cli.checkpoints.header import Metrics
from stn_cli.errors import ImageError, UsageError
from stn_cli.networks.config import LocalizerConfig, ModelConfig, TransformConfig
from stn_cli.networks.model import Rectifier
from tests.running import records, stn
from tests.training.test_volumes import write_folders

CONFIG = """
name = "bars"
steps = 12
batch_size = 16
validate_every = 6
canvas = 16
classifier_size = [16, 16, 16]
classifier_widths = [4, 8]
learning_rate = 1e-2
localizer_scale = 1.0
"""


@pytest.fixture(scope="module")
def bars(tmp_path_factory):
    """Class folders of arrays, and a model of them."""
    root = tmp_path_factory.mktemp("volumes")
    write_folders(root / "bars")
    (root / "config.toml").write_text(CONFIG)
    run = stn("train", "bars", "-o", "run", "--config", "config.toml", "--workers", 0, cwd=root)
    assert run.returncode == 0, run.stderr
    assert "9 volumes to learn from" in run.stderr or "8 volumes to learn from" in run.stderr
    assert "affine3d" in run.stderr
    return root


@pytest.fixture
def stacks(tmp_path):
    """Volumes of several types, one as a TIFF of pages, and a file that is none."""
    folder = tmp_path / "in"
    (folder / "deep").mkdir(parents=True)
    rng = np.random.default_rng(0)
    smooth = ndimage.gaussian_filter(rng.uniform(0, 60_000, (12, 14, 16)), 2)
    np.save(folder / "one.npy", smooth.astype(np.float32))
    np.save(folder / "deep" / "two.npy", smooth.astype(np.int16))
    tifffile.imwrite(folder / "three.tif", smooth.astype(np.uint16), photometric="minisblack")
    (folder / "four.npy").write_bytes(b"\x93NUMPY no array")
    return folder


def read_at(record, volume, shape, **outside):
    """What SciPy reads where a record says that a crop of `shape` lies."""
    voxels = np.indices(shape)[::-1].reshape(3, -1) + 0.5
    at = np.array(record["pixel_matrix"]) @ np.concatenate((voxels, np.ones((1, voxels.shape[1]))))
    return ndimage.map_coordinates(volume, at[2::-1] - 0.5, order=1, **outside).reshape(shape)


def test_a_folder(bars, stacks, tmp_path):
    out = tmp_path / "out"
    run = stn("rectify", stacks, "-o", out, "-m", bars / "run", "--always")
    assert run.returncode == 3, run.stderr
    assert "failed: " in run.stderr
    found = records(out)
    assert {name: record["status"] for name, record in found.items()} == {
        **dict.fromkeys(("one.npy", "two.npy", "three.tif"), "done"),
        "four.npy": "failed",
    }
    assert "is damaged" in found["four.npy"]["error"]["message"]
    for name, read, dtype in (("one.npy", np.load, np.float32), ("three.tif", tifffile.imread, np.uint16)):
        record, crop = found[name], read(out / name)
        source, output = record["source"], record["output"]
        assert (crop.shape, crop.dtype) == ((output["depth"], output["height"], output["width"]), dtype)
        assert (source["depth"], source["height"], source["width"]) == (12, 14, 16)
        assert record["transform"]["kind"] == "affine3d"
        assert record["label"]["value"] in ("across", "deep")
        volume = read(stacks / name).astype(float)
        expected = read_at(record, volume, crop.shape, mode="nearest")
        assert np.abs(crop - expected).max() < 0.02 * np.ptp(volume)
        corners = np.array(record["pixel_matrix"])[:3] @ (*crop.shape[::-1], 1)
        np.testing.assert_allclose(record["fiducials"][-1], corners, atol=0.01)


def test_the_same_again_does_nothing_and_something_else_does(bars, stacks, tmp_path):
    (stacks / "four.npy").unlink()
    again = ("rectify", stacks, "-o", tmp_path / "out", "-m", bars / "run", "--always")
    assert stn(*again).returncode == 0
    before = (tmp_path / "out" / "one.npy").stat().st_mtime_ns
    second = stn(*again)
    assert "3 inputs: 3 skipped" in second.stderr
    assert (tmp_path / "out" / "one.npy").stat().st_mtime_ns == before
    third = stn(*again, "--size", "4x5x6")
    assert "3 inputs: 3 done" in third.stderr, third.stderr
    assert np.load(tmp_path / "out" / "one.npy").shape == (4, 5, 6)


def test_one_volume_beside_itself_in_another_format(stacks, tmp_path):
    write_model(tmp_path / "far", zoom=1.25)
    run = stn("rectify", stacks / "three.tif", "-m", tmp_path / "far", "--always", "--format", "npy", "--fill", "white")
    assert run.returncode == 0, run.stderr
    record = json.loads((stacks / "three.rectified.json").read_text())
    assert (record["status"], record["output"]["format"]) == ("done", "NPY")
    crop, volume = np.load(stacks / "three.rectified.npy"), tifffile.imread(stacks / "three.tif").astype(float)
    assert crop.dtype == np.uint16
    white = volume.max()
    expected = read_at(record, volume, crop.shape, mode="grid-constant", cval=white)
    assert np.abs(crop - expected).max() < 0.02 * np.ptp(volume)
    assert np.abs(expected - read_at(record, volume, crop.shape, mode="nearest")).max() > 0.04 * np.ptp(volume)


def test_what_is_doubtful_passes_through_as_it_is(bars, stacks, tmp_path):
    run = stn("rectify", stacks / "one.npy", "-o", tmp_path, "-m", bars / "run", "--min-confidence", 1)
    assert run.returncode == 0, run.stderr
    record = records(tmp_path)["one.npy"]
    assert (record["status"], record["reason"].partition(" ")[0]) == ("unchanged", "confidence")
    assert (tmp_path / "one.npy").read_bytes() == (stacks / "one.npy").read_bytes()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--size", "8x8"), "DEPTHxHEIGHTxWIDTH"),
        (("--size", "1x8x8"), "at least 2x2x2"),
        (("--height", 8), "--height: of images"),
        (("--quality", 8, "--optimize"), "--quality, --optimize: of images"),
        (("--allow-format", "JPEG2000"), "--allow-format: of images"),
        (("--resample", "bicubic"), "bicubic: of images"),
        (("--format", "png"), "png holds no volume"),
    ],
)
def test_options_of_images_are_refused(bars, stacks, options, message):
    run = stn("rectify", stacks / "one.npy", "-m", bars / "run", *options)
    assert run.returncode == 2, run.stderr
    assert message in run.stderr
    assert not list(stacks.glob("*rectified*"))


def test_a_size_of_three_sides_is_no_size_of_an_image(stacks):
    run = stn("rectify", stacks / "three.tif", "-m", "digits", "--size", "8x8x8")
    assert run.returncode == 2
    assert "--size is HEIGHTxWIDTH" in run.stderr


def test_figures_and_the_worst(bars, tmp_path):
    run = stn("evaluate", bars / "run", bars / "bars", "-o", tmp_path, "--json")
    assert run.returncode == 0, run.stderr
    figures = json.loads(run.stdout)
    assert figures["images"] == 10
    assert sum(row["images"] for row in figures["classes"]) == 10
    assert (tmp_path / "worst.png").exists()


def test_images_and_volumes_are_not_mixed_up(bars, tmp_path):
    run = stn("evaluate", "digits", bars / "bars")
    assert run.returncode == 9
    assert "the data is volumes, the model is of images" in run.stderr
    picture = stn("inspect", bars / "bars" / "deep" / "0.npy", "-m", bars / "run", "-o", tmp_path / "x.png")
    assert picture.returncode == 2
    assert "is a model of volumes" in picture.stderr


def test_the_model_reproduces_itself(bars):
    run = stn("models", "verify", bars / "run")
    assert run.returncode == 0, run.stderr
    assert "label_confidence" in run.stdout + run.stderr
    info = stn("models", "info", bars / "run")
    assert info.returncode == 0, info.stderr
    assert "sees 16x16x16x1" in info.stdout


def test_from_python(bars):
    model = stn_cli.load(bars / "run")
    path = bars / "bars" / "deep" / "0.npy"
    voxels = np.load(path)
    one, other = model(path, always=True), model(voxels, always=True)
    np.testing.assert_array_equal(one.crop, other.crop)
    assert one.crop.dtype == voxels.dtype
    assert model(voxels, size=(3, 4, 5), always=True).crop.shape == (3, 4, 5)
    with pytest.raises(ImageError, match="has 2 dimensions"):
        model(voxels[0])
    with pytest.raises(UsageError):
        model(voxels, size=(3, 4))


def write_model(folder, zoom=1.0):
    """A model whose net has learned nothing: it finds every volume upright, in a box `zoom` times as large."""
    stage = LocalizerConfig(
        transform=TransformConfig("affine3d"), input_size=(16, 16, 16), widths=(2, 2), hidden=4, channels=1
    )
    model = Rectifier(ModelConfig(stages=(stage,))).eval()
    with torch.no_grad():
        model.transformer.stages[0].localizer.head.bias[[0, 5, 10]] += zoom - 1
    write_checkpoint(model, folder, name="still", description="", training={}, metrics=Metrics())


@pytest.fixture(scope="module")
def never_moves(tmp_path_factory):
    folder = tmp_path_factory.mktemp("still")
    write_model(folder)
    return stn_cli.load(folder)


@pytest.mark.parametrize("shape", [(12, 12, 12), (4, 40, 40), (30, 6, 12)])
def test_an_upright_volume_of_any_aspect_is_known_as_such(never_moves, shape):
    voxels = np.random.default_rng(0).random(shape)
    found = never_moves(voxels)
    assert "straight already" in found.unchanged
    assert found.quality.out_of_frame == 0
    np.testing.assert_array_equal(found.crop, voxels)
    always = never_moves(voxels, always=True)
    assert always.unchanged is None
    np.testing.assert_allclose(always.crop, voxels, atol=1e-6)


def test_an_upright_volume_of_any_aspect_is_evaluated_as_such(never_moves, tmp_path):
    for number in range(4):
        np.save(tmp_path / f"{number}.npy", np.random.default_rng(number).random((8, 16, 16)))
    run = stn("evaluate", never_moves.engine.checkpoint.path, tmp_path, "-o", tmp_path / "out", "--json")
    assert run.returncode == 0, run.stderr
    theta = json.loads(run.stdout)["theta"]
    assert theta["zoom"]["mean"] == pytest.approx(1)
    assert theta["out_of_frame"]["mean"] == 0
    assert (tmp_path / "out" / "worst.png").exists()
