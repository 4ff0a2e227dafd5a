"""`stn models`, and what a damaged or foreign checkpoint meets."""

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import safetensors
from safetensors.numpy import load_file, save_file

from stn_cli.checkpoints.store import tensors_digest
from tests.cli.test_rectify import ROOT, SAMPLES, stn

DIGITS = ROOT / "models" / "digits"


@pytest.fixture
def checkpoint(tmp_path) -> Path:
    return Path(shutil.copytree(DIGITS, tmp_path / "model"))


def test_list_names_the_bundled_models_and_their_sizes():
    run = stn("models", "list", "--json")
    sizes = {entry["name"]: entry["bytes"] for entry in map(json.loads, run.stdout.splitlines())}
    assert set(sizes) == {"digits", "text"}
    assert sizes["digits"] <= 2_000_000
    assert sizes["text"] <= 8_000_000


@pytest.mark.parametrize("name", ["digits", "text"])
def test_verify_replays_the_golden_outputs(name):
    run = stn("models", "verify", name)
    assert run.returncode == 0, run.stderr
    assert run.stdout == f"{name}: ok\n"


def damage_weights(folder):
    data = bytearray((folder / "model.safetensors").read_bytes())
    data[-1000] ^= 255
    (folder / "model.safetensors").write_bytes(data)


def cut_weights(folder):
    data = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(data[: len(data) // 2])


def empty_weights(folder):
    (folder / "model.safetensors").write_bytes(b"")


def huge_header(folder):
    (folder / "model.safetensors").write_bytes(b"\xff" * 64)


def foreign_graph(folder):
    shutil.copy(folder / "classifier.onnx", folder / "localizer.onnx")


def missing_graph(folder):
    (folder / "localizer.onnx").unlink()


def newer_schema(folder):
    data = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(data.replace(b"stn.checkpoint/1", b"stn.checkpoint/9"))


def leave(_content):
    pass


def rewrite(folder, *, header=leave, tensors=leave):
    """Changes a checkpoint as someone would who knows its format: all digests fit again."""
    path = folder / "model.safetensors"
    with safetensors.safe_open(path, "numpy") as file:
        content = json.loads(file.metadata()["stn"])
    arrays = load_file(path)
    tensors(arrays)
    content["tensors_sha256"] = tensors_digest(arrays)
    for name in content["graphs"]:
        content["graphs"][name] = hashlib.sha256((folder / name).read_bytes()).hexdigest()
    header(content)
    save_file(arrays, path, {"stn": json.dumps(content)})


def nan_weights(folder):
    def spoil(arrays):
        next(array for array in arrays.values() if array.ndim == 4)[0, 0, 0, 0] = np.nan

    rewrite(folder, tensors=spoil)


def nan_graph(folder):
    model = onnx.load(folder / "localizer.onnx")
    weights = max(model.graph.initializer, key=lambda tensor: len(tensor.raw_data))
    spoilt = onnx.numpy_helper.to_array(weights).copy()
    spoilt.flat[0] = np.nan
    weights.CopyFrom(onnx.numpy_helper.from_array(spoilt, weights.name))
    onnx.save(model, folder / "localizer.onnx")
    rewrite(folder)


def looping_graph(folder):
    model = onnx.load(folder / "localizer.onnx")
    model.graph.node.append(onnx.helper.make_node("RandomNormal", [], ["noise"], shape=[1]))
    onnx.save(model, folder / "localizer.onnx")
    rewrite(folder)


def graph_with_data_elsewhere(folder):
    model = onnx.load(folder / "localizer.onnx")
    onnx.save(model, folder / "localizer.onnx", save_as_external_data=True, location="data.bin", size_threshold=0)
    rewrite(folder)


def monstrous_architecture(folder):
    rewrite(folder, header=lambda header: header["model"]["stages"][0].update(hidden=10**9))


def monstrous_first_layer(folder):
    fully = {"trunk": "fc", "input_size": [1024, 1024], "widths": [8192]}
    rewrite(folder, header=lambda header: header["model"]["stages"][0].update(fully))


def volume_transform(folder):
    rewrite(folder, header=lambda header: header["model"]["stages"][1].update(transform={"kind": "affine3d"}))


def fewer_classes(folder):
    rewrite(folder, header=lambda header: header["model"]["classifier"].update(classes=["a", "b"]))


def metrics_that_are_none(folder):
    rewrite(folder, header=lambda header: header["metrics"]["overall"].update(right="very"))


def boundless_margin(folder):
    rewrite(folder, header=lambda header: header.update(crop_margin=[0.3, 2.5]))


def negative_margin(folder):
    rewrite(folder, header=lambda header: header.update(crop_margin=[-0.3, 0.1]))


def nothing_is_crooked(folder):
    rewrite(folder, header=lambda header: header.update(straight_within=1.5))


def impossible_architecture(folder):
    rewrite(folder, header=lambda header: header["model"]["stages"][0].update(widths=[]))


def test_a_rewritten_checkpoint_is_as_good_as_its_content(checkpoint):
    rewrite(checkpoint)
    assert stn("models", "verify", checkpoint).returncode == 0


@pytest.mark.parametrize(
    "damage",
    [
        nan_weights,
        nan_graph,
        looping_graph,
        graph_with_data_elsewhere,
        monstrous_architecture,
        monstrous_first_layer,
        impossible_architecture,
        volume_transform,
        fewer_classes,
        metrics_that_are_none,
        boundless_margin,
        negative_margin,
        nothing_is_crooked,
    ],
)
def test_a_strangers_checkpoint_is_checked_before_it_runs(checkpoint, tmp_path, damage):
    damage(checkpoint)
    run = stn("models", "verify", checkpoint)
    assert run.returncode == 5, run.stdout + run.stderr
    assert "Traceback" not in run.stderr
    if damage is not nan_weights:  # on a CPU the graphs run, and they are sound here
        run = stn("rectify", SAMPLES / "rotated-1.png", "-m", checkpoint, "-o", tmp_path / "out")
        assert run.returncode == 5, run.stdout + run.stderr
        assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "damage",
    [damage_weights, cut_weights, empty_weights, huge_header, foreign_graph, missing_graph, newer_schema],
)
def test_a_damaged_checkpoint_is_refused(checkpoint, damage):
    damage(checkpoint)
    run = stn("models", "verify", checkpoint)
    assert run.returncode == 5, run.stdout + run.stderr
    assert run.stderr.startswith(("error:", "  "))
    assert "Traceback" not in run.stderr


def test_margin_and_straightness_of_the_header_hold(checkpoint, tmp_path):
    def outline(*options):
        out = tmp_path / f"out{len(options)}{len(list(tmp_path.iterdir()))}"
        assert stn("rectify", SAMPLES / "rotated-3.png", "-m", checkpoint, "-o", out, *options).returncode == 0
        return json.loads((out / "theta.jsonl").read_text())

    bare = outline()
    rewrite(checkpoint, header=lambda header: header.update(crop_margin=[0.25, 0.5]))
    wide = outline()
    corners, wider = np.array(bare["outline"]), np.array(wide["outline"])
    along, down = corners[1] - corners[0], corners[3] - corners[0]
    np.testing.assert_allclose(wider[0], corners[0] - along / 4 - down / 2, atol=1e-3)
    np.testing.assert_allclose(wider[2], corners[2] + along / 4 + down / 2, atol=1e-3)
    assert wide["output"]["height"] == pytest.approx(2 * bare["output"]["height"], abs=1)
    rewrite(checkpoint, header=lambda header: header.update(straight_within=1.0))
    assert "strays from an upright box" in outline()["reason"]
    assert outline("--always")["status"] == "done"


def test_a_checkpoint_in_a_folder_rectifies(checkpoint, tmp_path):
    run = stn("rectify", SAMPLES / "rotated-1.png", "-m", checkpoint, "-o", tmp_path / "out")
    assert run.returncode == 0, run.stderr


@pytest.mark.parametrize("spoil", [lambda golden: golden.clear(), lambda golden: golden.pop("confidence")])
def test_golden_outputs_that_compare_nothing_are_refused(checkpoint, spoil):
    golden = load_file(checkpoint / "golden.safetensors")
    images = golden.pop("images")
    spoil(golden)
    save_file({**golden, "images": images}, checkpoint / "golden.safetensors")
    assert stn("models", "verify", checkpoint).returncode == 5


def test_a_folder_named_like_a_bundled_model_is_not_passed_over_in_silence(checkpoint):
    checkpoint.rename(checkpoint.parent / "digits")
    run = stn("models", "info", "digits", cwd=checkpoint.parent)
    assert run.returncode == 5
    assert "./digits" in run.stderr
    assert stn("models", "info", "./digits", cwd=checkpoint.parent).returncode == 0


def test_models_answer_without_torch():
    code = (
        "import sys; from stn_cli.cli.main import app\n"
        "try: app(['models', 'verify', 'digits'])\n"
        "except SystemExit: pass\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, capture_output=True)
