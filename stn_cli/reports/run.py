"""A training run with all that is made of it: checkpoint, film, curves, report, and the same without a transformer."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import msgspec

from stn_cli.checkpoints import Checkpoint
from stn_cli.errors import UsageError
from stn_cli.images import write_atomically
from stn_cli.reports.curves import CURVES, write_curves
from stn_cli.reports.film import FILM, Film
from stn_cli.reports.tensorboard import TensorBoard
from stn_cli.training.api import Plan, run
from stn_cli.training.loop import Trainer
from stn_cli.training.validation import Validation, validate
from stn_cli.training.watching import Watcher

REPORT = "report.md"
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


def train_and_report(
    plan: Plan,
    out: Path,
    *watchers: Watcher,
    baseline: bool = False,
    tensorboard: bool = False,
    is_stopped: Callable[[], bool] = lambda: False,
) -> tuple[Trainer, Checkpoint | None]:
    """Trains into the folder `out`; `baseline` trains the same network without the transformer into `out/baseline`.

    Raises:
        UsageError: there is nothing to compare, or a package is missing.
    """
    if baseline and "straighten" in plan.config.objectives:
        raise UsageError(
            "--baseline compares what is classified or read with and without a transformer",
            remedy="Leave it out where images are straightened.",
        )
    recorders = [Film(), *([TensorBoard()] if tensorboard else [])]
    trainer, checkpoint = run(plan, out, *recorders, *watchers, is_stopped=is_stopped)
    if checkpoint is None:
        return trainer, None
    without: Trainer | None = None
    if baseline:
        bypassed = dataclasses.replace(plan, config=msgspec.structs.replace(plan.config, bypassed=True, start=None))
        without, made = run(bypassed, out / "baseline", *watchers, is_stopped=is_stopped)
        if made is None:
            return trainer, None
    write_curves(out)
    write_atomically(out / REPORT, _report(trainer, without).encode())
    return trainer, checkpoint


def _report(trainer: Trainer, without: Trainer | None) -> str:
    config, data = trainer.config, trainer.data
    columns = {"held out": trainer.best_validation["overall"]}
    if without is not None:
        columns["held out, no transformer"] = without.best_validation["overall"]
    if data.test is not None:
        columns["test"] = _tested(trainer).overall
        if without is not None:
            columns["test, no transformer"] = _tested(without).overall
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
