"""From a location to a crop: whether at all, what it takes in, and how large."""

from pathlib import Path

import msgspec
import numpy as np
import pytest

from stn_cli.checkpoints import open_checkpoint
from stn_cli.engines.engine import Located, Location
from stn_cli.errors import UsageError
from stn_cli.geometry import (
    Affine,
    Attention,
    BorderLayout,
    GridLayout,
    Projective,
    Similarity,
    ThinPlateSpline,
    crop_size,
    outline,
    pixel_points,
    quality,
)
from stn_cli.rectify.crop import Decision, decide, natural_size, strays, with_margin
from stn_cli.rectify.options import RectifyOptions
from stn_cli.rectify.outcome import options_digest
from stn_cli.rectify.record import describe, describe_all
from stn_cli.sampling.warp import readings
from tests.geometry.examples import PLANAR, example

OPTIONS = RectifyOptions()
ALWAYS = RectifyOptions(always=True)
HEADER = msgspec.structs.replace(open_checkpoint("digits").header, min_confidence=0.5)
TEXT = msgspec.structs.replace(HEADER, crop_margin=(0.3, 0.1), straight_within=0.12)
SIZE = (160, 300)
CENTRE, WIDTH, HEIGHT = np.array([140.0, 70.0]), 80.0, 20.0
LAYOUTS = [BorderLayout(10), GridLayout(4)]
CROOKED = Similarity(np.array([-0.5, 0.3, 0.0, 0.0]))
FOLDED = Projective(np.array([1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 1.5, 0.0]))


def boxed(points, angle=0.0, slant=0.0, width=WIDTH, height=HEIGHT):
    """Points −1…1 of a turned and slanted box about CENTRE, in source pixels."""
    along = np.array([np.cos(angle), np.sin(angle)])
    down = np.array([-np.sin(angle), np.cos(angle)]) + slant * along
    return CENTRE + points[:, :1] * along * width / 2 + points[:, 1:] * down * height / 2


def bent(points, degrees, width=WIDTH, height=HEIGHT):
    """Points −1…1 of an arc in source pixels, its middle upright."""
    radius = width / np.radians(degrees)
    angle, distance = points[:, 0] * np.radians(degrees) / 2, radius - points[:, 1] * height / 2
    return CENTRE + np.stack((distance * np.sin(angle), radius - distance * np.cos(angle)), axis=-1)


def normalised(pixels):
    return pixels / np.array([SIZE[1], SIZE[0]]) * 2.0 - 1.0


def spline(place, *arguments, layout=LAYOUTS[0]):
    return ThinPlateSpline(normalised(place(layout.points, *arguments)).ravel(), layout)


def affine(*arguments):
    centre, right, below = normalised(boxed(np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]]), *arguments))
    return Affine(np.column_stack((right - centre, below - centre, centre)).ravel())


def decided(location, size, options, header):
    """What is decided of one image."""
    located = Located(location.transform[None], np.array([location.confidence]), [(None, None)])
    (decision,) = decide(located, [size], options, header)
    return decision


def stray(frame):
    return strays(frame[None], np.array([crop_size(frame, SIZE)]), np.array([SIZE]))[0]


def test_a_crop_is_as_large_as_the_region_that_it_shows():
    turned = Similarity(np.array([np.log(0.5), 0.7, 0.1, 0.0]))
    assert natural_size(crop_size(turned, (200, 200)), (200, 200)) == (100, 100)
    assert natural_size(crop_size(Attention(np.array([0.25, 0.0, 0.0])), (400, 80)), (400, 80)) == (100, 20)


def test_a_crop_near_the_horizon_is_not_endless():
    theta = np.array([1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.9999, 0.0])
    height, width = natural_size(crop_size(Projective(theta), (1000, 1000)), (1000, 1000))
    assert height * width <= 4.1e6


@pytest.mark.parametrize(
    ("transform", "confidence", "why"),
    [
        (Attention.identity(), 1.0, "straight already"),
        (CROOKED, 0.2, "confidence"),
        (FOLDED, 1.0, "folds"),
        (Similarity(np.array([0.0, 0.3, 1.8, 0.0])), 1.0, "outside"),
    ],
)
def test_no_harm_is_done(transform, confidence, why):
    decision = decided(Location(transform, confidence), (60, 80), OPTIONS, HEADER)
    assert why in decision.unchanged
    assert decision.size == (60, 80)
    np.testing.assert_array_equal(decision.transform(outline()), outline())


@pytest.mark.parametrize("options", [OPTIONS, ALWAYS])
def test_what_is_crooked_and_sure_is_rectified_as_predicted(options):
    decision = decided(Location(CROOKED, 0.9), (60, 80), options, HEADER)
    assert decision.unchanged is None
    assert type(decision.transform) is type(CROOKED)
    np.testing.assert_array_equal(decision.transform.theta, CROOKED.theta)


def test_the_user_overrules_the_confidence_of_the_model():
    doubtful = Location(CROOKED, 0.2)
    assert decided(doubtful, SIZE, RectifyOptions(min_confidence=0.1), HEADER).unchanged is None
    assert "0.20 is below 0.30" in decided(doubtful, SIZE, RectifyOptions(min_confidence=0.3), HEADER).unchanged


@pytest.mark.parametrize(
    "transform", [Attention.identity(), CROOKED, Similarity(np.array([0.0, 0.3, 1.8, 0.0])), spline(boxed)]
)
def test_always_rectifies_the_doubtful_the_straight_and_what_lies_outside(transform):
    assert decided(Location(transform, 0.0), SIZE, OPTIONS, TEXT).unchanged is not None
    assert decided(Location(transform, 0.0), SIZE, ALWAYS, TEXT).unchanged is None


@pytest.mark.parametrize("transform", [FOLDED, Affine(np.full(6, np.nan)), Similarity(np.array([1e4, 0.0, 0.0, 0.0]))])
@pytest.mark.parametrize("header", [HEADER, TEXT])
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_what_makes_no_picture_is_never_rectified(transform, header):
    decision = decided(Location(transform, 1.0), SIZE, ALWAYS, header)
    assert "folds" in decision.unchanged
    assert decision.size == SIZE


def test_a_margin_that_crosses_the_horizon_makes_no_picture():
    near = Projective(np.array([0.5, 0.0, 0.0, 0.0, 0.5, 0.0, 0.9, 0.0]))
    assert decided(Location(near, 1.0), SIZE, ALWAYS, HEADER).unchanged is None
    assert "folds" in decided(Location(near, 1.0), SIZE, ALWAYS, TEXT).unchanged


@pytest.mark.parametrize("pose", [(0.0,), (0.4,), (-2.8, 0.3)])
@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_the_margin_is_in_heights_of_the_frame_in_pixels(pose, layout):
    side = HEIGHT if len(pose) == 1 else HEIGHT * np.hypot(1.0, pose[1])  # of a slanted box: the length of its ends
    grown = {"width": WIDTH + 2 * 0.3 * side, "height": HEIGHT * 1.2}
    expected = boxed(outline(), *pose, **grown)
    for frame in (affine(*pose), spline(boxed, *pose, layout=layout)):
        crop = with_margin(frame, (0.3, 0.1), np.array(crop_size(frame, SIZE)))
        np.testing.assert_allclose(pixel_points(crop(outline()), SIZE), expected, atol=1e-6)


def test_a_spline_with_its_margin_is_one_spline_that_a_record_holds():
    frame = spline(bent, 60.0)
    decision = decided(Location(frame, 1.0), SIZE, OPTIONS, TEXT)
    height, width = crop_size(frame, SIZE)
    wider = frame.layout.points * np.array([1 + 0.6 * height / width, 1.2])
    (fields,) = describe([decision.transform], [SIZE], [decision.size])
    assert (fields["transform"].kind, fields["transform"].layout) == ("tps", "border 2x10")
    np.testing.assert_allclose(fields["control_points"], pixel_points(frame(wider), SIZE), atol=1e-4)


def test_the_natural_size_takes_in_the_margin():
    decision = decided(Location(spline(boxed, 0.4), 1.0), SIZE, OPTIONS, TEXT)
    assert decision.size == (24, 92)


def test_without_a_margin_the_crop_is_the_frame():
    frame = spline(bent, 60.0)
    assert with_margin(frame, (0.0, 0.0), np.array(crop_size(frame, SIZE))) is frame


@pytest.mark.parametrize("angle", [0.0, 0.05, -0.1, 0.5])
@pytest.mark.parametrize("make", [affine, lambda angle: spline(boxed, angle)])
def test_a_turned_box_strays_by_half_its_width_times_the_sine(make, angle):
    expected = abs(WIDTH / 2 * np.sin(angle)) / HEIGHT
    assert stray(make(angle)) == pytest.approx(expected, abs=1e-6)


def test_a_bow_strays_by_its_sagitta_on_either_side_of_its_mean():
    radius, angle = WIDTH / np.radians(10.0), np.radians(10.0) / 2
    assert stray(spline(bent, 10.0)) > 0.5 * radius * (1 - np.cos(angle)) / HEIGHT
    assert stray(spline(bent, 10.0)) < 1.2 * radius * (1 - np.cos(angle)) / HEIGHT


def test_the_slant_of_italics_is_no_reason_to_rectify():
    slanted = spline(boxed, 0.0, -0.4)
    assert stray(slanted) == pytest.approx(0.0, abs=1e-6)
    assert "straight already" in decided(Location(slanted, 1.0), SIZE, OPTIONS, TEXT).unchanged


@pytest.mark.parametrize("angle", [np.pi / 2, np.pi, -np.pi / 2])
def test_what_lies_on_its_side_or_head_is_rectified(angle):
    assert stray(spline(boxed, angle)) == np.inf
    assert decided(Location(spline(boxed, angle), 1.0), SIZE, OPTIONS, TEXT).unchanged is None


def test_the_header_says_how_straight_is_straight():
    tilted = Location(spline(boxed, np.arcsin(0.05)), 1.0)  # strays by 0.1
    assert "by 0.10 of its height" in decided(tilted, SIZE, OPTIONS, TEXT).unchanged
    for within in (0.0, 0.09):
        header = msgspec.structs.replace(TEXT, straight_within=within)
        assert decided(tilted, SIZE, OPTIONS, header).unchanged is None


@pytest.mark.parametrize(
    ("options", "rectified", "unchanged"),
    [
        ({"height": 48}, (48, 184), (48, 90)),
        ({"size": (32, 100)}, (32, 100), (32, 100)),
        ({}, (24, 92), SIZE),
    ],
)
def test_sizes_hold_for_what_is_rectified_and_for_what_passes_through(options, rectified, unchanged):
    sure, doubtful = (Location(spline(boxed, 0.4), confidence) for confidence in (1.0, 0.1))
    assert decided(sure, SIZE, RectifyOptions(**options), TEXT).size == rectified
    assert decided(doubtful, SIZE, RectifyOptions(**options), TEXT).size == unchanged


def test_the_width_that_follows_a_height_is_that_of_the_region_not_of_its_whole_pixels():
    thin = Location(affine(0.0, 0.0, 100.0, 1.4), 1.0)
    assert decided(thin, SIZE, RectifyOptions(height=14), HEADER).size == (14, 1000)


@pytest.mark.parametrize(
    "options",
    [
        {"always": True, "min_confidence": 0.0},
        {"height": 32, "size": (32, 32)},
        {"height": 0},
        {"height": 40_000},
        {"size": (0, 5)},
        {"min_confidence": 1.5},
    ],
)
def test_options_that_make_no_sense_are_refused(options):
    with pytest.raises(UsageError):
        RectifyOptions(**options)


CHANGES_A_CROP = {
    "size": (32, 32),
    "height": 32,
    "resample": "nearest",
    "fill": (0.0,),
    "format": "PNG",
    "quality": 50,
    "optimize": True,
    "min_confidence": 0.5,
    "always": True,
    "max_pixels": 1000,
    "salvage": True,
    "head": 2,
}
CHANGES_NONE = {
    "out": Path("out"),
    "on_exists": "overwrite",
    "resume": False,
    "recursive": False,
    "batch_size": 1,
    "workers": 1,
    "time_limit": 1.0,
    "allow_formats": ("JPEG2000",),
}


@pytest.mark.parametrize("name", RectifyOptions.__struct_fields__)
def test_the_digest_of_the_options_knows_what_changes_a_crop_and_nothing_else(name):
    changed = RectifyOptions(**{name: (CHANGES_A_CROP | CHANGES_NONE)[name]})
    assert getattr(changed, name) != getattr(OPTIONS, name)
    assert (options_digest(changed) == options_digest(OPTIONS)) is (name in CHANGES_NONE)


def test_a_batch_is_decided_as_each_of_its_images_alone():
    frames = [spline(boxed, angle) for angle in (0.0, 0.4, np.pi)] + [spline(bent, degrees) for degrees in (5.0, 90.0)]
    sizes, confidence = [SIZE, (60, 200), SIZE, (90, 91), SIZE], [1.0, 0.9, 0.8, 0.9, 0.1]
    batch = ThinPlateSpline(np.stack([frame.theta for frame in frames]), frames[0].layout)
    located = Located(batch, np.array(confidence), [(None, None)] * len(frames))
    together = decide(located, sizes, OPTIONS, TEXT)
    assert len({decision.unchanged is None for decision in together}) == 2
    for decision, frame, size, sure in zip(together, frames, sizes, confidence, strict=True):
        alone = decided(Location(frame, sure), size, OPTIONS, TEXT)
        assert (decision.size, decision.unchanged, decision.quality) == (alone.size, alone.unchanged, alone.quality)
        np.testing.assert_array_equal(decision.transform(outline(9)), alone.transform(outline(9)))


def test_a_batch_is_described_and_read_as_each_of_it_alone(rng):
    """Whatever families it mixes: no field, and no reading, is that of another, or depends on another."""
    transforms = [example(name) for name in rng.permutation([*PLANAR, *PLANAR])]
    sources, sizes = ([tuple(size) for size in rng.integers(20, 200, (len(transforms), 2)).tolist()] for _ in range(2))
    decisions = [
        Decision(transform, size, quality(transform), None) for transform, size in zip(transforms, sizes, strict=True)
    ]
    locations = [Location(transform, 0.5) for transform in transforms[::-1]]
    each = list(zip(locations, decisions, sources, strict=True))
    assert describe_all(locations, decisions, sources) == [
        describe_all(*([part] for part in parts))[0] for parts in each
    ]
    together = readings(transforms, sources, sizes)
    for transform, source, size, reading in zip(transforms, sources, sizes, together, strict=True):
        (alone,) = readings([transform], [source], [size])
        assert (reading.plan, reading.size) == (alone.plan, alone.size)
        np.testing.assert_array_equal(reading.matrix, alone.matrix)
        np.testing.assert_array_equal(reading.knots, alone.knots)
