"""Training: drawn truth is true, runs resume exactly, and a run's folder rectifies."""

import dataclasses
import json

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.numpy import load_file

from stn_cli.errors import DivergedError, StorageError, UsageError
from stn_cli.geometry import Projective, grid, outline
from stn_cli.networks.config import LocalizerConfig, TransformConfig
from stn_cli.training import loop
from stn_cli.training.api import plan
from stn_cli.training.config import Scene, TrainConfig, read_config
from stn_cli.training.data import prepare
from stn_cli.training.examples import Dataset, Examples
from stn_cli.training.finish import export
from stn_cli.training.loop import Trainer
from stn_cli.training.samples import batches
from stn_cli.training.scenes import draw
from stn_cli.training.seams import is_seamless
from stn_cli.training.validation import validate
from stn_cli.training.watching import Watcher
from tests.training.said import Said

STAGE = LocalizerConfig(
    transform=TransformConfig("similarity"), input_size=(16, 16), widths=(4, 8), hidden=16, angle_bins=8
)


def uprights(count=40):
    rng = np.random.default_rng(0)
    images = []
    for label in range(count):
        image = np.zeros((20, 20, 1), np.uint8)
        image[4:16, 9:12] = 255
        image[4:7, 9 : 12 + 5 * (label % 2)] = 255
        images.append(np.clip(image + rng.integers(0, 9, image.shape), 0, 255).astype(np.uint8))
    examples = Examples(tuple(images), np.arange(count) % 2, ("bar", "flag"))
    held_out = np.arange(count) % 10 == 9
    parts = [examples.chosen(np.flatnonzero(part)) for part in (~held_out, held_out, np.zeros(count, bool))]
    return Dataset(*parts, "drawn here", "every tenth")


def config(**changes):
    settings = {
        "objectives": ("straighten", "classify"),
        "foreground": "ink",
        "scenes": (Scene(pixels=(24, 32)),),
        "stages": (STAGE,),
        "canvas": 24,
        "classifier_size": (16, 16),
        "classifier_widths": (4, 8),
        "batch_size": 8,
        "steps": 6,
        "validate_every": 2,
        "validation_samples": 8,
        "warmup": 1,
    }
    return TrainConfig(**{**settings, **changes})


def data(settings=None, source=None):
    return prepare(source or uprights(), settings or config())


def weights(trainer):
    return {name: value.clone() for name, value in trainer.model.state_dict().items()}


@pytest.mark.parametrize("seed", range(8))
def test_the_truth_of_a_scene_is_where_the_image_was_drawn(seed):
    rng = np.random.default_rng(seed)
    image = np.zeros((64, 64, 1), np.uint8)
    image[20:24, 40:44] = 255
    scene = Scene(pixels=(200, 200), rotation=180, extent=(0.4, 0.8), shear=0.2, perspective=0.1, plain=1)
    drawn = draw(rng, image, [], scene, 200, ink=True)
    x, y, w = drawn.truth @ [42 / 32 - 1, 22 / 32 - 1, 1]
    expected = (np.array([x, y]) / w + 1) * 100
    mass = drawn.canvas[..., 0].astype(float)
    rows, columns = np.indices(mass.shape) + 0.5
    found = np.array([(columns * mass).sum(), (rows * mass).sum()]) / mass.sum()
    assert np.abs(found - expected).max() < 0.3


def test_an_opaque_picture_is_drawn_at_its_truth():
    picture = np.full((40, 60, 3), (200, 30, 30), np.uint8)
    scene = Scene(pixels=(120, 120), rotation=0, extent=(0.5, 0.5), reach=0, plain=0, edges=1.0)
    drawn = draw(np.random.default_rng(1), picture, [], scene, 120, ink=False)
    inverse = np.linalg.inv(drawn.truth)
    assert np.abs(inverse @ [0, 0, 1] - [0, 0, 1]).max() < 1e-9
    middle = cv2.mean(drawn.canvas[50:70, 50:70])[:3]
    assert middle[0] - middle[1] > 100


def test_a_picture_that_is_not_square_keeps_its_aspect():
    y, x = np.mgrid[:120, :60]
    disc = (((x - 29.5) ** 2 + (y - 59.5) ** 2 < 20**2) * 255).astype(np.uint8)[..., None]
    scene = Scene(pixels=(120, 120), rotation=0.0, extent=(1.0, 1.0), reach=0.0, plain=1.0, edges=1.0)
    canvas = draw(np.random.default_rng(1), np.repeat(disc, 3, axis=2), [], scene, 120, ink=False).canvas.astype(int)
    change = np.abs(canvas - canvas[60, 60]).sum(axis=2) < 60
    rows, columns = np.nonzero(change[:, 60])[0], np.nonzero(change[60])[0]
    assert abs(np.ptp(rows) - np.ptp(columns)) <= 3


@pytest.mark.parametrize("size", [(40, 40), (30, 60), (50, 20)])
def test_edges_that_are_hidden_tell_nothing_of_the_pose(size):
    rng = np.random.default_rng(5)
    picture = rng.integers(0, 255, (*size, 3), dtype=np.uint8)
    y, x = ((np.indices(size).T + 0.5) * 2 - size).T / max(size)
    far = np.hypot(x, y) > min(size) / max(size) + 0.3  # further than interpolation reaches
    assert far.any()
    other = np.where(far[..., None], 255 - picture, picture)
    scene = Scene(pixels=(48, 48), perspective=0.2, shear=0.1, edges=0.0)
    filled = 0
    for seed in range(60):
        drawn, again = (draw(np.random.default_rng(seed), each, [], scene, 48, ink=False) for each in (picture, other))
        seen = Projective.from_matrix(np.linalg.inv(drawn.truth))(outline(20))
        fills = bool((np.abs(seen) <= np.array(size[::-1]) / max(size) + 1e-6).all())
        filled += fills
        assert fills or np.array_equal(drawn.canvas, again.canvas), seed
    assert 20 <= filled <= 40


def test_most_pictures_whose_border_has_one_colour_lie_on_that_colour():
    drawing = np.full((40, 40, 3), 250, np.uint8)
    drawing[12:28, 18:22] = 20
    scene = Scene(pixels=(48, 48), extent=(0.5, 0.7), edges=1.0)
    on_paper = 0
    for seed in range(60):
        drawn = draw(np.random.default_rng(seed), drawing, [], scene, 48, ink=False)
        at = Projective.from_matrix(np.linalg.inv(drawn.truth))(grid((48, 48)))
        beyond = drawn.canvas.reshape(-1, 3)[np.abs(at).max(axis=1) > 1.2]
        on_paper += beyond.mean() > 225
    assert 30 <= on_paper <= 54


def test_a_picture_of_one_colour_alone_shows_its_edges():
    assert not is_seamless(np.full((40, 40, 3), (200, 30, 30), np.uint8))


@pytest.mark.parametrize("cooldown", [1.0, 0.5, 0.0])
def test_the_rate_is_that_of_torchs_schedulers(cooldown, tmp_path):
    steps, warmup = 30, 6
    falling = round(cooldown * (steps - warmup))
    trainer = Trainer(config(steps=steps, warmup=warmup, cooldown=cooldown), data(), tmp_path, workers=0)
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=trainer.config.learning_rate)
    rises = torch.optim.lr_scheduler.LinearLR(optimizer, 1 / warmup, 1.0, warmup - 1)
    falls = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(1, falling))
    expected = torch.optim.lr_scheduler.SequentialLR(optimizer, [rises, falls], [steps - falling])
    for trainer.step in range(steps):
        assert trainer._rate() == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-6)
        optimizer.step()
        expected.step()


def test_interrupted_and_resumed_equals_uninterrupted(tmp_path):
    whole = Trainer(config(), data(), tmp_path / "whole", workers=0)
    whole.train()

    class Killed(Exception):
        pass

    def kill_at_five(step):
        if step == 5:
            raise Killed

    with pytest.raises(Killed):
        Trainer(config(), data(), tmp_path / "parts", workers=0).train(Said(kill_at_five))
    resumed = Trainer(config(), data(), tmp_path / "parts", workers=0)
    resumed.train()
    assert resumed.step == whole.step == 6
    for (name, a), b in zip(weights(whole).items(), weights(resumed).values(), strict=True):
        assert torch.equal(a, b), name


def test_a_stop_saves_the_state_of_that_very_step(tmp_path):
    whole = Trainer(config(), data(), tmp_path / "whole", workers=0)
    assert whole.train()
    stopped = Trainer(config(), data(), tmp_path / "parts", workers=0)
    assert not stopped.train(is_stopped=lambda: stopped.step == 5)
    assert (tmp_path / "parts" / "state-5.pt").exists()
    resumed = Trainer(config(), data(), tmp_path / "parts", workers=0)
    said = Said()
    assert resumed.train(said)
    assert said.steps == [6]
    for (name, a), b in zip(weights(whole).items(), weights(resumed).values(), strict=True):
        assert torch.equal(a, b), name


def test_the_last_states_are_kept_and_a_damaged_one_is_passed_over(tmp_path):
    whole = Trainer(config(), data(), tmp_path, workers=0, keep=2)
    whole.train()
    assert sorted(path.name for path in tmp_path.glob("state-*")) == ["state-4.pt", "state-6.pt"]
    (tmp_path / "state-6.pt").write_bytes((tmp_path / "state-6.pt").read_bytes()[:5000])
    said, resumed = Said(), Trainer(config(), data(), tmp_path, workers=0)
    resumed.train(said)
    assert said.steps == [5, 6]
    (damaged,) = [text for text in said.warnings if "state-6.pt" in text]
    assert "cannot be resumed from" in damaged
    for (name, a), b in zip(weights(whole).items(), weights(resumed).values(), strict=True):
        assert torch.equal(a, b), name
    for path in tmp_path.glob("state-*"):
        path.write_bytes(b"damaged")
    with pytest.raises(StorageError, match=r"state-6\.pt cannot be resumed from"):
        Trainer(config(), data(), tmp_path, workers=0).train()


@pytest.mark.parametrize(("spoilt", "named"), [(3, r"the loss \(points"), (4, "a weight")])
def test_what_is_no_number_is_named_and_ends_the_run_before_it_is_saved(tmp_path, spoilt, named):
    trainer = Trainer(config(validate_every=2), data(), tmp_path, workers=0)

    def spoil(step):
        if step == spoilt:
            with torch.no_grad():
                next(trainer.model.transformer.parameters()).fill_(float("nan"))

    with pytest.raises(DivergedError, match=f"{named}.* after step {spoilt}; the gradient before") as raised:
        trainer.train(Said(spoil))
    assert raised.value.exit_code == 9
    assert [path.name for path in tmp_path.glob("state-*")] == ["state-2.pt"]
    good = Trainer(config(validate_every=2), data(), tmp_path, workers=0)
    assert good.train()
    assert all(bool(torch.isfinite(value).all()) for value in weights(good).values())


def test_two_runs_in_one_folder_are_kept_apart(tmp_path):
    from stn_cli.images import exclusive

    with exclusive(tmp_path), pytest.raises(StorageError, match="another run"):
        Trainer(config(), data(), tmp_path, workers=0).train()


def test_another_configuration_does_not_resume(tmp_path):
    Trainer(config(), data(), tmp_path, workers=0).train()
    with pytest.raises(UsageError, match="another configuration"):
        Trainer(config(steps=7), data(config(steps=7)), tmp_path, workers=0).train()


@pytest.mark.parametrize("changed", ["pixel", "label", "order", "split"])
def test_other_data_does_not_resume(tmp_path, changed):
    known, settings = uprights(), config()
    Trainer(settings, prepare(known, settings), tmp_path, workers=0).train()
    train, validation = known.train, known.validation
    if changed == "pixel":
        image = train.images[7].copy()
        image[3, 4] ^= 1
        train = dataclasses.replace(train, images=(*train.images[:7], image, *train.images[8:]))
    elif changed == "label":
        train = dataclasses.replace(train, labels=np.roll(train.labels, 1))
    elif changed == "order":
        train = train.chosen([1, 0, *range(2, len(train))])
    else:
        train, validation = validation, train
    other = dataclasses.replace(known, train=train, validation=validation)
    before = sorted(path.name for path in tmp_path.iterdir())
    with pytest.raises(UsageError, match="the data is not what it was"):
        Trainer(settings, prepare(other, settings), tmp_path, workers=0).train()
    assert sorted(path.name for path in tmp_path.iterdir()) == before
    assert Trainer(settings, prepare(uprights(), settings), tmp_path, workers=0).train()


def test_the_rate_reaches_the_optimizer(tmp_path):
    """Adam's first step moves a weight by the rate (Kingma & Ba 2015, section 2.1)."""
    settings = config(warmup=5, steps=40, localizer_scale=0.1, weight_decay=0.0, learning_rate=1e-2)
    trainer = Trainer(settings, data(settings), tmp_path, workers=0)
    before = {name: weight.detach().clone() for name, weight in trainer.model.named_parameters()}
    trainer.one_step(next(iter(batches(trainer.data.training, 8, workers=0))))
    moved = {
        name: float((weight.detach() - before[name]).abs().max()) for name, weight in trainer.model.named_parameters()
    }
    for name, way in moved.items():
        rate = 1e-2 / 5 * (0.1 if name.startswith("transformer.") else 1.0)
        assert way <= rate * 1.001, name
        if name.endswith(("head.bias", "layers.5.bias")):
            assert way == pytest.approx(rate, rel=0.01), name


def test_the_average_of_the_weights_is_kept(tmp_path):
    settings, states = config(steps=6, validate_every=6, ema=0.5), []

    class Keeper(Watcher):
        def stepped(self, trainer, means):
            states.append(weights(trainer))

    trainer = Trainer(settings, data(settings), tmp_path, workers=0)
    trainer.train(Keeper())
    for name, last in states[-1].items():
        if last.is_floating_point():
            expected = states[0][name].double()
            for number, state in enumerate(states[1:], 1):
                decay = min(0.5, (1 + number) / (10 + number))
                expected = decay * expected + (1 - decay) * state[name].double()
            torch.testing.assert_close(trainer.best_weights[name].double(), expected, rtol=1e-4, atol=1e-6)


def test_the_best_weights_are_kept(tmp_path, monkeypatch):
    scores, seen, measure = iter([0.2, 0.9, 0.5]), [], loop.validate

    def scored(model, *args, **more):
        seen.append({name: value.clone() for name, value in model.state_dict().items()})
        return dataclasses.replace(measure(model, *args, **more), score=next(scores))

    monkeypatch.setattr(loop, "validate", scored)
    settings = config(steps=6, validate_every=2)
    trainer = Trainer(settings, data(settings), tmp_path, workers=0)
    trainer.train()
    assert trainer.best_step == 4
    assert all(torch.equal(trainer.best_weights[name], value) for name, value in seen[1].items())
    assert any(not torch.equal(value, seen[2][name]) for name, value in seen[1].items())


def pngs(root, names):
    for level, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (20, 20), level).save(root / name)


def test_what_is_said_of_the_data_reaches_it(tmp_path):
    names = [f"{kind}/{track}_{frame}.png" for kind in "ab" for track in range(6) for frame in range(6)]
    pngs(tmp_path, names)
    source = plan([tmp_path], {"group_by": r"^(\w/\d)_", "validation_share": 0.5}).source
    train, validation = ({name.partition("_")[0] for name in part.names} for part in (source.train, source.validation))
    assert not train & validation
    assert len(source.validation) > 12
    table = "".join(f"{name},{'xy'[number % 2]}\n" for number, name in enumerate(names))
    (tmp_path / "gt.csv").write_text(f"file,class\n{table}")
    assert plan([tmp_path], {"labels": "gt.csv"}).source.classes == ("x", "y")


def test_another_class_is_other_data(tmp_path):
    known, settings = uprights(), config()
    Trainer(settings, prepare(known, settings), tmp_path, workers=0).train()
    parts = {
        name: dataclasses.replace(part, classes=(*part.classes, "more"))
        for name, part in (("train", known.train), ("validation", known.validation), ("test", known.test))
    }
    with pytest.raises(UsageError, match="the data is not what it was"):
        Trainer(settings, prepare(dataclasses.replace(known, **parts), settings), tmp_path, workers=0).train()


def test_training_lowers_the_corner_error(tmp_path):
    scene = Scene(pixels=(24, 24), rotation=0, extent=(0.5, 0.5), reach=1.0, plain=1)
    settings = config(
        objectives=("straighten",), scenes=(scene,), steps=150, batch_size=16, validate_every=150, ema=0.9
    )
    trainer = Trainer(settings, data(settings), tmp_path, workers=0)
    untrained = validate(trainer.averaged_model(), trainer.data.held_out, settings).overall["error_median"]
    trainer.train()
    log = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    trained = log[-1]["validation"]["overall"]["error_median"]
    assert trained < 0.4 * untrained


def test_a_run_exports_a_checkpoint_that_reproduces_itself(tmp_path):
    from stn_cli.checkpoints import open_checkpoint
    from stn_cli.engines.verify import verify

    trainer = Trainer(config(), data(), tmp_path, workers=0)
    trainer.train()
    export(trainer, tmp_path)
    checkpoint = open_checkpoint(str(tmp_path))
    assert checkpoint.header.model.classifier.classes == ("bar", "flag")
    assert len(list(verify(checkpoint))) >= 4
    stored = load_file(tmp_path / "model.safetensors")
    assert stored["transformer.stages.0.localizer.head.weight"].dtype == np.float16


@pytest.mark.parametrize(
    "text", ["steps = 'many'", "stepz = 1", "steps = 0", "not toml", "[[scenes]]\nextent = [2, 1]"]
)
def test_a_configuration_that_makes_no_sense_is_named(tmp_path, text):
    (tmp_path / "c.toml").write_text(text)
    with pytest.raises(UsageError):
        read_config(tmp_path / "c.toml")
