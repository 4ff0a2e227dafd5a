"""θ within limits: the identity at zero, every parameter bounded, and each of them what it is called."""

import math

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from stn_cli.errors import UsageError
from stn_cli.networks.config import Limits, LocalizerConfig, TransformConfig
from stn_cli.networks.limited import limited

KINDS = ("translation", "attention", "similarity", "affine", "projective", "affine3d", "tps")
LIMITS = Limits(zoom=2.0, turn=60.0, shear=0.4, shift=0.8, perspective=0.2, bend=0.3)


def config(kind):
    return TransformConfig(kind, "grid 3x3" if kind == "tps" else None)


def theta(kind, raw, limits=LIMITS):
    identity = torch.tensor(config(kind).spec.identity_theta)
    return limited(torch.as_tensor(raw, dtype=torch.float64), identity, config(kind), limits)


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_said_is_the_identity(kind):
    spec = config(kind).spec
    found, reached = theta(kind, np.zeros((3, spec.dof)))
    np.testing.assert_allclose(found, np.tile(spec.identity_theta, (3, 1)), atol=1e-12)
    assert not reached.any()


@pytest.mark.parametrize("kind", KINDS)
def test_every_direction_moves_and_none_goes_further_than_its_limit(kind):
    dof = config(kind).spec.dof
    for sign in (-1, 1):
        far, reached = theta(kind, sign * 1e6 * np.eye(dof))
        assert torch.isfinite(far).all()
        np.testing.assert_allclose(reached, sign * np.eye(dof), atol=1e-9)
        identity = torch.tensor(config(kind).spec.identity_theta)
        assert (far - identity).abs().amax(dim=1).min() > 0.05
    if kind != "affine3d":
        points = torch.rand(200, 2, dtype=torch.float64) * 2 - 1
        wild, _ = theta(kind, 50 * torch.randn(100, dof, generator=torch.Generator().manual_seed(1)))
        if kind != "tps":
            assert (torch.linalg.det(config(kind).spec(wild).matrix) > 0).all()
        assert config(kind).spec(wild)(points).abs().max() < 8


@pytest.mark.parametrize(
    ("kind", "number", "there", "back"),
    [
        ("translation", 0, [0.8, 0], [-0.8, 0]),
        ("attention", 0, [2, 0, 0], [0.5, 0, 0]),
        ("attention", 2, [1, 0, 0.8], [1, 0, -0.8]),
        ("similarity", 1, [0, math.pi / 3, 0, 0], [0, -math.pi / 3, 0, 0]),
        ("affine", 1, [1, 0, 0, 0, 2, 0], [1, 0, 0, 0, 0.5, 0]),
        ("affine", 3, [1, 0.4, 0, 0, 1, 0], [1, -0.4, 0, 0, 1, 0]),
        ("affine", 5, [1, 0, 0, 0, 1, 0.8], [1, 0, 0, 0, 1, -0.8]),
        ("projective", 7, [1, 0, 0, 0, 1, 0, 0, 0.2], [1, 0, 0, 0, 1, 0, 0, -0.2]),
        ("affine3d", 2, [1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 2, 0], [1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0.5, 0]),
    ],
)
def test_the_furthest_is_the_limit(kind, number, there, back):
    unit = np.eye(config(kind).spec.dof)[[number]]
    for sign, expected in ((1, there), (-1, back)):
        (far,), _ = theta(kind, sign * 1e6 * unit)
        np.testing.assert_allclose(far, expected, atol=1e-9)


def test_a_control_point_moves_by_the_limit_at_most():
    identity = np.array(config("tps").spec.identity_theta)
    far, _ = theta("tps", 1e6 * np.eye(len(identity)))
    np.testing.assert_allclose(far, identity + LIMITS.bend * np.eye(len(identity)), atol=1e-9)


def test_an_affine_map_is_scaled_then_sheared_then_turned():
    width, height, angle, shear, x, y = math.log(1.3), math.log(0.8), 0.5, 0.2, 0.1, -0.3
    wanted = np.array([width, height, angle, shear, x, y])
    bounds = np.array([math.log(2), math.log(2), math.radians(60), 0.4, 0.8, 0.8])
    (found,), _ = theta("affine", (bounds * np.arctanh(wanted / bounds))[None])
    turned = Rotation.from_euler("z", angle).as_matrix()[:2, :2]
    linear = turned @ np.array([[1, shear], [0, 1]]) @ np.diag([1.3, 0.8])
    np.testing.assert_allclose(found.reshape(2, 3), np.column_stack((linear, [x, y])), atol=1e-9)


def test_a_homography_tilts_about_the_centre_of_its_crop():
    affine, _ = theta("affine", np.array([[0.2, -0.1, 0.3, 0.1, 0.4, 0.2]]))
    both, _ = theta("projective", np.array([[0.2, -0.1, 0.3, 0.1, 0.4, 0.2, 0.15, -0.1]]))
    flat, tilted = config("affine").spec(affine), config("projective").spec(both)
    tilt = np.eye(3)
    tilt[2, :2] = 0.2 * np.tanh(np.array([0.15, -0.1]) / 0.2)
    np.testing.assert_allclose(tilted.matrix[0].numpy(), flat.matrix[0].numpy() @ tilt, atol=1e-9)
    centre = torch.zeros(1, 2, dtype=torch.float64)
    torch.testing.assert_close(tilted(centre), flat(centre))


def test_a_volume_turns_about_x_then_y_then_z():
    angles = np.array([0.3, -0.4, 0.5])
    raw = np.zeros((1, 12))
    raw[0, 3:6] = math.radians(60) * np.arctanh(angles / math.radians(60))
    found, _ = theta("affine3d", raw)
    np.testing.assert_allclose(found.reshape(3, 4)[:, :3], Rotation.from_euler("xyz", angles).as_matrix(), atol=1e-9)


@pytest.mark.parametrize(
    "change",
    [
        {"zoom": 1.0},
        {"turn": 0},
        {"shift": -1},
        {"perspective": 0.5},
        {"bend": 0},
        {"shift": math.inf},
        {"turn": math.nan},
    ],
)
def test_limits_that_leave_no_room_are_refused(change):
    with pytest.raises(UsageError):
        Limits(**change)


def test_limits_and_votes_exclude_each_other():
    with pytest.raises(UsageError, match="without angle_bins"):
        LocalizerConfig(
            transform=TransformConfig("affine"), input_size=(16, 16), angle_bins=8, widths=(4,), limits=LIMITS
        )


def test_under_autocast_a_volume_is_turned_in_float32():
    raw = torch.tensor(np.random.default_rng(2).normal(size=(16, 12)), dtype=torch.float32)
    expected, _ = theta("affine3d", raw)
    with torch.autocast("cpu", torch.bfloat16):
        identity = torch.tensor(config("affine3d").spec.identity_theta).float()
        found, _ = limited(raw, identity, config("affine3d"), LIMITS)
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-5)
