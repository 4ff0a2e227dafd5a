"""`stn models`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stn_cli.cli.output import errors_reported, json_result, result, say

if TYPE_CHECKING:
    from stn_cli.checkpoints import Checkpoint

app = typer.Typer(help="The bundled models, and checkpoints of your own.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="Bundled model, or the folder of a checkpoint.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command("list")
def list_models(json: AsJson = False) -> None:
    """The bundled models."""
    with errors_reported():
        from stn_cli.checkpoints import bundled_models  # noqa: PLC0415

        for checkpoint in bundled_models():
            header = checkpoint.header
            if json:
                json_result(_json({"name": header.name, "description": header.description, "bytes": checkpoint.size}))
            else:
                result(f"{header.name:10} {_kinds(checkpoint):24} {_megabytes(checkpoint)}  {header.description}")


@app.command()
def info(name: Name, json: AsJson = False) -> None:
    """What a model is, how it was trained, and what it reaches."""
    with errors_reported():
        from stn_cli.checkpoints import open_checkpoint  # noqa: PLC0415

        checkpoint = open_checkpoint(name)
        header = checkpoint.header
        if json:
            json_result(_json({"path": str(checkpoint.path), "sha256": checkpoint.sha256, "header": header}))
            return
        result(f"{header.name}: {header.description}")
        result(f"  folder      {checkpoint.path}")
        result(f"  sha256      {checkpoint.sha256}")
        result(f"  size        {_megabytes(checkpoint)}")
        result(f"  transform   {_kinds(checkpoint)}")
        for number, stage in enumerate(header.model.stages, 1):
            size = "x".join(map(str, stage.input_size))
            looks = f", {len(stage.looks)} looks" if len(stage.looks) > 1 else ""
            result(f"  stage {number}     sees {size}x{stage.channels}, {stage.trunk} net of {stage.widths}{looks}")
        if (direction := header.model.direction) is not None:
            size = "x".join(map(str, direction.input_size))
            result(f"  direction   sees {size}x{direction.channels}, conv net of {direction.widths}")
        if header.model.classifier is not None:
            result(f"  classes     {', '.join(header.model.classifier.classes[:20])}")
        for key, value in header.training.items():
            result(f"  {key:11} {value}" if not isinstance(value, dict) else f"  {key:11} {_json(value)}")
        for key, value in header.metrics.overall.items():
            result(f"  {key:24} {'-' if value is None else f'{value:.4g}'}")


@app.command()
def verify(name: Name) -> None:
    """Check every digest and value of a checkpoint, and replay its stored outputs."""
    with errors_reported():
        from stn_cli.checkpoints import open_checkpoint  # noqa: PLC0415
        from stn_cli.engines.verify import verify as verify_checkpoint  # noqa: PLC0415

        checkpoint = open_checkpoint(name)
        for line in verify_checkpoint(checkpoint):
            say(f"  {line}")
        result(f"{checkpoint.name}: ok")


@app.command("import")
def import_weights(
    file: Annotated[
        Path, typer.Argument(help="Weights: .safetensors, or a state_dict that torch saved.", readable=False)
    ],
    layout: Annotated[str, typer.Option(help="pytorch-tutorial, lprnet, clova-tps or aster.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the checkpoint.")],
    name: Annotated[str | None, typer.Option(help="Of the model. Default: the folder's.")] = None,
    input_size: Annotated[
        str | None, typer.Option("--input", metavar="HxW", help="What the net sees, where the weights do not tell.")
    ] = None,
    mean: Annotated[list[float] | None, typer.Option(help="Of what it sees, 0 to 1; once for each channel.")] = None,
    deviation: Annotated[
        list[float] | None, typer.Option(help="Standard deviation of the same; once for each channel.")
    ] = None,
    align_corners: Annotated[
        bool | None,
        typer.Option(
            "--align-corners/--no-align-corners",
            help="How its grids were read. Default: as in the project of the layout.",
        ),
    ] = None,
) -> None:
    """Turn a spatial transformer of another project into a checkpoint; weights are read, no program is run."""
    with errors_reported():
        from stn_cli.checkpoints.imports import ImportOptions  # noqa: PLC0415
        from stn_cli.cli.parsing import parse_size  # noqa: PLC0415
        from stn_cli.engines.adopt import adopt  # noqa: PLC0415

        options = ImportOptions(
            None if input_size is None else parse_size(input_size, "--input", dims=(2,)),
            tuple(mean) if mean else None,
            tuple(deviation) if deviation else None,
            align_corners,
        )
        checkpoint = adopt(file, layout, out, name, options)
        say(f"{_kinds(checkpoint)}, {_megabytes(checkpoint)}; `stn rectify -m {out}` takes it")
        result(str(out))


def _megabytes(checkpoint: "Checkpoint") -> str:
    return f"{checkpoint.size / 1e6:.2f} MB"


def _kinds(checkpoint: "Checkpoint") -> str:
    return " → ".join(stage.transform.kind for stage in checkpoint.header.model.stages)


def _json(value: object) -> str:
    import msgspec  # noqa: PLC0415

    return msgspec.json.encode(value).decode()
