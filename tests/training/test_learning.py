"""What a run learns: objectives and their losses, penalties, symptoms, pieces of a batch, processes that share it."""

import dataclasses
import json
import os
import subprocess
import sys

import cv2
import numpy as np
import PIL.Image
import pytest
import torch

from stn_cli.engines.engine import small_copy
from stn_cli.engines.onnx_engine import OnnxEngine
from stn_cli.errors import TrainingDataError, UsageError
from stn_cli.geometry import Affine, Similarity, ThinPlateSpline, layout_from_name, letterbox
from stn_cli.networks.config import LocalizerConfig, ModelConfig, TransformConfig
from stn_cli.networks.localization import Pose
from stn_cli.networks.model import Rectified, Rectifier
from stn_cli.networks.transformer import Located
from stn_cli.training.api import plan
from stn_cli.training.collapse import symptoms
from stn_cli.training.config import Augment, Penalties, TrainConfig
from stn_cli.training.data import prepare, with_problems
from stn_cli.training.defaults import Wishes, objectives_of, suited, transform_called
from stn_cli.training.examples import Dataset, Examples
from stn_cli.training.loop import Trainer
from stn_cli.training.objectives import border, losses, read_right
from stn_cli.training.outset import model_config
from stn_cli.training.overlap import overlap
from stn_cli.training.penalties import penalties
from stn_cli.training.samples import Batch, GivenSamples, batches, encoded, split
from tests.running import ROOT
from tests.training.drawn import SMALL, dataset, settings, trained
from tests.training.said import Said

WIDE = letterbox((60, 60), (16, 32))


def test_what_is_learned_follows_from_the_data():
    assert objectives_of(dataset()) == ("classify",)
    assert objectives_of(dataset(texts=True)) == ("read",)
    unlabelled = dataset()
    bare = Examples(unlabelled.train.images, np.full(90, -1), ())
    assert objectives_of(Dataset(bare, bare, bare, "", "")) == ("straighten",)


def test_a_transformer_learns_to_look_from_labels_alone(tmp_path):
    said = Said()
    trainer, _ = trained(
        dataset(600),
        tmp_path,
        said,
        wishes=Wishes(transform=TransformConfig("attention")),
        steps=300,
        validate_every=300,
        ema=0.9,
    )
    measures = said.validations[-1].overall
    assert measures["accuracy"] > 0.95
    assert measures["zoom_mean"] < 0.97
    assert measures["x_spread"] > 0.02, "it looks where the bar is"
    assert trainer.best_validation["overall"] == measures


@pytest.mark.parametrize(
    "name", ["translation", "attention", "similarity", "affine", "projective", "tps", "tps:border 2x4"]
)
@pytest.mark.parametrize("stages", [Wishes(), Wishes(stages=2), Wishes(stages=2, shared=True)])
def test_every_transform_alone_in_series_and_shared_trains(name, stages, tmp_path):
    wishes = dataclasses.replace(stages, transform=transform_called(name), input_size=(16, 16), output_size=(12, 14))
    data, given = dataset(), {key: value for key, value in SMALL.items() if key != "classifier_size"}
    made = suited(data, given, wishes)
    trainer = Trainer(made, prepare(data, made), tmp_path, workers=0)
    assert trainer.train()
    assert trainer.model_config.classifier.input_size == (12, 14)
    moved = [p for n, p in trainer.model.named_parameters() if n.endswith("head.weight")]
    assert all(bool(parameter.abs().max() > 0) for parameter in moved), "every localization net has learned something"
    assert len(moved) == (1 if stages.shared else stages.stages)


@pytest.mark.parametrize("stages", [Wishes(stages=2), Wishes(stages=2, shared=True)])
def test_poses_are_learned_in_series_and_shared(stages, tmp_path):
    scenes = [{"name": "moved", "pixels": [20, 20], "rotation": 0.0, "extent": [0.6, 0.6], "plain": 1.0}]
    changes = {"objectives": ("straighten",), "scenes": scenes, "validation_samples": 64, "learning_rate": 5e-3}
    errors = []
    for steps in (1, 80):
        said, folder = Said(), tmp_path / str(steps)
        wishes = dataclasses.replace(stages, input_size=(16, 16))
        trained(dataset(), folder, said, wishes=wishes, steps=steps, validate_every=steps, ema=0.9, **changes)
        errors.append(said.validations[-1].overall["error_median"])
    assert errors[1] < 0.6 * errors[0]


def test_options_go_before_the_configuration_or_are_refused():
    data = dataset()
    given = {**SMALL, "heads": 3, "classifier_size": [8, 8]}
    config = suited(data, given, Wishes(heads=2, output_size=(12, 12)))
    assert (config.heads, config.classifier_size) == (2, (12, 12))
    assert suited(data, given, Wishes(heads=1)).heads == 1
    stages = [{"transform": {"kind": "affine"}, "input_size": [16, 16]}]
    with pytest.raises(UsageError, match="stages"):
        suited(data, {**SMALL, "stages": stages}, Wishes(transform=TransformConfig("similarity")))


def test_a_run_without_a_reader_has_no_size_of_its_crop():
    with pytest.raises(UsageError, match="--output"):
        suited(dataset(), {**SMALL, "objectives": ["straighten"]}, Wishes(output_size=(12, 12)))


def test_every_head_learns_how_sure_it_is():
    data = dataset()
    config = settings(data, heads=2)
    model = Rectifier(model_config(config, data.train.classes))
    batch = GivenSamples(data.train, config, seed=1, moved=False).__getitems__(range(16))
    parts = losses(model(batch.canvas.float() / 255), batch, model.config, config)
    parts["confidence"].backward()
    for transformer in model.transformers:
        localizer = transformer.stages[0].localizer
        assert localizer.head.bias.grad[localizer.config.transform.spec.dof] != 0


def test_images_much_larger_than_the_canvas_are_averaged():
    stripes = np.tile(np.array([0, 0, 255], np.uint8), (96, 32))[..., None]
    noise = np.random.default_rng(0).integers(0, 255, (96, 96, 1), np.uint8)
    known = Examples((stripes, noise), np.array([0, 1]), ("a", "b"), (), None)
    canvases = GivenSamples(known, settings(dataset(), canvas=32), seed=1, moved=False).__getitems__(range(2)).canvas
    for image, canvas in zip((stripes, noise), canvases.numpy()[:, 0].astype(int), strict=True):
        averages = np.asarray(PIL.Image.fromarray(image[..., 0]).reduce(3)).astype(int)
        assert np.abs(canvas - averages).max() <= 1


@pytest.mark.parametrize("entries", [{"heads": 2}, {"bypassed": True}])
def test_a_configuration_is_of_what_the_data_lends_itself_to(entries, tmp_path):
    for number in range(4):
        (tmp_path / "ab"[number % 2]).mkdir(exist_ok=True)
        cv2.imwrite(str(tmp_path / "ab"[number % 2] / f"{number}.png"), np.full((20, 20), number, np.uint8))
    assert plan([tmp_path], entries).config.objectives == ("classify",)


@pytest.mark.parametrize(("box", "kind"), [((2, 2, 38, 18), "affine"), ((10, 2, 28, 18), "similarity")])
def test_frames_that_are_not_square_are_found_by_maps_that_can_be(box, kind, tmp_path):
    rows = ["file,x1,y1,x2,y2", *(f"{number}.png,{','.join(map(str, box))}" for number in range(4))]
    for number in range(4):
        cv2.imwrite(str(tmp_path / f"{number}.png"), np.full((20, 40), number, np.uint8))
    (tmp_path / "labels.csv").write_text("\n".join(rows))
    assert plan([tmp_path], {}).config.stages[0].transform.kind == kind


def test_images_are_kept_as_large_as_crops_of_them_are_to_be(tmp_path):
    for number in range(6):
        image = np.random.default_rng(number).integers(0, 256, (200, 200), dtype=np.uint8)
        folder = tmp_path / ("even", "odd")[number % 2]
        folder.mkdir(exist_ok=True)
        cv2.imwrite(str(folder / f"{number}.png"), image)
    planned = plan([tmp_path], {}, Wishes(output_size=(160, 160)))
    assert planned.source.train.images[0].shape == (160, 160, 1)
    (tmp_path / "labels.csv").write_text("".join(f"{('even', 'odd')[n % 2]}/{n}.png,t{n}\n" for n in range(6)))
    words = plan([tmp_path], {})
    assert words.config.canvas > 96
    assert words.source.train.images[0].shape[0] == words.config.canvas


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"crop_margin": [0, 3]}, "crop_margin"),
        ({"straight_within": 1.5}, "straight_within"),
        ({"second_look": True}, "second_look"),
        ({"classifier_widths": [20_000]}, "size"),
    ],
)
def test_what_no_checkpoint_could_hold_is_refused_before_the_run(changes, named, tmp_path):
    for number in range(4):
        (tmp_path / "ab"[number % 2]).mkdir(exist_ok=True)
        cv2.imwrite(str(tmp_path / "ab"[number % 2] / f"{number}.png"), np.full((20, 20), number, np.uint8))
    with pytest.raises(UsageError, match=named):
        plan([tmp_path], changes)


def test_held_out_images_that_say_nothing_are_refused_before_the_run():
    data, silent = dataset(), Examples(dataset().validation.images, np.full(30, -1), ("lies", "stands"))
    with pytest.raises(TrainingDataError, match="validation"):
        prepare(dataclasses.replace(data, validation=silent), settings(data))
    boxes = dataset(corners=True)
    unknown = dataclasses.replace(boxes.validation, corners=np.full((30, 4, 2), np.nan))
    half = dataclasses.replace(boxes, validation=unknown)
    assert prepare(half, settings(half, objectives=("classify", "straighten"), scenes=())).classes
    with pytest.raises(TrainingDataError, match="validation"):
        prepare(half, settings(half, objectives=("straighten",), scenes=()))


def test_texts_that_cannot_be_right_count_as_wrong_and_teach_nothing(tmp_path):
    data = dataset(texts=True)
    foreign = dataclasses.replace(data.validation, texts=("üp",) * len(data.validation))
    said = Said()
    _, checkpoint = trained(dataclasses.replace(data, validation=foreign), tmp_path, said)
    assert checkpoint.header.model.reader.alphabet == "eilpu"
    assert said.validations[-1].overall["words"] == 0
    assert np.array_equal(encoded(foreign, "up")[0], [3, 2])


def test_texts_that_are_longer_than_the_reader_is_wide_are_named():
    data = dataset(texts=True)
    texts = ("u" * 8, "up" * 4, *data.train.texts[2:])
    long = dataclasses.replace(data, train=dataclasses.replace(data.train, texts=texts))
    (problem,) = with_problems(long, settings(long)).problems
    assert problem.where == ("u" * 8,), "which needs a blank between each two, and 15 columns"


def test_a_size_of_crops_is_that_of_all_that_read_them():
    data = dataset(texts=True)
    both = Examples(data.train.images, np.arange(90) % 2, ("a", "b"), data.train.texts)
    given = {"objectives": ["classify", "read"]}
    config = suited(Dataset(both, both, both.chosen([]), "", ""), given, Wishes(output_size=(32, 96)))
    assert (config.classifier_size, config.reader_size) == ((32, 96), (32, 96))


def test_a_reader_learns_to_spell(tmp_path):
    said = Said()
    _, checkpoint = trained(dataset(400, texts=True), tmp_path, said, steps=250, validate_every=250, ema=0.9)
    assert checkpoint.header.model.reader.alphabet == "eilpu"
    assert said.validations[-1].overall["words"] > 0.8


def test_the_best_path_spells_as_ctc_says():
    paths = torch.tensor([[1, 1, 0, 1, 2], [0, 0, 2, 2, 0], [0, 0, 0, 0, 0]])
    characters = torch.nn.functional.one_hot(paths, 3).float()
    text = torch.tensor([[1, 1, 2], [2, 0, 0], [1, 0, 0]])
    assert read_right(characters, text).tolist() == [True, True, False]


def test_known_corners_teach_poses_without_any_distortion(tmp_path):
    said = Said()
    data = dataset(200, corners=True)
    wishes = Wishes(transform=TransformConfig("attention"), input_size=(16, 16))
    trained(data, tmp_path, said, wishes=wishes, objectives=("straighten",), steps=120, validate_every=120, ema=0.9)
    assert said.validations[-1].overall["iou"] > 0.9
    assert said.validations[-1].overall["zoom_mean"] == pytest.approx(0.5, abs=0.1)


def test_labels_alone_never_see_the_true_corners(tmp_path):
    with_corners, without = dataset(corners=True), dataset()
    for number, data in enumerate((with_corners, without)):
        trained(data, tmp_path / str(number))
    weights = [torch.load(tmp_path / name / "state-4.pt", weights_only=True)["model"] for name in "01"]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"objectives": ("read",)}, "transcriptions"),
        ({"objectives": ("straighten",), "scenes": ()}, "true poses"),
    ],
)
def test_an_objective_that_the_data_cannot_teach_is_refused(changes, named):
    data = dataset()
    with pytest.raises(TrainingDataError, match=named):
        prepare(data, settings(data, **changes))


@pytest.mark.parametrize(
    "changes",
    [
        {"augment": {"scale": 0.5}},
        {"augment": {"light": 1.0}},
        {"penalties": {"fold": -1}},
        {"accumulate": 0},
        {"patience": -1},
        {"bypassed": True, "objectives": ("straighten",)},
        {"stages": ()},
        {"stages": [{"transform": {"kind": "spin"}, "input_size": [16, 16]}]},
    ],
)
def test_settings_that_make_no_sense_are_refused(changes):
    with pytest.raises(UsageError):
        settings(dataset(), **changes)


@pytest.mark.parametrize("name", ["spin", "affine:grid 4x4", "tps:grid 1x1", "tps:circle", ""])
def test_a_transform_that_does_not_exist_is_named(name):
    with pytest.raises(UsageError):
        transform_called(name)


def test_all_examples_come_up_once_an_epoch():
    data = dataset()
    samples = GivenSamples(data.train, settings(data, augment=STILL), seed=1, length=180, moved=True)
    first, second = (samples.__getitems__(range(start, start + 90)).canvas for start in (0, 90))
    wanted = sorted(image.tobytes() for image in data.train.images)
    for epoch in (first, second):
        assert sorted(each.permute(1, 2, 0).numpy().tobytes() for each in epoch) == wanted
    assert not torch.equal(first, second)


STILL = {"rotation": 0, "scale": 1, "shear": 0, "shift": 0, "light": 0}


def test_corners_move_with_the_image():
    image = np.zeros((40, 60, 1), np.uint8)
    image[10:14, 40:44] = 255
    centre = np.array([42 / 30 - 1, 12 / 20 - 1])
    corners = np.tile(centre, (1, 4, 1))
    known = Examples((image,), np.array([0]), ("a", "b"), (), corners)
    data = Dataset(known, known, known, "", "")
    augment = {"rotation": 40, "scale": 1.3, "shear": 0.2, "shift": 0.2, "light": 0}
    samples = GivenSamples(known, settings(data, canvas=200, augment=augment), seed=3, length=30, moved=True)
    batch = samples.__getitems__(range(30))
    mass = batch.canvas[:, 0].double()
    middles = torch.arange(200) + 0.5
    x = (mass.sum(1) * middles).sum(1) / mass.sum((1, 2))
    y = (mass.sum(2) * middles).sum(1) / mass.sum((1, 2))
    inside = (batch.truth[:, 0].abs() < 0.85).all(1)
    assert inside.sum() > 15
    found = torch.stack((x, y), 1)[inside] / 100 - 1
    torch.testing.assert_close(found, batch.truth[inside, 0], rtol=0, atol=0.008)


@pytest.mark.parametrize("workers", [0, 2])
def test_processes_that_share_a_batch_take_all_of_it_between_them(workers):
    data = dataset(corners=True)
    samples = GivenSamples(data.train, settings(data), seed=1, length=90, moved=True)
    whole = list(batches(samples, 32, workers=workers))
    parts = [list(batches(samples, 32, workers=workers, part=(rank, 3))) for rank in range(3)]
    assert [len(batch.label) for batch in whole] == [32, 32, 26]
    for batch, *pieces in zip(whole, *parts, strict=True):
        for name, column in batch._asdict().items():
            assert torch.equal(column, torch.cat([getattr(piece, name) for piece in pieces])), name
    later = list(batches(samples, 32, first=1, workers=workers))
    assert torch.equal(later[0].canvas, whole[1].canvas)


def test_a_batch_in_pieces_is_all_of_it():
    data = dataset()
    batch = GivenSamples(data.train, settings(data), seed=1, moved=False).__getitems__(range(7))
    pieces = split(batch, 3)
    assert [len(piece.label) for piece in pieces] == [2, 2, 3]
    assert torch.equal(torch.cat([piece.canvas for piece in pieces]), batch.canvas)
    assert len(split(batch, 20)) == 7


def test_a_batch_in_pieces_teaches_what_it_teaches_as_a_whole(tmp_path):
    data = dataset()
    for trunk in ("fc",):  # which normalises over no batch
        stage = {"transform": {"kind": "affine"}, "input_size": [16, 16], "trunk": trunk, "widths": [16], "channels": 1}
        gradients = []
        for pieces in (1, 4):
            made = settings(data, accumulate=pieces, stages=[stage], clip=1e9)
            trainer = Trainer(made, prepare(data, made), tmp_path, workers=0)
            trainer.model.classifier.eval()
            trainer.model.train = lambda: None
            trainer.one_step(next(iter(batches(trainer.data.training, 16, workers=0))))
            gradients.append([p.grad.clone() for p in trainer.model.parameters() if p.grad is not None])
        for whole, added in zip(*gradients, strict=True):
            torch.testing.assert_close(added, whole, rtol=1e-3, atol=1e-6)


def test_a_piece_of_a_batch_of_which_nothing_is_known_teaches_nothing(tmp_path):
    data = dataset()
    labels = np.where(np.arange(len(data.train)) < 8, data.train.labels, -1)
    few = dataclasses.replace(data, train=dataclasses.replace(data.train, labels=labels))
    config = settings(few, batch_size=4, accumulate=4, bypassed=True, steps=20, augment=Augment())
    trainer = Trainer(config, prepare(few, config), tmp_path, workers=0)
    assert trainer.train()
    assert trainer.step == 20
    assert all(bool(weights.isfinite().all()) for weights in trainer.model.parameters())


def test_a_run_without_progress_ends_early_and_stays_ended(tmp_path):
    data = dataset()
    changes = {"steps": 40, "validate_every": 2, "patience": 3, "learning_rate": 1e-9}
    trainer, _ = trained(data, tmp_path, **changes)
    assert trainer.step == trainer.best_step + 6 < 40
    again, _ = trained(data, tmp_path, **changes)
    assert again.step == trainer.step


def test_a_bypassed_transformer_learns_nothing_and_shows_the_whole_image(tmp_path):
    said = Said()
    trainer, _ = trained(dataset(), tmp_path, said, bypassed=True)
    measures = said.validations[-1].overall
    assert (measures["zoom_mean"], measures["zoom_spread"]) == pytest.approx((1.0, 0.0), abs=1e-6)
    assert measures["accuracy"] == measures["accuracy_unrectified"]
    assert not said.warnings
    heads = [p for n, p in trainer.model.named_parameters() if n.endswith("head.weight")]
    assert not any(head.any() for head in heads)


@pytest.mark.parametrize("right", [0, 4, 9, 27])
@pytest.mark.parametrize(
    "start",
    [
        Similarity(torch.tensor([[0.2, 1.9, 0.0, 0.1]])),
        Affine(torch.tensor([[0.8, 0.3, 0.1, 0.1, 0.2, -0.1]])),
        type(WIDE)(torch.tensor(WIDE.theta)),
    ],
    ids=["similarity", "oblong", "letterbox"],
)
def test_votes_tell_by_how_much_what_they_were_shown_is_turned(start, right):
    """The frame lies turned by `right` times 10° in what a net is shown, which lies somehow in the image itself."""
    stage = LocalizerConfig(transform=TransformConfig("similarity"), input_size=(16, 16), widths=(4, 8), angle_bins=36)
    turned = torch.tensor([[-0.3, np.radians(10 * right), 0.1, 0.2]], dtype=start.theta.dtype)
    truth = start @ Similarity(turned)
    batch = Batch(
        torch.zeros((1, 1, 16, 16), dtype=torch.uint8),
        border(truth, torch.zeros((1, 4, 2))).double(),
        torch.tensor([-1]),
        torch.tensor([0]),
        torch.zeros((1, 0), dtype=torch.long),
    )
    told = []
    for votes in 10 * torch.eye(36):
        pose = Pose(turned, torch.zeros(1), votes[None])
        output = Rectified((Located((start,), (truth,), (pose,)),), None, None)
        config = TrainConfig(objectives=("straighten",), stages=(stage,))
        told.append(losses(output, batch, ModelConfig(stages=(stage,)), config)["angle"])
    assert int(torch.stack(told).argmin()) == right


def affine(a, b, x, c, d, y):
    return Affine(torch.tensor([[a, b, x, c, d, y]]))


def test_penalties_are_of_what_lies_outside_and_of_what_turns_over():
    weights = Penalties(out_of_frame=1, fold=1, area=1)
    inside = penalties(affine(0.5, 0, 0, 0, 0.5, 0), weights)
    assert float(inside["out_of_frame"]) == 0
    assert float(inside["area"]) == pytest.approx(np.log(0.25), rel=1e-5)
    shifted = penalties(affine(1, 0, 0.5, 0, 1, 0), weights)
    lattice = (2 * np.arange(9) + 1) / 9 - 1
    assert float(shifted["out_of_frame"]) == pytest.approx(np.clip(lattice + 0.5 - 1, 0, None).mean(), rel=1e-5)
    layout = layout_from_name("grid 4x4")
    flat = ThinPlateSpline(torch.tensor(layout.points.ravel()[None]), layout)
    crossed = layout.points.copy()
    crossed[[5, 6]] = crossed[[6, 5]]
    folded = ThinPlateSpline(torch.tensor(crossed.ravel()[None]), layout)
    assert float(penalties(flat, weights)["fold"]) == 0
    assert float(penalties(folded, weights)["fold"]) > 0.05


HEALTHY = {
    "zoom_mean": 0.8,
    "zoom_spread": 0.1,
    "turn_mean": 3.0,
    "turn_spread": 10.0,
    "x_mean": 0.0,
    "x_spread": 0.05,
    "y_mean": 0.0,
    "y_spread": 0.05,
    "out_of_frame": 0.02,
    "contrast": 0.9,
    "saturated": 0.0,
    "fold": 0.0,
}
IDENTITY = {name: 0.0 for name in HEALTHY if name.endswith("_spread")} | {"zoom_mean": 1.0, "turn_mean": 0.0}


@pytest.mark.parametrize(
    ("changes", "progress", "named"),
    [
        ({}, 1.0, []),
        ({"zoom_mean": 2.5, "out_of_frame": 0.7}, 0.1, ["zoomed out"]),
        ({"out_of_frame": 0.9}, 0.1, ["beside the image"]),
        ({"contrast": 0.02}, 0.1, ["blank"]),
        ({"zoom_mean": 0.05}, 0.1, ["a dot"]),
        ({"saturated": 0.8}, 0.1, ["stuck"]),
        ({"fold": 0.5}, 0.1, ["folded"]),
        (IDENTITY, 0.4, []),
        (IDENTITY, 0.6, ["standing still"]),
    ],
)
def test_symptoms_are_named_with_a_remedy(changes, progress, named):
    found = list(symptoms(HEALTHY | changes, progress))
    assert [symptom.what.partition(":")[0] for symptom in found] == named
    assert all(symptom.remedy for symptom in found)


def test_a_run_that_zooms_out_says_so_in_its_log(tmp_path):
    said = Said()
    stage = {
        "transform": {"kind": "attention"},
        "input_size": [16, 16],
        "widths": [8, 8],
        "channels": 1,
        "limits": {"zoom": 8.0},
    }
    trainer_settings = {
        "stages": [stage],
        "penalties": {"out_of_frame": 0, "area": -0.0},
        "steps": 2,
        "validate_every": 2,
    }
    data = dataset()
    made = settings(data, **trainer_settings)
    trainer = Trainer(made, prepare(data, made), tmp_path, workers=0)
    with torch.no_grad():
        for model in (trainer.model, trainer.average.module):
            model.transformer.stages[0].localizer.head.bias[0] = 3.0
    trainer.train(said)
    assert any("zoomed out" in text for text in said.warnings)
    entries = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert any("penalties.out_of_frame" in entry.get("remedy", "") for entry in entries)


def test_overlap_is_of_areas():
    square = np.array([[0, 0], [1, 0], [0, 1], [1, 1]], float)
    assert overlap(square, square) == pytest.approx(1)
    assert overlap(square, square + np.array([0.5, 0])) == pytest.approx(0.5 / 1.5)
    assert overlap(square, square + np.array([5, 0])) == 0
    turned = cv2.boxPoints(((0.5, 0.5), (1, 1), 45.0))[[1, 2, 0, 3]]
    assert overlap(square, turned) == pytest.approx(2 * (np.sqrt(2) - 1) / (2 - 2 * (np.sqrt(2) - 1)), rel=1e-3)
    assert np.isnan(overlap(square, square * np.nan))


WORKER = """
import hashlib
import sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from tests.training.drawn import dataset, settings
from stn_cli.reports.run import train_and_report
from stn_cli.training.api import Plan, Resources
from stn_cli.networks.config import TransformConfig
from stn_cli.training.defaults import Wishes
data = dataset(200)
wishes = Wishes(transform=TransformConfig("attention"), input_size=(16, 16))
made = settings(data, wishes, steps=60, validate_every=20, ema=0.9)
run = Path(sys.argv[1])
trainer, _ = train_and_report(Plan(data, made, Resources(workers=0, threads=1)), run, baseline=True)
weights = b"".join(parameter.detach().numpy().tobytes() for parameter in trainer.model.parameters())
(run / f"digest-{trainer.team.rank}").write_text(hashlib.sha256(weights).hexdigest())
"""


def validations(folder):
    entries = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [entry["validation"]["overall"] for entry in entries if "validation" in entry]


def test_two_processes_learn_what_one_does(tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    for processes in (1, 2):
        launched = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(processes), "--standalone"]
        command = launched if processes > 1 else [sys.executable]
        script = tmp_path / "worker.py"
        script.write_text(WORKER)
        done = subprocess.run(
            [*command, str(script), str(tmp_path / str(processes))],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
        assert done.returncode == 0, done.stderr[-3000:]
    alone, shared = (validations(tmp_path / str(processes)) for processes in (1, 2))
    assert len(alone) == len(shared) == 3, "the first process alone writes the log"
    assert shared[-1]["accuracy"] == pytest.approx(alone[-1]["accuracy"], abs=0.12)
    assert shared[-1]["zoom_mean"] == pytest.approx(alone[-1]["zoom_mean"], abs=0.1)
    for made in ("model.safetensors", "report.md", "baseline/model.safetensors"):
        assert (tmp_path / "2" / made).exists()
    first, second = ((tmp_path / "2" / f"digest-{rank}").read_text() for rank in (0, 1))
    assert first == second, "each moved its weights by the gradients of both"


def test_a_plan_is_refused_before_the_data_is_read(tmp_path):
    with pytest.raises(UsageError):
        plan([tmp_path / "nowhere"], {"steps": "many"})
    with pytest.raises(TrainingDataError, match="nowhere"):
        plan([tmp_path / "nowhere"], {"steps": 3})


def test_a_plain_configuration_is_the_same_as_its_entries():
    entries = {"steps": 7, "augment": {"rotation": 3.0}}
    made = settings(dataset(), **entries)
    assert (made.steps, made.augment) == (7, Augment(rotation=3.0))
    assert isinstance(made, TrainConfig)


def test_words_are_seen_by_rectify_as_they_were_in_training(tmp_path):
    data = dataset(80, texts=True)
    wide = tuple(np.repeat(np.repeat(image, 5, axis=1), 2, axis=0) for image in data.train.images)
    examples = Examples(wide, data.train.labels, (), data.train.texts)
    data = Dataset(examples, examples, examples.chosen([]), "", "")
    trainer, checkpoint = trained(data, tmp_path, steps=12, validate_every=12, localizer_scale=2.0, ema=0.0)
    assert checkpoint.header.model.fit == "stretch"
    canvas = trainer.data.held_out.__getitems__(range(8)).canvas
    with torch.no_grad():
        seen = trainer.best_model().transformer.locate(canvas.float() / 255).transform.theta
    located = OnnxEngine(checkpoint).locate([small_copy(image) for image in wide[:8]], [(40, 100)] * 8)
    assert (seen - torch.tensor([1.0, 0, 0, 0, 1, 0])).abs().max() > 0.02
    np.testing.assert_allclose(located.transforms.theta, seen.numpy(), atol=0.02)
    assert all(set(label) <= set("eilpu") for label, _ in located.labels)


def test_a_run_goes_on_with_another_transformer(tmp_path):
    first, _ = trained(dataset(), tmp_path / "first", wishes=Wishes(input_size=(16, 16)))
    wishes = Wishes(transform=TransformConfig("tps", "grid 3x3"), stages=2, input_size=(20, 20))
    data, changes = dataset(), {name: SMALL[name] for name in ("batch_size", "steps", "validate_every", "warmup")}
    config = suited(data, {"start": str(tmp_path / "first"), **changes}, wishes)
    assert [stage.transform.kind for stage in config.stages] == ["tps", "tps"]
    assert {stage.channels for stage in config.stages} == {1}
    trainer = Trainer(config, prepare(data, config), tmp_path / "second", workers=0)
    for name, value in trainer.model.classifier.state_dict().items():
        torch.testing.assert_close(value, first.best_weights[f"classifier.{name}"], rtol=1e-3, atol=1e-3)
    assert trainer.train()


def test_what_a_run_starts_from_stays_as_it_is_without_wishes(tmp_path):
    wishes = Wishes(transform=TransformConfig("attention"), input_size=(16, 16))
    first, _ = trained(dataset(), tmp_path / "first", wishes=wishes)
    assert suited(dataset(), {"start": str(tmp_path / "first")}).stages == first.config.stages
