"""What is asked of a crop reaches its file, from end to end; Pillow and OpenCV say what is in it."""

import json
import shutil

import cv2
import numpy as np
import pytest
from PIL import Image, ImageCms

from stn_cli.checkpoints import open_checkpoint
from tests.checkpoints.strangers import rewrite
from tests.running import SAMPLES, records, rectify, stn

PHOTO = SAMPLES / "photo-1.jpg"


def test_another_model_does_all_of_it_again(tmp_path):
    model = shutil.copytree(open_checkpoint("digits").path, tmp_path / "model")
    rewrite(model, header=lambda header: header.update(crop_margin=[0.25, 0.5]))
    image = SAMPLES / "rotated-3.png"
    assert rectify(image, "-o", "out", cwd=tmp_path).returncode == 0
    run = stn("rectify", image, "-o", "out", "-m", "model", cwd=tmp_path)
    assert "1 done" in run.stderr, run.stderr
    assert stn("rectify", image, "-o", "fresh", "-m", "model", cwd=tmp_path).returncode == 0
    assert (tmp_path / "out" / image.name).read_bytes() == (tmp_path / "fresh" / image.name).read_bytes()


def test_a_colour_profile_goes_with_the_crop(tmp_path):
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    names = ("a.png", "b.jpg", "c.tif", "d.webp")
    with Image.open(PHOTO) as image:
        for name in names:
            image.save(tmp_path / name, icc_profile=profile)
    run = rectify(*names, "-o", "out", "--always", cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    for name, record in records(tmp_path / "out").items():
        assert record["status"] == "done"
        with Image.open(tmp_path / "out" / name) as crop:
            assert crop.info["icc_profile"] == profile, name


def tables_of(path):
    """The quantisation tables of a JPEG, and the sampling of its components."""
    with Image.open(path) as image:
        return image.quantization, image.layer


def test_a_jpeg_is_as_fine_as_before_or_as_asked(tmp_path):
    with Image.open(PHOTO) as image:
        image.save(tmp_path / "a.jpg", quality=40, subsampling=2)
        image.save(tmp_path / "asked.jpg", quality=15)
    assert rectify("a.jpg", "-o", "same", "--always", cwd=tmp_path).returncode == 0
    assert tables_of(tmp_path / "same" / "a.jpg") == tables_of(tmp_path / "a.jpg")
    for out, more in (("turned", "--always"), ("passed", "--min-confidence=1")):
        assert rectify("a.jpg", "-o", out, more, "--quality", "15", cwd=tmp_path).returncode == 0
        assert tables_of(tmp_path / out / "a.jpg")[0] == tables_of(tmp_path / "asked.jpg")[0], out


@pytest.mark.parametrize(("resample", "way"), [("nearest", cv2.INTER_NEAREST), ("bicubic", cv2.INTER_CUBIC)])
def test_the_crop_is_read_as_asked(tmp_path, resample, way):
    noise = np.random.default_rng(0).integers(0, 255, (60, 60), np.uint8)
    Image.fromarray(noise).save(tmp_path / "x.png")
    asked = ("--always", "--resample", resample, "--size", "90x90", "--json")
    run = rectify("x.png", "-o", "out", *asked, cwd=tmp_path)
    to_edge = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]])
    matrix = np.linalg.inv(to_edge) @ np.array(json.loads(run.stdout)["pixel_matrix"]) @ to_edge
    with Image.open(tmp_path / "out" / "x.png") as image:
        crop = np.asarray(image).astype(float)

    def off(kind):
        flags = kind | cv2.WARP_INVERSE_MAP
        return np.abs(cv2.warpPerspective(noise, matrix, (90, 90), flags=flags, borderMode=1) - crop).mean()

    assert off(way) < 0.3 * off(cv2.INTER_LINEAR)


def test_optimized_files_are_smaller_and_hold_the_same(tmp_path):
    for out, more in (("usual", ()), ("small", ("--optimize",))):
        assert rectify(PHOTO, "-o", tmp_path / out, "--always", "--format", "png", *more).returncode == 0
    usual, small = (tmp_path / out / "photo-1.png" for out in ("usual", "small"))
    assert small.stat().st_size < usual.stat().st_size
    with Image.open(usual) as one, Image.open(small) as other:
        np.testing.assert_array_equal(np.asarray(one), np.asarray(other))


def test_the_record_says_what_the_file_is(tmp_path):
    with Image.open(PHOTO) as image:
        image.convert("P").save(tmp_path / "p.gif")
        image.convert("CMYK").save(tmp_path / "c.jpg")
    assert rectify("p.gif", "c.jpg", "-o", "out", "--always", cwd=tmp_path).returncode == 0
    for name, record in records(tmp_path / "out").items():
        with Image.open(tmp_path / name) as image:
            assert (record["source"]["format"], record["source"]["mode"]) == (image.format, image.mode)
        assert record["source"]["bytes"] == (tmp_path / name).stat().st_size
