"""A device that is not there: its tensors are as apart from the CPU's as a GPU's are, and are computed on the CPU.

An operation on tensors of both, which a GPU would refuse, is refused here as well.
"""

import contextlib
from collections.abc import Iterator
from typing import Any
from unittest import mock

import array_api_compat.torch
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

ELSEWHERE = "meta"
"""What the device is called: of those that torch knows without having, the one that autograd needs no driver for."""
_aten: Any = torch.ops.aten
_INDEXED = {
    _aten.index.Tensor,
    _aten.index_put.default,
    _aten.index_put_.default,
    _aten._index_put_impl_.default,
}
"""Indices may lie on the CPU."""


class There(torch.Tensor):
    """A tensor on the device; what it holds is on the CPU."""

    held: torch.Tensor

    @staticmethod
    def __new__(cls, held: torch.Tensor) -> "There":
        made: There = torch.Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls,
            held.shape,
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            device=torch.device(ELSEWHERE),
        )
        made.held = held
        return made

    @classmethod
    def __torch_dispatch__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        del types
        return _computed(function, args, kwargs or {})


class _Dispatched(TorchDispatchMode):
    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        del types
        return _computed(function, args, kwargs or {})


def _computed(function: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    leaves = tree_leaves((args, kwargs))
    tensors = [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]
    is_there = any(isinstance(tensor, There) for tensor in tensors)
    if function is _aten.copy_.default:
        _held(args[0]).copy_(_held(args[1]))
        return args[0]
    if is_there and function not in _INDEXED:
        strangers = [tensor for tensor in tensors if tensor.dim() and not isinstance(tensor, There)]
        assert not strangers, f"{function} is given tensors of the device and of the CPU"
    for device in (leaf for leaf in leaves if isinstance(leaf, torch.device)):
        is_there = device.type == ELSEWHERE
    args, kwargs = tree_map_only(torch.device, lambda _: torch.device("cpu"), (args, kwargs))
    args, kwargs = tree_map_only(There, _held, (args, kwargs))
    made = function(*args, **kwargs)
    if any(output.alias_info and output.alias_info.is_write for output in function._schema.returns):
        return tensors[0]  # computed in place
    return tree_map_only(torch.Tensor, There, made) if is_there else made


def _held(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.held if isinstance(tensor, There) else tensor


@contextlib.contextmanager
def elsewhere() -> Iterator[str]:
    """The name of the device, which there is for so long."""
    autocast, made = torch.autocast, {torch: torch.tensor, array_api_compat.torch: torch.asarray}

    def cast(device_type: str, *args: Any, **kwargs: Any) -> Any:
        return autocast("cpu" if device_type == ELSEWHERE else device_type, *args, **kwargs)

    def sent(make: Any) -> Any:
        return lambda values, *, device=None, **options: make(values, **options).to(device or "cpu")

    with (
        mock.patch("torch.autocast", cast),
        mock.patch("torch.tensor", sent(made[torch])),
        mock.patch("array_api_compat.torch.asarray", sent(made[array_api_compat.torch])),
        _Dispatched(),
    ):
        yield ELSEWHERE
