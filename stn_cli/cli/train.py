"""`stn train`."""

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stn_cli.cli.output import errors_reported, result, say
from stn_cli.cli.stopping import GentleStop, stops_gently

if TYPE_CHECKING:
    from stn_cli.training.config import TrainConfig
    from stn_cli.training.sources import Uprights
    from stn_cli.training.text.samples import Lettering

EXAMPLES = """Examples:\n
    stn train mnist/ -o runs/digits --objective straighten --objective classify\n
    stn train scans/ -o runs/scans --steps 2000\n
    stn train mnist/ more/ -o runs/digits --config models/digits/config.toml\n
The same command again goes on where the run was interrupted.
"""


def train(
    data: Annotated[list[Path], typer.Argument(help="MNIST's idx files, class sub-folders, or upright images.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the run; `rectify -m` takes it.")],
    config: Annotated[Path | None, typer.Option(help="TOML file; see stn_cli/training/config.py.")] = None,
    objective: Annotated[
        list[str] | None,
        typer.Option(help="straighten: known distortions; classify: labels alone. Repeat it for both."),
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Steps of the optimizer.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Samples a step.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of everything that is random.")] = None,
    workers: Annotated[int, typer.Option(help="Processes that draw samples.")] = 1,
    threads: Annotated[int | None, typer.Option(help="Threads of the network. Default: one a core.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", "-n", help="Say what was understood; train nothing.")] = False,
    keep: Annotated[int, typer.Option(min=1, help="States to keep: of the last validations.")] = 2,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing but errors.")] = False,
) -> None:
    """Train a rectifier on your own images."""
    with errors_reported("The same command goes on from the last validation."):
        import os  # noqa: PLC0415

        settings: dict[str, object] = {
            "objectives": tuple(objective) if objective else None,
            "steps": steps,
            "batch_size": batch_size,
        }
        settings["seed"] = seed
        given = {name: value for name, value in settings.items() if value is not None}
        source, chosen = _understood(data, config, given)
        if not quiet:
            _show(source, chosen)
        if not dry_run:
            threads = threads or os.cpu_count() or 1
            with stops_gently() as stop:
                finished = _train(chosen, source, out, stop, workers=workers, threads=threads, keep=keep, quiet=quiet)
            if not finished:
                say("stopped. The state is saved; the same command goes on.")
                raise typer.Exit(stop.exit_code)


def _understood(
    data: list[Path], path: Path | None, settings: dict[str, object]
) -> "tuple[Uprights | Lettering, TrainConfig]":
    """What the data is, and the configuration: a file's, or one that suits the data."""
    from stn_cli.training.config import TrainConfig, read_config  # noqa: PLC0415
    from stn_cli.training.sources import read_uprights  # noqa: PLC0415
    from stn_cli.training.text.samples import read_lettering  # noqa: PLC0415

    config = None if path is None else read_config(path)
    if config is not None and config.text is not None:
        return read_lettering(data, config.text), _configured(config, settings)
    uprights = read_uprights(data)
    return uprights, _configured(config or TrainConfig(foreground=uprights.foreground), settings)


def _configured(base: "TrainConfig", settings: dict[str, object]) -> "TrainConfig":
    import msgspec  # noqa: PLC0415

    from stn_cli.errors import UsageError  # noqa: PLC0415
    from stn_cli.training.config import TrainConfig  # noqa: PLC0415

    try:
        return msgspec.convert({**msgspec.to_builtins(base), **settings}, TrainConfig)
    except msgspec.ValidationError as error:
        raise UsageError(f"these options do not fit together: {error}") from error


def _show(source: "Uprights | Lettering", config: "TrainConfig") -> None:
    say(f"{source.summary}; {' + '.join(config.objectives)}")
    for path, reason in source.unreadable[:10]:
        say(f"left out: {path}: {reason}")
    if len(source.unreadable) > 10:
        say(f"left out: {len(source.unreadable) - 10} more")
    samples = config.steps * config.batch_size
    say(f"{config.steps} steps of {config.batch_size} samples ({samples:,} in all), seed {config.seed}")


def _train(
    config: "TrainConfig",
    source: "Uprights | Lettering",
    out: Path,
    stop: "GentleStop",
    *,
    workers: int,
    threads: int,
    keep: int,
    quiet: bool,
) -> bool:
    import torch  # noqa: PLC0415

    from stn_cli.training.data import prepare  # noqa: PLC0415
    from stn_cli.training.finish import export  # noqa: PLC0415
    from stn_cli.training.loop import Trainer  # noqa: PLC0415

    torch.set_num_threads(threads)
    trainer = Trainer(config, prepare(source, config, workers=threads), out, workers=workers, keep=keep)
    progress = _Progress(config, live=sys.stderr.isatty(), quiet=quiet)
    if not trainer.train(progress, lambda: stop.signal is not None, lambda said: say(f"warning: {said}")):
        return False
    export(trainer, out)
    overall = trainer.best_validation["overall"]
    if not quiet:
        measures = (f"{name} {overall[name]:.3f}" for name in ("right", "accuracy") if name in overall)
        say(f"best on held-out samples: {', '.join(measures)}")
    result(str(out))
    return True


class _Progress:
    """A line with the loss, the rate and the time left: in place on a terminal, every 100 steps elsewhere."""

    def __init__(self, config: "TrainConfig", *, live: bool, quiet: bool) -> None:
        self.config, self.live, self.quiet = config, live, quiet
        self.first: tuple[int, float] | None = None

    def __call__(self, step: int, means: dict[str, float]) -> None:
        first_step, started = self.first = self.first or (step - 1, time.monotonic())
        if self.quiet or not (step % (10 if self.live else 100) == 0 or step == self.config.steps):
            return
        seconds = (time.monotonic() - started) / (step - first_step)
        left = seconds * (self.config.steps - step)
        rate = self.config.batch_size / max(seconds, 1e-9)
        line = (
            f"step {step}/{self.config.steps}  loss {means['loss']:.4f}  {rate:.0f} images/s  {left / 60:.1f} min left"
        )
        sys.stderr.write(f"\r{line}" if self.live else f"{line}\n")
        if self.live and step == self.config.steps:
            sys.stderr.write("\n")
