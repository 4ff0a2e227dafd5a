"""What a record says of a crop, put to use by libraries that know nothing of stn: it gives that crop."""

import json
import shutil

import cv2
import msgspec
import numpy as np
import pytest
from PIL import Image, ImageOps
from scipy.interpolate import RBFInterpolator
from scipy.ndimage import map_coordinates

from stn_cli.geometry import TransformSpec, pixel_points
from stn_cli.rectify.record import describe
from tests.geometry.examples import example, points_in
from tests.running import SAMPLES, records, stn

WORDS = SAMPLES.parent / "words"
HALF_A_PIXEL = np.array([[1.0, 0.0, 0.5], [0.0, 1.0, 0.5], [0.0, 0.0, 1.0]])
SIDEWAYS = "photo-1-sideways.png"


def seen(path):
    """An image as a person sees it."""
    with Image.open(path) as image:
        return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))


def rectified(source, out, model):
    run = stn("rectify", source, "-o", out, "-m", model, "--always", "--resample", "bilinear", "--format", "png")
    assert run.returncode == 0, run.stderr
    return {name: (record, seen(out / record["output"]["path"])) for name, record in records(out).items()}


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    folder = tmp_path_factory.mktemp("digits")
    shutil.copytree(SAMPLES, folder / "in")
    with Image.open(SAMPLES / "photo-1.jpg") as image:
        exif = Image.Exif()
        exif[0x0112] = 6  # to be turned clockwise
        image.transpose(Image.Transpose.ROTATE_90).save(folder / "in" / SIDEWAYS, exif=exif)
    return folder / "in", rectified(folder / "in", folder / "out", "digits")


@pytest.fixture(scope="module")
def words(tmp_path_factory):
    return rectified(WORDS, tmp_path_factory.mktemp("words"), "text")


def test_opencv_cuts_the_crop_with_the_pixel_matrix(digits):
    folder, found = digits
    assert found[SIDEWAYS][0]["source"]["exif_orientation"] == 6
    for name, (record, crop) in found.items():
        matrix = np.linalg.inv(HALF_A_PIXEL) @ record["pixel_matrix"] @ HALF_A_PIXEL
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        size = record["output"]["width"], record["output"]["height"]
        cut = cv2.warpPerspective(seen(folder / name), matrix, size, flags=flags, borderMode=cv2.BORDER_REPLICATE)
        assert cut.shape == crop.shape
        assert np.abs(cut.astype(float) - crop).mean() < 1, name


def test_the_turned_file_of_a_photograph_is_the_photograph(digits):
    _, found = digits
    (upright, _), (sideways, _) = found["photo-1.jpg"], found[SIDEWAYS]
    np.testing.assert_allclose(sideways["pixel_matrix"], upright["pixel_matrix"], atol=0.01)


@pytest.mark.parametrize("name", sorted(path.name for path in WORDS.iterdir() if path.suffix != ".json"))
def test_scipy_cuts_the_crop_with_the_control_points(words, name):
    record, crop = words[name]
    layout = np.array([(x, y) for y in (-1, 1) for x in np.linspace(-1, 1, 10)])
    spline = RBFInterpolator(layout * (9, 1), record["control_points"], kernel="thin_plate_spline")
    height, width = crop.shape[:2]
    y, x = np.meshgrid(
        (np.arange(height) + 0.5) * 2 / height - 1, (np.arange(width) + 0.5) * 2 / width - 1, indexing="ij"
    )
    read = spline(np.stack((9 * x.ravel(), y.ravel()), axis=1)).T[::-1] - 0.5
    image = seen(WORDS / name).astype(float)
    cut = np.stack([map_coordinates(channel, read, order=1, mode="nearest") for channel in np.moveaxis(image, 2, 0)], 1)
    assert np.abs(cut.reshape(crop.shape) - crop).mean() < 1


def test_stages_of_a_cascade_are_applied_from_the_last_to_the_first():
    size, cascade = (40, 60), example("cascade")
    (fields,) = json.loads(msgspec.json.encode(describe([cascade], [size], [(20, 30)])))
    outer, inner = (
        TransformSpec(stage["kind"], stage.get("layout"))(np.array(stage["theta"]))
        for stage in fields["transform"]["stages"]
    )
    points = points_in(cascade)
    np.testing.assert_allclose(outer(inner(points)), cascade(points), atol=1e-12)
    np.testing.assert_allclose(
        fields["outline"][0], pixel_points(outer(inner(np.array([[-1.0, -1.0]]))), size)[0], atol=1e-3
    )
