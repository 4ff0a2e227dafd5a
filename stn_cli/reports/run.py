"""A training run with all that is made of it: checkpoint, film, curves, report, and the same without a transformer."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from stn_cli.checkpoints import Checkpoint, open_checkpoint
from stn_cli.errors import UsageError
from stn_cli.images import write_atomically
from stn_cli.networks.config import Size
from stn_cli.reports.curves import CURVES, write_curves
from stn_cli.reports.film import FILM, Film
from stn_cli.reports.tensorboard import TensorBoard
from stn_cli.training.api import Plan, Resources, check_out, plan, run
from stn_cli.training.config import read_entries
from stn_cli.training.defaults import Wishes, transform_called
from stn_cli.training.loop import Trainer, check_run
from stn_cli.training.team import joined_team
from stn_cli.training.validation import Validation, validate
from stn_cli.training.watching import Watcher

REPORT, REPORT_JSON = "report.md", "report.json"
_ROWS = {
    "accuracy": ("accuracy", 100, "%"),
    "accuracy_unrectified": ("accuracy, transformer bypassed", 100, "%"),
    "words": ("words right", 100, "%"),
    "words_unrectified": ("words right, transformer bypassed", 100, "%"),
    "right": ("poses right", 100, "%"),
    "rotation_median": ("rotation error, median", 1, "°"),
    "rotation_p95": ("rotation error, 95 %", 1, "°"),
    "error_median": ("corner error in heights of the frame, median", 1, ""),
    "iou": ("overlap with the true frame", 1, ""),
    "zoom_mean": ("zoom (1: as wide as the image), mean", 1, ""),
    "zoom_spread": ("zoom, deviation", 1, ""),
    "turn_spread": ("turn, deviation", 1, "°"),
    "out_of_frame": ("crop beyond the image", 100, "%"),
    "saturated": ("numbers of θ at their limits", 100, "%"),
    "fold": ("folds", 100, "%"),
}


def train(
    data: str | Path | Sequence[str | Path],
    out: str | Path,
    config: dict[str, Any] | str | Path | None = None,
    *watchers: Watcher,
    transform: str | None = None,
    stages: int = 1,
    shared: bool = False,
    heads: int | None = None,
    input_size: Size | None = None,
    output_size: Size | None = None,
    baseline: bool = False,
    tensorboard: bool = False,
    resources: Resources | None = None,
) -> Checkpoint:
    """What `stn train DATA -o OUT` does, from Python; the same call again goes on where it was interrupted.

    Args:
        data: folders and archives.
        out: folder of the run, which becomes the checkpoint.
        config: entries of `training.config.TrainConfig`, or a TOML file with them; what is not said suits the data.
        watchers: hear of every step and validation.
        transform, stages, shared, heads, input_size, output_size: as the options of the command.
        baseline, tensorboard: likewise.
        resources: processes, threads and the device to use.

    Returns:
        The checkpoint with the best weights, as `stn_cli.load` takes it.

    Raises:
        TrainingDataError, UsageError, StorageError, DivergedError: as the command would say.
    """
    roots = [Path(data)] if isinstance(data, str | Path) else [Path(root) for root in data]
    check_out(roots, Path(out))
    given = dict(config) if isinstance(config, dict) else {} if config is None else read_entries(Path(config))
    family = None if transform is None else transform_called(transform)
    wishes = Wishes(
        transform=family,
        stages=stages,
        shared=shared,
        heads=heads,
        input_size=input_size,
        output_size=output_size,
    )
    planned = plan(roots, given, wishes, resources)
    train_and_report(planned, Path(out), *watchers, baseline=baseline, tensorboard=tensorboard)
    return open_checkpoint(str(Path(out).resolve()))


def check(planned: Plan, out: Path, *, baseline: bool = False) -> None:
    """Before anything is done.

    Raises:
        UsageError: there is nothing to compare with a baseline, or the folder is that of another run.
        OutputExistsError: there are files in it that no run wrote.
    """
    if baseline and "straighten" in planned.config.objectives:
        raise UsageError(
            "--baseline compares what is classified or read with and without a transformer",
            remedy="Leave it out where images are straightened.",
        )
    check_run(out, planned.config)


def train_and_report(
    planned: Plan,
    out: Path,
    *watchers: Watcher,
    baseline: bool = False,
    tensorboard: bool = False,
    is_stopped: Callable[[], bool] = lambda: False,
) -> tuple[Trainer, bool]:
    """Trains into the folder `out`; `baseline` trains the same network without the transformer into `out/baseline`.

    Raises:
        UsageError: as `check`, or a package is missing.
    """
    check(planned, out, baseline=baseline)
    recorders = [Film(), *([TensorBoard()] if tensorboard else [])]
    without: Trainer | None = None
    with joined_team(planned.resources.torch_device) as team:
        trainer, finished = run(planned, out, *recorders, *watchers, team=team, is_stopped=is_stopped)
        if baseline and finished:
            config = msgspec.structs.replace(planned.config, bypassed=True)
            bypassed = dataclasses.replace(planned, config=config)
            without, finished = run(bypassed, out / "baseline", *watchers, team=team, is_stopped=is_stopped)
    if finished and trainer.team.is_first:
        write_curves(out)
        columns = _columns(trainer, without)
        write_atomically(out / REPORT_JSON, msgspec.json.format(msgspec.json.encode(columns)) + b"\n")
        write_atomically(out / REPORT, _report(trainer, columns).encode())
    return trainer, finished


def _columns(trainer: Trainer, without: Trainer | None) -> dict[str, dict[str, float]]:
    """Measures by what they are of."""
    data = trainer.data
    columns = {"held out": trainer.best_validation["overall"]}
    if without is not None:
        columns["held out, no transformer"] = without.best_validation["overall"]
    if data.test is not None:
        columns["test"] = _tested(trainer).overall
        if without is not None:
            columns["test, no transformer"] = _tested(without).overall
    return columns


def _report(trainer: Trainer, columns: dict[str, dict[str, float]]) -> str:
    config = trainer.config
    kinds = " → ".join(stage.transform.kind for stage in config.stages)
    budget = f"{trainer.step:,} steps of {config.batch_size} samples, seed {config.seed}"
    counts = [f"{measures['samples']:.0f}" for measures in columns.values()]
    lines = [
        f"# {config.name}",
        "",
        f"{' + '.join(config.objectives)}, {kinds}; {budget}; best at step {trainer.best_step:,}.",
        "",
        f"| | {' | '.join(columns)} |",
        f"|---|{'---|' * len(columns)}",
        f"| images | {' | '.join(counts)} |",
    ]
    for name, (label, factor, unit) in _ROWS.items():
        cells = [_cell(measures.get(name), factor, unit) for measures in columns.values()]
        if any(cells):
            lines.append(f"| {label} | {' | '.join(cells)} |")
    lines += ["", f"![The film of held-out images]({FILM})", "", f"![Curves]({CURVES})", ""]
    lines += ["The weights are the best on the held-out images, which flatters these figures a little.", ""]
    return "\n".join(lines)


def _cell(value: float | None, factor: float, unit: str) -> str:
    if value is None:
        return ""
    return f"{factor * value:.2f} {unit}".rstrip() if factor == 100 else f"{value:.3f}{unit}"


def _tested(trainer: Trainer) -> Validation:
    assert trainer.data.test is not None
    model = trainer.best_model().to(trainer.device)
    return validate(model, trainer.data.test, trainer.config, device=trainer.device, workers=trainer.workers)
