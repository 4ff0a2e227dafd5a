"""What the Python array API standard leaves open: precision, and products that autocast must not touch."""

from typing import Any

import array_api_compat
import numpy as np

Array = Any
"""A NumPy array or a torch tensor."""


def namespace(*arrays: Array) -> Any:
    """The array API namespace of the arrays: NumPy itself, which is one since 2.0, or `array_api_compat.torch`."""
    for array in arrays:
        if not isinstance(array, (np.ndarray, np.generic)):
            return array_api_compat.array_namespace(*arrays)
    return np  # array_api_compat's own costs a tenth of a second at import


def at_least_float32(array: Array) -> Array:
    """The array itself, or a float32 copy of it when it is of half precision or of integers."""
    xp = namespace(array)
    if array.dtype in (xp.float32, xp.float64):
        return array
    return xp.astype(array, xp.float32)


def widest(array: Array) -> Array:
    """The array in float64, on devices that know it."""
    if isinstance(array, np.ndarray):
        return array.astype(np.float64, copy=False)
    device = getattr(array_api_compat.device(array), "type", "cpu")
    return array if device == "mps" else namespace(array).astype(array, namespace(array).float64)


def like(values: Any, array: Array) -> Array:
    """`values` (NumPy array or nested sequence) in the library, dtype and device of `array`."""
    if isinstance(array, np.ndarray):
        return np.asarray(values, dtype=array.dtype)
    return namespace(array).asarray(values, dtype=array.dtype, device=array_api_compat.device(array))


def detached(array: Array) -> Array:
    """The values alone, outside any automatic differentiation."""
    return array.detach() if array_api_compat.is_torch_array(array) else array


def numpy_of(array: Array) -> np.ndarray:
    """The values alone, on the CPU."""
    return array if isinstance(array, np.ndarray) else np.asarray(detached(array).cpu())


def matmul(a: Array, b: Array) -> Array:
    """Matrix product in the precision of its operands, also inside `torch.autocast`."""
    if not array_api_compat.is_torch_array(a):
        return a @ b
    import torch  # noqa: PLC0415  the caller has it already

    with torch.autocast(a.device.type, enabled=False):
        return a @ b
