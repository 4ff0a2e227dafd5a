"""`stn train` as a user runs it: a folder in, a checkpoint out."""

import json

import numpy as np
import PIL.Image
import pytest

from tests.cli.test_rectify import SAMPLES, records, stn

CONFIG = """
name = "bars"
description = "Bars that stand"
steps = 6
batch_size = 8
validate_every = 3
validation_samples = 16

[[stages]]
transform = { kind = "similarity" }
input_size = [16, 16]
widths = [4, 8]
hidden = 16
"""


@pytest.fixture(scope="module")
def bars(tmp_path_factory):
    """Upright and level bars in two class folders."""
    folder = tmp_path_factory.mktemp("bars")
    for name, box in (("up", (slice(4, 28), slice(12, 20))), ("flat", (slice(12, 20), slice(4, 28)))):
        (folder / name).mkdir()
        for number in range(20):
            pixels = np.zeros((32, 32), np.uint8)
            pixels[box] = 120 + 6 * number
            PIL.Image.fromarray(pixels).save(folder / name / f"{number}.png")
    (folder / "up" / "broken.png").write_bytes(b"no image")
    return folder


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "config.toml"
    path.write_text(CONFIG)
    return path


def losses(run):
    return [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]


def test_a_folder_becomes_a_checkpoint_that_rectifies(bars, config, tmp_path):
    run = stn("train", bars, "-o", tmp_path / "run", "--config", config)
    assert run.returncode == 0, run.stderr
    assert run.stdout == f"{tmp_path / 'run'}\n"
    assert "40 images, 2 classes" in run.stderr
    assert "broken.png" in run.stderr
    assert [entry["step"] for entry in losses(tmp_path / "run") if "validation" in entry] == [3, 6]
    assert stn("models", "verify", tmp_path / "run").returncode == 0
    done = stn("rectify", SAMPLES / "rotated-1.png", "-m", tmp_path / "run", "-o", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert records(tmp_path / "out")["rotated-1.png"]["model"]["name"] == "bars"


def test_options_overrule_the_configuration(bars, config, tmp_path):
    arguments = ("--config", config, "--steps", 2, "--batch-size", 4, "--seed", 7, "--objective", "classify")
    run = stn("train", bars, "-o", tmp_path / "run", *arguments, "-q")
    assert run.returncode == 0, run.stderr
    assert run.stderr == ""
    chosen = json.loads((tmp_path / "run" / "config.json").read_text())
    assert [chosen[name] for name in ("steps", "batch_size", "seed", "objectives")] == [2, 4, 7, ["classify"]]


def test_dry_run_trains_nothing(bars, config, tmp_path):
    run = stn("train", bars, "-o", tmp_path / "run", "--config", config, "-n")
    assert run.returncode == 0
    assert "6 steps of 8 samples" in run.stderr
    assert not (tmp_path / "run").exists()


def test_two_images_are_enough(config, tmp_path):
    (tmp_path / "few").mkdir()
    for name, level in (("a", 200), ("b", 90)):
        PIL.Image.new("L", (20, 40), level).save(tmp_path / "few" / f"{name}.png")
    run = stn("train", tmp_path / "few", "-o", tmp_path / "run", "--config", config, "--steps", "3", "-q")
    assert run.returncode == 0, run.stderr


def test_the_same_command_again_changes_nothing(bars, config, tmp_path):
    weights = tmp_path / "run" / "model.safetensors"
    for _ in range(2):
        assert stn("train", bars, "-o", tmp_path / "run", "--config", config, "-q").returncode == 0
        before = weights.read_bytes()
    assert weights.read_bytes() == before
    other = stn("train", bars, "-o", tmp_path / "run", "--config", config, "--seed", "5")
    assert other.returncode == 2
    assert "another configuration" in other.stderr


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["nowhere"], 9),
        (["empty"], 9),
        (["plain", "--objective", "classify"], 9),
        (["plain", "--objective", "guess"], 2),
        (["plain", "--steps", "0"], 2),
        (["plain", "--seed", "-1"], 2),
        (["plain", "--config", "typo.toml"], 2),
        (["plain", "--config", "no.toml"], 2),
    ],
)
def test_what_cannot_be_trained_is_refused_before_anything_is_written(tmp_path, arguments, code):
    (tmp_path / "empty").mkdir()
    (tmp_path / "plain").mkdir()
    (tmp_path / "typo.toml").write_text("stepps = 3\n")
    PIL.Image.new("L", (20, 20), 200).save(tmp_path / "plain" / "a.png")
    PIL.Image.new("L", (20, 20), 100).save(tmp_path / "plain" / "b.png")
    run = stn("train", *arguments, "-o", "run", cwd=tmp_path)
    assert run.returncode == code, run.stderr
    assert run.stderr.startswith(("error:", "Usage", "2 images"))
    assert "Traceback" not in run.stderr
    assert not (tmp_path / "run").exists()
