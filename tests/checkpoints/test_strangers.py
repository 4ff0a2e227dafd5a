"""A checkpoint from a stranger: whatever is wrong with it is a ModelError before anything of it runs."""

import json
import shutil
import sys
from contextlib import suppress
from functools import partial

import numpy as np
import pytest
from safetensors.numpy import save_file

from stn_cli.checkpoints import open_checkpoint
from stn_cli.checkpoints.header import SCHEMA, parse_header
from stn_cli.engines.onnx_engine import OnnxEngine
from stn_cli.engines.torch_engine import TorchEngine
from stn_cli.engines.verify import verify
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
    spoil, says = DAMAGES[name]
    spoil(folder)
    with pytest.raises(ModelError, match=says) as raised:
        OnnxEngine(open_checkpoint(str(folder)))
    assert raised.value.exit_code == 5
    assert not (folder / "ran").exists()


@pytest.mark.parametrize("name", DAMAGES)
def test_torch_takes_nothing_that_is_wrong_for_more_than_an_error(folder, name):
    spoil, _ = DAMAGES[name]
    spoil(folder)
    with suppress(ModelError):  # of the graphs that it does not run it knows nothing
        TorchEngine(open_checkpoint(str(folder)), "cpu")
    assert not (folder / "ran").exists()


def test_a_module_that_a_stranger_names_is_not_imported(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "evil.py").write_text("raise SystemExit('imported')")
    rewrite(folder, header=lambda header: header["model"]["classifier"].update(backbone="evil:net"))
    for open_ in (OnnxEngine, partial(TorchEngine, device="cpu")):
        with suppress(ModelError):
            open_(open_checkpoint(str(folder)))
    assert "evil" not in sys.modules


def test_theta_that_is_not_finite_is_refused_when_it_is_said(folder, monkeypatch):
    engine = OnnxEngine(open_checkpoint(str(folder)))
    plain = engine.infer
    monkeypatch.setattr(engine, "infer", lambda name, views: [plain(name, views)[0] * np.nan, *plain(name, views)[1:]])
    with pytest.raises(ModelError, match="not finite"):
        engine.locate([np.zeros((20, 20, 1), np.float32)], [(20, 20)])


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


@pytest.mark.parametrize("said", [np.nan, 4689.1, -0.5])
@pytest.mark.parametrize("graph", ["localizer.onnx", "classifier.onnx"])
def test_probabilities_that_are_none_are_refused_when_they_are_said(folder, graph, said, monkeypatch):
    engine = OnnxEngine(open_checkpoint(str(folder)))
    plain = engine.infer

    def infer(name, views):
        outputs = plain(name, views)
        if name == graph:
            outputs[-1] = np.full_like(outputs[-1], said)
        return outputs

    monkeypatch.setattr(engine, "infer", infer)
    with pytest.raises(ModelError, match="not 0 to 1"):
        engine.locate([np.zeros((20, 20, 1), np.float32)], [(20, 20)])


@pytest.mark.parametrize("shape", [(0, 20, 20, 1), (2, 0, 20, 1), (2, 20, 20, 7)])
def test_stored_images_that_are_none_are_refused(folder, shape):
    save_file({"images": np.zeros(shape, np.uint8)}, folder / "golden.safetensors")
    with pytest.raises(ModelError, match=r"golden\.safetensors"):
        list(verify(open_checkpoint(str(folder))))


def test_a_name_that_no_file_can_have_is_no_model():
    with pytest.raises(ModelError, match="there is no model"):
        open_checkpoint("m" * 300)
