"""Shape annotations of the array layers are checked here, and only here: under pytest."""

from typing import Self

from beartype import beartype
from jaxtyping import install_import_hook


def check_annotations(function):
    """beartype for one function; it understands `Self` only where it decorates the whole class, so that is left out."""
    function.__annotations__ = {name: hint for name, hint in function.__annotations__.items() if hint is not Self}
    return beartype(function)


install_import_hook(["stn_cli.geometry", "stn_cli.sampling", "stn_cli.networks"], f"{__name__}.check_annotations")

import numpy as np  # noqa: E402  the hook comes before anything that may import stn_cli
import pytest  # noqa: E402
import torch  # noqa: E402


@pytest.fixture
def rng():
    return np.random.default_rng(20150605)


@pytest.fixture(params=["numpy", "torch"])
def array(request):
    """Values as an array of one library: `array(values, dtype="float64")`."""

    def make(values, dtype="float64"):
        values = np.asarray(values)
        return values.astype(dtype) if request.param == "numpy" else torch.tensor(values, dtype=getattr(torch, dtype))

    return make
