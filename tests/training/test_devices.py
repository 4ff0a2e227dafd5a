"""A run on a device of its own learns what one on the CPU learns, and no tensor is left behind on the way."""

import pytest
import torch
import torch.nn.functional as F
from PIL import ImageFont

from stn_cli.networks.config import LocalizerConfig, TransformConfig
from stn_cli.networks.layers import ByteDropout
from stn_cli.training import loop
from stn_cli.training.config import TrainConfig
from stn_cli.training.data import prepare
from stn_cli.training.defaults import Wishes, transform_called
from stn_cli.training.loop import Trainer
from stn_cli.training.text.config import TextConfig, TextScene
from stn_cli.training.text.samples import Lettering
from tests.elsewhere import elsewhere
from tests.training.drawn import dataset, settings

WORDS = ("kelp", "Wharf", "QUARTZ", "jumping", "fox", "signal")
RIBBON = TransformConfig("tps", "ribbon 2x10")
COMMON = {"channels": 1, "widths": (4, 8), "hidden": 8}
CASCADE = (
    LocalizerConfig(transform=TransformConfig("affine"), input_size=(16, 16), angle_bins=8, **COMMON),
    LocalizerConfig(transform=RIBBON, input_size=(12, 24), angle_bins=2, margin=1.3, **COMMON),
    LocalizerConfig(transform=RIBBON, input_size=(8, 32), angle_bins=2, pooled_votes=True, **COMMON),
)


@pytest.fixture(autouse=True)
def alike(monkeypatch):
    """The fused optimizer is of the CPU and of real accelerators alone, dropout by random bytes of the CPU."""
    plain = torch.optim.AdamW

    def adam(*groups, fused, **options):
        del fused
        return plain(*groups, foreach=False, **options)

    monkeypatch.setattr(loop.torch.optim, "AdamW", adam)
    monkeypatch.setattr(ByteDropout, "forward", lambda self, x: F.dropout(x, self.dropped / 256, self.training))


def best(source, config, folder, device):
    trainer = Trainer(config, prepare(source, config), folder, workers=0, device=device)
    assert trainer.train()
    return trainer.best_weights, trainer.best_validation


def compared(source, config, folder):
    torch.set_num_threads(1)
    there = best(source, config, folder / "cpu", "cpu")
    with elsewhere() as device:
        weights, validation = best(source, config, folder / "there", device)
    assert not any(value.device.type == device for value in weights.values())
    torch.testing.assert_close(weights, there[0], rtol=1e-4, atol=1e-5)
    assert validation["overall"] == pytest.approx(there[1]["overall"], rel=1e-3, abs=1e-4, nan_ok=True)


@pytest.mark.parametrize("kind", ["attention", "affine", "projective", "tps"])
def test_classes(tmp_path, kind):
    data = dataset()
    wishes = Wishes(transform=transform_called(kind), input_size=(16, 16))
    compared(data, settings(data, wishes), tmp_path)


def test_transformers_side_by_side(tmp_path):
    data = dataset()
    compared(data, settings(data, Wishes(heads=2, input_size=(16, 16))), tmp_path)


def test_a_transformer_inside_the_classifier(tmp_path):
    data = dataset()
    compared(data, settings(data, Wishes(), insert_at=1), tmp_path)


def test_known_distortions_and_classes(tmp_path):
    data = dataset()
    compared(data, settings(data, objectives=["straighten", "classify"], validation_samples=32), tmp_path)


def test_transcriptions(tmp_path):
    data = dataset(texts=True)
    compared(data, settings(data), tmp_path)


def test_rendered_words(tmp_path):
    font = tmp_path / "default.ttf"
    font.write_bytes(ImageFont.load_default(20).path.getvalue())
    text = TextConfig(words="words", masks=64, scenes=(TextScene(name="any", arcs=0.5, waves=0.5, rotation=90.0),))
    steps = {"batch_size": 8, "steps": 3, "validate_every": 3, "validation_samples": 16, "warmup": 1}
    config = TrainConfig(text=text, stages=CASCADE, canvas=32, resample="bilinear", right=0.25, **steps)
    compared(Lettering((font,), (font,), WORDS, WORDS[:3]), config, tmp_path)
