"""Where nets and samplers run; no framework is loaded where there is nothing but a CPU."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from stn_cli.errors import DeviceError

if TYPE_CHECKING:
    from stn_cli.checkpoints import Checkpoint
    from stn_cli.engines.engine import Engine

_DEVICE_FILES = Path("/dev")
_DRIVERS = ("nvidia[0-9]*", "dxg", "nvhost-gpu", "nvgpu")
"""Of CUDA: of cards, however they are numbered in a container; of WSL; of Jetson boards."""


def may_be_accelerated(device: str) -> bool:
    """False if the CPU will do. For `auto` it looks for the driver's device files: torch is not imported in vain."""
    if device != "auto":
        return device != "cpu"
    return os.name == "nt" or any(any(_DEVICE_FILES.glob(name)) for name in _DRIVERS) or _is_of_rocm()


def _is_of_rocm() -> bool:
    """Whether there are AMD's driver, which many machines have for their screens, and a torch that computes on it."""
    if not (_DEVICE_FILES / "kfd").exists():
        return False
    from importlib.metadata import PackageNotFoundError, version  # noqa: PLC0415  which takes a while

    with suppress(PackageNotFoundError):
        return "rocm" in version("torch")
    return False


def resolved(device: str) -> str:
    """`cpu`, `cuda`, `cuda:1` or `mps`, whichever is meant: `auto` is a CUDA device if there is one.

    Raises:
        DeviceError: the device is not there.
    """
    if not may_be_accelerated(device):
        return "cpu"
    import torch  # noqa: PLC0415

    wanted = "cuda" if device == "auto" else device
    there = ["mps"] if torch.backends.mps.is_available() else []
    if torch.cuda.is_available():
        there += ["cuda", *(f"cuda:{number}" for number in range(torch.cuda.device_count()))]
    if wanted in there:
        return wanted
    if device == "auto":
        return "cpu"
    raise DeviceError(f"there is no {device} device that torch can use")


def open_engine(checkpoint: Checkpoint, device: str = "auto", head: int = 0) -> Engine:
    """The engine for a device: `cpu`, `cuda`, `mps`, or `auto`, which takes a CUDA device if there is one.

    `head` says which crop it makes, of a model with several heads. Volumes are read by torch on every device.

    Raises:
        DeviceError: the device is not there.
    """
    found = resolved(device)
    if found == "cpu" and checkpoint.header.model.dims == 2:
        from stn_cli.engines.onnx_engine import OnnxEngine  # noqa: PLC0415  imports NumPy and OpenCV

        return OnnxEngine(checkpoint, head=head)
    from stn_cli.engines.torch_engine import TorchEngine  # noqa: PLC0415  imports torch

    return TorchEngine(checkpoint, found, head)
