"""Composition: exact where a family is closed under it, a chain of stages where none is."""

from dataclasses import dataclass
from functools import reduce
from typing import ClassVar, Self

import numpy as np

from stn_cli.errors import GeometryError
from stn_cli.geometry.arrays import Array, matmul, namespace
from stn_cli.geometry.base import Part, Transform
from stn_cli.geometry.linear import Affine, Linear, compose_linear
from stn_cli.geometry.tps import ThinPlateSpline


@dataclass(frozen=True, eq=False)
class Cascade(Transform):
    """Stages composed: `Cascade((a, b, c))(p) == a(b(c(p)))`. The parameters are composed, never the images."""

    stages: tuple[Transform, ...]
    kind: ClassVar[str] = "cascade"

    @property
    def theta(self) -> Array:
        """θ of all stages, one after the other."""
        parts = [stage.theta for stage in self.stages]
        xp = namespace(*parts)
        batch = np.broadcast_shapes(*(tuple(part.shape[:-1]) for part in parts))
        return xp.concat([xp.broadcast_to(part, (*batch, part.shape[-1])) for part in parts], axis=-1)

    def __call__(self, points: Array) -> Array:
        return reduce(lambda p, stage: stage(p), reversed(self.stages), points)

    def jacobian(self, points: Array) -> Array:
        *outer, innermost = self.stages
        product, points = innermost.jacobian(points), innermost(points)
        for stage in reversed(outer):
            product, points = matmul(stage.jacobian(points), product), stage(points)
        return product

    def __getitem__(self, part: Part) -> Self:
        def chosen(stage: Transform) -> Transform:
            if part is None:
                return stage[None]
            is_same_for_all = stage.theta.ndim == 1 or (len(stage.theta) == 1 < len(self.theta))
            return (stage if stage.theta.ndim == 1 else stage[0]) if is_same_for_all else stage[part]

        return type(self)(tuple(map(chosen, self.stages)))

    def inverse(self) -> "Cascade":
        return Cascade(tuple(stage.inverse() for stage in reversed(self.stages)))


def compose(a: Transform, b: Transform) -> Transform:
    """`a @ b` in the smallest family that holds it exactly."""
    if a.dims != b.dims:
        raise GeometryError(f"{a.kind} ({a.dims}-D) and {b.kind} ({b.dims}-D) cannot be composed")
    *outer, last = _stages(a)
    first, *inner = _stages(b)
    stages = (*outer, *_joined(last, first), *inner)
    return stages[0] if len(stages) == 1 else Cascade(stages)


def _joined(a: Transform, b: Transform) -> tuple[Transform, ...]:
    """Two single stages as one where a family holds their product, otherwise as they are."""
    match a, b:
        case Linear(), Linear():
            return (compose_linear(a, b),)
        case Linear(), ThinPlateSpline() if a.rank <= Affine.rank:
            return (b.through(a),)
        case _:
            return a, b


def _stages(transform: Transform) -> tuple[Transform, ...]:
    return transform.stages if isinstance(transform, Cascade) else (transform,)
