"""The tensors that are expected are those that torch makes."""

import pytest

from stn_cli.checkpoints import open_checkpoint
from stn_cli.checkpoints.shapes import tensor_shapes
from stn_cli.networks.config import ClassifierConfig, DirectionConfig, LocalizerConfig, ModelConfig, TransformConfig
from stn_cli.networks.model import Rectifier

AFFINE = TransformConfig("affine")
ODD = LocalizerConfig(transform=AFFINE, input_size=(37, 51), widths=(3, 5, 7), hidden=11, angle_bins=6)
FLAT = LocalizerConfig(transform=TransformConfig("attention"), input_size=(5, 7), trunk="fc", widths=(6, 4), hidden=3)
VOTING = LocalizerConfig(
    transform=TransformConfig("tps", "grid 3x3"),
    input_size=(33, 47),
    widths=(3, 4, 5),
    hidden=9,
    angle_bins=2,
    pooled_votes=True,
)
OF_VOLUMES = LocalizerConfig(
    transform=TransformConfig("affine3d"), input_size=(9, 10, 13), widths=(3, 4), hidden=5, channels=1
)
READING_VOLUMES = ClassifierConfig(classes=("a", "b"), input_size=(8, 9, 7), widths=(2, 3), hidden=4, channels=1)
DIRECTION = DirectionConfig(input_size=(31, 45), widths=(3, 4, 5, 6), blocks=3, hidden=7)
READING = ClassifierConfig(classes=("a", "b", "c"), input_size=(29, 31), widths=(4, 6), hidden=5)


@pytest.mark.parametrize(
    "model",
    [
        open_checkpoint("digits").header.model,
        open_checkpoint("text").header.model,
        ModelConfig(stages=(ODD, FLAT), classifier=READING),
        ModelConfig(stages=(ODD, VOTING)),
        ModelConfig(stages=(VOTING,), direction=DIRECTION),
        ModelConfig(stages=(OF_VOLUMES, OF_VOLUMES), heads=2, classifier=READING_VOLUMES),
    ],
    ids=["digits", "text", "with a classifier", "of splines", "with a direction net", "of volumes"],
)
def test_the_shapes_of_all_tensors(model):
    state = Rectifier(model).state_dict()
    assert tensor_shapes(model) == {name: tuple(tensor.shape) for name, tensor in state.items()}
