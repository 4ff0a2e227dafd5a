"""Volumes: how they are read, moved and distorted, and what is learned from them."""

import dataclasses
import io

import numpy as np
import onnxruntime
import pytest
import tifffile
import torch
from PIL import Image
from scipy.spatial.transform import Rotation

from stn_cli.checkpoints import open_checkpoint
from stn_cli.checkpoints.export import write_checkpoint
from stn_cli.checkpoints.header import Metrics
from stn_cli.checkpoints.weights import load_model
from stn_cli.engines.devices import open_engine
from stn_cli.engines.engine import small_copy
from stn_cli.errors import TrainingDataError, UsageError
from stn_cli.geometry import Affine3d, corners, grid, letterbox
from stn_cli.networks.config import LocalizerConfig, ModelConfig, TransformConfig
from stn_cli.networks.model import Rectifier
from stn_cli.reports.run import train_and_report
from stn_cli.training.api import Plan, Resources, plan, run
from stn_cli.training.config import Scene
from stn_cli.training.data import prepare
from stn_cli.training.defaults import Wishes, suited, transform_called
from stn_cli.training.examples import Dataset, Examples, Reading, read_examples
from stn_cli.training.loop import Trainer
from stn_cli.training.validation import measured
from stn_cli.training.volumes import _drawn
from tests.sampling.images import scipy_crop
from tests.training.said import Said

SMALL = {
    "canvas": 16,
    "classifier_size": (16, 16, 16),
    "classifier_widths": (4, 8),
    "classifier_hidden": 8,
    "batch_size": 16,
    "steps": 4,
    "validate_every": 4,
    "warmup": 1,
}


def bar(kind, rng, size=(12, 14, 16)):
    """A bar along the first or the last axis, somewhere in a dark volume (d, h, w, 1)."""
    volume = np.zeros((*size, 1), np.uint8)
    z, y, x = (int(rng.integers(1, side - 9)) for side in size)
    along = (slice(z, z + 8), slice(y, y + 2), slice(x, x + 2)) if kind else (slice(z, z + 2), slice(y, y + 2))
    volume[(*along, slice(x, x + 8)) if not kind else along] = 220
    return volume


def dataset(count=100, held_out=20, labelled=True):
    rng = np.random.default_rng(5)
    kinds = rng.integers(0, 2, count)
    images = tuple(bar(kind, rng) for kind in kinds)
    labels = kinds.astype(np.int64) if labelled else np.full(count, -1)
    known = Examples(images, labels, ("across", "deep") if labelled else ())
    parts = (range(held_out, count), range(held_out), range(0))
    return Dataset(*(known.chosen(list(part)) for part in parts), "drawn here", "the first twenty")


def settings(data, **changes):
    return suited(data, {**SMALL, **changes}, Wishes(input_size=(16, 16, 16)))


def cube(volume, side=16):
    """The volume in the middle of a cube, as SciPy has it."""
    frame = letterbox(volume.shape[:3], (side,) * 3)
    return scipy_crop(volume[..., 0].astype(float), frame, (side,) * 3)


def write_folders(folder):
    rng = np.random.default_rng(2)
    for kind, name in enumerate(("across", "deep")):
        (folder / name).mkdir(parents=True)
        for number in range(5):
            array = bar(kind, rng)[..., 0].astype(np.int16) * 100 - 3000
            np.save(folder / name / f"{number}.npy", array)
    return folder


def test_class_folders_of_arrays(tmp_path):
    folder = write_folders(tmp_path / "data")
    (folder / "deep" / "broken.npy").write_bytes(b"\x93NUMPY nothing")
    (folder / "deep" / "picture.png").write_bytes(b"not looked at")
    found = read_examples([folder])
    both = [*found.train.images, *found.validation.images]
    assert (found.train.dims, len(both), found.classes) == (3, 10, ("across", "deep"))
    assert all(image.shape == (12, 14, 16, 1) and image.dtype == np.uint8 for image in both)
    assert {(int(image.min()), int(image.max())) for image in both} == {(0, 255)}
    (problem,) = [each for each in found.problems if "cannot be read" in each.what]
    assert [where.partition(":")[0] for where in problem.where] == ["deep/broken.npy"]
    (problem,) = [each for each in found.problems if "among volumes" in each.what]
    assert problem.where == ("deep/picture.png",)


def of_images(count, suffix="png"):
    return {f"{number}.{suffix}": Image.new("L", (20, 20), 50 * number) for number in range(count)}


def of_arrays(count, *shape):
    return {f"{number}.npy": np.random.default_rng(number).random(shape) for number in range(count)}


@pytest.mark.parametrize(
    ("files", "dims", "stray"),
    [
        (of_images(4) | of_arrays(1, 4, 4, 4), 2, 1),
        (of_images(4, "tif") | of_arrays(1, 4, 4, 4), 2, 1),
        (of_images(3) | {f"f{name}": array for name, array in of_arrays(6, 4, 4).items()}, 2, 6),
        (of_images(4) | of_arrays(4, 4, 4, 4), 3, 4),
        (of_images(2) | of_arrays(4, 4, 4, 4), 3, 2),
    ],
    ids=["labels", "labels beside TIFFs", "features", "previews", "a few previews"],
)
def test_what_there_is_more_of_decides_and_the_rest_is_named(files, dims, stray, tmp_path):
    for name, content in files.items():
        content.save(tmp_path / name) if isinstance(content, Image.Image) else np.save(tmp_path / name, content)
    found = read_examples([tmp_path])
    assert (found.dims, len(found.train) + len(found.validation)) == (dims, len(files) - stray)
    assert [len(problem.where) for problem in found.problems] == [stray]
    assert read_examples([tmp_path], Reading(volumes=False)).dims == 2


def test_tiffs_of_pages_are_volumes_and_of_one_page_images(tmp_path):
    rng = np.random.default_rng(0)
    for name, shape in (("stacks", (5, 8, 9)), ("pictures", (8, 9))):
        (tmp_path / name).mkdir()
        for number in range(4):
            pages = rng.integers(0, 255, shape, dtype=np.uint8)
            tifffile.imwrite(tmp_path / name / f"{number}.tif", pages, photometric="minisblack")
    assert read_examples([tmp_path / "stacks"]).train.dims == 3
    assert read_examples([tmp_path / "stacks"]).layout == "volumes"
    assert read_examples([tmp_path / "pictures"]).train.dims == 2
    assert read_examples([tmp_path / "stacks"], Reading(volumes=False)).train.dims == 2


def test_large_volumes_are_kept_small(tmp_path):
    for number in range(3):
        np.save(tmp_path / f"{number}.npy", np.random.default_rng(number).random((40, 100, 200)))
    sizes = {image.shape for image in read_examples([tmp_path]).train.images}
    assert sizes == {(19, 48, 96, 1)}


def test_what_suits_volumes():
    config = suited(dataset(), {})
    assert config.objectives == ("classify",)
    assert [(stage.transform.kind, stage.input_size) for stage in config.stages] == [("affine3d", (16, 16, 16))]
    assert config.classifier_size == (16, 16, 16)
    assert suited(dataset(labelled=False), {}).scenes


def test_a_run_that_starts_from_volumes_keeps_their_nets(tmp_path):
    stage = LocalizerConfig(
        transform=TransformConfig("affine3d"), input_size=(16, 16, 16), widths=(2, 2), hidden=4, channels=1
    )
    write_checkpoint(
        Rectifier(ModelConfig(stages=(stage,))).eval(),
        tmp_path,
        name="x",
        description="",
        training={},
        metrics=Metrics(),
    )
    assert suited(dataset(labelled=False), {"start": str(tmp_path)}).stages == (stage,)


@pytest.mark.parametrize("kind", ["affine", "tps"])
def test_transforms_of_images_are_refused(tmp_path, kind):
    folder = write_folders(tmp_path / "data")
    with pytest.raises(TrainingDataError, match="the data is volumes, the network is for images"):
        plan([folder], {}, Wishes(transform=transform_called(kind)))


def test_the_transform_of_volumes_is_refused_for_images(tmp_path):
    for number in range(4):
        Image.new("L", (20, 20), 50 * number).save(tmp_path / f"{number}.png")
    with pytest.raises(TrainingDataError, match="the data is images, the network is for volumes"):
        plan([tmp_path], {}, Wishes(transform=transform_called("affine3d")))


@pytest.mark.parametrize("given", [{"insert_at": 1}, {"backbone": "torchvision:resnet18"}])
def test_what_volumes_do_not_have_is_refused(tmp_path, given):
    config = settings(dataset(), **given)
    with pytest.raises(UsageError):
        Trainer(config, prepare(dataset(), config), tmp_path)


def test_objectives_of_volumes_add_up(tmp_path):
    given = {"objectives": ["straighten", "classify"], "scenes": [{}], "steps": 2, "batch_size": 4, "validate_every": 2}
    config = suited(dataset(), {**given, "validation_samples": 8})
    assert config.classifier_size == (16, 16, 16)
    assert Trainer(config, prepare(dataset(), config), tmp_path, workers=0).train()


@pytest.mark.parametrize("size", [(12, 12, 12), (12, 14, 16), (8, 16, 16), (3, 16, 16)])
def test_a_volume_that_fills_the_canvas_covers_it(size):
    rng = np.random.default_rng(0)
    volume = rng.integers(180, 250, (*size, 1), dtype=np.uint8)
    volume[tuple(side // 2 for side in size)] = 0  # the ground is as dark as that, or as bright as the rest
    covered = 0
    for _ in range(30):
        canvas, truth = _drawn(rng, volume, Scene(rotation=30.0, edges=0.0), 16)
        at = letterbox(size, (1, 1, 1))(Affine3d(truth.theta.numpy()).inverse()(corners(3)))
        if np.abs(at).max() <= 1:
            covered += 1
            assert canvas[::15, ::15, ::15].min() > 120, "its corners are the volume's, and noise"
            assert np.linalg.det(truth.theta.numpy().reshape(3, 4)[:, :3]) <= 3.0**3 + 1e-6
    assert (covered > 0) == (size != (3, 16, 16)), "but for flat ones, which would have to grow too much"


def test_a_volume_whose_border_has_one_value_goes_on_as_it_ends():
    volume = np.full((16, 16, 16, 1), 90, np.uint8)
    volume[5:11, 5:11, 5:11] = 230
    rng = np.random.default_rng(0)
    for _ in range(20):
        canvas, truth = _drawn(rng, volume, Scene(edges=1.0), 20)
        at = Affine3d(truth.theta.numpy()).inverse()(grid((20, 20, 20)))
        beyond = canvas.ravel()[np.abs(at).max(axis=1) > 1]
        assert len(beyond) > 100
        assert abs(float(beyond.mean()) - 90) < 2


def test_held_out_volumes_lie_in_the_middle_of_their_cube():
    data = prepare(dataset(), settings(dataset()))
    batch = data.held_out.__getitems__(range(3))
    for canvas, volume in zip(batch.canvas, dataset().validation.images, strict=False):
        np.testing.assert_allclose(canvas[0], cube(volume), atol=1)
    assert batch.truth.shape == (3, 8, 3)
    assert bool(batch.truth.isnan().all())


def test_volumes_are_moved_anew_in_every_epoch_each_by_its_number_alone():
    data = prepare(dataset(), settings(dataset())).training
    first, again = data.__getitems__([3]).canvas, data.__getitems__([7, 3]).canvas[1:]
    assert torch.equal(first, again)
    epoch = data.__getitems__(range(80)).canvas
    assert len({canvas.numpy().tobytes() for canvas in epoch}) == 80
    sums = epoch.float().mean(dim=(1, 2, 3, 4))
    assert float(sums.std()) > 0.5, "lit anew"


def fitted(points):
    """The affine map from the corners of a cube to points, by least squares."""
    ones = np.concatenate((corners(3), np.ones((8, 1))), axis=1)
    return Affine3d(np.linalg.lstsq(ones, points, rcond=None)[0].T.ravel())


@pytest.mark.parametrize("edges", [0.0, 1.0])
def test_the_truth_of_a_distortion_leads_back_to_the_upright_volume(edges):
    data = dataset(labelled=False)
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 255, (2, 3, 3, 3), dtype=np.uint8)
    blobs = tuple(np.kron(each, np.ones((5, 5, 5), np.uint8))[..., None] for each in coarse)
    known = dataclasses.replace(data.train, images=blobs, labels=np.full(2, -1))
    scene = {"rotation": 40.0, "extent": (0.7, 1.0), "shear": 0.2, "edges": edges}
    config = settings(data, scenes=[scene])
    samples = prepare(Dataset(known, known, known.chosen([]), "", ""), config).training
    for index in range(8):
        batch = samples.__getitems__([index])
        canvas, truth = batch.canvas[0, 0].numpy().astype(float), batch.truth[0].numpy()
        back = scipy_crop(canvas, fitted(truth), (15, 15, 15))
        points = grid((15, 15, 15))
        shown = (np.abs(fitted(truth)(points)) < 0.95).all(axis=1) & (np.linalg.norm(points, axis=1) < 0.9)
        likeness = [np.corrcoef(back.ravel()[shown], blob.ravel()[shown])[0, 1] for blob in blobs]
        assert max(likeness) > 0.8


def test_rotations_are_measured_as_scipy_has_them():
    data = dataset(labelled=False)
    config = settings(data, steps=2)
    made = prepare(data, config)
    table = measured(Trainer(config, made, "nowhere").averaged_model(), made.held_out, config, workers=0)
    truth = made.held_out.__getitems__(range(50)).truth.numpy()
    angles = []
    for frame in truth:
        turned, _ = Rotation.align_vectors(frame - frame.mean(axis=0), corners(3))
        angles.append(np.degrees(turned.magnitude()))
    np.testing.assert_allclose(table["rotation_error"][:50], angles, atol=1e-3)
    assert np.median(angles) > 10
    np.testing.assert_allclose(table["turn"], 0, atol=1e-3)


def test_a_transformer_of_volumes_learns_from_labels_alone(tmp_path):
    said = Said()
    planned = Plan(dataset(300), settings(dataset(300), steps=60, validate_every=60, ema=0.8), Resources(workers=0))
    trainer, finished = run(planned, tmp_path, said)
    assert finished
    assert said.validations[-1].overall["accuracy"] > 0.9
    assert float(trainer.model.transformer.stages[0].localizer.head.weight.detach().abs().max()) > 0
    checkpoint = open_checkpoint(str(tmp_path))
    volumes = dataset(300).validation.images
    seen = torch.from_numpy(np.stack([cube(volume) for volume in volumes]))[:, None].float() / 255
    with torch.no_grad():
        model = load_model(checkpoint)
        pose = model.transformer.stages[0].localizer(seen)
        output = model(seen)
    session = onnxruntime.InferenceSession(checkpoint.graph("localizer.onnx"))
    theta, confidence = session.run(None, {"image": seen.numpy()})
    np.testing.assert_allclose(theta, pose.theta, atol=2e-3)
    np.testing.assert_allclose(confidence, torch.sigmoid(pose.confidence), atol=2e-3)
    located = open_engine(checkpoint, "cpu").locate([small_copy(v) for v in volumes], [v.shape[:3] for v in volumes])
    for each, row in zip(located, torch.softmax(output.logits, dim=1), strict=True):
        assert each.label == checkpoint.header.model.classifier.classes[int(row.argmax())]
        assert each.label_confidence == pytest.approx(float(row.max()), abs=0.05)


def test_a_run_of_volumes_goes_on_bit_for_bit(tmp_path):
    config = settings(dataset(), steps=6, validate_every=3)
    data = prepare(dataset(), config)
    whole = Trainer(config, data, tmp_path / "whole", workers=0)
    assert whole.train()
    parts = Trainer(config, data, tmp_path / "parts", workers=0)
    said = Said()
    assert not parts.train(said, is_stopped=lambda: said.steps == [1, 2, 3, 4])
    again = Trainer(config, data, tmp_path / "parts", workers=0)
    assert again.train()
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, again.model.state_dict()[name]), name


def test_a_film_shows_middle_slices(tmp_path):
    planned = Plan(dataset(), settings(dataset()), Resources(workers=0))
    train_and_report(planned, tmp_path)
    film = Image.open(io.BytesIO((tmp_path / "training.gif").read_bytes()))
    assert film.n_frames > 1
    assert (tmp_path / "report.md").exists()
