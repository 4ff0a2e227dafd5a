"""Straighten distorted images with Spatial Transformer Networks."""

from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    from stn_cli.networks.transformer import SpatialTransformer
    from stn_cli.rectify.api import Model, Result, load
    from stn_cli.reports.run import train

__all__ = ["Model", "Result", "SpatialTransformer", "__version__", "load", "train"]

_HOMES = {
    "Model": "rectify.api",
    "Result": "rectify.api",
    "SpatialTransformer": "networks.transformer",
    "load": "rectify.api",
    "train": "reports.run",
}


def __getattr__(name: str) -> object:
    # On demand, so that `import stn_cli` and the command line start in no time.
    if name in _HOMES:
        from importlib import import_module  # noqa: PLC0415

        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
