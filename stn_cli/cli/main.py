"""The `stn` command."""

from typing import Annotated

import typer

from stn_cli import __version__
from stn_cli.cli import evaluate, inspect, models, rectify, train

app = typer.Typer(
    name="stn",
    help="Straighten distorted images with Spatial Transformer Networks.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # plain help: drawing it with Rich takes longer than all else together
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("rectify", epilog=rectify.EXAMPLES)(rectify.rectify)
app.command("inspect", epilog=inspect.EXAMPLES)(inspect.inspect)
app.command("train", epilog=train.EXAMPLES)(train.train)
app.command("evaluate", epilog=evaluate.EXAMPLES)(evaluate.evaluate)
app.add_typer(models.app, name="models")


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"stn {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Straighten distorted images with Spatial Transformer Networks."""
