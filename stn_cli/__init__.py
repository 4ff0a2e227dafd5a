"""Straighten distorted images with Spatial Transformer Networks."""

from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    from stn_cli.rectify.api import Model, Result, load

__all__ = ["Model", "Result", "__version__", "load"]


def __getattr__(name: str) -> object:
    # On demand, so that `import stn_cli` and the command line start in no time.
    if name in {"Model", "Result", "load"}:
        from stn_cli.rectify import api  # noqa: PLC0415

        return getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
