"""`stn models`, and what a damaged or foreign checkpoint meets."""

import importlib.metadata
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from tests.checkpoints.strangers import DAMAGES, rewrite
from tests.running import ROOT, SAMPLES, stn

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


def test_info_says_what_the_files_hold():
    told = json.loads(stn("models", "info", "digits", "--json").stdout)
    assert told["path"] == str(DIGITS)
    with safe_open(DIGITS / "model.safetensors", "numpy") as file:
        written = json.loads(file.metadata()["stn"])
    for name in ("schema", "name", "description", "training"):
        assert told["header"][name] == written[name]
    shown = stn("models", "info", "digits").stdout
    assert f"sha256      {told['sha256']}" in shown
    assert "classes     0, 1, 2, 3, 4, 5, 6, 7, 8, 9" in shown


def test_version_is_that_of_the_package():
    assert stn("--version").stdout.split() == ["stn", importlib.metadata.version("stn-cli")]


@pytest.mark.parametrize("name", ["digits", "text"])
def test_verify_replays_the_golden_outputs(name):
    run = stn("models", "verify", name)
    assert run.returncode == 0, run.stderr
    assert run.stdout == f"{name}: ok\n"


@pytest.mark.parametrize("output", ["outline", "confidence", "label_confidence"])
def test_verify_tells_a_model_that_says_something_else_than_it_did(checkpoint, output):
    golden = load_file(checkpoint / "golden.safetensors")
    golden[output] = golden[output] + np.float32(0.01)
    save_file(golden, checkpoint / "golden.safetensors")
    run = stn("models", "verify", checkpoint)
    assert run.returncode == 10
    assert f"error: {output} differs from the stored output by 0.01" in run.stderr
    assert "ok" not in run.stdout


def test_a_rewritten_checkpoint_is_as_good_as_its_content(checkpoint):
    rewrite(checkpoint)
    assert stn("models", "verify", checkpoint).returncode == 0


@pytest.mark.parametrize("name", ["nan_graph", "pickled_weights", "monstrous_architecture"])
def test_a_strangers_checkpoint_is_checked_before_anything_is_written(checkpoint, tmp_path, name):
    spoil, _ = DAMAGES[name]
    spoil(checkpoint)
    for run in (
        stn("models", "verify", checkpoint),
        stn("rectify", SAMPLES / "rotated-1.png", "-m", checkpoint, "-o", tmp_path / "out"),
    ):
        assert run.returncode == 5, run.stdout + run.stderr
        assert "error: " in run.stderr
        assert "Traceback" not in run.stderr
    assert not (tmp_path / "out").exists()


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
