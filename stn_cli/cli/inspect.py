"""`stn inspect`."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from stn_cli.cli.output import errors_reported, json_result, result, say

if TYPE_CHECKING:
    from stn_cli.rectify.record import TransformRecord
    from stn_cli.reports.inspection import InspectionRecord

EXAMPLES = """Examples:\n
    stn inspect img.png                          img.inspect.png beside it, and the numbers\n
    stn inspect img.png -m runs/digits -o seen.png\n
    stn inspect img.png --json --on-exists overwrite\n
Exit codes: 0 ok · 2 usage · 3 broken image · 4 no image · 5 model · 6 output exists · 8 cannot write
"""


def inspect(
    image: Annotated[Path, typer.Argument(help="An image.", readable=False)],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="The picture, a PNG. Default: beside the image.")
    ] = None,
    model: Annotated[str, typer.Option("--model", "-m", help="Bundled model, or the folder of a checkpoint.")] = "text",
    always: Annotated[
        bool, typer.Option("--always", help="As with rectify: also what is straight already, or doubtful.")
    ] = False,
    on_exists: Annotated[
        Literal["error", "overwrite"], typer.Option(help="Where the picture exists: stop, or write it anew.")
    ] = "error",
    json: Annotated[bool, typer.Option("--json", help="Print the record.")] = False,
) -> None:
    """Show what a model finds in an image: a picture, and the numbers."""
    with errors_reported():
        from stn_cli.checkpoints import open_checkpoint  # noqa: PLC0415
        from stn_cli.engines.devices import open_engine  # noqa: PLC0415
        from stn_cli.rectify.options import RectifyOptions  # noqa: PLC0415
        from stn_cli.reports.inspection import inspect as inspected  # noqa: PLC0415
        from stn_cli.reports.picture import picture_path, write_picture  # noqa: PLC0415

        target = picture_path(image, out, overwrite=on_exists == "overwrite")
        engine = open_engine(open_checkpoint(model), "cpu")
        if engine.model.heads > 1:
            say(f"note: the model has {engine.model.heads} heads; the first of them is shown")
        inspection = inspected(image, engine, RectifyOptions(always=always))
        write_picture(inspection, target)
        say(f"{image} -> {target}")
        if json:
            json_result(inspection.record.to_json().decode())
            return
        for line in _table(inspection.record):
            result(line)


def _table(record: "InspectionRecord") -> Iterator[str]:
    frame, crop, source = record.frame, record.crop, record.source
    yield f"image        {source.width}x{source.height} pixels"
    yield f"status       {record.status}{f': {record.reason}' if record.reason else ''}"
    yield f"confidence   {record.confidence:.3f}"
    if record.label is not None:
        yield f"reads        {record.label.value} ({record.label.confidence:.3f})"
    yield f"transform    {_kinds(frame.transform)}"
    yield f"frame        {frame.width:.1f}x{frame.height:.1f} pixels, turned by {frame.angle:.1f} degrees"
    yield f"crop         {crop.width}x{crop.height} pixels"
    if record.quality is not None:
        quality = record.quality
        yield f"folds        {'yes' if quality.fold else 'no'}"
        yield f"out of frame {quality.out_of_frame:.1%}"
        yield f"jacobian     {quality.jacobian_min:.4g} to {quality.jacobian_max:.4g}"
    if record.fiducials:
        yield "fiducials    x and y in pixels of the image"
    for number, (x, y) in enumerate(record.fiducials or (), 1):
        yield f"{number:<12} {x:9.2f} {y:9.2f}"


def _kinds(transform: "TransformRecord") -> str:
    if transform.stages:
        return " → ".join(_kinds(stage) for stage in transform.stages)
    return f"{transform.kind} {transform.layout or ''}".rstrip()
