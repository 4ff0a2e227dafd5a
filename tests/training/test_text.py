"""Rendered words: the truth is where the word was drawn, and a spline that learns from it becomes a checkpoint."""

import json
from pathlib import Path

import cv2
import matplotlib
import numpy as np
import pytest
import torch
from PIL import ImageFont

from stn_cli.checkpoints import open_checkpoint
from stn_cli.engines.engine import small_copy
from stn_cli.engines.onnx_engine import OnnxEngine
from stn_cli.engines.torch_engine import TorchEngine
from stn_cli.errors import TrainingDataError, UsageError
from stn_cli.geometry import BorderLayout, ThinPlateSpline, outline
from stn_cli.networks.config import DirectionConfig, LocalizerConfig, TransformConfig
from stn_cli.training.config import TrainConfig, read_config
from stn_cli.training.data import prepare
from stn_cli.training.finish import export
from stn_cli.training.loop import Trainer
from stn_cli.training.objectives import box_around, direction, point_errors
from stn_cli.training.starts import disturbed
from stn_cli.training.text import samples
from stn_cli.training.text.config import TextConfig, TextScene
from stn_cli.training.text.content import random_text, vocabulary
from stn_cli.training.text.drawing import draw_word
from stn_cli.training.text.fonts import held_out, writing_fonts
from stn_cli.training.text.masks import HEIGHT, Mask, render_masks
from stn_cli.training.text.pose import random_pose
from stn_cli.training.text.samples import Lettering, read_lettering
from stn_cli.training.text.textures import render_textures
from tests.running import ROOT, stn
from tests.training.said import Said

SCENES = {
    "straight": TextScene(name="straight"),
    "tilted": TextScene(name="tilted", rotation=40, shear=0.4, perspective=0.3, arcs=0.3, waves=0.3),
    "curved": TextScene(name="curved", rotation=30, arcs=1.0, arc=(30, 330), waves=0.5),
    "any": TextScene(name="any", rotation=180, paper=0.5),
}
WORDS = ("kelp", "Wharf", "QUARTZ", "jumping", "fox", "signal")


@pytest.fixture(scope="module")
def font(tmp_path_factory):
    """The font that Pillow brings along, as a file."""
    path = tmp_path_factory.mktemp("fonts") / "default.ttf"
    path.write_bytes(ImageFont.load_default(20).path.getvalue())
    return path


@pytest.fixture(scope="module")
def lettering(font):
    return Lettering((font,), (font,), WORDS, WORDS[:3])


def config(**changes):
    stages = (
        LocalizerConfig(
            transform=TransformConfig("affine"), input_size=(24, 24), channels=1, widths=(4, 8), hidden=16, angle_bins=8
        ),
        LocalizerConfig(
            transform=TransformConfig("tps", "ribbon 2x10"),
            input_size=(16, 32),
            channels=1,
            widths=(4, 8),
            hidden=16,
            margin=1.3,
            angle_bins=2,
            repeat=2,
        ),
    )
    text = TextConfig(words="unused", masks=64, scenes=(SCENES["straight"], SCENES["any"]))
    settings = {"stages": stages, "text": text, "canvas": 48, "right": 0.25, "batch_size": 4, "steps": 4}
    settings |= {"validate_every": 2, "validation_samples": 8, "warmup": 1, "min_confidence": 0.3}
    settings |= {"crop_margin": (0.3, 0.1), "straight_within": 0.2, "second_look": True}
    return TrainConfig(**{**settings, **changes})


@pytest.mark.parametrize("scene", SCENES.values(), ids=SCENES)
@pytest.mark.parametrize("seed", range(6))
def test_a_bend_and_its_inverse_are_inverse(scene, seed):
    rng = np.random.default_rng(seed)
    bend = random_pose(rng, scene, rng.uniform(0.5, 9.0)).bend
    u, v = rng.uniform(-1, 1, (2, 200))
    back_u, back_v = bend.inverse(*bend(u * bend.aspect, v))
    assert np.abs(back_u - u * bend.aspect).max() < 1e-6
    assert np.abs(back_v - v).max() < 1e-6


@pytest.mark.parametrize("scene", SCENES.values(), ids=SCENES)
def test_the_fiducials_surround_the_ink(scene):
    """A word that is all ink fills the polygon of its fiducials, whatever its colour."""
    solid = [Mask("all ink", np.full((HEIGHT, 4 * HEIGHT), 255, np.uint8))]
    plain = np.full((1, 224, 224), 128, np.uint8)
    overlaps = []
    for seed in range(30):
        drawn = draw_word(np.random.default_rng(seed), solid, plain, scene, 96)
        points = (drawn.fiducials + 1) * 48 - 0.5
        border = np.rint(np.concatenate((points[:10], points[:9:-1]))).astype(np.int32)
        inside = cv2.fillPoly(np.zeros((96, 96), np.uint8), [border], 1).astype(bool)
        _, split = cv2.threshold(drawn.canvas, 0, 1, cv2.THRESH_BINARY | cv2.THRESH_OTSU)
        shares = [np.sum(inside & side) / np.sum(inside | side) for side in (split == 1, split == 0)]
        overlaps.append(max(shares))
    assert np.median(overlaps) > 0.7


@pytest.mark.parametrize("name", SCENES)
def test_the_fiducials_lie_as_the_word_reads(name):
    ink = np.zeros((HEIGHT, 4 * HEIGHT), np.uint8)  # a stem on the left, a bar along the top, a dot at the lower right
    ink[:, : HEIGHT // 2] = ink[: HEIGHT // 3] = ink[-2:, -2:] = 255
    plain = np.full((1, 224, 224), 128, np.uint8)
    word = cv2.resize(ink, (96, 24), interpolation=cv2.INTER_AREA).astype(float)
    flips = {"as it is": word, "mirrored": word[:, ::-1], "upside down": word[::-1], "turned": word[::-1, ::-1]}
    along = np.linspace(0, 9, 96)
    down = np.linspace(0, 1, 24)[:, None]
    best = []
    for seed in range(20):
        drawn = draw_word(np.random.default_rng(seed), [Mask("F", ink)], plain, SCENES[name], 96)
        points = ((drawn.fiducials + 1) * 48 - 0.5).reshape(2, 10, 2)
        upper, lower = (np.stack([np.interp(along, range(10), row[:, i]) for i in (0, 1)]) for row in points)
        x, y = ((1 - down) * upper[i] + down * lower[i] for i in (0, 1))
        read = cv2.remap(drawn.canvas, x.astype(np.float32), y.astype(np.float32), cv2.INTER_LINEAR)
        likeness = {key: abs(np.corrcoef(read.ravel(), flip.ravel())[0, 1]) for key, flip in flips.items()}
        best.append(max(likeness, key=likeness.get))
    assert best.count("as it is") >= 17, best


def test_a_sample_is_a_function_of_its_generator(font):
    masks, textures = render_masks([font], WORDS, 32, 7, 1), render_textures(8, 7)
    a, b, c = (draw_word(np.random.default_rng(s), masks, textures, SCENES["curved"], 64) for s in (3, 3, 4))
    np.testing.assert_array_equal(a.canvas, b.canvas)
    np.testing.assert_array_equal(a.fiducials, b.fiducials)
    assert not np.array_equal(a.canvas, c.canvas)


def test_masks_touch_all_four_sides_and_do_not_depend_on_the_workers(font):
    masks = render_masks([font], WORDS, 40, 1, 1)
    assert len(masks) == 40
    for _, mask in masks:
        assert mask.shape[0] == HEIGHT
        assert min(mask[0].max(), mask[-1].max(), mask[:, 0].max(), mask[:, -1].max()) > 16
    for one, other in zip(masks, render_masks([font], WORDS, 40, 1, 2), strict=True):
        assert one.text == other.text
        np.testing.assert_array_equal(one.ink, other.ink)


def test_texts_are_short_and_of_all_kinds():
    texts = [random_text(np.random.default_rng(seed), vocabulary(WORDS)) for seed in range(400)]
    assert max(map(len, texts)) <= 24 and min(map(len, texts)) >= 1
    kinds = (str.isupper, str.islower, str.istitle, str.isdecimal, lambda text: " " in text)
    assert all(sum(map(kind, texts)) > 4 for kind in kinds)


def test_as_many_texts_as_one_asks_for_are_of_three_characters_at_most():
    known = vocabulary(WORDS)
    texts = [random_text(np.random.default_rng(seed), known, 0.6) for seed in range(400)]
    usual = [random_text(np.random.default_rng(seed), known) for seed in range(400)]
    few, few_usually = (np.mean([len(text) <= 3 for text in some]) for some in (texts, usual))
    assert few == pytest.approx(0.6 + 0.4 * few_usually, abs=0.06)
    assert all(sum(len(text) == length for text in texts) > 20 for length in (1, 2, 3))


def test_a_font_that_writes_is_found_and_a_broken_one_is_not(font, tmp_path):
    (tmp_path / "broken.ttf").write_bytes(font.read_bytes()[:500])
    (tmp_path / "good.ttf").write_bytes(font.read_bytes())
    assert [path.name for path in writing_fonts([tmp_path])] == ["good.ttf"]


def test_a_held_out_font_is_not_drawn_like_one_trained_on(font, tmp_path):
    copies = [tmp_path / f"{name}.ttf" for name in ("alpha", "bravo", "charlie", "delta", "echo", "foxtrot", "golf")]
    for path in copies:
        path.write_bytes(font.read_bytes())
    seen, unlike = held_out(copies, 0.5)
    assert 0 < len(seen) < len(copies)
    assert unlike == []
    family = next(path.stem for path in copies if path not in seen)
    serif = tmp_path / f"{family}-serif.ttf"
    serif.write_bytes(Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSerif.ttf").read_bytes())
    assert held_out([*copies, serif], 0.5) == (seen, [serif])


def test_words_are_trained_on_or_held_out(font, tmp_path, monkeypatch):
    words = ["".join(chr(97 + int(digit)) for digit in f"{number:03d}") for number in range(100)]
    (tmp_path / "words").write_text("\n".join(words))
    monkeypatch.setattr(samples, "held_out", lambda fonts, _: (list(fonts), list(fonts)))
    found = read_lettering([font.parent], TextConfig(words=str(tmp_path / "words"), scenes=(SCENES["any"],)))
    assert sorted(found.words + found.held_out_words) == sorted(words)
    assert len(found.held_out_words) == 5


@pytest.mark.parametrize("words", ["missing", "few"])
def test_too_little_lettering_is_a_training_data_error(font, tmp_path, words):
    (tmp_path / "few").write_text("one\ntwo\n")
    with pytest.raises(TrainingDataError, match="words"):
        read_lettering([font.parent], TextConfig(words=str(tmp_path / words), scenes=(SCENES["any"],)))


def turned(points, degrees):
    angle = np.radians(degrees)
    return points @ np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])


@pytest.mark.parametrize("degrees", [0, 35, 170, 260])
def test_the_box_around_a_turned_frame_is_that_frame(degrees):
    corners, border = (turned(BorderLayout(n).points * (0.6, 0.2), degrees) for n in (2, 10))
    box = box_around(torch.from_numpy(border)[None])[0].numpy()
    np.testing.assert_allclose(box, corners, atol=1e-9)
    along = direction(torch.from_numpy(border)[None])[0].numpy()
    assert np.degrees(np.arctan2(along[1], along[0])) % 360 == pytest.approx(degrees)


def test_errors_are_measured_in_half_heights():
    layout = BorderLayout(10)
    true = torch.from_numpy(layout.points * (0.8, 0.25))[None]
    moved = ThinPlateSpline((true + torch.tensor([0.0, 0.05])).reshape(1, -1), layout)
    torch.testing.assert_close(point_errors(moved, true), torch.full((1, 20), 0.2, dtype=torch.float64))


def test_starts_are_found_or_near_and_some_are_turned_over():
    torch.manual_seed(0)
    layout = BorderLayout(10)
    truth = torch.from_numpy(layout.points * (0.8, 0.25)).float().expand(400, -1, -1)
    trainer_stage = type("Stage", (), {"spec": TransformConfig("tps", "ribbon 2x10").spec})()
    found = ThinPlateSpline((truth + 0.5).reshape(400, -1), layout)
    begun = disturbed(truth)(trainer_stage, found).control_points
    over = (direction(begun) * direction(truth)).sum(dim=1) < 0
    as_found = (begun - truth - 0.5).abs().amax(dim=(1, 2)) < 1e-6
    assert 0.15 < over.float().mean() < 0.35
    assert 0.25 < as_found.float().mean() < 0.5


def test_a_run_on_words_resumes_exactly(lettering, tmp_path):
    settings = config()
    whole = Trainer(settings, prepare(lettering, settings), tmp_path / "whole", workers=0)
    whole.train()

    class Killed(Exception):
        pass

    def kill_at_three(step):
        if step == 3:
            raise Killed

    with pytest.raises(Killed):
        Trainer(settings, prepare(lettering, settings), tmp_path / "parts", workers=0).train(Said(kill_at_three))
    resumed = Trainer(settings, prepare(lettering, settings), tmp_path / "parts", workers=0)
    resumed.train()
    for a, b in zip(whole.model.state_dict().values(), resumed.model.state_dict().values(), strict=True):
        assert torch.equal(a, b)


def trained(settings, lettering, folder):
    """A trainer after its last step, and what of the state has changed."""
    trainer = Trainer(settings, prepare(lettering, settings), folder, workers=0)
    before = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    assert trainer.train()
    after = trainer.model.state_dict().items()
    return trainer, [name for name, value in after if not torch.equal(value, before[name])]


def test_frozen_stages_keep_their_weights_and_later_ones_learn(lettering, tmp_path):
    _, changed = trained(config(frozen=1), lettering, tmp_path)
    assert not [name for name in changed if ".stages.0." in name]
    assert [name for name in changed if ".stages.1." in name and name.endswith("weight")]


DIRECTION = DirectionConfig(input_size=(16, 32), widths=(8, 16, 16), blocks=1, hidden=16, channels=1)


def test_a_direction_net_learns_alone_which_way_is_up(lettering, tmp_path):
    text = TextConfig(words="unused", masks=64, scenes=(SCENES["straight"],))
    changes = {"text": text, "steps": 300, "batch_size": 16, "learning_rate": 5e-3, "validate_every": 300, "ema": 0.9}
    trainer, changed = trained(config(frozen=2, direction=DIRECTION, **changes), lettering, tmp_path)
    assert not [name for name in changed if ".stages." in name]
    model, said, over = trainer.averaged_model().eval(), [], []
    torch.manual_seed(0)
    for batch in (trainer.data.training.__getitems__(range(first, first + 64)) for first in (0, 64)):
        with torch.no_grad():
            located = model.transformer.locate(
                batch.canvas.float() / 255, start=disturbed(batch.truth, near=True), skip=2
            )
        points = located.asked.shown(torch.from_numpy(BorderLayout(10).points).float())
        over.append((direction(points) * direction(batch.truth.float())).sum(dim=1) < 0)
        said.append(located.asked.odds < 0)
    assert 40 < torch.cat(over).sum() < 88
    assert (torch.cat(said) == torch.cat(over)).float().mean() > 0.65


def test_frozen_leaves_something_to_learn():
    assert config(frozen=2, direction=DIRECTION).frozen == 2
    for wrong in ({"frozen": 2}, {"frozen": 3, "direction": DIRECTION}, {"frozen": -1}):
        with pytest.raises(UsageError, match="frozen leaves"):
            config(**wrong)


def test_a_direction_net_is_exported_with_what_finds_the_lines(lettering, tmp_path):
    trainer, changed = trained(config(direction=DIRECTION), lettering, tmp_path)
    assert {"transformer.direction.head.2.weight", "transformer.stages.0.localizer.head.weight"} <= set(changed)
    export(trainer, tmp_path)
    assert open_checkpoint(str(tmp_path)).header.model.direction == DIRECTION


@pytest.fixture(scope="module")
def checkpoint(lettering, tmp_path_factory):
    """A model whose heads say something: trained for a few steps, then shaken."""
    run = tmp_path_factory.mktemp("run")
    settings = config()
    trainer = Trainer(settings, prepare(lettering, settings), run, workers=1)
    trainer.train()
    torch.manual_seed(1)
    for name, value in trainer.best_weights.items():
        if name.endswith("head.weight"):
            value.copy_(0.2 * torch.randn_like(value))
    export(trainer, run)
    return open_checkpoint(str(run))


def test_the_checkpoint_says_how_to_crop(checkpoint):
    header = checkpoint.header
    assert (header.crop_margin, header.straight_within, header.min_confidence) == ((0.3, 0.1), 0.2, 0.3)
    assert header.second_look
    assert header.model.channels == 1


def test_onnx_and_torch_repeat_a_spline_alike(checkpoint):
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 255, size, np.uint8) for size in ((30, 90, 3), (64, 40, 1), (50, 50, 3), (20, 70, 3))]
    smalls, sizes = [small_copy(image) for image in images], [image.shape[:2] for image in images]
    ours, theirs = (e.locate(smalls, sizes) for e in (OnnxEngine(checkpoint), TorchEngine(checkpoint, "cpu")))
    for one, other in zip(ours, theirs, strict=True):
        assert isinstance(one.transform, ThinPlateSpline)
        assert np.abs(one.transform(outline(9)) - other.transform(outline(9))).max() < 1e-4
        assert abs(one.confidence - other.confidence) < 1e-4


def test_the_command_writes_the_control_points(checkpoint, tmp_path):
    from PIL import Image

    Image.new("RGB", (90, 40), "teal").save(tmp_path / "word.png")
    run = stn("rectify", tmp_path / "word.png", "-m", checkpoint.path, "--always", "--json")
    assert run.returncode == 0, run.stderr
    record = json.loads(run.stdout)
    assert record["transform"]["layout"] == "ribbon 2x10"
    assert len(record["control_points"]) == 20


@pytest.mark.parametrize(
    "path", sorted((ROOT / "models").glob("*/*.toml")), ids=lambda path: f"{path.parent.name}-{path.stem}"
)
def test_the_configurations_of_the_bundled_models_are_valid(path):
    config = read_config(path)
    assert config.scenes or config.text.scenes


@pytest.mark.parametrize(
    "changes", [{"objectives": ("classify",)}, {"right": 0.0}, {"frozen": 2}, {"crop_margin": (-0.1, 0.0)}]
)
def test_settings_that_do_not_go_together_are_usage_errors(changes):
    with pytest.raises(UsageError):
        config(**changes)
