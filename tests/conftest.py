"""Shape annotations of the array layers are checked here, and only here: under pytest."""

import os
import signal
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from beartype import beartype
from jaxtyping import install_import_hook


def check_annotations(function):
    """beartype for one function; it understands `Self` only where it decorates the whole class, so that is left out."""
    function.__annotations__ = {name: hint for name, hint in function.__annotations__.items() if hint is not Self}
    return beartype(function)


os.environ.setdefault("OMP_NUM_THREADS", "1")  # the processors run tests side by side
install_import_hook(["stn_cli.geometry", "stn_cli.sampling", "stn_cli.networks"], f"{__name__}.check_annotations")

import numpy as np  # noqa: E402  the hook comes before anything that may import stn_cli
import pytest  # noqa: E402
import torch  # noqa: E402
from hypothesis import settings  # noqa: E402

settings.register_profile("steady", deadline=None, derandomize=True)  # whatever the speed of the machine
settings.load_profile("steady")

signal.signal(signal.SIGINT, signal.default_int_handler)  # where a shell runs the tests in the background, too

NOBODY = 65_534


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


@pytest.fixture
def open_folder():
    """A folder that every user may enter, unlike pytest's own."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o777)
        yield Path(folder)
        for path in Path(folder).rglob("*"):
            path.chmod(0o755)


@pytest.fixture
def ordinary_user():
    """A context in which this process may do no more than a user without privileges."""

    @contextmanager
    def without_privileges():
        user = os.geteuid()
        os.seteuid(user or NOBODY)
        try:
            yield
        finally:
            os.seteuid(user)

    return without_privileges
