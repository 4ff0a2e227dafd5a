"""`stn rectify`."""

import sys
from collections import Counter
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from stn_cli.cli.output import errors_reported, json_result, one_line, result, say, shorten
from stn_cli.cli.stopping import GentleStop, stops_gently

if TYPE_CHECKING:
    from rich.progress import Progress

    from stn_cli.checkpoints import Checkpoint
    from stn_cli.rectify.crew import Crew
    from stn_cli.rectify.options import RectifyOptions
    from stn_cli.rectify.plan import Job
    from stn_cli.rectify.record import Record

EXAMPLES = """Examples:\n
    stn rectify img.png                          img.rectified.png and img.rectified.json beside it\n
    stn rectify img.png -o straight.jpg          straight.jpg and straight.json\n
    stn rectify crops/ -o out/                   out/<same tree>, out/theta.jsonl\n
    stn rectify 'crops/**/*.jpg' -o out/ -n      what would be done\n
    stn rectify digits/ -o out/ -m runs/digits --size 28x28\n
Exit codes: 0 ok · 2 usage · 3 some inputs failed · 4 no input · 5 model · 6 output exists · 7 device · 8 cannot write
"""


def rectify(
    inputs: Annotated[
        list[Path],
        typer.Argument(help="Images, or volumes; folders, or quoted patterns such as 'a/**/*.png'.", readable=False),
    ],
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Folder for crops and theta.jsonl; of one input, a file. Default: beside it."),
    ] = None,
    model: Annotated[str, typer.Option("--model", "-m", help="Bundled model, or the folder of a checkpoint.")] = "text",
    size: Annotated[
        str | None,
        typer.Option(
            help="HEIGHTxWIDTH (volumes: DEPTHxHEIGHTxWIDTH) of every crop. Default: as large as in the source."
        ),
    ] = None,
    height: Annotated[int | None, typer.Option(help="Of every crop, in pixels; its width follows.")] = None,
    resample: Annotated[
        Literal["sharp", "auto", "bilinear", "bicubic", "nearest"] | None,
        typer.Option(
            help="auto: bilinear, anti-aliased where it shrinks; sharp: bicubic where not. Default: as the model says."
        ),
    ] = None,
    fill: Annotated[str, typer.Option(help="Beyond the image: 'border' continues it; or a colour.")] = "border",
    format: Annotated[
        str | None, typer.Option(help="png, jpeg, webp, tiff, bmp or ppm; npy or tiff. Default: as the input.")
    ] = None,
    quality: Annotated[
        int | None, typer.Option(help="1-100, of JPEG (default: as fine as the input) and WEBP (lossless).")
    ] = None,
    optimize: Annotated[bool, typer.Option("--optimize", help="Take longer for smaller files.")] = False,
    min_confidence: Annotated[
        float | None, typer.Option(help="Below it an image passes through unchanged. Default: the model's own.")
    ] = None,
    always: Annotated[
        bool, typer.Option("--always", help="Rectify also what is straight already, or doubtful.")
    ] = False,
    device: Annotated[
        Literal["auto", "cpu", "cuda", "mps"], typer.Option(help="auto: a CUDA device if there is one.")
    ] = "auto",
    batch_size: Annotated[int, typer.Option(help="Images that a process is handed together, at most.")] = 64,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes that work. Default: one a core.")] = None,
    time_limit: Annotated[
        float, typer.Option(help="Seconds after which an image that is not done has failed.")
    ] = 120.0,
    recursive: Annotated[bool, typer.Option("--recursive/--no-recursive", help="Take sub-folders along.")] = True,
    on_exists: Annotated[
        Literal["error", "skip", "overwrite"],
        typer.Option(
            help="Where something is that stn did not make, or that was changed since: stop before anything is "
            "written, leave it, or replace it."
        ),
    ] = "error",
    resume: Annotated[
        bool,
        typer.Option("--resume/--no-resume", help="Leave what was made before of the same image, model and options."),
    ] = True,
    force: Annotated[
        bool, typer.Option("--force", help="Do everything again: --no-resume --on-exists overwrite.")
    ] = False,
    max_errors: Annotated[
        str | None, typer.Option(help="Stop once more inputs than N, or P% of them, have failed. Default: never.")
    ] = None,
    fail_fast: Annotated[
        bool, typer.Option("--fail-fast", help="--max-errors 0: begin nothing more after a failure.")
    ] = False,
    errors_to: Annotated[Path | None, typer.Option(help="A file for the records of the inputs that failed.")] = None,
    max_pixels: Annotated[int, typer.Option(help="An image with more of them fails.")] = 250_000_000,
    salvage: Annotated[
        bool, typer.Option("--salvage", help="Rectify what can be read of damaged files, and mark their records.")
    ] = False,
    allow_format: Annotated[
        list[str] | None, typer.Option(help="Read this format, too (Pillow's name for it, such as JPEG2000).")
    ] = None,
    head: Annotated[
        int | None, typer.Option(min=1, help="Of a model with several heads: one alone. Default: each in head-N/.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", "-n", help="Say what would be done; write nothing.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print the records, one JSON object a line.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing but errors.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="A line for every image.")] = False,
) -> None:
    """Straighten images: write the rectified crops, and the θ that was found for each."""
    with errors_reported("What was finished is kept; the same command goes on."):
        from stn_cli.checkpoints import open_checkpoint  # noqa: PLC0415
        from stn_cli.cli.parsing import parse_fill, parse_most_errors, parse_size  # noqa: PLC0415
        from stn_cli.engines.cores import available_cores  # noqa: PLC0415
        from stn_cli.rectify.crew import Crew  # noqa: PLC0415
        from stn_cli.rectify.options import RectifyOptions  # noqa: PLC0415

        options = RectifyOptions(
            out=out,
            size=None if size is None else parse_size(size),
            height=height,
            resample=resample,
            fill=parse_fill(fill),
            format=format,
            quality=quality,
            optimize=optimize,
            min_confidence=min_confidence,
            always=always,
            on_exists="overwrite" if force else on_exists,
            resume=resume and not force,
            recursive=recursive,
            batch_size=batch_size,
            workers=workers or available_cores(),
            time_limit=time_limit,
            max_pixels=max_pixels,
            salvage=salvage,
            allow_formats=tuple(allow_format or ()),
        )
        checkpoint = open_checkpoint(model)
        errors: list[Record] = []
        runs = _for_each_head(options, checkpoint, head, inputs)
        for one in runs:
            # A crew opens the model while the inputs are looked for.
            with nullcontext() if dry_run else Crew(checkpoint, device, one) as crew:
                from stn_cli.rectify.plan import plan  # noqa: PLC0415

                jobs, left_out = plan(inputs, one, checkpoint.header.model.dims)
                if left_out and not quiet:
                    say(f"left out: {_counted(left_out, 'crop')} of earlier runs; name their folder to take them")
                wanted = "0" if fail_fast else max_errors
                if errors_to is not None:
                    _check_errors_to(errors_to, jobs, one)
                most_errors = None if wanted is None else parse_most_errors(wanted, len(jobs))
                if crew is None:
                    _show_plan(jobs, checkpoint, one, json=json, quiet=quiet)
                    continue
                crew.wait_until_open()
                reporter = _Reporter(len(jobs), most_errors, json=json, quiet=quiet, verbose=verbose)
                with stops_gently() as stop:
                    _run(jobs, crew, reporter, stop)
            reporter.summarize()
            errors += reporter.errors
            if errors_to is not None:
                _write_errors(errors_to, errors)
            is_more = reporter.seen < len(jobs) or one is not runs[-1]
            if is_more and (stop.signal is not None or reporter.has_seen_enough):
                why = "stopped" if stop.signal is not None else f"stopped after {len(reporter.errors)} failures"
                say(f"{why}. What was finished is kept; the same command goes on.")
            if is_more and stop.signal is not None:
                raise typer.Exit(stop.exit_code)
            if reporter.has_seen_enough:
                break
        if errors:
            raise typer.Exit(3)


def _for_each_head(
    options: "RectifyOptions", checkpoint: "Checkpoint", head: int | None, inputs: list[Path]
) -> "list[RectifyOptions]":
    """The options of each run: of the head that was named, or of all, each in a folder of its own."""
    import msgspec  # noqa: PLC0415

    from stn_cli.errors import UsageError  # noqa: PLC0415

    heads = checkpoint.header.model.heads
    if head is not None and head > heads:
        raise UsageError(f"{checkpoint.name} has {heads} heads; there is no head {head}")
    if head is not None or heads == 1:
        return [msgspec.structs.replace(options, head=head or 1)]
    from stn_cli.rectify.plan import folder_of  # noqa: PLC0415

    folder = folder_of(options.out)
    if folder is None or any(folder.resolve().is_relative_to(given.resolve()) for given in inputs):
        raise UsageError(
            f"{checkpoint.name} has {heads} heads, and each writes its own crops",
            remedy="Name a folder for them outside of the inputs with -o, or one of the heads with --head.",
        )
    return [msgspec.structs.replace(options, out=folder / f"head-{n}", head=n) for n in range(1, heads + 1)]


def _run(jobs: "Sequence[Job]", crew: "Crew", reporter: "_Reporter", stop: "GentleStop") -> None:
    from stn_cli.rectify.ledger import Ledger  # noqa: PLC0415
    from stn_cli.rectify.plan import folder_of  # noqa: PLC0415

    # The crew ends first: what it was writing is left over then, and is removed.
    with Ledger(folder_of(crew.options.out), jobs) as ledger, reporter, crew:
        for some, group in crew.run(jobs, lambda: stop.signal is not None or reporter.has_seen_enough):
            ledger.commit(some, group)
            reporter.warn(group.warnings)
            for record in group.records:
                reporter.add(record)


def _check_errors_to(path: Path, jobs: "Sequence[Job]", options: "RectifyOptions") -> None:
    """Before anything is done: it can be written, and replaces nothing but what an earlier run wrote there."""
    from stn_cli.errors import OutputExistsError, StorageError, UsageError  # noqa: PLC0415
    from stn_cli.images.discover import canonical_names  # noqa: PLC0415
    from stn_cli.rectify.finished import holds_failures  # noqa: PLC0415

    canonical = canonical_names()
    taken = {canonical(each) for job in jobs for each in (job.source.path, job.target, job.record)}
    try:
        above = next(folder for folder in path.absolute().parents if folder.exists())
        if not above.is_dir():
            raise StorageError(f"--errors-to: {above} is no folder")
        if path.is_dir() or canonical(path) in taken:
            raise UsageError(f"--errors-to {path} is an input, an output or a folder", remedy="Name a file of its own.")
        if path.exists() and options.on_exists != "overwrite" and not holds_failures(path):
            raise OutputExistsError(f"--errors-to: {path} exists already, and lists no failures")
    except OSError as error:
        raise StorageError(f"--errors-to {path}: {error.strerror}") from error


def _write_errors(path: Path, errors: "Sequence[Record]") -> None:
    from stn_cli.images import make_folder, write_atomically  # noqa: PLC0415

    make_folder(path.parent)
    write_atomically(path, b"".join(record.to_json() + b"\n" for record in errors))


def _show_plan(
    jobs: "Sequence[Job]", checkpoint: "Checkpoint", options: "RectifyOptions", *, json: bool, quiet: bool
) -> None:
    import msgspec  # noqa: PLC0415

    from stn_cli.errors import StnError  # noqa: PLC0415
    from stn_cli.rectify.outcome import Provenance  # noqa: PLC0415
    from stn_cli.rectify.record import path_text  # noqa: PLC0415

    origin, skipped = Provenance.of(checkpoint, options), 0
    for job in jobs:
        try:
            why = origin.why_left(job, options)
        except StnError:  # which the run will say
            why = None
        skipped += why is not None
        if json:
            entry = {"source": path_text(job.source.path), "output": path_text(job.target)}
            json_result(msgspec.json.encode({**entry, "skip": why is not None, "reason": why}).decode())
        else:
            result(one_line(f"{job.source.path} -> {job.target}{'' if why is None else f'  (skipped: {why})'}"))
    if not quiet:
        say(f"{_counted(len(jobs))}: {len(jobs) - skipped} to do, {skipped} skipped; nothing was written")


def _counted(count: int, what: str = "input") -> str:
    return f"{count} {what}{'s' if count != 1 else ''}"


class _Reporter:
    """Progress on a terminal, records on stdout if asked for, failures and a summary on stderr."""

    def __init__(self, total: int, most_errors: int | None, *, json: bool, quiet: bool, verbose: bool) -> None:
        self.total, self.most_errors = total, most_errors
        self.json, self.quiet, self.verbose = json, quiet, verbose
        self.counts: Counter[str] = Counter()
        self.errors: list[Record] = []
        self.remedies: dict[str, None] = {}
        self.damaged = 0
        self.warned = False
        self.last: str | None = None
        self.progress: Progress | None = None

    def __enter__(self) -> "_Reporter":
        if sys.stderr.isatty() and not self.quiet and self.total > 1:
            self.progress = _progress_bar()
            self.task = self.progress.add_task("rectify", total=self.total, failures="", rate="")
            self.progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.progress is not None:
            self.progress.stop()

    def add(self, record: "Record") -> None:
        self.counts[record.status] += 1
        self.last = None if record.output is None else record.output.path
        self.damaged += record.source.damage is not None
        if self.json:
            json_result(record.to_json().decode())
        if record.error is not None:
            self.errors.append(record)
            self.remedies |= {record.error.remedy: None} if record.error.remedy else {}
            say(f"failed: {shorten(record.source.path)}: {record.error.message}")
        elif self.verbose:
            label = f", reads {record.label.value} ({record.label.confidence:.2f})" if record.label else ""
            where = f" -> {record.output.path}" if record.output else ""
            why = f" ({record.reason})" if record.reason else ""
            say(f"{record.status}: {shorten(record.source.path)}{where}{label}{why}")
        if self.progress is not None:
            failed, speed = self.counts["failed"], self.progress.tasks[0].speed
            self.progress.update(
                self.task,
                advance=1,
                failures=f"{failed} failed" if failed else "",
                rate=f"{speed:.0f}/s" if speed else "",
            )

    def warn(self, warnings: "Sequence[str]") -> None:
        """Says the first one: batches are halved, and once is enough."""
        if warnings and not self.warned:
            self.warned = True
            say(f"warning: {warnings[0]}")

    @property
    def seen(self) -> int:
        return self.counts.total()

    @property
    def has_seen_enough(self) -> bool:
        """More have failed than may."""
        return self.most_errors is not None and len(self.errors) > self.most_errors

    def summarize(self) -> None:
        if not self.quiet:
            parts = [f"{self.counts[s]} {s}" for s in ("done", "unchanged", "skipped", "failed") if self.counts[s]]
            parts += [f"{self.damaged} of them damaged"] if self.damaged else []
            say(f"{_counted(self.total)}: {', '.join(parts)}{self._whereto()}")
            for remedy in self.remedies:
                say(remedy)

    def _whereto(self) -> str:
        """Where the crop of a single input went."""
        return f" -> {shorten(self.last)}" if self.total == 1 and self.last is not None else ""


def _progress_bar() -> "Progress":
    from rich.console import Console  # noqa: PLC0415
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn  # noqa: PLC0415

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
        TextColumn("[red]{task.fields[failures]}"),
        console=Console(stderr=True),
        redirect_stdout=False,  # records go there
    )
