"""Localization nets: what they start from, how far they may go, and which descriptions make no sense."""

from typing import get_args

import msgspec
import numpy as np
import pytest
import torch
from scipy.special import log_softmax, softmax

from stn_cli.errors import UsageError
from stn_cli.geometry import KINDS
from stn_cli.networks.config import ClassifierConfig, Kind, LocalizerConfig, ModelConfig, TransformConfig
from stn_cli.networks.localization import LocalizationNet
from tests.geometry.examples import PLANAR_LINEAR, SPLINES, spec
from tests.networks.families import family


def config(kind="affine", **options):
    defaults = {"input_size": (16, 20), "widths": (4, 8), "hidden": 8, "channels": 1}
    return LocalizerConfig(transform=family(kind), **{**defaults, **options})


def shown(n=3, channels=1):
    return torch.rand((n, channels, 16, 20), generator=torch.Generator().manual_seed(0))


def with_opinions(net):
    """The net with a head that makes something of its input."""
    torch.manual_seed(2)
    torch.nn.init.normal_(net.head.weight, std=0.5)
    return net.eval()


@pytest.mark.parametrize("trunk", ["conv", "fc"])
@pytest.mark.parametrize("kind", [*PLANAR_LINEAR, *SPLINES])
def test_starts_at_the_identity(kind, trunk):
    pose = LocalizationNet(config(kind, trunk=trunk, channels=3)).eval()(shown(channels=3))
    expected = np.broadcast_to(spec(kind).identity_theta, (3, spec(kind).dof))
    np.testing.assert_allclose(pose.theta.detach(), expected, atol=1e-6)
    assert pose.confidence.shape == (3,)
    assert pose.angle_votes.shape == (3, 0)


@pytest.mark.parametrize("bins", [4, 16, 36])
def test_angle_bins_start_upright(bins):
    pose = LocalizationNet(config("similarity", angle_bins=bins)).eval()(shown())
    np.testing.assert_allclose(pose.theta.detach(), 0.0, atol=1e-6)
    assert pose.angle_votes.shape == (3, bins)


@pytest.mark.parametrize("kind", ["similarity", "affine"])
def test_under_autocast_votes_are_added_up_in_float32(kind):
    net = with_opinions(LocalizationNet(config(kind, angle_bins=36)))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        pose = net(shown(64))
    votes = pose.angle_votes.double().numpy()
    angles = np.arange(36) * (2 * np.pi / 36)
    near = np.cos(angles[votes.argmax(axis=1), None] - angles) > 1e-3
    weights = np.exp(3 * (votes - votes.max(axis=1, keepdims=True))) * near
    expected = np.angle((weights * np.exp(1j * angles)).sum(axis=1))
    theta = pose.theta.double().numpy()
    found = theta[:, 1] if kind == "similarity" else np.arctan2(theta[:, 3], theta[:, 0])
    np.testing.assert_allclose(np.angle(np.exp(1j * (found - expected))), 0.0, atol=1e-5)


@pytest.mark.parametrize("turn", range(8))
def test_angle_bins_reach_every_direction(turn):
    net = LocalizationNet(config("similarity", angle_bins=8)).eval()
    with torch.no_grad():
        net.head.bias[-8:] = 0.0
        net.head.bias[-8 + turn] = 5.0
        angle = net(shown()).theta[0, 1]
    assert np.cos(float(angle) - turn * np.pi / 4) == pytest.approx(1.0, abs=1e-4)


@pytest.mark.parametrize("turn", range(8))
def test_of_two_opposite_opinions_the_stronger_wins(turn):
    net = LocalizationNet(config("similarity", angle_bins=8)).eval()
    with torch.no_grad():
        net.head.bias[-8:] = -5.0
        net.head.bias[-8 + turn] = 5.0
        net.head.bias[-8 + (turn + 3) % 8] = net.head.bias[-8 + (turn + 4) % 8] = 4.9
        angle = net(shown()).theta[0, 1]
    assert np.cos(float(angle) - turn * np.pi / 4) == pytest.approx(1.0, abs=1e-4)


@pytest.mark.parametrize("turn", range(4))
def test_of_two_opposite_opinions_equally_strong_one_wins(turn):
    net = LocalizationNet(config("similarity", angle_bins=8)).eval()
    with torch.no_grad():
        net.head.bias[-8:] = -5.0
        net.head.bias[-8 + turn] = net.head.bias[-8 + turn + 4] = 5.0
    angle = net(shown()).theta[0, 1]
    angle.backward()
    assert abs(np.cos(angle.item() - turn * np.pi / 4)) == pytest.approx(1.0, abs=1e-4)
    assert torch.isfinite(net.head.bias.grad).all()


def angle_of(chances, window):
    """What a net makes of these chances of its bins, in degrees."""
    bins = len(chances)
    net = LocalizationNet(config("similarity", angle_bins=bins, angle_window=window)).eval()
    with torch.no_grad():
        net.head.bias[-bins:] = torch.from_numpy(np.log(np.maximum(chances, 1e-12))).float()
        return np.degrees(float(net(shown()).theta[0, 1]))


def apart(a, b):
    return np.abs((np.asarray(a) - b + 180) % 360 - 180)


@pytest.mark.parametrize("turn", range(36))
def test_in_windows_many_weaker_votes_outweigh_the_strongest(turn):
    """Five bins of 0.14 about one angle, and a single one of 0.3 a third of the circle away."""
    chances = np.zeros(36)
    chances[(turn + np.arange(-2, 3)) % 36], chances[(turn + 12) % 36] = 0.14, 0.3
    assert apart(angle_of(chances, 0.0), 10 * turn + 120) < 0.1
    assert apart(angle_of(chances, 20.0), 10 * turn) < 0.1


@pytest.mark.parametrize(("bins", "window"), [(120, 15.0), (36, 20.0), (36, 45.0), (9, 40.0)])
def test_of_chances_the_window_holds_nearly_as_many_as_the_best(bins, window, rng):
    """Two opinions of any width, at any distance; the best window is found by trying all."""
    angles = np.arange(bins) * 360 / bins
    for _ in range(60):
        (first, second), widths, share = (
            rng.uniform(0, 360, 2),
            rng.uniform(0.4, 1.5, 2) * window,
            rng.uniform(0.2, 0.8),
        )
        peaks = [
            np.exp(-0.5 * (apart(angles, at) / width) ** 2) for at, width in zip((first, second), widths, strict=True)
        ]
        chances = sum(part * peak / peak.sum() for part, peak in zip((share, 1 - share), peaks, strict=True))
        best = max(chances[apart(angles, at) < window + 1e-6].sum() for at in angles)
        half_a_bin = 180 / bins  # the answer may lie between two
        assert chances[apart(angles, angle_of(chances, window)) < window + half_a_bin].sum() > 0.9 * best


@pytest.mark.parametrize(("bins", "window"), [(120, 15.0), (36, 45.0), (9, 40.0)])
def test_in_windows_a_sure_opinion_between_two_bins_is_found(bins, window):
    step = 360 / bins
    for place in np.arange(0, bins, 0.25):
        chances, below = np.zeros(bins), int(place)
        chances[below], chances[(below + 1) % bins] = 1 - place % 1, place % 1
        assert apart(angle_of(chances, window), place * step) < 0.3 * step


def test_in_windows_the_votes_are_left_to_their_own_loss():
    net = LocalizationNet(config("similarity", angle_bins=36, angle_window=20.0))
    with torch.no_grad():
        net.head.bias[-36:] = torch.linspace(-1, 1, 36)
    net(shown()).theta.sum().backward()
    assert net.head.bias.grad is not None
    assert net.head.bias.grad[0] != 0
    assert not net.head.bias.grad[-36:].any()


def test_the_angle_is_that_on_which_all_looks_agree_and_all_else_what_the_first_says():
    looks, bins = (0.0, -20.0, 40.0), 36
    net = with_opinions(LocalizationNet(config("similarity", angle_bins=bins, angle_window=20.0, looks=looks)))
    views = [shown(), shown().flip(3), shown().flip(2)]
    with torch.no_grad():
        together, apart_ = net(torch.cat(views, dim=1)), [net(view) for view in views]
    chances = [log_softmax(pose.angle_votes.numpy(), axis=1) for pose in apart_]
    agreed = np.mean([np.roll(each, int(look / 10), axis=1) for look, each in zip(looks, chances, strict=True)], axis=0)
    expected = [angle_of(row, 20.0) for row in softmax(agreed, axis=1)]
    assert (apart(np.degrees(together.theta[:, 1].numpy()), expected) < 0.01).all()
    assert (apart(np.degrees(apart_[0].theta[:, 1].numpy()), expected) > 0.1).any()
    torch.testing.assert_close(together.theta[:, [0, 2, 3]], apart_[0].theta[:, [0, 2, 3]])
    torch.testing.assert_close(together.confidence, apart_[0].confidence)


def test_other_channels_than_a_net_sees_are_a_usage_error():
    net = LocalizationNet(config("similarity", angle_bins=36, looks=(0.0, 10.0)))
    with pytest.raises(UsageError, match="sees 1 channels was shown 3"):
        net(shown(channels=3))


@pytest.mark.parametrize("bound", [0.25, 2.0])
@pytest.mark.parametrize("sign", [-1, 1])
def test_no_parameter_goes_further_than_the_bound(bound, sign):
    net = LocalizationNet(config(bound=bound)).eval()
    with torch.no_grad():
        net.head.bias[:] = sign * 1e3
        moved = net(shown()).theta - torch.tensor(spec("affine").identity_theta).float()
    np.testing.assert_allclose(moved, sign * bound, rtol=1e-5)


@pytest.mark.parametrize("trunk", ["conv", "fc"])
def test_brightness_and_contrast_do_not_matter(trunk):
    net = with_opinions(LocalizationNet(config(trunk=trunk)))
    x = shown()
    said = net(x).theta.detach()
    assert float((said[0] - said[1]).abs().max()) > 1e-3
    torch.testing.assert_close(net(3 * x + 50).theta.detach(), said, atol=5e-3, rtol=0)


def test_a_blank_image_gives_finite_parameters():
    net = with_opinions(LocalizationNet(config()))
    assert torch.isfinite(net(torch.full((2, 1, 16, 20), 0.7)).theta).all()


@pytest.mark.parametrize(
    "options",
    [
        {"kind": "projective", "angle_bins": 8},
        {"kind": "border 2x5", "angle_bins": 8},
        {"repeat": 0},
        {"pooled_votes": True},
        {"angle_bins": 4, "pooled_votes": True, "trunk": "fc"},
        {"angle_bins": 4, "pooled_votes": True, "widths": (4,)},
        {"widths": ()},
        {"widths": (4, 0)},
        {"widths": (4,) * 6},
        {"input_size": (1, 64), "widths": (4, 4, 4)},
        {"margin": 0.0},
        {"margin": 0.01},
        {"margin": np.nan},
        {"margin": np.inf},
        {"bound": -1.0},
        {"bound": np.inf},
        {"hidden": 0},
        {"channels": 0},
        {"angle_bins": -1},
        {"angle_window": 15.0},
        {"kind": "similarity", "angle_bins": 36, "angle_window": -1.0},
        {"kind": "similarity", "angle_bins": 36, "angle_window": 46.0},
        {"kind": "similarity", "angle_bins": 36, "angle_window": 9.0},
        {"kind": "similarity", "angle_bins": 3, "angle_window": 45.0},
        {"kind": "similarity", "angle_bins": 36, "angle_window": np.nan},
        {"kind": "border 2x5", "angle_bins": 2, "angle_window": 15.0},
        {"kind": "similarity", "angle_bins": 36, "looks": ()},
        {"kind": "similarity", "angle_bins": 36, "looks": (10.0, 0.0)},
        {"kind": "similarity", "angle_bins": 36, "looks": (0.0, 5.0)},
        {"kind": "similarity", "angle_bins": 36, "looks": (0.0, np.nan)},
        {"kind": "similarity", "angle_bins": 36, "looks": (0.0,) * 9},
        {"kind": "similarity", "looks": (0.0, 10.0)},
        {"kind": "affine", "angle_bins": 36, "looks": (0.0, 10.0)},
    ],
)
def test_a_net_that_makes_no_sense_is_a_usage_error(options):
    with pytest.raises(UsageError):
        config(**options)


def test_a_model_without_a_net_is_a_usage_error():
    with pytest.raises(UsageError):
        ModelConfig(stages=())


def test_a_description_survives_json():
    model = ModelConfig(
        stages=(config("similarity", angle_bins=8, channels=3), config("border 2x5", margin=1.2, channels=3))
    )
    assert msgspec.json.decode(msgspec.json.encode(model), type=ModelConfig) == model


def test_a_description_with_an_unknown_field_is_refused():
    text = msgspec.json.encode(config()).replace(b'"margin"', b'"margn"')
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(text, type=LocalizerConfig)


def test_configurations_name_every_family():
    assert set(get_args(Kind)) == set(KINDS)


@pytest.mark.parametrize(
    ("kind", "layout"),
    [
        ("tps", None),
        ("affine", "grid 3x3"),
        ("tps", "grid 3x4"),
        ("tps", "border 2x1"),
        ("tps", "grid 65x65"),
        ("tps", ""),
    ],
)
def test_a_layout_belongs_to_a_spline_and_is_one(kind, layout):
    with pytest.raises(UsageError, match="layout"):
        TransformConfig(kind, layout)


def test_all_nets_of_a_model_see_colours_or_all_luminance():
    assert ModelConfig(stages=(config(channels=1), config(channels=1))).channels == 1
    for channels in ((1, 3), (2, 2)):
        with pytest.raises(UsageError, match="colour"):
            ModelConfig(stages=tuple(config(channels=one) for one in channels))


def test_pooled_votes_do_not_depend_on_where_along_the_width():
    net = with_opinions(LocalizationNet(config("border 2x5", angle_bins=2, pooled_votes=True))).eval()
    torch.nn.init.normal_(net.votes[-1].weight)
    stripe = torch.zeros(2, 1, 16, 20)
    stripe[0, :, 4:9, 4:8] = 1.0
    stripe[1, :, 4:9, 12:16] = 1.0
    pose = net(stripe)
    torch.testing.assert_close(pose.angle_votes[0], pose.angle_votes[1], atol=5e-3, rtol=5e-3)  # but for padding
    assert (pose.theta[0] - pose.theta[1]).abs().max() > 1e-3
    assert pose.angle_votes.abs().max() > 1e-3


@pytest.mark.parametrize("quarter", range(4))
def test_votes_turn_an_affine_map(quarter):
    net = LocalizationNet(config("affine", angle_bins=4))
    with torch.no_grad():
        net.head.bias[:6] = torch.tensor([0.3, 0.0, 0.1, 0.0, -0.4, -0.2])
        net.head.bias[-4:] = 50.0 * (torch.arange(4) == quarter)
    theta = net(shown()).theta[0].reshape(2, 3).double()
    angle = torch.tensor(quarter * torch.pi / 2, dtype=torch.float64)
    turn = torch.stack((angle.cos(), -angle.sin(), angle.sin(), angle.cos())).reshape(2, 2)
    step = 2.0 * torch.tanh(torch.tensor([0.3, -0.4]) / 2.0).double()  # the bound of the configuration
    torch.testing.assert_close(theta[:, :2], turn @ torch.diag(step.exp()), atol=1e-5, rtol=0)


@pytest.mark.parametrize("classes", [(), ("a",), ("a", "a")])
def test_a_classifier_tells_two_classes_apart_or_more(classes):
    with pytest.raises(UsageError, match="classes"):
        ClassifierConfig(classes=classes)


def of_volumes(**options):
    return config("affine3d", **{"input_size": (8, 12, 10), **options})


@pytest.mark.parametrize("trunk", ["conv", "fc"])
def test_a_net_of_volumes_starts_at_the_identity(trunk):
    pose = LocalizationNet(of_volumes(trunk=trunk)).eval()(torch.rand(3, 1, 8, 12, 10))
    np.testing.assert_allclose(pose.theta.detach(), [spec("affine3d").identity_theta] * 3, atol=1e-6)


def test_what_a_net_of_volumes_says_depends_on_all_axes():
    net = with_opinions(LocalizationNet(of_volumes()))
    x = torch.rand((1, 1, 8, 12, 10), generator=torch.Generator().manual_seed(0))
    said = [net(x.flip(axis)).theta for axis in (2, 3, 4)]
    assert all(float((theta - net(x).theta).detach().abs().max()) > 1e-3 for theta in said)


SEEN = {"classes": ("a", "b"), "widths": (4, 8), "hidden": 8, "channels": 1}


@pytest.mark.parametrize(
    "make",
    [
        lambda: config("affine", input_size=(8, 12, 10)),
        lambda: config("affine3d", input_size=(16, 20)),
        lambda: config("affine", input_size=(8, 8, 8, 8)),
        lambda: ModelConfig(stages=(of_volumes(), config())),
        lambda: ModelConfig(stages=(of_volumes(channels=3),)),
        lambda: ModelConfig(stages=(of_volumes(),), classifier=ClassifierConfig(**SEEN, input_size=(16, 16))),
        lambda: ModelConfig(stages=(config(),), classifier=ClassifierConfig(**SEEN, input_size=(16, 16, 16))),
        lambda: ModelConfig(
            stages=(of_volumes(),), insert_at=1, classifier=ClassifierConfig(**SEEN, input_size=(8, 12, 10))
        ),
    ],
)
def test_images_and_volumes_do_not_mix(make):
    with pytest.raises(UsageError):
        make()


def test_a_model_of_volumes():
    classifier = ClassifierConfig(**SEEN, input_size=(6, 6, 6))
    model = ModelConfig(stages=(of_volumes(), of_volumes()), heads=2, classifier=classifier)
    assert (model.dims, model.crop_size) == (3, (6, 6, 6))
    assert msgspec.json.decode(msgspec.json.encode(model), type=ModelConfig) == model
