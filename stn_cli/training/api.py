"""Training from end to end: data and wishes in, a checkpoint out."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import msgspec
import torch

from stn_cli.checkpoints.header import SCHEMA, Header, check_header
from stn_cli.engines.devices import resolved
from stn_cli.errors import ModelError, StorageError, TrainingDataError, UsageError
from stn_cli.training.config import TrainConfig
from stn_cli.training.data import check_objectives, prepare, with_problems
from stn_cli.training.defaults import WIDTH_OF_WORDS, Wishes, suited
from stn_cli.training.examples import Dataset, Reading, read_examples
from stn_cli.training.finish import export
from stn_cli.training.loop import Trainer
from stn_cli.training.outset import model_config
from stn_cli.training.team import ALONE, Team
from stn_cli.training.text.samples import Lettering, read_lettering
from stn_cli.training.watching import Watcher

_LEAST_KEPT = 96
"""Images are kept in memory at least this large, if they are: distortions read them more finely than a canvas shows."""


@dataclass(frozen=True)
class Resources:
    """What a run may use, and what it keeps; none of it changes what is learned, beyond rounding.

    Attributes:
        workers: processes that draw samples.
        threads: of the networks on a CPU; None for as many as torch takes, one a core unless OMP_NUM_THREADS says less.
        device: `cpu`, `cuda` or `mps`; `auto` is a CUDA device if there is one.
        keep: states to keep, of the last validations.
    """

    workers: int = 1
    threads: int | None = None
    device: str = "auto"
    keep: int = 2

    @property
    def torch_device(self) -> str:
        """The device of this process, by torch's name for it; several that share a run have a CUDA device each.

        Raises:
            DeviceError: it is not there.
        """
        found = resolved(self.device)
        return f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if found == "cuda" else found


@dataclass(frozen=True)
class Plan:
    """What a run is to learn from, and how."""

    source: Dataset | Lettering
    config: TrainConfig
    resources: Resources = field(default_factory=Resources)


def plan(
    data: Sequence[Path], given: dict[str, Any], wishes: Wishes | None = None, resources: Resources | None = None
) -> Plan:
    """Reads the data, and chooses what is not given.

    Args:
        data: folders and archives.
        given: entries of `TrainConfig` as plain data, as from a TOML file.
        wishes: on the network.
        resources: that the run may use.

    Raises:
        TrainingDataError: the data cannot be trained on, or lacks what an objective needs.
        UsageError: what is given does not fit together.
    """
    resources = resources or Resources()
    wishes = wishes or Wishes()
    if "text" in given:
        return Plan(*_of_text(data, given, wishes), resources)
    usual = {"stages": msgspec.to_builtins(TrainConfig().stages), "objectives": ["classify"]}  # which allows most
    checked = _converted({**given, **{name: given.get(name) or value for name, value in usual.items()}})
    reading = _reading(checked, given.get("objectives") or (), wishes, _wants_volumes(given, wishes))
    dataset = _read(data, reading)
    config = suited(dataset, given, wishes)
    check_objectives(dataset, config)
    _check_network(config, dataset.classes)
    return Plan(with_problems(dataset, config), config, resources)


def check_out(data: Sequence[Path], out: Path) -> None:
    """Before anything is read: the run can have its folder, and its film will not be learned from by the next.

    Raises:
        StorageError: it is a file.
        UsageError: it lies within the data.
    """
    if os.path.exists(out) and not os.path.isdir(out):  # noqa: PTH110, PTH112  a name that is too long is neither
        raise StorageError(f"{out} is a file, and a run goes into a folder", remedy="Name another one with -o.")
    for root in data:
        if root.is_dir() and out.resolve().is_relative_to(root.resolve()):
            raise UsageError(
                f"the folder of the run, {out}, lies within the data, {root}", remedy="Name one beside it with -o."
            )


def run(
    plan: Plan, out: Path, *watchers: Watcher, team: Team = ALONE, is_stopped: Callable[[], bool] = lambda: False
) -> tuple[Trainer, bool]:
    """Trains, and exports the best weights into the folder of the run; False if it was stopped before."""
    trainer = trainer_of(plan, out, team)
    finished = trainer.train(*watchers, is_stopped=is_stopped)
    if finished and team.is_first:
        export(trainer, out)
    return trainer, finished


def trainer_of(plan: Plan, out: Path, team: Team = ALONE) -> Trainer:
    """The run that is planned; nothing is written yet."""
    resources, threads = plan.resources, plan.resources.threads or torch.get_num_threads()
    torch.set_num_threads(threads)
    return Trainer(
        plan.config,
        prepare(plan.source, plan.config, workers=threads),
        out,
        workers=resources.workers,
        keep=resources.keep,
        device=resources.torch_device,
        team=team,
    )


def _read(data: Sequence[Path], reading: Reading) -> Dataset:
    dataset = read_examples(data, reading)
    if not len(dataset.train):
        raise TrainingDataError(
            "the data names no part to learn from", remedy="Name a folder train/, or leave the names of parts out."
        )
    return dataset


def _of_text(data: Sequence[Path], given: dict[str, Any], wishes: Wishes) -> tuple[Lettering, TrainConfig]:
    if wishes != Wishes():
        raise UsageError(
            "of rendered words, [text], the configuration describes the network, and no option does",
            remedy="Say it in [[stages]].",
        )
    config = _converted(given)
    assert config.text is not None
    _check_network(config, ())
    return read_lettering(data, config.text), config


def _check_network(config: TrainConfig, classes: tuple[str, ...]) -> None:
    """UsageError for what no checkpoint could hold: before the run, not at its end."""
    try:
        check_header(
            Header(
                schema=SCHEMA,
                name=config.name,
                model=model_config(config, classes),
                graphs={},
                tensors_sha256="",
                min_confidence=config.min_confidence,
                crop_margin=config.crop_margin,
                crop_resample=config.crop_resample,
                straight_within=config.straight_within,
                second_look=config.second_look,
            )
        )
    except ModelError as error:
        raise UsageError(f"no checkpoint could hold what this run would learn: {error}") from error


def _converted(given: dict[str, Any]) -> TrainConfig:
    try:
        return msgspec.convert(given, TrainConfig)
    except msgspec.ValidationError as error:
        raise UsageError(f"these options do not fit together: {error}") from error


def _wants_volumes(given: dict[str, Any], wishes: Wishes) -> bool | None:
    """Whether a network of volumes was asked for; None if nothing was said of it."""
    if wishes.transform is not None:
        return wishes.transform.kind == "affine3d"
    stages = _converted({"stages": given["stages"]}).stages if given.get("stages") else ()
    return stages[0].transform.kind == "affine3d" if stages else None


def _reading(config: TrainConfig, objectives: Sequence[str], wishes: Wishes, volumes: bool | None) -> Reading:
    means: Literal["class", "text"] | None = None
    if "classify" in objectives or "read" in objectives:
        means = "class" if "classify" in objectives else "text"
    return Reading(
        labels=None if config.labels is None else Path(config.labels),
        label_means=means,
        group_by=config.group_by,
        validation_share=config.validation_share,
        widest_word=WIDTH_OF_WORDS,
        longest_side=max(_LEAST_KEPT, config.canvas, *(wishes.input_size or ()), *(wishes.output_size or ())),
        volumes=volumes,
    )
