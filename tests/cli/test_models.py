"""`stn models`, and what a damaged or foreign checkpoint meets."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.test_rectify import ROOT, SAMPLES, stn

DIGITS = ROOT / "models" / "digits"


@pytest.fixture
def checkpoint(tmp_path) -> Path:
    return Path(shutil.copytree(DIGITS, tmp_path / "model"))


def test_list_names_the_bundled_model_and_its_size():
    run = stn("models", "list", "--json")
    (entry,) = [json.loads(line) for line in run.stdout.splitlines()]
    assert entry["name"] == "digits"
    assert entry["bytes"] <= 2_000_000


def test_verify_replays_the_golden_outputs():
    run = stn("models", "verify", "digits")
    assert run.returncode == 0, run.stderr
    assert run.stdout == "digits: ok\n"


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


def test_a_checkpoint_in_a_folder_rectifies(checkpoint, tmp_path):
    run = stn("rectify", SAMPLES / "rotated-1.png", "-m", checkpoint, "-o", tmp_path / "out")
    assert run.returncode == 0, run.stderr


def test_models_answer_without_torch():
    code = (
        "import sys; from stn_cli.cli.main import app\n"
        "try: app(['models', 'verify', 'digits'])\n"
        "except SystemExit: pass\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, capture_output=True)
