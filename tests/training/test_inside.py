"""A transformer inside a classifier: it moves features, and the checkpoint computes what was trained."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from stn_cli.checkpoints.weights import load_model
from stn_cli.engines.engine import small_copy
from stn_cli.engines.onnx_engine import OnnxEngine
from stn_cli.engines.torch_engine import TorchEngine
from stn_cli.errors import UsageError
from stn_cli.networks.config import ClassifierConfig, LocalizerConfig, ModelConfig, TransformConfig
from stn_cli.networks.model import Rectifier
from stn_cli.training.defaults import Wishes, transform_called
from tests.running import stn
from tests.training.drawn import dataset, glyph, trained

CLASSIFIER = ClassifierConfig(classes=("a", "b"), input_size=(24, 24), widths=(6, 8, 10), hidden=12, channels=1)


def stage(kind="affine", **changes):
    family = TransformConfig(kind, "grid 3x3" if kind == "tps" else None)
    known = {"input_size": (24, 24), "widths": (4, 8), "hidden": 8, "channels": 1}
    return LocalizerConfig(transform=family, **{**known, **changes})


def model(level, kind="affine"):
    torch.manual_seed(3)
    made = Rectifier(ModelConfig(stages=(stage(kind),), classifier=CLASSIFIER, insert_at=level)).eval()
    torch.nn.init.normal_(made.transformer.stages[0].localizer.net.head.weight, std=0.3)
    return made


@pytest.mark.parametrize("level", [1, 2])
def test_features_are_sampled_where_theta_says(level):
    made, image = model(level), torch.rand(3, 1, 24, 24)
    output = made(image)
    layers = made.classifier.layers
    cut = {1: 3, 2: 9}[level]  # a convolution, its norm and its rectifier; then two of each
    features = layers[1][:cut](layers[0](image))
    assert features.shape[1:] == ((6, 12, 12), (8, 6, 6))[level - 1]
    matrix = output.located.transform.theta.reshape(-1, 2, 3)
    grid = F.affine_grid(matrix, features.shape, align_corners=False)
    seen = F.grid_sample(features, grid, padding_mode="border", align_corners=False)
    torch.testing.assert_close(output.logits, layers[2:](layers[1][cut:](seen)))


def test_at_the_identity_it_is_the_classifier_alone():
    made, image = model(1), torch.rand(3, 1, 24, 24)
    torch.testing.assert_close(made(image, bypass=True).logits, made.classifier(image), rtol=1e-4, atol=1e-5)


def test_gradients_reach_the_levels_before_it_both_ways():
    """Through what the localization net sees, and through what is sampled: both are in the finite difference."""
    made, image = model(1).double(), torch.rand(2, 1, 24, 24, dtype=torch.float64)
    weight = made.classifier.layers[1][0].weight
    made(image).logits.square().sum().backward()
    made.requires_grad_(False)
    step = 1e-8 * torch.sign(weight.grad)
    losses = []
    for sign in (1, -1):
        weight += sign * step
        losses.append(float(made(image).logits.square().sum()))
        weight -= sign * step
    difference = (losses[0] - losses[1]) / 2
    assert difference == pytest.approx(float((weight.grad * step).sum()), rel=1e-4)
    weight.grad = None
    made.requires_grad_(True)
    made(image).located.transform.theta.square().sum().backward()
    assert float(weight.grad.abs().sum()) > 0


def test_weights_are_counted_once():
    names = list(model(2).state_dict())
    assert len(names) == len(set(names))
    assert sum("layers.1.0.weight" in name for name in names) == 1


@pytest.mark.parametrize("kind", ["affine", "tps:grid 3x3", "projective"])
def test_the_checkpoint_computes_what_was_trained(tmp_path, kind):
    wishes = Wishes(transform=transform_called(kind))
    trainer, checkpoint = trained(dataset(), tmp_path, wishes=wishes, insert_at=1, steps=30, learning_rate=1e-2)
    images = [glyph(kind, np.random.default_rng(number)) for number, kind in enumerate((0, 1) * 4)]
    seen = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 255
    with torch.no_grad():
        output = load_model(checkpoint)(seen)
    assert float(output.located.transform.theta.std(dim=0).max()) > 1e-4
    for engine in (OnnxEngine(checkpoint), TorchEngine(checkpoint, "cpu")):
        found = engine.locate([small_copy(image) for image in images], [(20, 20)] * len(images))
        probabilities = torch.softmax(output.logits, dim=1).numpy()
        for each, row in zip(found, probabilities, strict=True):
            assert each.label == ("lies", "stands")[row.argmax()]
            assert each.label_confidence == pytest.approx(row.max(), abs=0.02)
        np.testing.assert_allclose([each.transform.theta for each in found], output.located.transform.theta, atol=5e-3)
    assert trainer.best_validation["overall"]["accuracy"] > 0.8


@pytest.mark.parametrize(
    "changes",
    [
        {"insert_at": 3},
        {"insert_at": -1},
        {"insert_at": 1, "classifier": None},
        {"insert_at": 1, "heads": 2},
        {"insert_at": 1, "stages": (stage(), stage())},
        {"insert_at": 1, "stages": (stage(margin=1.2),)},
        {"insert_at": 1, "stages": (stage(repeat=2),)},
        {"insert_at": 1, "stages": (stage(input_size=(20, 20)),)},
        {"insert_at": 2, "stages": (stage(widths=(4, 8, 8, 8)),)},
    ],
)
def test_what_cannot_stand_inside_is_a_usage_error(changes):
    with pytest.raises(UsageError):
        ModelConfig(**{"stages": (stage(),), "classifier": CLASSIFIER, **changes})


def test_the_command(tmp_path):
    for kind, name in enumerate(("lies", "stands")):
        (tmp_path / "data" / name).mkdir(parents=True)
        for number in range(30):
            image = glyph(kind, np.random.default_rng((kind, number)))
            Image.fromarray(image[..., 0]).save(tmp_path / "data" / name / f"{number}.png")
    options = ["--insert-at", "1", "--steps", "3", "--batch-size", "8"]
    done = stn("train", "data", "-o", "run", *options, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "1 of 3 levels of a classifier → affine of their features" in done.stderr
    assert stn("models", "verify", "run", cwd=tmp_path).returncode == 0
    assert stn("rectify", "data/lies", "-m", "run", "-o", "out", cwd=tmp_path).returncode == 0
    assert len(list((tmp_path / "out").glob("*.png"))) == 30
    assert stn("evaluate", "run", "data", cwd=tmp_path).returncode == 0
    again = stn("train", "data", "-o", "more", "--from", "run", "--steps", "2", cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    other = stn(
        "train", "data", "-o", "third", "--from", "run", "--transform", "attention", "--steps", "2", cwd=tmp_path
    )
    assert other.returncode == 0, other.stderr
    assert "attention of their features" in other.stderr
    failed = stn("train", "data", "-o", "other", "--insert-at", "9", "--steps", "3", cwd=tmp_path)
    assert failed.returncode == 2
    assert "insert_at is 0 to 2" in failed.stderr
