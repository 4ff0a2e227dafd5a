"""A checkpoint from a stranger: whatever is wrong with it is a ModelError before anything of it runs."""

import json
import shutil

import pytest

from stn_cli.checkpoints import open_checkpoint
from stn_cli.checkpoints.header import SCHEMA, parse_header
from stn_cli.engines.onnx_engine import OnnxEngine
from stn_cli.errors import ModelError
from tests.checkpoints.strangers import DAMAGES, rewrite


@pytest.fixture
def folder(tmp_path):
    return shutil.copytree(open_checkpoint("digits").path, tmp_path / "model")


def test_a_strangers_checkpoint_that_is_sound_is_opened(folder):
    rewrite(folder)
    assert OnnxEngine(open_checkpoint(str(folder))).sessions


@pytest.mark.parametrize("name", DAMAGES)
def test_a_checkpoint_with_something_wrong_is_refused(folder, name):
    DAMAGES[name](folder)
    with pytest.raises(ModelError) as raised:
        OnnxEngine(open_checkpoint(str(folder)))
    assert raised.value.exit_code == 5
    assert str(raised.value)
    assert not (folder / "ran").exists()


@pytest.mark.parametrize(
    "changes",
    [
        {"input_size": [256] * 3, "widths": [512]},
        {"input_size": [1024] * 3},
        {"input_size": [1024, 1024, 500], "widths": [1, 1, 1]},
        {"input_size": [400] * 3, "widths": [1, 1024, 1], "hidden": 1},
    ],
)
def test_volumes_that_no_memory_holds_are_refused_by_the_header_alone(changes):
    stage = {"transform": {"kind": "affine3d"}, "input_size": [32] * 3, "channels": 1, "widths": [8], **changes}
    header = {"schema": SCHEMA, "name": "large", "model": {"stages": [stage]}, "graphs": {"localizer.onnx": "0" * 64}}
    text = json.dumps({**header, "tensors_sha256": "0" * 64})
    with pytest.raises(ModelError, match="beyond all reasonable size"):
        parse_header(text)


@pytest.mark.parametrize(
    "layer", [{"layer": "conv", "width": 8192, "kernel": 1}, {"layer": "conv", "width": 1, "padding": 8191}]
)
def test_layers_that_no_memory_holds_are_refused_by_the_header_alone(layer):
    layers = [layer, {"layer": "relu"}, {"layer": "mean_pool"}, {"layer": "linear", "units": 4}, {"layer": "relu"}]
    sequence = {"layers": layers, "mean": [0.5], "deviation": [0.5]}
    stage = {"transform": {"kind": "affine"}, "input_size": [1024] * 2, "channels": 1, "hidden": 4, "trunk": "sequence"}
    header = {"schema": SCHEMA, "name": "large", "model": {"stages": [{**stage, "sequence": sequence}]}}
    with pytest.raises(ModelError, match="beyond all reasonable size"):
        parse_header(json.dumps({**header, "graphs": {"localizer.onnx": "0" * 64}, "tensors_sha256": "0" * 64}))


def test_there_are_many():
    assert len(DAMAGES) >= 30
