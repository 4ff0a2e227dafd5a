"""The thin-plate spline: fixed control points in the crop, moved to where θ says in the source."""

from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar, Self

import numpy as np

from stn_cli.annotations import Float
from stn_cli.geometry.arrays import Array, at_least_float32, like, matmul, namespace, widest
from stn_cli.geometry.base import InverseTransform, Transform, check_dof
from stn_cli.geometry.layouts import Layout, spline_weights
from stn_cli.geometry.linear import Affine

_MOST_REMEMBERED = 8192
"""Points at which the weights of the control points are remembered: lattices and outlines come again and again."""


@dataclass(frozen=True, eq=False)
class ThinPlateSpline(Transform):
    """θ = the source points (x₀, y₀, x₁, y₁, …) of the layout's control points, (..., 2k).

    The spline bends least among the maps that take every control point of the layout to its source point
    (Bookstein 1989; Jaderberg et al. 2015; RARE, Shi et al. 2016, eq. 2-4).
    """

    theta: Array
    layout: Layout
    kind: ClassVar[str] = "tps"

    def __post_init__(self) -> None:
        object.__setattr__(self, "theta", at_least_float32(self.theta))
        check_dof(self, 2 * len(self.layout.points))

    @classmethod
    def identity(cls, layout: Layout, array: Array | None = None) -> Self:
        """The identity, in the library, dtype and device of `array` (NumPy float64 by default)."""
        return cls(like(layout.points.ravel(), np.zeros(0) if array is None else array), layout)

    @property
    def control_points(self) -> Float[Array, "*batch k 2"]:
        """Source points of the layout's control points."""
        return namespace(self.theta).reshape(self.theta, (*self.theta.shape[:-1], -1, 2))

    def __call__(self, points: Float[Array, "*batch n 2"]) -> Float[Array, "*batch2 n 2"]:
        return _combined(self._basis(points), self.control_points)

    def jacobian(self, points: Float[Array, "*batch n 2"]) -> Float[Array, "*batch2 n 2 2"]:
        xp = namespace(points, self.theta)
        per_axis = [_combined(basis, self.control_points) for basis in self._basis_derivatives(points)]
        return xp.stack(per_axis, axis=-1)

    def inverse(self) -> InverseTransform:
        return InverseTransform(self, start=self.affine_part().inverse())

    def affine_part(self) -> Affine:
        """The affine map nearest to the spline at its control points (least squares)."""
        points = self.layout.points
        system = np.column_stack((points, np.ones(len(points))))
        fit = matmul(like(np.linalg.pinv(system), self.theta), self.control_points)
        xp = namespace(fit)
        flat = xp.reshape(xp.matrix_transpose(fit), (*fit.shape[:-2], 6))
        return Affine(flat)

    def through(self, outer: Transform) -> Self:
        """The spline whose control points are those of this one, moved by `outer`; `outer @ self` if that is affine.

        That is exact, since a spline followed by an affine map is the spline of the moved points.
        """
        moved = outer(self.control_points)
        return type(self)(namespace(moved).reshape(moved, (*moved.shape[:-2], -1)), self.layout)

    def turned(self, where: Array) -> Self:
        """The same region turned upside down where `where`, of the batch's shape, holds.

        Half a turn of the crop reverses the order of the control points of every layout.
        """
        xp = namespace(self.theta)
        over = xp.reshape(xp.flip(self.control_points, axis=-2), self.theta.shape)
        return type(self)(xp.where(where[..., None], over, self.theta), self.layout)

    def uprightness(self) -> Float[Array, "*batch"]:
        """Cosine of the angle between the crop's mean way down and the source's: 1 upright, −1 upside down."""
        xp = namespace(self.theta)
        rows = like(self.layout.points[:, 1], self.theta)
        down = xp.sum(rows[:, None] * self.control_points, axis=-2)
        return down[..., 1] / xp.sqrt(xp.sum(down * down, axis=-1) + 1e-12)

    def _basis(self, points: Array) -> Array:
        """Weights (..., n, k) with which the control points add up to the images of the points."""
        if isinstance(points, np.ndarray) and points.ndim == 2 and len(points) <= _MOST_REMEMBERED:
            basis = _remembered_basis(self.layout, points.dtype.str, points.tobytes())
        else:
            basis = _basis(self.layout, points)
        return namespace(basis).astype(basis, self.theta.dtype, copy=False)

    def _basis_derivatives(self, points: Array) -> tuple[Array, Array]:
        """The derivatives of these weights by x and by y."""
        if isinstance(points, np.ndarray) and points.ndim == 2 and len(points) <= _MOST_REMEMBERED:
            both = _remembered_derivatives(self.layout, points.dtype.str, points.tobytes())
        else:
            both = _basis_derivatives(self.layout, points)
        d_dx, d_dy = (namespace(basis).astype(basis, self.theta.dtype, copy=False) for basis in both)
        return d_dx, d_dy


def _basis(layout: Layout, points: Array) -> Array:
    xp = namespace(points)
    _, square = _offsets(layout, points)
    radial, points = square * _safe_log(square), widest(points)
    terms = xp.concat((radial, xp.ones_like(points[..., :1]), points), axis=-1)
    return matmul(terms, like(spline_weights(layout), terms))


def _basis_derivatives(layout: Layout, points: Array) -> tuple[Array, Array]:
    xp = namespace(points)
    offset, square = _offsets(layout, points)
    radial = 2.0 * offset * like(layout.metric, offset) * (_safe_log(square) + 1.0)[..., None]
    zero, one = xp.zeros_like(radial[..., :1, 0]), xp.ones_like(radial[..., :1, 0])
    d_dx = xp.concat((radial[..., 0], zero, one, zero), axis=-1)
    d_dy = xp.concat((radial[..., 1], zero, zero, one), axis=-1)
    weights = like(spline_weights(layout), d_dx)
    return matmul(d_dx, weights), matmul(d_dy, weights)


@lru_cache(maxsize=32)
def _remembered_basis(layout: Layout, dtype: str, points: bytes) -> np.ndarray:
    basis: np.ndarray = _basis(layout, np.frombuffer(points, dtype).reshape(-1, 2))
    return basis


@lru_cache(maxsize=32)
def _remembered_derivatives(layout: Layout, dtype: str, points: bytes) -> tuple[np.ndarray, np.ndarray]:
    d_dx, d_dy = _basis_derivatives(layout, np.frombuffer(points, dtype).reshape(-1, 2))
    return d_dx, d_dy


def _offsets(layout: Layout, points: Array) -> tuple[Array, Array]:
    """From every control point by the layout's metric, (..., n, k, 2), and squared.

    In float64, since the terms of a spline are large and cancel out.
    """
    points = widest(points)
    metric = like(layout.metric, points)
    offset = (points[..., :, None, :] - like(layout.points, points)) * metric
    square = namespace(points).sum(offset * offset, axis=-1)
    return offset, square


def _combined(basis: Float[Array, "*batch n k"], points: Float[Array, "*batch2 k 2"]) -> Array:
    """Control points weighted by the basis.

    Torch, which would copy the basis that splines share, does all of them by one product. NumPy does each by its own:
    the last bit of a sum depends on how many columns a product has, and what is said of an image must not.
    """
    if isinstance(points, np.ndarray) or basis.ndim > 2 or points.ndim != 3:
        return matmul(basis, points)
    xp = namespace(points)
    batch, k, _ = points.shape
    side_by_side = xp.reshape(xp.permute_dims(points, (1, 0, 2)), (k, 2 * batch))
    return xp.permute_dims(xp.reshape(matmul(basis, side_by_side), (-1, batch, 2)), (1, 0, 2))


def _safe_log(square: Array) -> Array:
    """log r², and 0 at a control point, where r² log r² and its derivative vanish."""
    xp = namespace(square)
    there = square > 0
    return xp.where(there, xp.log(xp.where(there, square, xp.ones_like(square))), xp.zeros_like(square))
