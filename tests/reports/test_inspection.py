"""The picture and the numbers of an inspection, on locations made by hand."""

import dataclasses
import math

import cv2
import msgspec
import numpy as np
import PIL.Image
import pytest

from stn_cli.checkpoints import open_checkpoint
from stn_cli.engines.engine import Located
from stn_cli.engines.onnx_engine import OnnxEngine
from stn_cli.geometry import Affine, BorderLayout, GridLayout, Similarity, ThinPlateSpline, pixel_points
from stn_cli.rectify.options import RectifyOptions
from stn_cli.reports.inspection import inspect, reading_angle
from stn_cli.reports.overlay import overlay

UPPER, LOWER, BETWEEN, CROP = (213, 94, 0), (0, 114, 178), (204, 121, 167), (240, 228, 66)
FELT = (90, 20, 120)
"""Colour of the images: nothing is drawn in it."""
BORDER = BorderLayout(10)
SQUARE = Affine(np.array([0.5, 0.0, 0.1, 0.0, 0.5, -0.1]))


class Told(OnnxEngine):
    """Finds what it is told."""

    def __init__(self, transform, confidence=1.0, **habits):
        checkpoint = open_checkpoint("digits")
        header = msgspec.structs.replace(checkpoint.header, min_confidence=0.5, **habits)
        super().__init__(dataclasses.replace(checkpoint, header=header))
        self.located = Located(transform[None], np.array([confidence]), [(None, None)])

    def locate(self, *_):
        return self.located


@pytest.fixture
def look(tmp_path):
    """Inspects pixels, by default of felt, of which a given location is found."""

    def inspect_pixels(transform, confidence=1.0, pixels=None, always=False, **habits):
        felt = np.full((60, 90, 3), FELT, np.uint8)
        PIL.Image.fromarray(felt if pixels is None else pixels).save(tmp_path / "felt.png")
        return inspect(tmp_path / "felt.png", Told(transform, confidence, **habits), RectifyOptions(always=always))

    return inspect_pixels


def arc(degrees, layout=BORDER):
    """A spline along an arc of a circle, normalised, its middle upright."""
    angle, distance = layout.points[:, 0] * math.radians(degrees) / 2, 0.5 - 0.2 * layout.points[:, 1]
    return ThinPlateSpline(np.stack((distance * np.sin(angle), -distance * np.cos(angle)), -1).ravel(), layout)


def spots(picture, colour):
    """Centres (x, y) of the dots of a colour, left to right, (n, 2)."""
    mask = np.all(picture == colour, axis=-1).astype(np.uint8)
    _, _, stats, centres = cv2.connectedComponentsWithStats(mask)
    found = [tuple(centre + 0.5) for centre, box in zip(centres, stats, strict=True) if box[cv2.CC_STAT_AREA] > 20]
    return np.array(sorted(found[1:])).reshape(-1, 2)  # the first is all that is not of the colour


def corner(picture):
    """Left and top of an image of felt in the picture; the crop is to the right of it and begins no higher."""
    rows, columns = np.nonzero(np.all(picture == FELT, axis=-1))
    return columns.min(), rows.min()


@pytest.mark.parametrize("degrees", [0.0, 30.0, -75.0, 120.0, 180.0])
def test_the_angle_is_that_of_the_reading_direction_in_pixels(degrees):
    size, angle = (100, 100), math.radians(degrees)
    turned = reading_angle(Similarity(np.array([-0.5, angle, 0.2, 0.1])), size)
    assert math.remainder(turned - degrees, 360) == pytest.approx(0.0, abs=1e-6)


def test_the_angle_counts_pixels_not_normalised_units():
    diagonal = Affine(np.array([0.5, 0.0, 0.0, 0.5, 1.0, 0.0]))  # along (1, 1) of a square, (2, 1) of this image
    assert reading_angle(diagonal, (100, 200)) == pytest.approx(math.degrees(math.atan2(1, 2)))


@pytest.mark.parametrize("degrees", [40, 180, 300])
def test_the_angle_of_an_arc_is_that_of_its_middle(degrees):
    assert reading_angle(arc(degrees), (80, 80)) == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize("frame", [SQUARE, arc(60), arc(60, GridLayout(4))])
def test_fiducials_lie_where_they_were_found(look, frame):
    inspection = look(frame)
    picture = overlay(inspection)
    origin = corner(picture)
    points = inspection.record.fiducials
    rows = frame.layout.points[:, 1] if isinstance(frame, ThinPlateSpline) else np.array([-1, -1, 1, 1])
    for colour, there in ((UPPER, rows == -1), (LOWER, rows == 1), (BETWEEN, np.abs(rows) < 1)):
        expected = np.array(sorted(np.array(points)[there].tolist())).reshape(-1, 2) * 8 + origin
        np.testing.assert_allclose(spots(picture, colour), expected, atol=0.7)


def test_the_first_fiducial_is_ringed(look):
    inspection = look(SQUARE)
    picture = overlay(inspection)
    left, top = corner(picture)
    ringed = []
    for x, y in inspection.record.fiducials:
        place = round(left + 8 * x), round(top + 8 * y)
        disc = picture[place[1] - 9 : place[1] + 10, place[0] - 9 : place[0] + 10].reshape(-1, 3)
        ringed.append(int(np.all(disc == 255, axis=-1).sum()))
    assert ringed[0] > 2 * max(ringed[1:])


def test_the_crop_stands_beside_the_image_pixel_for_pixel(look):
    noise = np.random.default_rng(0).integers(0, 256, (60, 90, 3)).astype(np.uint8)
    inspection = look(SQUARE, pixels=noise)
    assert inspection.crop.shape == (30, 45, 3)
    enlarged = np.repeat(np.repeat(inspection.crop, 10, axis=0), 10, axis=1)  # 45 becomes 450, of at most 480
    picture = overlay(inspection)
    right = picture[:, -450:]
    top = next(y for y in range(right.shape[0] - 300) if np.array_equal(right[y], enlarged[0]))
    np.testing.assert_array_equal(right[top : top + 300], enlarged)


def test_a_crop_with_its_margin_is_outlined_and_where_there_is_none_it_is_not(look):
    margin = {"crop_margin": (0.3, 0.1)}
    assert np.any(np.all(overlay(look(SQUARE, **margin)) == CROP, axis=-1))
    doubtful = look(SQUARE, 0.2, **margin)
    assert doubtful.record.status == "unchanged"
    assert not np.any(np.all(overlay(doubtful) == CROP, axis=-1))
    assert look(SQUARE, 0.2, always=True, **margin).record.status == "done"


def test_the_numbers_are_of_the_frame_and_of_the_crop(look):
    record = look(SQUARE, crop_margin=(0.5, 0.25)).record
    assert (record.frame.width, record.frame.height, record.frame.angle) == (pytest.approx(45), pytest.approx(30), 0)
    assert (record.crop.width, record.crop.height) == (75, 45)
    assert record.fiducials[0] == pytest.approx(pixel_points(np.array([-0.4, -0.6]), (60, 90)))
    assert record.outline[0] == pytest.approx((27 - 15, 12 - 7.5))


@pytest.mark.parametrize(
    ("size", "width"),
    [((3, 5), 800), ((60, 90), 720), ((799, 20), 20), ((900, 1200), 1200), ((400, 3000), 1600), ((4000, 20), 8)],
)
def test_small_images_are_enlarged_by_whole_factors_and_large_ones_shrunk(look, size, width):
    picture = overlay(look(SQUARE, pixels=np.full((*size, 3), FELT, np.uint8)))
    left, top = corner(picture)
    first_row = np.all(picture[top, left:] == FELT, axis=-1)
    assert first_row.argmin() == width


@pytest.mark.parametrize(
    ("pixels", "shown"),
    [
        (np.full((20, 20), 77, np.uint8), (77, 77, 77)),
        (np.full((20, 20), 0x8080, np.uint16), (128, 128, 128)),
        (np.full((20, 20, 4), (200, 100, 0, 0), np.uint8), (255, 255, 255)),
        (np.full((20, 20, 4), (200, 100, 0, 255), np.uint8), (200, 100, 0)),
    ],
)
def test_every_kind_of_pixels_is_shown(look, pixels, shown):
    inspection = look(SQUARE, pixels=pixels)
    assert inspection.pixels.dtype == pixels.dtype
    picture = overlay(inspection)
    assert tuple(picture[picture.shape[0] // 2 - 10, -20]) == shown


@pytest.mark.parametrize(
    "transform", [Affine(np.full(6, np.nan)), Affine(np.array([1e9, 0, 0, 0, 1e9, 0.0])), Affine(np.zeros(6))]
)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_a_prediction_without_sense_is_drawn_as_well_as_can_be(look, transform):
    inspection = look(transform)
    picture = overlay(inspection)
    assert inspection.record.status == "unchanged"
    assert b"NaN" not in inspection.record.to_json()
    assert min(corner(picture)) >= 16
