"""How volumes are turned."""

from stn_cli.annotations import Float
from stn_cli.geometry.arrays import Array, like, matmul, namespace
from stn_cli.geometry.grids import corners


def rotation(frame: Float[Array, "*batch 8 3"]) -> Float[Array, "*batch 3 3"]:
    """The rotation that brings an upright cube nearest to the corners of a frame (Kabsch 1976)."""
    xp = namespace(frame)
    centred = frame - xp.mean(frame, axis=-2, keepdims=True)
    left, _, right = xp.linalg.svd(matmul(xp.matrix_transpose(centred), like(corners(3), frame)), full_matrices=False)
    sign = xp.linalg.det(matmul(left, right))[..., None, None]
    return matmul(xp.concat((left[..., :2], left[..., 2:] * sign), axis=-1), right)


def angle(turned: Float[Array, "*batch 3 3"]) -> Float[Array, "*batch"]:
    """Of a rotation about whatever axis, 0…π."""
    xp = namespace(turned)
    trace = turned[..., 0, 0] + turned[..., 1, 1] + turned[..., 2, 2]
    return xp.acos(xp.clip((trace - 1) / 2, -1.0, 1.0))
