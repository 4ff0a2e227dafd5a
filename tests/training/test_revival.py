"""Dead hidden units begin anew, and nothing else changes."""

import pytest
import torch

from stn_cli.networks.config import ClassifierConfig, LocalizerConfig, ModelConfig, TransformConfig
from stn_cli.networks.model import Rectifier
from stn_cli.training.revival import revive


def model_with_dead_units(dead):
    torch.manual_seed(0)
    stage = LocalizerConfig(
        transform=TransformConfig(kind="tps", layout="ribbon 2x5"),
        input_size=(16, 24),
        widths=(4, 8),
        hidden=12,
        channels=1,
        angle_bins=2,
        pooled_votes=True,
    )
    model = Rectifier(ModelConfig(stages=(stage,))).eval()
    net = model.transformer.stages[0].localizer
    with torch.no_grad():
        for linear, behind in ((net.trunk[2], net.head), (net.votes[5], net.votes[7])):
            behind.weight.normal_(std=0.1)
            linear.bias[:] = 1.0
            linear.bias[:dead] = -100.0
    return model, net


def outputs(model, images):
    with torch.no_grad():
        located = model.transformer.locate(images)
    return located.transform.theta, located.upright


def test_dead_units_fire_again_and_the_outputs_stay():
    model, net = model_with_dead_units(5)
    images = torch.rand(20, 1, 16, 24)
    before, living = outputs(model, images), net.trunk[2].weight[5:].clone()
    assert revive(model, images) == 10
    for ours, theirs in zip(outputs(model, images), before, strict=True):
        torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(net.trunk[2].weight[5:], living)
    hidden = net.trunk(images)
    assert (hidden[:, :5] > 0).any()
    loss = sum(output.sum() for output in (model.transformer.locate(images).transform.theta,))
    loss.backward()
    assert (net.head.weight.grad[:, :5] != 0).any()


@pytest.mark.parametrize("changes", [{"heads": 2}, {"insert_at": 1}])
def test_units_of_all_heads_and_inside_classifiers_fire_again(changes):
    stage = LocalizerConfig(
        transform=TransformConfig("affine"), input_size=(16, 16), widths=(4, 8), hidden=6, channels=1
    )
    classifier = ClassifierConfig(classes=("a", "b"), input_size=(16, 16), widths=(4, 8), hidden=4, channels=1)
    model = Rectifier(ModelConfig(stages=(stage,), classifier=classifier, fit="stretch", **changes))
    for transformer in model.transformers:
        net = transformer.stages[0].localizer
        (net.net if changes.get("insert_at") else net).trunk[2].bias.data[:3] = -100.0
    assert revive(model, torch.rand(20, 1, 16, 16)) >= 3 * len(model.transformers)


def test_living_units_and_frozen_stages_are_left_alone():
    model, _ = model_with_dead_units(0)
    images = torch.rand(20, 1, 16, 24)
    assert revive(model, images) == 0
    dead, _ = model_with_dead_units(3)
    state = {name: value.clone() for name, value in dead.state_dict().items()}
    assert revive(dead, images, first=1) == 0
    assert all(torch.equal(value, state[name]) for name, value in dead.state_dict().items())
