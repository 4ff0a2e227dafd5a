"""The script between the parts of the bundled `text` model: what it leaves out changes no output."""

import importlib.util

import pytest
import torch

from stn_cli.networks.config import LocalizerConfig, ModelConfig, TransformConfig
from stn_cli.networks.model import Rectifier
from tests.running import ROOT


@pytest.fixture(scope="module")
def finish():
    spec = importlib.util.spec_from_file_location("finish", ROOT / "models" / "text" / "finish.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def rectifier():
    """Two stages with opinions."""
    torch.manual_seed(1)
    common = {"input_size": (16, 32), "widths": (4, 8, 8), "hidden": 12, "channels": 1, "angle_bins": 2}
    ribbon = TransformConfig("tps", "ribbon 2x5")
    stages = (
        LocalizerConfig(transform=ribbon, **common),
        LocalizerConfig(transform=ribbon, **common, pooled_votes=True),
    )
    model = Rectifier(ModelConfig(stages=stages)).eval()
    for name, weight in model.named_parameters():
        if weight.ndim > 1:
            torch.nn.init.normal_(weight, std=0.02 if name.endswith("head.weight") else 0.3)
    return model


def images():
    return torch.rand((16, 1, 24, 48), generator=torch.Generator().manual_seed(0))


def test_units_that_never_fire_are_not_missed(finish, capsys):
    model = rectifier()
    with torch.no_grad():
        for stage, silent in zip(model.transformer.stages, ((2, 5), (0, 7, 11)), strict=True):
            stage.localizer.trunk[2].bias[list(silent)] = -1e4
        model.transformer.stages[1].localizer.votes[5].bias[[0, 1, 2]] = -1e4
        before, smaller = model.transformer.locate(images()), finish.pruned(model, images())
        after = smaller.transformer.locate(images())
    hidden = [stage.hidden for stage in smaller.config.stages]
    assert hidden[0] <= 10 and hidden[1] <= 9
    assert sum(weight.numel() for weight in smaller.parameters()) < sum(weight.numel() for weight in model.parameters())
    assert float(before.transform.theta.std(dim=0).max()) > 1e-3
    torch.testing.assert_close(after.transform.theta, before.transform.theta)
    torch.testing.assert_close(after.confidence, before.confidence)
    assert f"{hidden[0]} of 12 hidden units fire" in capsys.readouterr().out
