"""Where nets and samplers may run; nothing here loads a framework."""

import os


def may_be_accelerated(device: str) -> bool:
    """False if the CPU will do. For `auto` it looks for the driver's device files: torch is not imported in vain."""
    if device != "auto":
        return device != "cpu"
    return os.path.exists("/dev/nvidia0") or os.path.exists("/dev/dxg") or os.name == "nt"  # noqa: PTH110
