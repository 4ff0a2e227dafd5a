"""Classifiers of the user's own behind a transformer."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open

from stn_cli.checkpoints import open_checkpoint
from stn_cli.checkpoints.weights import load_model
from stn_cli.engines.engine import small_copy
from stn_cli.engines.onnx_engine import OnnxEngine
from stn_cli.engines.torch_engine import TorchEngine
from stn_cli.errors import UsageError
from stn_cli.networks.backbones import backbone
from stn_cli.networks.config import TransformConfig
from stn_cli.training.defaults import Wishes
from tests.running import HAS_TORCHVISION, STANDINS, stn
from tests.training.drawn import dataset, glyph, settings, trained

MINE = """
import torch

class Net(torch.nn.Module):
    def __init__(self, classes, channels):
        super().__init__()
        self.convolution = torch.nn.Conv2d(channels, 12, 5, stride=2)
        self.norm = torch.nn.BatchNorm2d(12)
        self.head = torch.nn.Linear(12 * 4, classes)

    def forward(self, x):
        x = torch.nn.functional.gelu(self.norm(self.convolution(x)))
        return self.head(torch.nn.functional.adaptive_avg_pool2d(x, 2).flatten(1))

def net(classes, channels):
    return Net(classes, channels)

def nothing(classes, channels):
    return "no module"

def one_class(classes, channels):
    return Net(1, channels)

def colours(classes, channels):
    return Net(classes, 3)

def huge(classes, channels):
    layers = torch.nn.Linear(channels * 256, 262200), torch.nn.Linear(262200, classes)
    return torch.nn.Sequential(torch.nn.Flatten(), *layers)

class Both(torch.nn.Sequential):  # its layers could be folded, but what is between them is needed
    def forward(self, x):
        convolved = self[0](x)
        return convolved + self[1](convolved)

def both(classes, channels):
    layers = Both(torch.nn.Conv2d(channels, 8, 5, stride=2), torch.nn.BatchNorm2d(8))
    return torch.nn.Sequential(layers, torch.nn.AdaptiveAvgPool2d(2), torch.nn.Flatten(), torch.nn.Linear(32, classes))

class Aside(Net):
    def forward(self, x):
        logits = super().forward(x)
        return (logits, logits) if self.training else logits

def aside(classes, channels):
    return Aside(classes, channels)

def breaks(classes, channels):
    raise RuntimeError("out of luck")
"""


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """The name of a module in the working directory."""
    monkeypatch.chdir(tmp_path)
    name = f"nets_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{name}.py").write_text(MINE, encoding="utf-8")
    return name


def test_it_learns_behind_the_transformer(mine, tmp_path):
    data = dataset(400, 100)
    wishes = Wishes(transform=TransformConfig("attention"), input_size=(16, 16))
    trainer, checkpoint = trained(
        data, tmp_path / "run", wishes=wishes, backbone=f"{mine}:net", steps=150, learning_rate=1e-2
    )
    assert trainer.best_validation["overall"]["accuracy"] > 0.95
    engine = OnnxEngine(checkpoint)
    rng = np.random.default_rng(9)
    images = [glyph(kind, rng) for kind in (0, 1) * 20]
    found = [each.label for each in engine.locate([small_copy(image) for image in images], [(20, 20)] * 40)]
    assert np.mean([label == ("lies", "stands")[kind] for label, kind in zip(found, (0, 1) * 20, strict=True)]) > 0.9


@pytest.mark.parametrize("function", ["net", "both"])
def test_a_checkpoint_has_what_it_computes_and_no_word_of_its_program(mine, tmp_path, function):
    changes = {"steps": 30, "validate_every": 30, "learning_rate": 1e-2}
    trainer, checkpoint = trained(dataset(), tmp_path / "run", backbone=f"{mine}:{function}", **changes)
    with safe_open(checkpoint.path / "model.safetensors", "numpy") as tensors:
        assert not [name for name in tensors.keys() if name.startswith("classifier")]  # noqa: SIM118  it is no dict
    again = {"start": str(tmp_path / "run")}
    with pytest.raises(
        UsageError, match=f"classifier that {mine}:{function} makes"
    ):  # a stranger's run would say so, too
        settings(dataset(), **again)
    assert settings(dataset(), **again, backbone=f"{mine}:{function}").backbone == f"{mine}:{function}"
    (tmp_path / f"{mine}.py").unlink()
    assert load_model(open_checkpoint(str(tmp_path / "run"))).classifier is None
    image = np.random.default_rng(3).integers(0, 255, (20, 20, 1), dtype=np.uint8)
    engines = OnnxEngine(checkpoint), TorchEngine(checkpoint, "cpu")
    ours, theirs = (next(iter(engine.locate([small_copy(image)], [(20, 20)]))) for engine in engines)
    assert ours.label == theirs.label
    model = trainer.best_model()
    seen = torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255
    logits = model(seen).logits.detach()
    assert ours.label_confidence == pytest.approx(float(torch.softmax(logits, dim=1).max()), abs=0.02)
    assert theirs.label_confidence == pytest.approx(ours.label_confidence, abs=1e-3)


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("resnet18", "neither"),
        ("nowhere_to_be_found:net", "nowhere_to_be_found"),
        ("{}:missing", "missing"),
        ("{}:nothing", "returned str"),
        ("{}:one_class", "logits of 2 classes"),
        ("{}:colours", "cannot see 1 channels"),
        ("{}:breaks", "out of luck"),
        ("{}:huge", "67,123,200 weights"),
        ("{}:aside", "makes tuple of two images"),
        ("broken_{}:net", "division by zero"),
    ],
)
def test_one_that_does_not_fit_is_a_usage_error(mine, name, what):
    Path(f"broken_{mine}.py").write_text("1 / 0", encoding="utf-8")
    with pytest.raises(UsageError, match=what):
        backbone(name.format(mine), classes=2, channels=1, size=(16, 16))


def test_the_command(mine, tmp_path):
    for kind, name in enumerate(("lies", "stands")):
        (tmp_path / "data" / name).mkdir(parents=True)
        for number in range(30):
            image = glyph(kind, np.random.default_rng((kind, number)))
            Image.fromarray(image[..., 0]).save(tmp_path / "data" / name / f"{number}.png")
    options = [
        "--backbone",
        f"{mine}:net",
        "--steps",
        "3",
        "--batch-size",
        "8",
        "--input",
        "16x16",
        "--output",
        "16x16",
    ]
    assert stn("train", "data", "-o", "run", *options, cwd=tmp_path).returncode == 0
    image = next((tmp_path / "data" / "lies").iterdir())
    done = stn("rectify", str(image), "-m", "run", "-o", "out", "--json", cwd=tmp_path)
    assert json.loads(done.stdout.splitlines()[0])["label"]["value"] in ("lies", "stands")
    failed = stn("train", "data", "-o", "other", "--backbone", f"{mine}:breaks", "--steps", "3", cwd=tmp_path)
    assert failed.returncode == 2
    assert "out of luck" in failed.stderr
    assert "Traceback" not in failed.stderr


def test_colours_for_those_that_take_no_other():
    data = dataset()
    assert settings(data).channels == 1
    assert settings(data, backbone="torchvision:resnet18").channels == 3


@pytest.fixture
def torchvision(monkeypatch):
    """It, or what stands in for it."""
    if HAS_TORCHVISION:
        yield
        return
    monkeypatch.syspath_prepend(STANDINS)
    yield
    for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
        del sys.modules[name]


@pytest.mark.usefixtures("torchvision")
def test_torchvision(tmp_path):
    trainer, checkpoint = trained(dataset(), tmp_path / "run", backbone="torchvision:resnet18")
    assert checkpoint.header.model.classifier.classes == ("lies", "stands")
    assert trainer.best_validation["overall"]["samples"] == 30


def test_it_classifies_and_nothing_else():
    with pytest.raises(UsageError, match="does not learn from classes"):
        settings(dataset(texts=True), backbone="torchvision:resnet18")
