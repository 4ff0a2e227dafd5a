"""Errors are in heights of the frame and in degrees, wherever they decide or are told."""

import math

import numpy as np
import pytest
import torch

from stn_cli.geometry import Affine
from stn_cli.networks.config import LocalizerConfig, ModelConfig, TransformConfig
from stn_cli.networks.localization import Pose
from stn_cli.networks.model import Rectified, Rectifier
from stn_cli.networks.transformer import Located
from stn_cli.training.config import TrainConfig
from stn_cli.training.examples import Examples
from stn_cli.training.objectives import losses
from stn_cli.training.outset import model_config
from stn_cli.training.samples import Batch, GivenSamples
from stn_cli.training.validation import measured
from tests.training.drawn import dataset, settings

BOX = np.array([(-1, -1), (1, -1), (-1, 1), (1, 1)])


@pytest.mark.parametrize(("shift", "is_right"), [(0.15, True), (0.35, False)])
def test_confidence_is_of_an_error_in_heights(shift, is_right):
    stage = LocalizerConfig(transform=TransformConfig("affine"), input_size=(16, 16), widths=(4, 8))
    theta = torch.tensor([[0.5, 0, 0, 0, 0.2, shift * 0.4]])
    located = Located(
        (Affine(torch.tensor([[1.0, 0, 0, 0, 1, 0]])),),
        (Affine(theta),),
        (Pose(theta, torch.tensor([3.0]), torch.zeros(1, 0)),),
    )
    batch = Batch(
        torch.zeros((1, 1, 16, 16), dtype=torch.uint8),
        torch.from_numpy(BOX * (0.5, 0.2))[None],
        torch.tensor([-1]),
        torch.tensor([0]),
        torch.zeros((1, 0), dtype=torch.long),
    )
    config = TrainConfig(objectives=("straighten",), stages=(stage,), right=0.25)
    parts = losses(Rectified((located,), None, None), batch, ModelConfig(stages=(stage,)), config)
    expected = 0.1 * math.log1p(math.exp(-3.0 if is_right else 3.0))
    assert float(parts["confidence"]) == pytest.approx(expected, rel=1e-4)


def test_validation_measures_in_heights_and_degrees():
    angle = np.radians(30)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    corners = np.stack([0.6 * BOX @ turn.T, 0.6 * BOX])
    images = tuple(np.full((20, 20, 1), 9 * n, np.uint8) for n in range(2))
    known = Examples(images, np.full(2, -1), (), (), corners)
    config = settings(dataset(corners=True), objectives=("straighten",))
    untrained = Rectifier(model_config(config, ())).eval()  # it finds the whole canvas
    table = measured(untrained, GivenSamples(known, config, seed=1, moved=False), config, workers=0)
    np.testing.assert_allclose(table["error"], np.linalg.norm(BOX - corners, axis=2).mean(axis=1) / 1.2, rtol=1e-4)
    np.testing.assert_allclose(table["rotation_error"], [30, 0], atol=1e-3)
