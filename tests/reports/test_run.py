"""What is made of a training run: film, curves, report, event files; and the same from Python as from the command."""

import io
import json

import numpy as np
import PIL.Image
import pytest

import stn_cli
from stn_cli.errors import UsageError
from stn_cli.reports.curves import write_curves
from stn_cli.training.api import Resources
from tests.running import stn
from tests.training.drawn import glyph

CONFIG = {
    "steps": 12,
    "batch_size": 8,
    "validate_every": 6,
    "warmup": 1,
    "classifier_widths": [8, 16],
    "localizer_scale": 1.0,
    "seed": 3,
}


@pytest.fixture(scope="module")
def glyphs(tmp_path_factory):
    folder, rng = tmp_path_factory.mktemp("glyphs"), np.random.default_rng(1)
    for number in range(60):
        kind, part = number % 2, "test" if number >= 50 else "train"
        (folder / part / str(kind)).mkdir(parents=True, exist_ok=True)
        PIL.Image.fromarray(glyph(kind, rng)[..., 0]).save(folder / part / str(kind) / f"{number}.png")
    return folder


@pytest.fixture(scope="module")
def made(glyphs, tmp_path_factory):
    """A run with all that can be made of it."""
    out = tmp_path_factory.mktemp("runs") / "glyphs"
    resources = Resources(workers=0, threads=1)
    stn_cli.train(glyphs, out, CONFIG, baseline=True, tensorboard=True, resources=resources)
    return out


def test_the_film_shows_the_same_images_from_the_first_step_to_the_last(made):
    film = PIL.Image.open(io.BytesIO((made / "training.gif").read_bytes()))
    assert film.n_frames == 13, "at the start, and after each of the few steps"
    film.seek(0)
    first = np.asarray(film.convert("RGB"), float)
    film.seek(film.n_frames - 1)
    last = np.asarray(film.convert("RGB"), float)
    assert first.shape == last.shape
    assert first.std() > 20
    crops = slice(20 + 84 + 3, 20 + 2 * 84)
    assert np.abs(first[crops] - last[crops]).max() > 10, "crops move"


def test_the_report_has_both_networks_on_both_parts(made):
    report = (made / "report.md").read_text()
    assert "| held out | held out, no transformer | test | test, no transformer |" in report
    assert "| images | " in report
    rows = {
        line.split("|")[1].strip(): [cell.strip() for cell in line.split("|")[2:-1]]
        for line in report.splitlines()
        if line.startswith("| ")
    }
    assert rows["images"][2:] == ["10", "10"]
    assert rows["zoom (1: as wide as the image), mean"][1] == "1.000"
    assert all(cell.endswith("%") for cell in rows["accuracy"])
    assert (made / "baseline" / "model.safetensors").exists()


def test_curves_are_drawn(made, tmp_path):
    (tmp_path / "log.jsonl").touch()
    write_curves(tmp_path)
    curves, empty = (np.asarray(PIL.Image.open(folder / "curves.png").convert("L")) for folder in (made, tmp_path))
    assert curves.shape == empty.shape
    for panel in (np.s_[60:330, 60:540], np.s_[60:330, 660:1140], np.s_[440:700, 60:540], np.s_[440:700, 660:1140]):
        assert np.mean(np.abs(curves[panel].astype(int) - empty[panel]) > 40) > 0.001, "there are lines"


def test_event_files_hold_scalars_images_and_histograms(made):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(made / "tensorboard"))
    events.Reload()
    tags = events.Tags()
    assert "validation/accuracy" in tags["scalars"]
    logged = [json.loads(line) for line in (made / "log.jsonl").read_text().splitlines()]
    accuracies = [entry["validation"]["overall"]["accuracy"] for entry in logged if "validation" in entry]
    assert [event.value for event in events.Scalars("validation/accuracy")] == pytest.approx(accuracies)
    assert tags["images"]
    assert [f"theta/{number:02d}" for number in range(6)] == sorted(tags["histograms"])


def test_python_and_the_command_make_the_same_weights(glyphs, made, tmp_path):
    config = tmp_path / "config.toml"
    config.write_text("\n".join(f"{name} = {value}" for name, value in CONFIG.items()))
    run = stn("train", glyphs, "-o", tmp_path / "run", "--config", config, "--workers", "0", "--threads", "1")
    assert run.returncode == 0, run.stderr
    assert "10 for the test" in run.stderr
    assert (tmp_path / "run" / "model.safetensors").read_bytes() == (made / "model.safetensors").read_bytes()


def test_the_same_call_again_changes_nothing(glyphs, made):
    before = {path: path.stat().st_mtime_ns for path in made.glob("film/*.png")}
    weights = (made / "model.safetensors").read_bytes()
    resources = Resources(workers=0, threads=1)
    checkpoint = stn_cli.train(glyphs, made, CONFIG, baseline=True, resources=resources)
    assert checkpoint.path.samefile(made)
    assert (made / "model.safetensors").read_bytes() == weights
    assert before == {path: path.stat().st_mtime_ns for path in made.glob("film/*.png")}


def test_a_dry_run_says_what_is_understood_and_how_long_it_would_take(glyphs, tmp_path):
    run = stn("train", glyphs, "-o", tmp_path / "run", "--transform", "tps", "--stages", "2", "--dry-run")
    assert run.returncode == 0, run.stderr
    lines = {line.split()[0]: line for line in run.stderr.splitlines() if line.strip()}
    assert "10 for the test" in lines["data"]
    assert lines["classes"].startswith("classes    2: 0 (")
    assert "classify" in lines["task"]
    assert lines["network"].count("tps grid 4x4 from 28×28") == 2
    assert "minute" in lines["time"]
    assert not (tmp_path / "run").exists()


def test_a_baseline_of_what_is_straightened_is_refused(glyphs, tmp_path):
    with pytest.raises(UsageError, match="--baseline"):
        stn_cli.train(glyphs, tmp_path / "run", {**CONFIG, "objectives": ["straighten"]}, baseline=True)
    assert not (tmp_path / "run").exists()


def test_a_bundled_model_is_gone_on_from(glyphs, tmp_path):
    config = {"start": "digits", "objectives": ["classify"], "steps": 2, "batch_size": 4, "canvas": 48, "warmup": 1}
    checkpoint = stn_cli.train(glyphs, tmp_path / "run", config, resources=Resources(workers=0, threads=1))
    theirs = stn_cli.load("digits").engine.model
    assert checkpoint.header.model.stages == theirs.stages
    assert checkpoint.header.model.classifier.classes == ("0", "1")
