"""What is said of a training run: what was understood of the data, and how it goes."""

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from stn_cli.cli.output import one_line, say, shorten
from stn_cli.training.watching import Watcher

if TYPE_CHECKING:
    from stn_cli.networks.config import Size
    from stn_cli.training.api import Plan
    from stn_cli.training.examples import Dataset
    from stn_cli.training.loop import Trainer
    from stn_cli.training.validation import Validation

_MANY_EPOCHS = 2000
_NAMED = 20
"""Classes or files that are named, of many."""


def understood(plan: "Plan") -> Iterator[str]:
    """What the data is, and what will be done with it."""
    from stn_cli.training.examples import Dataset  # noqa: PLC0415

    if isinstance(plan.source, Dataset):
        yield from _data(plan.source)
    else:
        yield f"data       {plan.source.summary}"
    config = plan.config
    yield f"task       {' + '.join(config.objectives)}"
    yield f"network    {_network(plan)}"
    samples = config.steps * config.batch_size
    whole = f"{samples:,} in all"
    if isinstance(plan.source, Dataset):
        epochs = samples / len(plan.source.train)
        whole += f", {epochs:.3g} epochs"
        if epochs > _MANY_EPOCHS:
            yield "note       so few images come by so often that what is learned may hold for them alone"
    yield f"training   {config.steps:,} steps of {config.batch_size} samples ({whole}), seed {config.seed}"


def _data(dataset: "Dataset") -> Iterator[str]:
    what = "volumes" if dataset.train.dims == 3 else "images"
    parts = [f"{len(dataset.train):,} {what} to learn from", f"{len(dataset.validation):,} for validation"]
    parts += [f"{len(dataset.test):,} for the test"] if len(dataset.test) else []
    yield f"data       {dataset.layout}: {', '.join(parts)}"
    yield f"split      {dataset.split}"
    sizes = [image.shape[:-1] for image in dataset.train.images]
    low, high = (tuple(each(sides) for sides in zip(*sizes, strict=True)) for each in (min, max))
    grey = sum(image.shape[-1] == 1 for image in dataset.train.images)
    colours = "grey" if grey == len(sizes) else "colour" if not grey else "grey and colour"
    span = _size(low) if low == high else f"{_size(low)} to {_size(high)}"
    named = "volumes    " if dataset.train.dims == 3 else f"images     {colours}, "
    yield f"{named}{span} as they are kept"
    if dataset.classes:
        if unlabelled := int((dataset.train.labels < 0).sum()):
            yield f"note       {unlabelled} of the images to learn from have no class"
        counts = [int((dataset.train.labels == number).sum()) for number in range(len(dataset.classes))]
        classes = [f"{name} ({count})" for name, count in zip(dataset.classes, counts, strict=True)]
        more = f" and {len(classes) - _NAMED} more" if len(classes) > _NAMED else ""
        yield f"classes    {len(classes)}: {', '.join(classes[:_NAMED])}{more}"
    if dataset.train.texts:
        yield f"alphabet   {one_line(dataset.train.alphabet)}"
    if dataset.train.corners is not None:
        yield "poses      known, from the table of labels"
    yield from problems(dataset)


def problems(dataset: "Dataset") -> Iterator[str]:
    """What is wrong with the data, where, and what to do."""
    for problem in dataset.problems:
        more = f" and {len(problem.where) - 3} more" if len(problem.where) > 3 else ""
        yield f"problem    {problem.what}: {shorten(', '.join(problem.where[:3]))}{more}"
        yield f"  → {problem.remedy}"


def _network(plan: "Plan") -> str:
    config = plan.config
    parts = [f"sees a canvas of {_size((config.canvas,) * len(config.stages[0].input_size))}"]
    if config.insert_at:
        levels = f"{config.insert_at} of {len(config.classifier_widths)} levels of a classifier"
        return f"{parts[0]} → {levels} → {config.stages[0].transform.kind} of their features → class"
    if config.heads > 1:
        parts.append(f"{config.heads} heads side by side, each")
    for stage in config.stages:
        layout = f" {stage.transform.layout}" if stage.transform.layout else ""
        again = f" ({stage.repeat}×)" if stage.repeat > 1 else ""
        looks = f", {len(stage.looks)} looks" if len(stage.looks) > 1 else ""
        parts.append(f"{stage.transform.kind}{layout} from {_size(stage.input_size)}{again}{looks}")
    if config.direction is not None:
        parts.append(f"direction from {_size(config.direction.input_size)}")
    if "classify" in config.objectives:
        parts.append(f"crop of {_size(config.classifier_size)} → {config.backbone or 'class'}")
    if "read" in config.objectives:
        parts.append(f"crop of {_size(config.reader_size)} → text")
    return " → ".join(parts)


def _size(size: "Size") -> str:
    return "×".join(map(str, size))


def measures(overall: dict[str, float]) -> str:
    """The figures that people look for, before → after rectification where both are known."""
    said = []
    for name, called in (("accuracy", "accuracy"), ("words", "words right")):
        if name in overall:
            before = _percent(overall[f"{name}_unrectified"])
            said.append(f"{called} {before} → {_percent(overall[name])}")
    if "right" in overall:
        said.append(f"poses right {_percent(overall['right'])}")
        said.append(f"rotation off by {overall['rotation_median']:.1f}° (median)")
    if "iou" in overall:
        said.append(f"overlap with the true frame {overall['iou']:.2f}")
    return ", ".join(said)


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


class Terminal(Watcher):
    """A line with the loss, the rate and the time left: in place on a terminal, every 100 steps elsewhere."""

    def __init__(self, *, live: bool) -> None:
        self.live = live
        self.first = 0, 0.0

    def started(self, trainer: "Trainer") -> None:
        self.first = trainer.step, time.monotonic()
        if trainer.config.bypassed:
            self._say("the same network without the transformer:")
        if trainer.step:
            self._say(f"{'was finished' if trainer.is_over() else 'goes on'} at step {trainer.step}")

    def stepped(self, trainer: "Trainer", means: dict[str, float]) -> None:
        config, step = trainer.config, trainer.step
        first_step, started = self.first
        if not (step % (10 if self.live else 100) == 0 or step == config.steps):
            return
        seconds = (time.monotonic() - started) / (step - first_step)
        left, rate = seconds * (config.steps - step) / 60, config.batch_size / max(seconds, 1e-9)
        line = f"step {step}/{config.steps}  loss {means['loss']:.4f}  {rate:.0f} images/s  {left:.1f} min left"
        say(line, in_place=self.live)

    def validated(self, trainer: "Trainer", validation: "Validation") -> None:
        self._say(f"step {trainer.step}: {measures(validation.overall)}")

    def warned(self, text: str) -> None:
        self._say(f"warning: {text}")

    def _say(self, line: str) -> None:
        say(f"\n{line}" if self.live else line)
