"""Imports point downward only; what rectifies on a CPU never imports torch, what only answers never NumPy."""

import ast
import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

import stn_cli

ROOT = Path(stn_cli.__file__).parent
LAYERS = (
    {"annotations", "errors"},
    {"images"},
    {"geometry"},
    {"sampling"},
    {"networks"},
    {"checkpoints"},
    {"engines"},
    {"rectify", "training"},
    {"reports"},
    {"cli"},
    {"__main__", "__init__"},
)
RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names}
FILES = sorted(path.relative_to(ROOT) for path in ROOT.rglob("*.py"))


def layer_of(path):
    return path.parts[0].removesuffix(".py")


def imported_layers(path):
    """Names directly under `stn_cli` that a module imports, also inside functions."""
    package = ".".join(("stn_cli", *path.parent.parts))
    for node in ast.walk(ast.parse((ROOT / path).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            module = importlib.util.resolve_name("." * node.level + (node.module or ""), package)
            modules = [f"{module}.{alias.name}" for alias in node.names]
        else:
            continue
        for module in modules:
            top, _, rest = module.partition(".")
            name = rest.partition(".")[0]
            # `from stn_cli import __version__` is of no layer.
            if top == "stn_cli" and not name.startswith("__"):
                yield name


def test_the_package_is_there_to_be_looked_at():
    assert {layer_of(path) for path in FILES} >= {"errors", "images", "geometry", "sampling", "networks"}


@pytest.mark.parametrize("path", FILES, ids=str)
def test_imports_point_downward(path):
    assert layer_of(path) in RANK, "a new module at the top belongs in LAYERS"
    own = layer_of(path)
    beside_or_above = [name for name in imported_layers(path) if name != own and RANK[name] >= RANK[own]]
    assert not beside_or_above


@pytest.mark.parametrize(
    ("module", "unwanted"),
    [
        ("stn_cli.images", "torch"),
        ("stn_cli.geometry", "torch"),
        ("stn_cli.sampling.warp", "torch"),
        ("stn_cli.rectify.pipeline", "torch"),
        ("stn_cli.reports.picture", "torch"),
        ("stn_cli.rectify.pipeline", "jaxtyping"),
        ("stn_cli.training.api", "jaxtyping"),
        ("stn_cli.cli.main", "numpy"),
        ("stn_cli.networks.config", "numpy"),
        ("stn_cli.checkpoints", "numpy"),
    ],
)
def test_what_is_dear_to_import_is_left_out(module, unwanted):
    script = f"import sys, {module}; sys.exit({unwanted!r} in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False, cwd=ROOT.parent).returncode == 0
