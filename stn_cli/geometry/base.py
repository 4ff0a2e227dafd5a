"""What every transform can do, and the numerical inverse of those that have none in closed form."""

import dataclasses
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Self

from stn_cli.errors import GeometryError
from stn_cli.geometry.arrays import Array, like, namespace

Part = int | slice | None | Array
"""An index into a batch."""


class Transform(ABC):
    """A map from points of the crop (output) to points of the source (input), both normalised.

    Attributes:
        kind: name of the family, as records and configurations have it.
        theta: parameters, (..., dof); leading dimensions are batch.
        dims: 2 for images, 3 for volumes.
    """

    kind: ClassVar[str]
    dims: ClassVar[int] = 2
    theta: Array

    @abstractmethod
    def __call__(self, points: Array) -> Array:
        """Source points (..., n, dims) shown at the output points (..., n, dims)."""

    @abstractmethod
    def jacobian(self, points: Array) -> Array:
        """Derivatives ∂source/∂output at the output points (..., n, dims): (..., n, dims, dims)."""

    @abstractmethod
    def inverse(self) -> "Transform":
        """The map from source points to output points."""

    def __getitem__(self, part: Part) -> Self:
        """One transform of a batch, a part of the batch, or, by None, a batch of this one."""
        return dataclasses.replace(self, theta=self.theta[part])  # type: ignore[type-var]

    def __matmul__(self, other: "Transform") -> "Transform":
        """`(a @ b)(p) == a(b(p))`, in the smallest family that holds the result exactly."""
        from stn_cli.geometry.cascade import compose  # noqa: PLC0415  every family knows `@`, `@` knows every family

        return compose(self, other)


@dataclass(frozen=True, eq=False)
class InverseTransform(Transform):
    """Inverse of a transform without a closed form, by Newton's method from the transform's own affine part.

    A point that the forward map does not reach within `tolerance` (beyond a fold, say) comes out as NaN.
    """

    forward: Transform
    start: Transform
    iterations: int = 30
    tolerance: float = 1e-4
    kind: ClassVar[str] = "inverse"

    @property
    def theta(self) -> Array:
        return self.forward.theta

    def __call__(self, points: Array) -> Array:
        xp = namespace(points, self.theta)
        guess = self.start(points)
        for _ in range(self.iterations):
            step = self._newton_step(guess, points)
            # A step is bounded by a tenth of the frame: beyond that the linear model of a spline says nothing.
            length = xp.sqrt(xp.sum(step * step, axis=-1, keepdims=True) + 1e-24)  # at 0 the root has no slope
            guess = guess - step * xp.clip(0.2 / length, None, 1.0)
        miss = self.forward(guess) - points
        reached = xp.sum(miss * miss, axis=-1, keepdims=True) < self.tolerance**2
        return xp.where(reached, guess, like(float("nan"), guess))

    def __getitem__(self, part: Part) -> Self:
        return dataclasses.replace(self, forward=self.forward[part], start=self.start[part])

    def _newton_step(self, guess: Array, target: Array) -> Array:
        xp = namespace(guess)
        residual = self.forward(guess) - target
        j = self.forward.jacobian(guess)
        det = j[..., 0, 0] * j[..., 1, 1] - j[..., 0, 1] * j[..., 1, 0]
        tiny = like(1e-9, det)
        det = xp.where(xp.abs(det) < tiny, tiny, det)
        dx = (j[..., 1, 1] * residual[..., 0] - j[..., 0, 1] * residual[..., 1]) / det
        dy = (j[..., 0, 0] * residual[..., 1] - j[..., 1, 0] * residual[..., 0]) / det
        return xp.stack((dx, dy), axis=-1)

    def jacobian(self, points: Array) -> Array:
        return namespace(points).linalg.inv(self.forward.jacobian(self(points)))

    def inverse(self) -> Transform:
        return self.forward


def check_dof(transform: Transform, dof: int) -> None:
    """Raises GeometryError unless the last dimension of θ is `dof`."""
    shape = tuple(transform.theta.shape)
    if not shape or shape[-1] != dof:
        raise GeometryError(f"{transform.kind} takes θ of shape (..., {dof}), not {shape}")
