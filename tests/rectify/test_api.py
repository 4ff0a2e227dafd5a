"""Rectifying from Python."""

import json
from hashlib import sha256

import numpy as np
import pytest
from PIL import Image

import stn_cli
from stn_cli.errors import ImageError, UsageError
from stn_cli.geometry import outline
from tests.running import SAMPLES, stn

SURE, GREY = SAMPLES / "rotated-1.png", np.full((40, 56), 128, np.uint8)


@pytest.fixture(scope="module")
def model():
    return stn_cli.load("digits")


def test_a_height_gives_the_width(model):
    assert model(SURE, height=50).crop.shape == (50, 50, 1)  # the frame of a digit is a square
    assert model(GREY, height=20).crop.shape == (20, 28)  # passes through, resized


def test_always_rectifies_what_would_pass_through(model):
    doubted, forced = model(GREY), model(GREY, always=True)
    assert doubted.unchanged.startswith("confidence")
    np.testing.assert_array_equal(doubted.crop, GREY)
    np.testing.assert_array_equal(doubted.transform(outline()), outline())
    assert forced.unchanged is None
    assert np.abs(forced.transform(outline()) - outline()).max() > 0.01


def test_arguments_that_exclude_each_other_are_refused(model):
    for arguments in ({"always": True, "min_confidence": 0.5}, {"height": 20, "size": (20, 20)}):
        with pytest.raises(UsageError):
            model(GREY, **arguments)


@pytest.mark.parametrize("image", [Image.new("L", (30, 30)), [[0, 1], [2, 3]], None])
def test_what_is_neither_a_path_nor_an_array_is_refused(model, image):
    with pytest.raises(ImageError, match="neither a path nor a NumPy array"):
        model(image)


def test_an_image_that_cannot_be_read_is_named(model, tmp_path):
    cut = tmp_path / "cut.png"
    cut.write_bytes(SURE.read_bytes()[:200])
    for path, reason in ((tmp_path / "gone.png", "no such file"), (cut, "is truncated")):
        with pytest.raises(ImageError, match=reason) as raised:
            model(path)
        assert str(raised.value).startswith(f"{path} ")
        assert "theta.jsonl" not in raised.value.remedy


@pytest.mark.parametrize("shape", [(5,), (4, 5, 0), (4, 5, 5), (2, 4, 5, 3), (0, 5)])
def test_pixels_of_another_shape_are_refused(model, shape):
    with pytest.raises(ImageError, match="shape"):
        model(np.zeros(shape, np.uint8))


@pytest.mark.parametrize("dtype", [bool, np.int8, np.int32, np.uint32, np.float32, object])
def test_pixels_of_another_type_are_refused(model, dtype):
    with pytest.raises(ImageError, match="type"):
        model(np.zeros((9, 9), dtype))


def in_mode(mode):
    """Pixels of a sample image as a PNG of that mode holds them."""
    grey = np.asarray(Image.open(SURE).convert("L"))
    photo = np.asarray(Image.open(SAMPLES / "photo-2.jpg"))
    alpha = np.broadcast_to(np.linspace(0, 255, photo.shape[1]).astype(np.uint8), photo.shape[:2])
    return {"L": grey, "I;16": grey * np.uint16(257), "RGB": photo, "RGBA": np.dstack((photo, alpha))}[mode]


@pytest.mark.parametrize("mode", ["L", "I;16", "RGB", "RGBA"])
def test_an_image_becomes_what_the_command_writes(model, tmp_path, mode):
    pixels, path = in_mode(mode), tmp_path / "image.png"
    Image.fromarray(pixels).save(path)
    record = json.loads(stn("rectify", path, "-m", "digits", "-o", tmp_path / "out", "--json").stdout)
    result = model(pixels)
    with Image.open(tmp_path / "out" / path.name) as written:
        assert written.mode == mode
        np.testing.assert_array_equal(np.asarray(written), result.crop)
    np.testing.assert_allclose(result.transform.theta, record["transform"]["theta"], atol=1e-9)
    assert (result.label, result.label_confidence) == (record["label"]["value"], record["label"]["confidence"])
    assert sha256(path.read_bytes()).hexdigest() == record["source"]["sha256"]


def test_the_package_tells_what_it_has():
    assert {"load", "train", "SpatialTransformer"} <= set(dir(stn_cli))
