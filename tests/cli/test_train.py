"""`stn train` as a user runs it: a folder in, a checkpoint out."""

import json
import os
import select
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import numpy as np
import PIL.Image
import pytest
import torch

from stn_cli.cli.training import Terminal
from stn_cli.training.config import TrainConfig
from tests.running import ROOT, SAMPLES, records, stn

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
    assert "class folders: 35 images to learn from, 5 for validation" in run.stderr
    assert "broken.png" in run.stderr
    assert [entry["step"] for entry in losses(tmp_path / "run") if "validation" in entry] == [3, 6]
    assert stn("models", "verify", tmp_path / "run").returncode == 0
    done = stn("rectify", SAMPLES / "rotated-1.png", "-m", tmp_path / "run", "-o", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert records(tmp_path / "out")["rotated-1.png"]["model"]["name"] == "bars"


def test_options_overrule_the_configuration(bars, config, tmp_path):
    config.write_text(CONFIG.partition("[[stages]]")[0])
    given = {
        "steps": 2,
        "batch_size": 6,
        "accumulate": 3,
        "learning_rate": 0.004,
        "patience": 7,
        "precision": "bf16",
        "seed": 7,
        "validation_share": 0.3,
        "group_by": "(1?[0-9])[.]png",
        "heads": 2,
    }
    options = [text for name, value in given.items() for text in (f"--{name.replace('_', '-')}", value)]
    network = ["--transform", "attention", "--stages", 2, "--shared", "--input", "20x24", "--output", "16x18"]
    others = ["--config", config, "--objective", "classify", "--tensorboard", "-q"]
    run = stn("train", bars, "-o", tmp_path / "run", *options, *network, *others)
    assert run.returncode == 0, run.stderr
    assert run.stderr == ""
    chosen = json.loads((tmp_path / "run" / "config.json").read_text())
    assert {name: chosen[name] for name in given} == given
    assert chosen["name"] == "bars"
    assert (chosen["objectives"], chosen["classifier_size"]) == (["classify"], [16, 18])
    (stage,) = chosen["stages"]
    assert (stage["transform"]["kind"], stage["input_size"], stage["repeat"]) == ("attention", [20, 24], 2)
    assert list((tmp_path / "run").rglob("events.out.tfevents.*"))


@pytest.mark.parametrize("keep", [1, 3])
def test_as_many_states_are_kept_as_one_asks(bars, config, tmp_path, keep):
    options = ("--config", config, "--steps", 9, "--keep", keep, "-q")
    assert stn("train", bars, "-o", tmp_path / "run", *options).returncode == 0
    assert len(list((tmp_path / "run").glob("state-*.pt"))) == keep


def test_dry_run_trains_nothing(bars, config, tmp_path):
    run = stn("train", bars, "-o", tmp_path / "run", "--config", config, "-n")
    assert run.returncode == 0
    assert "6 steps of 8 samples" in run.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("dry", [(), ("-n",)])
def test_what_the_run_refuses_a_dry_run_refuses_too(bars, config, tmp_path, dry):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "report.md").write_text("mine")
    asked = ("train", bars, "--config", config, *dry)
    assert stn(*asked, "-o", tmp_path / "mine").returncode == 6
    straighten = stn(*asked, "-o", tmp_path / "run", "--baseline", "--objective", "straighten")
    assert straighten.returncode == 2
    assert "--baseline compares" in straighten.stderr


def test_two_images_are_enough(config, tmp_path):
    (tmp_path / "few").mkdir()
    for name, level in (("a", 200), ("b", 90)):
        PIL.Image.new("L", (20, 40), level).save(tmp_path / "few" / f"{name}.png")
    run = stn("train", tmp_path / "few", "-o", tmp_path / "run", "--config", config, "--steps", "3", "-q")
    assert run.returncode == 0, run.stderr


def test_the_same_command_again_changes_nothing(bars, config, tmp_path):
    weights = tmp_path / "run" / "model.safetensors"
    assert stn("train", bars, "-o", tmp_path / "run", "--config", config, "-q").returncode == 0
    before = weights.read_bytes()
    again = stn("train", bars, "-o", tmp_path / "run", "--config", config)
    assert "was finished at step" in again.stderr
    assert weights.read_bytes() == before
    other = stn("train", bars, "-o", tmp_path / "run", "--config", config, "--seed", "5")
    assert other.returncode == 2
    assert "another configuration: " in other.stderr


def test_the_rate_is_that_of_the_run_that_is_watched(capsys, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    terminal, config = Terminal(live=False), TrainConfig(steps=400, batch_size=10)
    for first in (200, 0):  # one that goes on, then its baseline
        trainer = SimpleNamespace(step=first, config=config, is_over=lambda: False)
        terminal.started(trainer)
        while trainer.step < 400:
            trainer.step += 1
            now[0] += 0.5
            terminal.stepped(trainer, {"loss": 1.0})
        now[0] += 1000
    lines = [line for line in capsys.readouterr().err.splitlines() if "images/s" in line]
    assert len(lines) == 6
    assert all("  20 images/s" in line for line in lines)


def test_what_is_there_is_not_replaced_and_the_data_does_not_grow(bars, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "report.md").write_text("a report of another kind")
    (tmp_path / "file").touch()
    for out, code in ((tmp_path / "mine", 6), (tmp_path / "file", 8), (bars / "run", 2)):
        run = stn("train", bars, "-o", out, "--steps", "2")
        assert run.returncode == code, run.stderr
    assert (tmp_path / "mine" / "report.md").read_text() == "a report of another kind"
    assert not (bars / "run").exists()


def test_a_run_that_is_not_finished_says_so(tmp_path):
    (tmp_path / "log.jsonl").touch()
    run = stn("models", "info", tmp_path)
    assert run.returncode == 5
    assert "is not finished" in run.stderr


def state(folder):
    paths = sorted(folder.glob("state-*.pt"), key=lambda path: int(path.stem.rpartition("-")[2]))
    return torch.load(paths[-1], weights_only=True) if paths else {"step": 0}


def test_a_run_that_is_killed_again_and_again_ends_with_the_same_weights(bars, config, tmp_path):
    arguments = ["train", bars, "--config", config, "--steps", "150", "-q", "--threads", "1"]
    assert stn(*arguments, "-o", tmp_path / "whole").returncode == 0
    expected, kills = state(tmp_path / "whole"), 0
    command = [sys.executable, "-m", "stn_cli", *map(str, arguments), "-o", str(tmp_path / "parts")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    for log_lines in (1, 3, 6):
        run = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
        log = tmp_path / "parts" / "log.jsonl"
        while run.poll() is None and not (log.exists() and len(log.read_bytes().splitlines()) >= log_lines):
            time.sleep(0.002)
        run.kill()
        kills += run.wait() == -signal.SIGKILL
    assert kills == 3
    assert 0 < state(tmp_path / "parts")["step"] < 150
    assert stn(*arguments, "-o", tmp_path / "parts").returncode == 0
    found = state(tmp_path / "parts")
    assert found["step"] == expected["step"] == 150
    for part in ("model", "average", "best_weights"):
        for name, value in expected[part].items():
            assert torch.equal(value, found[part][name]), name
    assert (tmp_path / "parts" / "model.safetensors").read_bytes() == (
        tmp_path / "whole" / "model.safetensors"
    ).read_bytes()
    assert losses_without_times(tmp_path / "parts") == losses_without_times(tmp_path / "whole")


def test_nothing_is_left_of_a_run_that_is_killed(bars, tmp_path):
    config = tmp_path / "wide.toml"
    config.write_text(CONFIG.replace("batch_size = 8", "batch_size = 128\ncanvas = 64"))
    ended, held = os.pipe()  # whoever is left of the run holds its other end
    command = [sys.executable, "-m", "stn_cli", "train", bars, "--config", config, "--steps", "2000", "-q"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    with subprocess.Popen([*command, "-o", tmp_path / "run"], env=environment, pass_fds=(held,)) as run:
        os.close(held)
        while not (tmp_path / "run" / "state-3.pt").exists():
            assert run.poll() is None
            time.sleep(0.01)
        run.kill()
    assert select.select([ended], [], [], 60)[0] and os.read(ended, 1) == b""
    os.close(ended)


def losses_without_times(run):
    return [{name: value for name, value in entry.items() if name != "seconds"} for entry in losses(run)]


@pytest.mark.parametrize(
    ("number", "to"), [(signal.SIGINT, os.killpg), (signal.SIGTERM, os.killpg), (signal.SIGTERM, os.kill)]
)
def test_a_stop_saves_the_state_and_says_how_to_go_on(bars, config, tmp_path, number, to):
    arguments = ["train", bars, "--config", config, "--steps", "2000", "-q", "--threads", "1", "-o", tmp_path / "run"]
    command = [sys.executable, "-m", "stn_cli", *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    run = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True)
    while not (tmp_path / "run" / "state-3.pt").exists():
        assert run.poll() is None
        time.sleep(0.01)
    to(run.pid, number)
    _, said = run.communicate()
    assert run.returncode == 128 + number, said
    assert "the same command goes on" in said
    assert "Traceback" not in said
    assert state(tmp_path / "run")["step"] >= 3


DATA = {
    "damaged": lambda folder: [(folder / f"{n}.png").write_bytes(b"\x89PNG\r\n\x1a\n broken") for n in range(5)],
    "tiny": lambda folder: PIL.Image.new("L", (20, 20)).save(folder / "a.png"),
    "empty": lambda _: None,
    "too large": lambda folder: (folder / "a.pgm").write_bytes(b"P5 99999 99999 255\n"),
    "a cut idx file": lambda folder: (folder / "train-images-idx3-ubyte").write_bytes(b"\0\0\x08\x03\0\0\0\x09"),
    "no folder": lambda folder: folder.rmdir(),
}


@pytest.mark.parametrize("name", DATA)
def test_data_that_cannot_be_trained_on_is_exit_9_with_the_reason(tmp_path, name):
    (tmp_path / "data").mkdir()
    DATA[name](tmp_path / "data")
    run = stn("train", "data", "-o", "run", cwd=tmp_path)
    assert run.returncode == 9, run.stderr
    assert "data" in run.stderr.splitlines()[0]
    assert "Traceback" not in run.stderr
    assert not (tmp_path / "run").exists()


def test_images_of_all_sizes_and_modes_are_trained_on_together(config, tmp_path):
    (tmp_path / "mixed").mkdir()
    for number, (mode, size) in enumerate(
        (("L", (1, 1)), ("RGB", (3, 700)), ("RGBA", (40, 20)), ("1", (9, 9)), ("I;16", (30, 30)), ("P", (200, 100)))
    ):
        PIL.Image.new(mode, size, 1).save(tmp_path / "mixed" / f"{number}.png")
    run = stn("train", tmp_path / "mixed", "-o", tmp_path / "run", "--config", config, "--steps", "3")
    assert run.returncode == 0, run.stderr
    assert "images: 5 images to learn from, 1 for validation" in run.stderr


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
