"""`stn train`."""

import itertools
import os
import sys
import time
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from stn_cli.cli.output import errors_reported, result, say
from stn_cli.cli.parsing import GroupByOption, LabelsOption, parse_size
from stn_cli.cli.stopping import stops_gently
from stn_cli.cli.training import Terminal, measures, understood

if TYPE_CHECKING:
    from stn_cli.training.api import Plan

EXAMPLES = """Examples:\n
    stn train signs/ -o runs/signs                   class folders: learns from the labels alone\n
    stn train words/ -o runs/words                   words/labels.tsv: file, transcription\n
    stn train scans/ -o runs/scans                   upright images: learns to undo distortions\n
    stn train signs.tar -o runs/s --dry-run          what is understood, and how long it would take\n
    stn train mnist/ -o runs/m --transform tps --tensorboard\n
    stn train mine/ -o runs/mine --from digits       goes on from a bundled model\n
    torchrun --nproc-per-node 2 -m stn_cli train signs/ -o runs/signs\n
The same command again goes on where the run was interrupted.
"""
_TIMED_STEPS = 6


class _Objective(StrEnum):
    CLASSIFY = "classify"
    READ = "read"
    STRAIGHTEN = "straighten"


def train(
    data: Annotated[
        list[Path],
        typer.Argument(
            help="Folders or .tar archives: class folders, labels.tsv, upright images or volumes, idx files.",
            readable=False,
        ),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the run; `rectify -m` takes it.")],
    config: Annotated[Path | None, typer.Option(help="TOML file; see stn_cli/training/config.py.")] = None,
    objective: Annotated[
        list[_Objective] | None,
        typer.Option(help="classify: labels alone; read: words; straighten: known distortions. Repeat it to add up."),
    ] = None,
    labels: LabelsOption = None,
    group_by: GroupByOption = None,
    validation_share: Annotated[float | None, typer.Option(help="Held out, where the data names no such part.")] = None,
    transform: Annotated[
        str | None,
        typer.Option(help="translation, attention, similarity, affine, projective, tps, tps:border 2x10; affine3d."),
    ] = None,
    stages: Annotated[int, typer.Option(min=1, help="Localization nets in series.")] = 1,
    heads: Annotated[
        int | None, typer.Option(min=1, help="Transformers side by side; a classifier sees all crops. Default: 1.")
    ] = None,
    insert_at: Annotated[
        int | None, typer.Option(min=0, help="Levels of the classifier before the transformer. Default: 0, none.")
    ] = None,
    shared: Annotated[bool, typer.Option("--shared", help="The stages are passes of one net.")] = False,
    input_size: Annotated[
        str | None, typer.Option("--input", metavar="HxW", help="What the localization net sees (volumes: DxHxW).")
    ] = None,
    output_size: Annotated[str | None, typer.Option("--output", metavar="HxW", help="The crop that is read.")] = None,
    backbone: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Classifier: torchvision:resnet18, or module:function of your own."),
    ] = None,
    start: Annotated[str | None, typer.Option("--from", help="Model or run to go on from.")] = None,
    steps: Annotated[int | None, typer.Option(help="Steps of the optimizer.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Samples a step.")] = None,
    accumulate: Annotated[int | None, typer.Option(help="Pieces in which a batch is computed.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="At its peak.")] = None,
    patience: Annotated[int | None, typer.Option(help="Validations without progress that end the run.")] = None,
    precision: Annotated[Literal["float32", "bf16"] | None, typer.Option(help="Of the networks.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of everything that is random.")] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda or mps; auto takes a CUDA device if there is one.")] = "auto",
    workers: Annotated[int, typer.Option(min=0, help="Processes that draw samples.")] = 1,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Threads of the networks. Default: one a core, or OMP_NUM_THREADS.")
    ] = None,
    baseline: Annotated[
        bool, typer.Option("--baseline", help="Train the same network without the transformer, too.")
    ] = False,
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Write event files; needs the package tensorboard.")
    ] = False,
    keep: Annotated[int, typer.Option(min=1, help="States to keep: of the last validations.")] = 2,
    dry_run: Annotated[bool, typer.Option("--dry-run", "-n", help="Say what was understood; train nothing.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing but errors.")] = False,
) -> None:
    """Train a rectifier on your own images."""
    with errors_reported("The same command goes on from the last validation."):
        from stn_cli.reports.run import check, train_and_report  # noqa: PLC0415
        from stn_cli.training.api import Resources, check_out, plan  # noqa: PLC0415
        from stn_cli.training.config import read_entries  # noqa: PLC0415
        from stn_cli.training.defaults import Wishes, transform_called  # noqa: PLC0415

        options: dict[str, Any] = {
            "objectives": [each.value for each in objective] if objective else None,
            "labels": None if labels is None else str(labels),
            "group_by": group_by,
            "validation_share": validation_share,
            "start": start,
            "steps": steps,
            "batch_size": batch_size,
            "accumulate": accumulate,
            "learning_rate": learning_rate,
            "patience": patience,
            "precision": precision,
            "backbone": backbone,
            "insert_at": insert_at,
            "seed": seed,
        }
        check_out(data, out)
        given = {} if config is None else read_entries(config)
        given |= {name: value for name, value in options.items() if value is not None}
        wishes = Wishes(
            transform=None if transform is None else transform_called(transform),
            stages=stages,
            shared=shared,
            heads=heads,
            input_size=None if input_size is None else parse_size(input_size, "--input"),
            output_size=None if output_size is None else parse_size(output_size, "--output"),
        )
        resources = Resources(workers=workers, threads=threads, device=device, keep=keep)
        planned = plan(data, given, wishes, resources)
        if not quiet and os.environ.get("RANK", "0") == "0":  # the first of several processes speaks for all
            for line in understood(planned):
                say(line)
        if dry_run:
            check(planned, out, baseline=baseline)
            if planned.config.text is None and not quiet:  # words would have to be rendered first
                say(f"time       {_time_needed(planned)}{', and less again for the baseline' if baseline else ''}")
            return
        watchers = [] if quiet else [Terminal(live=sys.stderr.isatty())]
        with stops_gently() as stop:
            trainer, finished = train_and_report(
                planned,
                out,
                *watchers,
                baseline=baseline,
                tensorboard=tensorboard,
                is_stopped=lambda: stop.signal is not None,
            )
        if not finished:
            say("stopped. The state is saved; the same command goes on.")
            raise typer.Exit(stop.exit_code)
        if trainer.team.is_first:
            if not quiet:
                best = measures(trainer.best_validation["overall"])
                say(f"best on held-out images, at step {trainer.best_step}: {best}")
            result(str(out))


def _time_needed(plan: "Plan") -> str:
    """A few steps, timed; nothing is written."""
    import tempfile  # noqa: PLC0415

    from stn_cli.training.api import trainer_of  # noqa: PLC0415
    from stn_cli.training.samples import batches  # noqa: PLC0415

    with tempfile.TemporaryDirectory() as nowhere:
        trainer = trainer_of(plan, Path(nowhere))
    few = itertools.islice(batches(trainer.data.training, plan.config.batch_size, workers=0), _TIMED_STEPS)
    times = [time.monotonic()]
    for batch in few:
        trainer.one_step(batch)
        times.append(time.monotonic())
    steps = sorted(after - before for before, after in itertools.pairwise(times))
    minutes = steps[len(steps) // 2] * plan.config.steps / 60
    return f"about {minutes:.0f} minutes on this machine, without validations" if minutes >= 1 else "less than a minute"
