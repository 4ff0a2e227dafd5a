"""Shapes and types of arrays in annotations, as jaxtyping writes them: `Float[Tensor, "b n 2"]`.

Type checkers read them, and tests check those of geometry, sampling and networks, loading jaxtyping first; otherwise
they mean nothing, and jaxtyping is neither needed nor loaded, which would take a tenth of the time of a single image.
"""

import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING or sys.modules.get("jaxtyping") is not None:
    from jaxtyping import Bool, Float, Float32, Float64, Int, Int64, Num, UInt8
else:

    class _Unchecked:
        def __class_getitem__(cls, _: Any) -> Any:
            return Any

    Bool = Float = Float32 = Float64 = Int = Int64 = Num = UInt8 = _Unchecked

__all__ = ["Bool", "Float", "Float32", "Float64", "Int", "Int64", "Num", "UInt8"]
