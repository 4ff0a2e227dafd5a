"""`stn evaluate`."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from stn_cli.cli.output import errors_reported, json_result, result, say
from stn_cli.cli.parsing import GroupByOption, LabelsOption

if TYPE_CHECKING:
    from stn_cli.networks.config import ModelConfig
    from stn_cli.reports.evaluation import BeforeAfter, Evaluation, Spread
    from stn_cli.training.examples import Dataset, Examples

EXAMPLES = """Examples:\n
    stn evaluate runs/signs signs/                   the part that the data calls test, or all of it\n
    stn evaluate runs/signs signs/ --part validation --group-by '^([^/]*/track\\d+)_'\n
    stn evaluate digits mnist/ -o seen/              evaluation.json, and worst.png\n
    stn evaluate runs/words words/ --json\n
"""
_EVALUATION, _SHEET = "evaluation.json", "worst.png"
_WORST = 24
_NAMED = {"turn": "turn, degrees", "x": "middle, x", "y": "middle, y", "out_of_frame": "out of frame"}


def evaluate(
    model: Annotated[str, typer.Argument(help="Bundled model, or the folder of a run or checkpoint.")],
    data: Annotated[
        list[Path], typer.Argument(help="Folders or .tar archives, as `stn train` takes them.", readable=False)
    ],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Folder for evaluation.json and worst.png.")] = None,
    part: Annotated[
        Literal["auto", "all", "train", "validation", "test"],
        typer.Option(help="Of the data; auto is the test part where the data names one, or else all."),
    ] = "auto",
    labels: LabelsOption = None,
    group_by: GroupByOption = None,
    validation_share: Annotated[
        float | None,
        typer.Option(help="Held out, where the data names no such part; as in the model's training, or a tenth."),
    ] = None,
    worst: Annotated[int, typer.Option(min=0, help="Cases on worst.png.")] = _WORST,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    on_exists: Annotated[
        Literal["error", "overwrite"], typer.Option(help="Where they exist: stop before anything, or write them anew.")
    ] = "error",
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Measure a model on labelled images: before and after rectification, and where it looks."""
    with errors_reported():
        from stn_cli.checkpoints import open_checkpoint  # noqa: PLC0415
        from stn_cli.cli.training import problems  # noqa: PLC0415
        from stn_cli.engines.devices import open_engine  # noqa: PLC0415
        from stn_cli.engines.engine import SMALL_SIDE  # noqa: PLC0415
        from stn_cli.images import check_free  # noqa: PLC0415
        from stn_cli.reports.evaluation import evaluate as evaluated  # noqa: PLC0415
        from stn_cli.sampling.kinds import LONGEST_SHOWN  # noqa: PLC0415
        from stn_cli.training.examples import Reading, Split, read_examples  # noqa: PLC0415

        if out is not None and on_exists == "error":
            check_free(out / _EVALUATION, out / _SHEET)
        engine = open_engine(open_checkpoint(model), device)
        learned = Split.of_run(engine.checkpoint.header.training)
        if group_by is None and part in ("train", "validation"):  # which of them an image is in matters to no other
            group_by = learned.group_by
        means: Literal["class", "text"] | None = None
        if engine.model.reader or engine.model.classifier:
            means = "text" if engine.model.reader else "class"
        of_volumes = engine.model.dims == 3
        longest = LONGEST_SHOWN if of_volumes else SMALL_SIDE
        reading = Reading(
            labels=labels,
            label_means=means,
            group_by=group_by,
            validation_share=learned.validation_share if validation_share is None else validation_share,
            longest_side=longest,
            volumes=of_volumes,
        )
        dataset = read_examples(data, reading)
        _check_kind(dataset, engine.model.dims)
        examples = _chosen(dataset, part)
        if part == "auto" and not len(dataset.test):
            say("note       all of the data is measured, also what the model may have learned from; see --part")
        for line in problems(dataset):
            say(line)
        for line in _unused(examples, engine.model):
            say(f"problem    {line}")
        evaluation, cases = evaluated(engine, examples)
        if out is not None:
            from stn_cli.images import encode, make_folder, write_atomically  # noqa: PLC0415
            from stn_cli.reports.contact import contact_sheet  # noqa: PLC0415
            from stn_cli.reports.evaluation import worst as worst_of  # noqa: PLC0415

            make_folder(out)
            write_atomically(out / _EVALUATION, evaluation.to_json())
            sheet = contact_sheet(engine, examples, worst_of(cases, worst))
            write_atomically(out / _SHEET, encode(sheet, "PNG").data)
        if json:
            json_result(evaluation.to_json().decode().rstrip())
            return
        for line in _table(evaluation):
            result(line)


def _check_kind(dataset: "Dataset", dims: int) -> None:
    from stn_cli.errors import TrainingDataError  # noqa: PLC0415

    kinds = {2: "images", 3: "volumes"}
    if dataset.dims != dims:
        raise TrainingDataError(
            f"the data is {kinds[dataset.dims]}, the model is of {kinds[dims]}", remedy="Name another of the two."
        )


def _chosen(dataset: "Dataset", part: str) -> "Examples":
    from stn_cli.errors import TrainingDataError  # noqa: PLC0415
    from stn_cli.training.examples import joined  # noqa: PLC0415

    parts = {"train": dataset.train, "validation": dataset.validation, "test": dataset.test}
    if part == "auto":
        part = "test" if len(dataset.test) else "all"
    examples = joined(list(parts.values())) if part == "all" else parts[part]
    if not len(examples):
        raise TrainingDataError(f"the data has no {part} part", remedy="Leave --part out, or name another one.")
    return examples


def _unused(examples: "Examples", model: "ModelConfig") -> Iterator[str]:
    """Labels that are known, and say nothing of the model."""
    if model.reader is None and model.classifier is None and (examples.texts or examples.classes):
        yield "the model reads nothing: what the images show is not compared with anything"
    if model.reader is not None and not any(examples.texts):
        yield "the model reads, and the data has no texts: what is read is not compared with anything"
    if model.classifier is not None and not (examples.labels >= 0).any():
        yield "the model tells classes, and the data has none: they are not compared with anything"
    if model.reader is None and model.classifier is None and examples.corners is None:
        yield "where the images should lie is not known: poses are told, and not compared with anything"
    if model.classifier is not None and (foreign := sorted(set(examples.classes) - set(model.classifier.classes))):
        more = f" and {len(foreign) - 3} more" if len(foreign) > 3 else ""
        yield f"the model knows no class {', '.join(foreign[:3])}{more}: such images count as wrong"


def _table(evaluation: "Evaluation") -> Iterator[str]:
    yield f"model         {evaluation.model}"
    yield f"images        {evaluation.images}"
    for name, measure in (("accuracy", evaluation.accuracy), ("words right", evaluation.words)):
        if measure is not None:
            yield f"{name:13} {_both(measure)}"
    if evaluation.characters is not None:
        yield f"letter errors {_both(evaluation.characters)}"
    for name, spread in (("corner error", evaluation.corner_error), ("overlap", evaluation.iou)):
        if spread is not None:
            yield f"{name:13} {_spread(spread)}"
    yield f"confidence    {_spread(evaluation.confidence)}"
    if evaluation.calibration is not None:
        off, brier = evaluation.calibration.expected_error, evaluation.calibration.brier
        yield f"calibration   of the {evaluation.calibration.of}: off by {off:.3f}, Brier score {brier:.3f}"
    for name, spread in evaluation.theta.items():
        yield f"{_NAMED.get(name, name):13} {_spread(spread)}"
    yield f"folds         {100 * evaluation.folds:.2f} %"
    for row in evaluation.classes:
        yield f"class {row.name:7} {_both(row.accuracy)} of {row.images}"


def _both(measure: "BeforeAfter") -> str:
    before = "" if measure.before is None else f"{100 * measure.before:.2f} % → "
    return f"{before}{100 * measure.after:.2f} %"


def _spread(spread: "Spread") -> str:
    return f"mean {spread.mean:.3f}, median {spread.median:.3f}, 5 % {spread.p05:.3f}, 95 % {spread.p95:.3f}"
