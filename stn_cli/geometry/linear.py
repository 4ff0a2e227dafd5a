"""Transforms that are one homogeneous matrix: translation ⊂ attention ⊂ similarity ⊂ affine ⊂ projective."""

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np

from stn_cli.annotations import Float
from stn_cli.errors import GeometryError
from stn_cli.geometry.arrays import Array, at_least_float32, like, matmul, namespace
from stn_cli.geometry.base import Transform, check_dof


@dataclass(frozen=True, eq=False)
class Linear(Transform):
    """A transform given by a homogeneous matrix. `rank` orders the families by inclusion."""

    theta: Array
    dof: ClassVar[int]
    rank: ClassVar[int]
    identity_theta: ClassVar[tuple[float, ...]]

    def __post_init__(self) -> None:
        object.__setattr__(self, "theta", at_least_float32(self.theta))
        check_dof(self, self.dof)

    @classmethod
    def identity(cls, array: Array | None = None) -> Self:
        """The identity, in the library, dtype and device of `array` (NumPy float64 by default)."""
        return cls(like(cls.identity_theta, np.zeros(0) if array is None else array))

    @property
    @abstractmethod
    def matrix(self) -> Float[Array, "*batch m m"]:
        """Homogeneous matrix, output → input."""

    @classmethod
    @abstractmethod
    def from_matrix(cls, matrix: Float[Array, "*batch m m"]) -> Self:
        """The member of this family with the given matrix, which must belong to it."""

    def __call__(self, points: Float[Array, "*batch n d"]) -> Float[Array, "*batch2 n d"]:
        matrix, d = self.matrix, self.dims
        turned = matmul(points, _transposed(matrix[..., :d, :d]))
        return turned + matrix[..., None, :d, d]

    def jacobian(self, points: Float[Array, "*batch n d"]) -> Float[Array, "*batch2 n d d"]:
        d = self.dims
        linear = self.matrix[..., None, :d, :d]
        xp = namespace(linear)
        batch = np.broadcast_shapes(tuple(linear.shape[:-3]), tuple(points.shape[:-2]))
        return xp.broadcast_to(linear, (*batch, points.shape[-2], d, d))

    def inverse(self) -> Self:
        xp = namespace(self.theta)
        try:
            inverse = xp.linalg.inv(self.matrix)
        except (np.linalg.LinAlgError, RuntimeError) as error:
            raise GeometryError(f"{self.kind} transform cannot be inverted: {error}") from error
        if not bool(xp.all(xp.isfinite(inverse))):
            raise GeometryError(f"{self.kind} transform cannot be inverted: its matrix is singular")
        return type(self).from_matrix(inverse)


class Translation(Linear):
    """θ = (tx, ty)."""

    kind, dof, rank = "translation", 2, 0
    identity_theta = (0.0, 0.0)

    @property
    def matrix(self) -> Float[Array, "*batch 3 3"]:
        tx, ty = _columns(self.theta)
        one = namespace(tx).ones_like(tx)
        return _matrix(((one, 0, tx), (0, one, ty)))

    @classmethod
    def from_matrix(cls, matrix: Float[Array, "*batch 3 3"]) -> Self:
        return cls(matrix[..., :2, 2])


class Attention(Linear):
    """θ = (s, tx, ty): isotropic scale and translation (Jaderberg et al. 2015, eq. 2)."""

    kind, dof, rank = "attention", 3, 1
    identity_theta = (1.0, 0.0, 0.0)

    @property
    def matrix(self) -> Float[Array, "*batch 3 3"]:
        s, tx, ty = _columns(self.theta)
        return _matrix(((s, 0, tx), (0, s, ty)))

    @classmethod
    def from_matrix(cls, matrix: Float[Array, "*batch 3 3"]) -> Self:
        return cls(_stack(matrix[..., 0, 0], matrix[..., 0, 2], matrix[..., 1, 2]))


class Similarity(Linear):
    """θ = (log-scale, angle, tx, ty)."""

    kind, dof, rank = "similarity", 4, 2
    identity_theta = (0.0, 0.0, 0.0, 0.0)

    @property
    def matrix(self) -> Float[Array, "*batch 3 3"]:
        xp = namespace(self.theta)
        log_scale, angle, tx, ty = _columns(self.theta)
        scale = xp.exp(log_scale)
        a, b = scale * xp.cos(angle), scale * xp.sin(angle)
        return _matrix(((a, -b, tx), (b, a, ty)))

    @classmethod
    def from_matrix(cls, matrix: Float[Array, "*batch 3 3"]) -> Self:
        xp = namespace(matrix)
        a, b = matrix[..., 0, 0], matrix[..., 1, 0]
        log_scale = 0.5 * xp.log(a * a + b * b)
        return cls(_stack(log_scale, xp.atan2(b, a), matrix[..., 0, 2], matrix[..., 1, 2]))


class Affine(Linear):
    """θ = the first two rows of the matrix, row by row (Jaderberg et al. 2015, eq. 1)."""

    kind, dof, rank = "affine", 6, 3
    identity_theta = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)

    @property
    def matrix(self) -> Float[Array, "*batch 3 3"]:
        a, b, c, d, e, f = _columns(self.theta)
        return _matrix(((a, b, c), (d, e, f)))

    @classmethod
    def from_matrix(cls, matrix: Float[Array, "*batch 3 3"]) -> Self:
        return cls(_flat(matrix[..., :2, :]))


class Projective(Linear):
    """θ = the first eight entries of the homography, row by row; the ninth is 1."""

    kind, dof, rank = "projective", 8, 4
    identity_theta = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0)

    @property
    def matrix(self) -> Float[Array, "*batch 3 3"]:
        xp = namespace(self.theta)
        nine = xp.concat((self.theta, xp.ones_like(self.theta[..., :1])), axis=-1)
        return xp.reshape(nine, (*nine.shape[:-1], 3, 3))

    @classmethod
    def from_matrix(cls, matrix: Float[Array, "*batch 3 3"]) -> Self:
        xp = namespace(matrix)
        corner = matrix[..., 2:, 2:]
        if bool(xp.any(xp.abs(corner) < 1e-9 * xp.max(xp.abs(matrix)))):
            raise GeometryError("the homography sends the centre of the frame to infinity")
        return cls(_flat(matrix / corner)[..., :8])

    def __call__(self, points: Float[Array, "*batch n 2"]) -> Float[Array, "*batch2 n 2"]:
        numerator, w = self._homogeneous(points)
        return numerator / w

    def jacobian(self, points: Float[Array, "*batch n 2"]) -> Float[Array, "*batch2 n 2 2"]:
        numerator, w = self._homogeneous(points)
        w = w[..., None]
        matrix = self.matrix[..., None, :, :]
        return (matrix[..., :2, :2] - (numerator[..., :, None] / w) * matrix[..., 2:, :2]) / w

    def horizon(self, points: Float[Array, "*batch n 2"]) -> Float[Array, "*batch2 n"]:
        """The homogeneous weight w at the points; where it changes sign the crop crosses the horizon."""
        matrix = self.matrix
        return (matmul(points, _transposed(matrix[..., 2:, :2])) + matrix[..., None, 2:, 2])[..., 0]

    def _homogeneous(self, points: Array) -> tuple[Array, Array]:
        xp = namespace(points, self.theta)
        w = self.horizon(points)[..., None]
        # On the horizon itself there is no source point; a tiny weight sends it far outside, never to NaN.
        tiny = like(1e-8, w)
        w = xp.where(xp.abs(w) < tiny, xp.where(w < 0, -tiny, tiny), w)
        return super().__call__(points), w


class Affine3d(Linear):
    """θ = the first three rows of the 4×4 matrix, row by row; for volumes, points (x, y, z)."""

    kind, dof, rank, dims = "affine3d", 12, 3, 3
    identity_theta = (1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0)

    @property
    def matrix(self) -> Float[Array, "*batch 4 4"]:
        c = _columns(self.theta)
        return _matrix((c[:4], c[4:8], c[8:]))

    @classmethod
    def from_matrix(cls, matrix: Float[Array, "*batch 4 4"]) -> Self:
        return cls(_flat(matrix[..., :3, :]))


PLANAR: tuple[type[Linear], ...] = (Translation, Attention, Similarity, Affine, Projective)
"""The planar families in order of inclusion."""


def compose_linear(a: Linear, b: Linear) -> Linear:
    """The product in the larger of the two families."""
    if a.dims != b.dims:
        raise GeometryError(f"{a.kind} ({a.dims}-D) and {b.kind} ({b.dims}-D) cannot be composed")
    family = type(a) if a.rank >= b.rank else type(b)
    return family.from_matrix(matmul(a.matrix, b.matrix))


def _columns(theta: Array) -> tuple[Array, ...]:
    return tuple(theta[..., i] for i in range(theta.shape[-1]))


def _stack(*columns: Array) -> Array:
    return namespace(columns[0]).stack(columns, axis=-1)


def _flat(matrix: Array) -> Array:
    return namespace(matrix).reshape(matrix, (*matrix.shape[:-2], matrix.shape[-2] * matrix.shape[-1]))


def _transposed(matrix: Array) -> Array:
    return namespace(matrix).matrix_transpose(matrix)


def _matrix(rows: tuple[tuple[Array | int, ...], ...]) -> Array:
    """Homogeneous matrix from its upper rows, whose entries are arrays (...) or the number 0."""
    reference = next(entry for entry in rows[0] if not isinstance(entry, int))
    xp, side = namespace(reference), len(rows) + 1
    zero, one = xp.zeros_like(reference), xp.ones_like(reference)
    entries = [zero if isinstance(entry, int) else entry for row in rows for entry in row]
    entries += [zero] * (side - 1) + [one]
    return xp.reshape(xp.stack(entries, axis=-1), (*reference.shape, side, side))
