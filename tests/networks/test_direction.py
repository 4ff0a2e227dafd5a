"""A net that is asked which way is up: what it says, when it is asked, and by whom it is believed."""

import dataclasses

import msgspec
import numpy as np
import pytest
import torch
from torch import nn

from stn_cli.checkpoints.export import write_checkpoint
from stn_cli.checkpoints.header import Metrics
from stn_cli.engines.engine import small_copy
from stn_cli.engines.onnx_engine import OnnxEngine
from stn_cli.engines.torch_engine import TorchEngine
from stn_cli.errors import ModelError, UsageError
from stn_cli.geometry import Attention, outline
from stn_cli.networks.config import DirectionConfig, LocalizerConfig, ModelConfig, TransformConfig
from stn_cli.networks.direction import DirectionNet
from stn_cli.networks.localization import Pose
from stn_cli.networks.model import Rectifier
from stn_cli.networks.transformer import SpatialTransformer, Stage
from stn_cli.sampling.differentiable import sample

RIBBON = TransformConfig("tps", "ribbon 2x10")
SMALL = DirectionConfig(input_size=(16, 40), widths=(4, 6, 8), blocks=1, hidden=8, channels=1, margin=1.5, doubt=2.0)
VOTING = LocalizerConfig(transform=RIBBON, input_size=(16, 32), channels=1, widths=(4, 8), hidden=8, angle_bins=2)


def shaken(net):
    """With weights that say something."""
    for parameter in net.parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=0.3)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
    return net.eval()


@pytest.mark.parametrize("config", [SMALL, msgspec.structs.replace(SMALL, input_size=(17, 33), channels=3, blocks=0)])
def test_a_line_turned_over_changes_the_sign_of_what_is_said(config):
    torch.manual_seed(0)
    net = shaken(DirectionNet(config))
    lines = torch.rand(5, config.channels, *config.input_size)
    with torch.no_grad():
        said, over = net(lines), net(torch.rot90(lines, 2, (2, 3)))
    assert said.abs().min() > 1e-3
    torch.testing.assert_close(said, -over)


def test_it_says_the_same_of_lines_that_are_lit_otherwise():
    torch.manual_seed(0)
    net, lines = shaken(DirectionNet(SMALL)), torch.rand(3, 1, 16, 40)
    torch.testing.assert_close(net(lines), net(0.2 + 0.5 * lines), atol=2e-3, rtol=0)


def test_new_blocks_change_nothing():
    torch.manual_seed(0)
    net, inside = shaken(DirectionNet(SMALL)), torch.rand(3, 6, 4, 10)
    block = DirectionNet(SMALL).letters[10].eval()
    assert type(block).__name__ == "Residual"
    torch.testing.assert_close(block(inside), inside)
    assert not torch.equal(net.letters[10](inside), inside)


class Votes(nn.Module):
    """A localization net that leaves its spline as it is, with log-odds for each image of that being upright."""

    def __init__(self, *odds):
        super().__init__()
        self.odds = torch.tensor(odds)

    def forward(self, x):
        theta = torch.tensor(RIBBON.spec.identity_theta).float().expand(len(x), -1)
        return Pose(theta, torch.zeros(len(x)), torch.stack((self.odds, torch.zeros(len(x))), dim=1))


class Says(DirectionNet):
    """Always says the same, and remembers what it was shown."""

    def __init__(self, *odds):
        super().__init__(SMALL)
        self.odds = nn.Parameter(torch.tensor(odds))

    def forward(self, line):
        self.shown = line.detach()
        return self.odds


def test_it_decides_where_the_votes_leave_doubt_and_only_there():
    stage = Stage(Votes(1.5, 1.5, -1.5, -1.5, 2.5, -2.5), RIBBON.spec, (16, 32))
    direction = Says(-4.0, 0.5, -4.0, 1.0, -9.0, -9.0)
    located = SpatialTransformer([stage], (8, 8), direction=direction).locate(torch.rand(6, 1, 20, 20))
    turned = (located.transform.uprightness() < 0).tolist()
    # The third to the sixth as the votes say: turned over, turned over, upright, turned over; then as it was shown.
    assert turned == [True, False, False, True, False, True]
    torch.testing.assert_close(located.upright, torch.tensor([2.5, 2.0, 2.5, 2.5, 2.5, 2.5]))
    torch.testing.assert_close(located.confidence, 0.5 * torch.sigmoid(located.upright))


def test_it_is_shown_what_was_found_enlarged_by_its_margin():
    x = torch.rand(1, 1, 20, 20)
    direction = Says(0.0)
    SpatialTransformer([Stage(Votes(1.0), RIBBON.spec, (16, 32))], (8, 8), direction=direction).locate(x)
    enlarged = Attention(torch.tensor([[1.5, 0.0, 0.0]]))
    torch.testing.assert_close(direction.shown, sample(x, enlarged, (16, 40)), atol=1e-4, rtol=0)


def test_training_shows_it_other_lines_and_changes_nothing_else():
    elsewhere = RIBBON.spec(torch.tensor(RIBBON.spec.identity_theta)[None].float() * 0.5)
    net = SpatialTransformer([Stage(Votes(1.0), RIBBON.spec, (16, 32))], (8, 8), direction=Says(-9.0))
    x = torch.rand(1, 1, 20, 20)
    located = net.locate(x, start=lambda *_: elsewhere)
    torch.testing.assert_close(located.asked.shown.theta, elsewhere.theta)
    assert located.transform.uprightness() > 0
    alone = net.locate(x, start=lambda *_: elsewhere, skip=1)
    assert not alone.poses
    torch.testing.assert_close(alone.asked.odds, torch.tensor([-9.0]))


@pytest.mark.parametrize("detach", [True, False])
def test_detached_it_does_not_teach_where_to_look(detach):
    torch.manual_seed(0)
    model = Rectifier(ModelConfig(stages=(VOTING,), direction=SMALL))
    shaken(model).train()
    model.transformer.locate(torch.rand(4, 1, 20, 30), detach=detach).asked.odds.sum().backward()
    taught = [part.grad is not None for part in model.transformer.stages.parameters()]
    assert not any(taught) if detach else any(taught)
    assert all(part.grad is not None for part in model.transformer.direction.parameters())


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    torch.manual_seed(3)
    model = shaken(Rectifier(ModelConfig(stages=(VOTING,), direction=SMALL)))
    nn.init.normal_(model.transformer.direction.head[2].weight, std=10.0)
    return write_checkpoint(
        model, tmp_path_factory.mktemp("model"), name="m", description="", training={}, metrics=Metrics()
    )


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(0)
    return [rng.integers(0, 255, (int(h), int(w), 1), np.uint8) for h, w in rng.integers(20, 90, (40, 2))]


def located(engine, images):
    return list(engine.locate([small_copy(image) for image in images], [image.shape[:2] for image in images]))


def test_engines_ask_it_alike(checkpoint, images):
    ours, theirs = located(OnnxEngine(checkpoint), images), located(TorchEngine(checkpoint, "cpu"), images)
    for one, other in zip(ours, theirs, strict=True):
        assert np.abs(one.transform(outline(9)) - other.transform(outline(9))).max() < 1e-4
        assert abs(one.confidence - other.confidence) < 1e-4


def test_an_engine_asks_of_what_is_doubtful_alone(checkpoint, images, monkeypatch):
    engine, asked = OnnxEngine(checkpoint), []
    mute = msgspec.structs.replace(engine.model, direction=msgspec.structs.replace(SMALL, doubt=0.0))
    header = msgspec.structs.replace(checkpoint.header, model=mute)
    unasked = located(OnnxEngine(dataclasses.replace(checkpoint, header=header)), images)
    infer = engine.infer

    def watched(graph, views):
        if graph == "direction.onnx":
            asked.append(len(views))
        return infer(graph, views)

    monkeypatch.setattr(engine, "infer", watched)
    found = located(engine, images)
    assert 0 < asked[0] < len(images)
    same = [np.array_equal(a.transform.theta, b.transform.theta) for a, b in zip(unasked, found, strict=True)]
    turned = [
        np.allclose(a.transform(outline(2)), b.transform(-outline(2))) for a, b in zip(unasked, found, strict=True)
    ]
    assert all(a != b for a, b in zip(same, turned, strict=True))
    assert 0 < sum(turned) < asked[0]
    unmoved = [a.confidence == b.confidence for a, b in zip(unasked, found, strict=True)]
    assert sum(unmoved) == len(images) - asked[0]


def test_odds_that_are_no_number_are_an_error(checkpoint, images, monkeypatch):
    engine = OnnxEngine(checkpoint)
    infer = engine.infer

    def broken(graph, views):
        return [np.full(len(views), np.nan)] if graph == "direction.onnx" else infer(graph, views)

    monkeypatch.setattr(engine, "infer", broken)
    with pytest.raises(ModelError, match=r"direction\.onnx .* not finite"):
        located(engine, images)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"widths": (8,)}, "two widths"),
        ({"blocks": -1}, "blocks"),
        ({"hidden": 0}, "hidden"),
        ({"margin": 0.0}, "margin"),
        ({"doubt": -1.0}, "doubt"),
        ({"doubt": float("inf")}, "doubt"),
        ({"input_size": (2, 40), "widths": (4, 6, 8, 9)}, "too small"),
    ],
)
def test_a_net_that_cannot_be_is_refused(changes, said):
    with pytest.raises(UsageError, match=said):
        msgspec.structs.replace(SMALL, **changes)


def test_it_is_for_splines_that_vote_on_which_way_is_up():
    mute = msgspec.structs.replace(VOTING, angle_bins=0)
    with pytest.raises(UsageError, match="whose last stage votes"):
        ModelConfig(stages=(mute,), direction=SMALL)
    with pytest.raises(UsageError, match="luminance"):
        ModelConfig(stages=(VOTING,), direction=msgspec.structs.replace(SMALL, channels=3))
