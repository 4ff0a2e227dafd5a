"""The spatial transformer as a layer: identity at first, stages composed, trainable wherever it stands."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from stn_cli.errors import UsageError
from stn_cli.geometry import Affine, Attention, ThinPlateSpline, Translation, letterbox
from stn_cli.networks.config import ClassifierConfig, LocalizerConfig, ModelConfig, ReaderConfig
from stn_cli.networks.localization import LocalizationNet, Pose
from stn_cli.networks.model import Rectifier
from stn_cli.networks.transformer import ParallelSpatialTransformers, SpatialTransformer, Stage
from stn_cli.sampling.differentiable import sample
from tests.geometry.examples import PLANAR_LINEAR, SPLINES, THETA, example, spec
from tests.networks.families import family

KINDS = (*PLANAR_LINEAR, *SPLINES)
CLOSE = {"atol": 1e-4, "rtol": 0}  # of noise in 0…1, read at float32 places


class Says(nn.Module):
    """A localizer that always says the same, and remembers what it was shown."""

    def __init__(self, theta):
        super().__init__()
        self.theta = nn.Parameter(torch.tensor(np.asarray(theta), dtype=torch.float32))

    def forward(self, x):
        self.shown = x
        return self.theta.expand(len(x), -1)


def stage(kind="affine", *, channels=1, size=(16, 16), trunk="conv", margin=1.0, **options):
    config = LocalizerConfig(
        transform=family(kind), input_size=size, trunk=trunk, widths=(4, 8), hidden=8, channels=channels, **options
    )
    return Stage(LocalizationNet(config), spec(kind), size, margin)


def images(*shape, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("trunk", ["conv", "fc"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_new_transformer_is_the_identity(kind, trunk):
    x = images(2, 3, 24, 32)
    whole = SpatialTransformer([stage(kind, channels=3, trunk=trunk)], (24, 32)).eval()
    half = SpatialTransformer([stage(kind, channels=3, trunk=trunk)], (12, 16)).eval()
    torch.testing.assert_close(whole(x), x, **CLOSE)
    torch.testing.assert_close(half(x), F.avg_pool2d(x, 2), **CLOSE)


@pytest.mark.parametrize("channels", [1, 2, 5])
@pytest.mark.parametrize("output", [(8, 8), (24, 32), (48, 20)])
def test_any_channels_and_any_output_size(channels, output):
    net = SpatialTransformer([stage(channels=channels)], output).eval()
    x = images(2, channels, 24, 32)
    torch.testing.assert_close(net(x), sample(x, Affine.identity(x), output), **CLOSE)


@pytest.mark.parametrize("margin", [0.8, 1.0, 1.5])
@pytest.mark.parametrize("size", [(8, 8), (16, 16), None])
@pytest.mark.parametrize("kind", KINDS)
def test_identity_parameters_change_nothing_whatever_the_margin(kind, size, margin):
    x = images(2, 1, 16, 16)
    stages = [Stage(Says(spec(kind).identity_theta), spec(kind), size, margin) for _ in range(2)]
    torch.testing.assert_close(SpatialTransformer(stages, (16, 16))(x), x, **CLOSE)


def test_a_margin_shows_more_than_the_region():
    x = images(1, 1, 32, 32)
    seer = Says(THETA["affine"])
    SpatialTransformer([Stage(seer, spec("affine"), (16, 16), margin=1.5)], (16, 16))(x)
    torch.testing.assert_close(seer.shown, sample(x, Attention(torch.tensor([1.5, 0.0, 0.0])), (16, 16)))


@pytest.mark.parametrize("second", KINDS)
@pytest.mark.parametrize("first", ["affine", "similarity", "border 2x5"])
def test_two_stages_sample_once_with_the_product(first, second):
    x = images(2, 1, 40, 48)
    localizers = [Says(example(kind).theta) for kind in (first, second)]
    stages = [Stage(net, spec(kind), (16, 16)) for net, kind in zip(localizers, (first, second), strict=True)]
    crop = SpatialTransformer(stages, (20, 24))(x)
    a, b = (spec(kind)(net.theta[None]) for net, kind in zip(localizers, (first, second), strict=True))
    product = a @ b
    if first == "border 2x5" and isinstance(b, ThinPlateSpline):  # no family holds it: again one spline stands for it
        product = ThinPlateSpline(a(b.control_points).flatten(1), b.layout)
    torch.testing.assert_close(crop, sample(x, product, (20, 24)), **CLOSE)
    twice = sample(sample(x, a, (20, 24)), b, (20, 24))
    assert (crop - twice).abs().max() > 0.02
    # The second stage is shown what the first found, read from the original.
    torch.testing.assert_close(localizers[1].shown, sample(x, a, (16, 16)), **CLOSE)


def test_a_stage_that_repeats_refines_what_it_found():
    x, once = images(2, 1, 40, 48), Says(example("affine").theta)
    located = SpatialTransformer([Stage(once, spec("affine"), (16, 16), repeat=3)], (8, 8)).locate(x)
    a = spec("affine")(once.theta[None])
    assert len(located.transforms) == len(located.poses) == len(located.starts) == 3
    torch.testing.assert_close(located.transform.theta, (a @ a @ a).theta.expand(2, -1))


def test_a_stage_looks_several_times_once_it_has_learned():
    seen = []

    class Watching(nn.Module):
        def forward(self, x):
            seen.append(x)
            return torch.zeros(len(x), 4)

    look = Stage(Watching(), spec("similarity"), (16, 16), looks=(0.0, 90.0))
    transformer, x = SpatialTransformer([look], (16, 16)), images(2, 3, 16, 16)
    transformer.train().locate(x)
    transformer.eval().locate(x)
    torch.testing.assert_close(seen[0], x)
    torch.testing.assert_close(seen[1], torch.cat((x, x.rot90(1, (2, 3))), dim=1), atol=1e-5, rtol=0)


def test_training_may_begin_a_later_stage_elsewhere():
    x, localizers = images(2, 1, 40, 48), [Says(example("affine").theta) for _ in range(2)]
    net = SpatialTransformer([Stage(one, spec("affine"), (16, 16), repeat=2) for one in localizers], (8, 8))
    elsewhere = Attention(torch.tensor([[0.5, 0.1, 0.1]]))
    located = net.locate(x, start=lambda *_: elsewhere)
    torch.testing.assert_close(localizers[1].shown, sample(x, elsewhere, (16, 16)), **CLOSE)
    product = elsewhere @ spec("affine")(localizers[1].theta[None])
    torch.testing.assert_close(located.transform.theta, product.theta.expand(2, -1))
    assert len(located.transforms) == 2


class Votes(torch.nn.Module):
    """A localization net that leaves its spline as it is, and says the next of its log-odds of that being upright."""

    def __init__(self, *odds):
        super().__init__()
        self.odds = list(odds)

    def forward(self, x):
        theta = torch.tensor(spec("ribbon 2x5").identity_theta).float().expand(len(x), -1)
        return Pose(theta, torch.zeros(len(x)), torch.tensor([[self.odds.pop(0), 0.0]]).expand(len(x), -1))


@pytest.mark.parametrize(
    ("odds", "prior", "over", "sure"),
    [
        ((-2.0,), 0.0, True, 2.0),
        ((-2.0, 1.0), 0.0, True, 3.0),
        ((-2.0, -5.0), 0.0, False, 3.0),
        ((-2.0,), 3.0, False, 1.0),
    ],
)
def test_votes_on_which_way_is_up_add_up(odds, prior, over, sure):
    stage = Stage(Votes(*odds), spec("ribbon 2x5"), (16, 16), repeat=len(odds))
    located = SpatialTransformer([stage], (8, 8), upright_odds=prior).locate(images(2, 1, 20, 20))
    torch.testing.assert_close(located.transform.uprightness(), torch.full((2,), -1.0 if over else 1.0))
    torch.testing.assert_close(located.upright, torch.full((2,), sure if not over or not prior else 0.0))
    torch.testing.assert_close(located.confidence, 0.5 * torch.sigmoid(located.upright))


def test_every_stage_tells_its_transform_and_pose():
    net = SpatialTransformer([stage("attention"), stage("affine")], (8, 8)).eval()
    located = net.locate(images(3, 1, 24, 24))
    assert [transform.kind for transform in located.transforms] == ["attention", "affine"]
    assert located.transform is located.transforms[-1]
    assert [tuple(pose.theta.shape) for pose in located.poses] == [(3, 3), (3, 6)]
    assert [tuple(pose.confidence.shape) for pose in located.poses] == [(3,), (3,)]


@pytest.mark.parametrize("detach", [False, True])
def test_detached_stages_do_not_teach_the_ones_before(detach):
    localizers = [Says([0.1, 0.0]), Says([0.0, 0.1])]
    net = SpatialTransformer([Stage(one, spec("translation"), (8, 8)) for one in localizers], (8, 8))
    net.locate(images(1, 1, 16, 16), detach=detach).transform.theta.sum().backward()
    assert (localizers[0].theta.grad is None) == detach
    assert localizers[1].theta.grad is not None


def test_letterbox_keeps_the_aspect_of_what_is_seen_and_shown():
    x = images(1, 1, 20, 40)
    seer = Says(spec("similarity").identity_theta)
    net = SpatialTransformer([Stage(seer, spec("similarity"), (40, 40))], (40, 40), fit="letterbox")
    crop = net(x)
    for square in (crop, seer.shown):
        torch.testing.assert_close(square[..., 10:30, :], x, **CLOSE)
        torch.testing.assert_close(square[..., :10, :], x[..., :1, :].expand(-1, -1, 10, -1), **CLOSE)


def test_letterbox_composes_with_what_the_localizer_says():
    x = images(1, 1, 20, 50)
    theta = torch.tensor(THETA["similarity"])
    net = SpatialTransformer([Stage(Says(theta), spec("similarity"), (16, 16))], (12, 12), fit="letterbox", fill=(0.5,))
    frame = Affine(torch.tensor(letterbox((20, 50), (16, 16)).theta, dtype=torch.float32))
    expected = sample(x, frame @ spec("similarity")(theta[None]), (12, 12), fill=(0.5,))
    torch.testing.assert_close(net(x), expected, **CLOSE)


def test_stretch_squeezes_the_whole_image_into_the_localizers_input():
    seer = Says(spec("affine").identity_theta)
    x = images(1, 1, 16, 32)
    SpatialTransformer([Stage(seer, spec("affine"), (8, 8))], (8, 8))(x)
    torch.testing.assert_close(seer.shown, F.avg_pool2d(x, (2, 4)), **CLOSE)


def test_parallel_transformers_join_their_crops_along_the_channels():
    x = images(2, 3, 16, 16)
    thetas = ([0.1, 0.0], [0.0, -0.2])
    heads = [SpatialTransformer([Stage(Says(theta), spec("translation"), (8, 8))], (8, 10)) for theta in thetas]
    crops = ParallelSpatialTransformers(heads)(x)
    assert crops.shape == (2, 6, 8, 10)
    for i, theta in enumerate(thetas):
        torch.testing.assert_close(crops[:, 3 * i : 3 * i + 3], sample(x, Translation(torch.tensor(theta)), (8, 10)))


def test_volumes_with_a_localizer_of_ones_own():
    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(1, 12)
            nn.init.zeros_(self.layer.weight)
            self.layer.bias.data = torch.tensor(spec("affine3d").identity_theta).float()

        def forward(self, x):
            return self.layer(x.mean(dim=(1, 2, 3, 4))[:, None])

    x = images(2, 3, 4, 6, 8)
    net = SpatialTransformer([Stage(Own(), spec("affine3d"), (4, 4, 4)), Stage(Own(), spec("affine3d"))], (4, 6, 8))
    crop = net(x)
    torch.testing.assert_close(crop, x, **CLOSE)
    crop.square().sum().backward()
    assert float(net.stages[0].localizer.layer.bias.grad.abs().sum()) > 0


@pytest.mark.parametrize("kind", ["affine", "projective", "border 2x5"])
def test_it_trains_in_the_middle_of_a_network(kind):
    torch.manual_seed(0)
    transformer = SpatialTransformer([stage(kind, channels=4)], (8, 8))
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), transformer, nn.Flatten(), nn.Linear(4 * 64, 3))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    localizer = transformer.stages[0].localizer

    def step():
        optimizer.zero_grad()
        F.cross_entropy(net(images(6, 1, 20, 20)), torch.arange(6) % 3).backward()
        optimizer.step()

    step()
    assert float(localizer.head.weight.grad.abs().sum()) > 0
    assert float(net[0].weight.grad.abs().sum()) > 0
    # The head starts at zero weights; the trunk is reached once the first step has moved them.
    step()
    assert all(
        float(layer.weight.grad.abs().sum()) > 0 for layer in localizer.trunk.modules() if hasattr(layer, "weight")
    )


def blob_at(centres, size=24):
    axis = torch.arange(size) - (size - 1) / 2
    dx, dy = (axis[None] - centres[:, :1]), (axis[None] - centres[:, 1:])
    return torch.exp(-(dx[:, None, None, :] ** 2 + dy[:, None, :, None] ** 2) / 8)


def test_it_learns_to_centre_a_blob():
    torch.manual_seed(0)
    net = SpatialTransformer([stage("translation", size=(24, 24))], (24, 24), fill=(0.0,))
    optimizer = torch.optim.Adam(net.parameters(), lr=3e-3)
    centred = blob_at(torch.zeros(1, 2))
    generator = torch.Generator().manual_seed(3)

    def loss_of(centres):
        return (net(blob_at(centres)) - centred).square().mean()

    unseen = torch.rand(64, 2, generator=generator) * 10 - 5
    before = float(loss_of(unseen).detach())
    for _ in range(80):
        optimizer.zero_grad()
        loss_of(torch.rand(32, 2, generator=generator) * 10 - 5).backward()
        optimizer.step()
    net.eval()
    assert float(loss_of(unseen).detach()) < 0.3 * before


def test_under_autocast_the_transform_is_float32():
    net = SpatialTransformer([stage("affine"), stage("similarity")], (8, 8)).eval()
    with torch.autocast("cpu", torch.bfloat16):
        located = net.locate(images(1, 1, 20, 20))
        crop = net(images(1, 1, 20, 20))
    assert located.transform.theta.dtype == crop.dtype == torch.float32
    torch.testing.assert_close(located.transform.theta, Affine.identity(crop).theta[None], **CLOSE)


def perturbed(net):
    torch.manual_seed(1)
    for parameter in net.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    return net


def test_a_state_dict_carries_everything():
    x = images(2, 1, 24, 24)
    trained = perturbed(SpatialTransformer([stage("affine"), stage("border 2x5", margin=1.2)], (8, 8))).train()
    trained(x)
    trained.eval()
    fresh = SpatialTransformer([stage("affine"), stage("border 2x5", margin=1.2)], (8, 8)).eval()
    assert not torch.equal(fresh(x), trained(x))
    fresh.load_state_dict(trained.state_dict())
    assert torch.equal(fresh(x), trained(x))


def test_in_eval_mode_the_crop_depends_on_nothing_but_the_image():
    net = perturbed(SpatialTransformer([stage("affine"), stage("similarity")], (8, 8))).eval()
    x = images(4, 1, 24, 24)
    assert torch.equal(net(x), net(x))
    torch.testing.assert_close(net(x[2:3]), net(x)[2:3], **CLOSE)


class Told(nn.Module):
    """Says the θ of an image that is as bright as its number."""

    def __init__(self, thetas):
        super().__init__()
        self.thetas = thetas

    def forward(self, x):
        return self.thetas[x.amax(dim=(1, 2, 3)).round().long()]


def test_what_is_far_away_blurs_no_other_image_of_its_batch():
    thetas = torch.tensor([(0.25, 0, 0, 0, 0.25, 0), (8, 0, 0, 0, 8, 0), (1.0, 0, 0, 0, 1, 0)])
    net = SpatialTransformer([Stage(Told(thetas), spec("affine"))], (16, 16))
    x = images(3, 1, 64, 64)
    for number, image in enumerate(x):
        image[0, 0, 0] = number
    torch.testing.assert_close(net(x), torch.cat([net(one[None]) for one in x]))
    x.requires_grad_()
    thetas.requires_grad_()
    together = torch.autograd.grad(net(x).square().sum(), (x, thetas))
    alone = torch.autograd.grad(sum(net(one[None]).square().sum() for one in x), (x, thetas))
    torch.testing.assert_close(together, alone, **CLOSE)


@pytest.mark.parametrize("kind", ["affine", "similarity", "tps"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_it_is_of_whatever_type_the_network_around_it_is(kind, dtype):
    layout = "grid 3x3" if kind == "tps" else None
    net = SpatialTransformer.of(kind, layout=layout, input_size=(16, 16), output_size=(8, 8), channels=1)
    x = images(4, 1, 20, 20)
    expected = perturbed(net)(x)
    crop = net.to(dtype)(x.to(dtype))
    assert crop.dtype == dtype
    torch.testing.assert_close(crop.float(), expected, rtol=0, atol=1e-5 if dtype == torch.float64 else 0.1)


@pytest.mark.parametrize("size", [(16, 16), (20, 20)])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_its_nets_see_images_of_any_type(dtype, size):
    net = perturbed(SpatialTransformer.of("affine", input_size=(16, 16), output_size=(8, 8), channels=1)).eval()
    x = images(4, 1, *size).to(dtype)
    expected = net(x.float())
    crop = net(x)
    assert crop.dtype == dtype
    torch.testing.assert_close(crop.float(), expected, rtol=0, atol=0.03)


def test_of_no_image_there_is_no_crop():
    net = SpatialTransformer.of("affine", input_size=(16, 16), output_size=(8, 8)).eval()
    assert net(torch.rand(0, 3, 20, 20)).shape == (0, 3, 8, 8)


@pytest.mark.parametrize(
    ("kind", "layout", "said"), [("bogus", None, "no transform 'bogus'"), ("tps", None, "grid NxN")]
)
def test_a_family_that_is_none_is_named(kind, layout, said):
    with pytest.raises(UsageError, match=said):
        SpatialTransformer.of(kind, layout=layout, input_size=(16, 16), output_size=(8, 8))


@pytest.mark.parametrize("classes", [(), ("cat", "dog", "emu")])
@pytest.mark.parametrize("alphabet", ["", "abcd"])
def test_a_rectifier_locates_classifies_and_reads(classes, alphabet):
    localizer = LocalizerConfig(transform=family("affine"), input_size=(16, 16), widths=(4, 8))
    classifier = ClassifierConfig(classes=classes, input_size=(12, 20), widths=(4, 4)) if classes else None
    reader = ReaderConfig(alphabet=alphabet, input_size=(16, 44), widths=(4, 4, 4), hidden=8) if alphabet else None
    stages = (localizer, localizer)
    model = Rectifier(ModelConfig(stages=stages, classifier=classifier, reader=reader, fit="stretch")).eval()
    x = images(2, 3, 24, 40)
    (located,), logits, characters = model(x)
    assert len(located.transforms) == 2
    if classes:
        torch.testing.assert_close(logits, model.classifier(sample(x, located.transform, (12, 20))))
    else:
        assert logits is None
    if alphabet:
        assert characters.shape == (2, reader.columns, 5)
        torch.testing.assert_close(characters, model.reader(sample(x, located.transform, (16, 44))))
    else:
        assert characters is None


def test_a_rectifier_that_is_bypassed_reads_the_whole_image():
    localizer = LocalizerConfig(transform=family("affine"), input_size=(16, 16), widths=(4, 8))
    classifier = ClassifierConfig(classes=("a", "b"), input_size=(12, 12), widths=(4, 4))
    model = perturbed(Rectifier(ModelConfig(stages=(localizer,), classifier=classifier))).eval()
    x = images(3, 3, 24, 24)
    whole = torch.nn.functional.interpolate(x, scale_factor=0.5, mode="area")
    torch.testing.assert_close(model(x, bypass=True).logits, model.classifier(whole.to(x.dtype)), rtol=1e-4, atol=1e-4)
    assert not torch.allclose(model(x).logits, model(x, bypass=True).logits)


def test_heads_look_for_themselves_and_the_classifier_sees_all_their_crops():
    localizer = LocalizerConfig(transform=family("affine"), input_size=(16, 16), widths=(4, 8))
    classifier = ClassifierConfig(classes=("a", "b"), input_size=(12, 12), widths=(4, 4))
    model = perturbed(Rectifier(ModelConfig(stages=(localizer,), heads=3, classifier=classifier))).eval()
    x = images(2, 3, 24, 24)
    output = model(x)
    assert len({head.transform.theta.sum().item() for head in output.heads}) == 3
    crops = torch.cat([sample(x, head.transform, (12, 12)) for head in output.heads], dim=1)
    torch.testing.assert_close(output.logits, model.classifier(crops))
    (bypassed, *_), logits, _ = model(x, bypass=True)
    assert bypassed.transform.theta.shape == (2, 6)
    whole = sample(x, bypassed.transform, (12, 12))
    torch.testing.assert_close(logits, model.classifier(torch.cat([whole] * 3, dim=1)))


def test_several_heads_without_a_classifier_are_refused():
    localizer = LocalizerConfig(transform=family("affine"), input_size=(16, 16), widths=(4, 8))
    with pytest.raises(UsageError, match="several heads"):
        ModelConfig(stages=(localizer,), heads=2)


@pytest.mark.parametrize(("kind", "layout"), [("affine", None), ("projective", None), ("tps", "border 2x4")])
def test_a_transformer_of_our_own_nets_starts_at_the_whole_and_can_learn(kind, layout):
    net = SpatialTransformer.of(kind, input_size=(20, 24), output_size=(10, 12), channels=5, layout=layout, stages=2)
    x = images(3, 5, 40, 48)
    whole = torch.nn.functional.avg_pool2d(x, 4)
    torch.testing.assert_close(net(x), whole.float(), rtol=1e-3, atol=1e-3)
    net(x).square().sum().backward()
    heads = [parameter.grad for name, parameter in net.named_parameters() if name.endswith("head.bias")]
    assert len(heads) == 2
    assert all(bool(gradient[:-1].abs().max() > 0) for gradient in heads)


def test_volumes_with_a_localizer_of_ours():
    net = SpatialTransformer.of("affine3d", input_size=(16, 16, 16), output_size=(5, 6, 7), channels=2).eval()
    volume = torch.rand(3, 2, 10, 14, 12)
    assert net(volume).shape == (3, 2, 5, 6, 7)
    whole = torch.nn.functional.interpolate(volume, (10, 14, 12))
    torch.testing.assert_close(net.sample(volume, net.locate(volume).transform, (10, 14, 12)), whole)
