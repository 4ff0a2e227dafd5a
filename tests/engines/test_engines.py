"""ONNX Runtime with OpenCV, and torch with its sampler: two engines of one behaviour."""

import numpy as np
import pytest
import torch

from stn_cli.checkpoints import open_checkpoint
from stn_cli.engines import torch_engine
from stn_cli.engines.engine import best_path, small_copy
from stn_cli.engines.onnx_engine import OnnxEngine
from stn_cli.engines.torch_engine import TorchEngine
from stn_cli.errors import DeviceError
from stn_cli.geometry import Similarity, outline
from stn_cli.images import decode
from stn_cli.rectify import pipeline
from stn_cli.rectify.options import RectifyOptions
from stn_cli.rectify.pipeline import Pipeline
from stn_cli.rectify.plan import plan
from stn_cli.sampling.differentiable import sample
from tests.elsewhere import elsewhere
from tests.running import SAMPLES, TRUTH

NAMES = sorted(TRUTH)


@pytest.fixture(scope="module")
def engines():
    checkpoint = open_checkpoint("digits")
    return OnnxEngine(checkpoint), TorchEngine(checkpoint, "cpu")


@pytest.fixture(scope="module")
def images():
    return [decode(SAMPLES / name).pixels for name in NAMES]


@pytest.fixture(scope="module")
def locations(engines, images):
    smalls, sizes = [small_copy(image) for image in images], [image.shape[:2] for image in images]
    return [list(engine.locate(smalls, sizes)) for engine in engines]


def test_engines_agree_on_theta_and_confidence(locations):
    for name, ours, theirs in zip(NAMES, *locations, strict=True):
        assert np.abs(ours.transform(outline(9)) - theirs.transform(outline(9))).max() < 1e-5, name
        assert abs(ours.confidence - theirs.confidence) < 1e-5, name
        assert ours.label == theirs.label


@pytest.mark.parametrize("size", [(28, 28), (90, 70)])
@pytest.mark.parametrize("fill", ["border", (250.0,)])
def test_engines_agree_on_crops_within_a_grey_level(engines, images, locations, size, fill):
    for name, image, location in zip(NAMES, images, locations[0], strict=True):
        ours, theirs = (engine.crop(image, location.transform, size, "auto", fill).astype(int) for engine in engines)
        assert np.abs(ours - theirs).max() <= 1, name


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("fill", ["border", (200.0, 90.0, 40.0, 120.0)])
@pytest.mark.parametrize("resample", ["sharp", "auto"])
def test_engines_agree_on_every_kind_of_pixels(engines, locations, dtype, channels, fill, resample):
    top = np.iinfo(dtype).max
    pixels = np.random.default_rng(0).integers(0, top, (60, 50, channels), endpoint=True).astype(dtype)
    if channels in (2, 4):
        pixels[..., -1] = np.clip(pixels[..., -1], top // 4, None)  # where alpha is near 0, colours are arbitrary
    if fill != "border":
        fill = (*(value * top / 255 for value in fill[: channels - 1]), fill[3] * top / 255)
    transform = locations[0][0].transform
    ours, theirs = (engine.crop(pixels, transform, (40, 40), resample, fill).astype(float) for engine in engines)
    assert np.abs(ours - theirs).max() <= 1.1 * top / 255


@pytest.mark.parametrize("name", ["digits", "text"])
def test_what_is_said_of_an_image_does_not_depend_on_the_others_in_its_batch(name):
    engine = OnnxEngine(open_checkpoint(name))
    smalls = np.random.default_rng(0).random((40, 50, 90, 1), dtype=np.float32)
    together = list(engine.locate(smalls, [(50, 90)] * 40))
    for size in (1, 2, 3, 7, 17, 31):
        for start in range(0, 40, size):
            apart = engine.locate(smalls[start : start + size], [(50, 90)] * len(smalls[start : start + size]))
            for one, other in zip(apart, together[start : start + size], strict=True):
                assert np.array_equal(one.transform(outline(9)), other.transform(outline(9)))
                assert (one.confidence, one.label_confidence) == (other.confidence, other.label_confidence)


def test_torch_reads_views_together_as_it_reads_each_alone(engines, monkeypatch):
    _, engine = engines
    rng, sizes = np.random.default_rng(0), [(50, 90), (300, 500), (50, 90), (512, 400), (50, 90), (50, 90)]
    taken = [engine.take(rng.random((*size, 1), dtype=np.float32)) for size in sizes]
    transforms = Similarity(np.array([[0.0, 0.2, 0.01 * n, 0.1] for n in range(len(sizes))]))
    batches = []
    monkeypatch.setattr(
        torch_engine,
        "sample",
        lambda images, *args, **more: batches.append(len(images)) or sample(images, *args, **more),
    )
    together = engine.views(taken, transforms, (28, 28), map)
    assert sorted(batches) == [1, 1, 4]
    for number, each in enumerate(taken):
        alone = engine.views([each], transforms[[number]], (28, 28), map)
        torch.testing.assert_close(together[number], alone[0])


@pytest.mark.parametrize(
    ("path", "text"),
    [([1, 1, 0, 1, 2], "aab"), ([0, 0, 0], ""), ([0, 2, 2, 0], "b"), ([2, 1, 2], "bab"), ([1, 1, 1], "a")],
)
def test_equal_columns_are_one_character_unless_a_blank_parts_them(path, text):
    columns = np.eye(3)[path] * 0.7 + 0.1
    assert best_path(columns, "ab") == (text, pytest.approx(0.8 ** len(path)))


class Scarce(TorchEngine):
    """A device with memory for a few views at once, and for no image."""

    def __init__(self, checkpoint, most):
        super().__init__(checkpoint, "cpu")
        self.most, self.asked = most, []

    def views(self, taken, *more):
        self.asked.append(len(taken))
        if len(taken) > self.most:
            raise torch.OutOfMemoryError("no")
        return super().views(taken, *more)

    def _crop(self, *_):
        raise torch.OutOfMemoryError("no")


def test_a_device_that_is_out_of_memory_gets_half_as_many_images(tmp_path):
    options = RectifyOptions(out=tmp_path, format="png")
    jobs = plan([SAMPLES], options).jobs
    checkpoint = open_checkpoint("digits")
    engine = Scarce(checkpoint, 2)
    scarce, ample = (Pipeline(each, options).run(jobs) for each in (engine, TorchEngine(checkpoint, "cpu")))
    assert scarce.warnings
    assert not ample.warnings
    assert [size for size in engine.asked if size > 2] == [14, 7, 3]
    for one, other in zip(scarce.records, ample.records, strict=True):
        assert one.status == other.status == "done"
        assert np.allclose(one.fiducials, other.fiducials, atol=1e-3)
    for one, other in zip(scarce.staged, ample.staged, strict=True):
        (a, b) = (decode(staged.temporary).pixels.astype(int) for staged in (one, other))
        assert np.abs(a - b).max() <= 1
    assert len(jobs) == 14


@pytest.mark.parametrize("batch_bytes", [1, 1 << 30])
@pytest.mark.parametrize("threads", [1, 4])
def test_threads_and_batches_change_neither_crops_nor_records(tmp_path, monkeypatch, threads, batch_bytes):
    monkeypatch.setattr(pipeline, "_BATCH_BYTES", batch_bytes)
    engine, options = OnnxEngine(open_checkpoint("digits")), RectifyOptions(out=tmp_path)
    jobs = plan([SAMPLES], options).jobs
    found = Pipeline(engine, options, threads).run(jobs)
    one_by_one = [Pipeline(engine, options).run([job]) for job in jobs]
    assert [record.to_json() for record in found.records] == [each.records[0].to_json() for each in one_by_one]
    crops = [crop.temporary.read_bytes() for crop in found.staged]
    assert crops == [each.staged[0].temporary.read_bytes() for each in one_by_one]
    assert len(crops) == 14


def test_a_device_without_memory_for_one_image_ends_the_run(tmp_path):
    options = RectifyOptions(out=tmp_path)
    with pytest.raises(DeviceError, match="memory"):
        Pipeline(Scarce(open_checkpoint("digits"), 0), options).run(plan([SAMPLES], options).jobs)


@pytest.mark.parametrize("model", ["digits", "text"])
def test_an_engine_leaves_nothing_behind_on_the_cpu(images, model):
    checkpoint = open_checkpoint(model)
    smalls, sizes = [small_copy(image) for image in images], [image.shape[:2] for image in images]
    here = TorchEngine(checkpoint, "cpu")
    with elsewhere() as device:
        there = TorchEngine(checkpoint, device)
        found = list(there.locate(smalls, sizes))
        pairs = zip(images, found, strict=True)
        crops = [there.crop(image, each.transform, (28, 40), "auto", "border") for image, each in pairs]
    for image, ours, theirs, crop in zip(images, here.locate(smalls, sizes), found, crops, strict=True):
        np.testing.assert_allclose(theirs.transform.theta, ours.transform.theta, atol=1e-5)
        assert theirs.label == ours.label
        expected = here.crop(image, ours.transform, (28, 40), "auto", "border").astype(int)
        assert np.abs(crop - expected).max() <= 1
