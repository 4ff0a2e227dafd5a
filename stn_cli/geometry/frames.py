"""Between normalised coordinates and pixels, and between an image and the square that a network sees of it."""

from collections.abc import Sequence

import numpy as np

from stn_cli.annotations import Float, Num
from stn_cli.geometry.arrays import Array, like, matmul, namespace
from stn_cli.geometry.linear import Affine, Affine3d, Linear

Size = tuple[int, ...]
"""(height, width), or (depth, height, width) of a volume."""
Sizes = Size | Sequence[Size] | Num[np.ndarray, "b d"]
"""One, or one for each of a batch."""


def pixel_points(points: Float[Array, "*batch d"], size: Sizes) -> Float[Array, "*batch d"]:
    """Normalised points as corner-based pixel coordinates of an image of (height, width), or of one for each batch.

    Of a volume (depth, height, width), voxels.
    """
    half = like(np.asarray(size)[..., ::-1] / 2.0, points)
    return (points + 1.0) * (half if half.ndim == 1 else half[:, None, :])


def pixel_matrix(transform: Linear, source_size: Sizes, output_size: Sizes) -> Float[Array, "*batch m m"]:
    """Corner-based pixel matrix, output → source: takes (x, y, 1) of the crop to the source (times w).

    Of a volume, (x, y, z, 1) in voxels. Sizes are those of one image, or of one for each transform of a batch. The last
    entry is 1, unless the crop's first corner lies on the horizon, where none but 0 is possible.
    """
    matrix = transform.matrix
    to_source = like(_to_pixels(source_size), matrix)
    from_output = like(_from_pixels(output_size), matrix)
    product = matmul(matmul(to_source, matrix), from_output)
    return _scaled(product)


def center_based(matrix: Float[Array, "*batch 3 3"]) -> Float[Array, "*batch 3 3"]:
    """A corner-based pixel matrix in OpenCV's convention, whose origin is the centre of the first pixel."""
    return _shifted(matrix, 0.5)


def corner_based(matrix: Float[Array, "*batch 3 3"]) -> Float[Array, "*batch 3 3"]:
    """The inverse of `center_based`."""
    return _shifted(matrix, -0.5)


def letterbox(source_size: Sizes, input_size: Size) -> Affine | Affine3d:
    """Where a network input of (height, width) looks on an image: all of it, centred, aspect kept.

    The result maps the input's normalised frame to the image's; it reaches beyond the image along all axes but the
    one that decides. Of (depth, height, width), where one looks on a volume. Of the sizes of a batch, a batch.
    """
    sources, seen = np.flip(np.asarray(source_size), axis=-1), np.array(input_size[::-1])
    pixels_per_input_pixel = (sources / seen).max(axis=-1, keepdims=True)
    scales = pixels_per_input_pixel * seen / sources
    rows = _homogeneous(scales, np.zeros_like(scales))[..., :-1, :]
    return (Affine if scales.shape[-1] == 2 else Affine3d)(rows.reshape(*scales.shape[:-1], -1))


def _to_pixels(size: Sizes) -> Float[np.ndarray, "*batch m m"]:
    """From normalised coordinates."""
    halves = np.asarray(size)[..., ::-1] / 2.0
    return _homogeneous(halves, halves)


def _from_pixels(size: Sizes) -> Float[np.ndarray, "*batch m m"]:
    """The inverse of `_to_pixels`."""
    halves = np.asarray(size)[..., ::-1] / 2.0
    return _homogeneous(1.0 / halves, np.full_like(halves, -1.0))


def _homogeneous(scales: Float[np.ndarray, "*batch d"], shifts: Float[np.ndarray, "*batch d"]) -> np.ndarray:
    dims = scales.shape[-1]
    matrix = np.zeros((*scales.shape[:-1], dims + 1, dims + 1))
    along = np.arange(dims)
    matrix[..., along, along], matrix[..., :-1, -1], matrix[..., -1, -1] = scales, shifts, 1.0
    return matrix


def _shifted(matrix: Array, offset: float) -> Array:
    move = np.array([[1.0, 0.0, offset], [0.0, 1.0, offset], [0.0, 0.0, 1.0]])
    return _scaled(matmul(matmul(like(np.linalg.inv(move), matrix), matrix), like(move, matrix)))


def _scaled(matrix: Array) -> Array:
    """The same homography with 1 as its last entry, or, where that vanishes, as its largest."""
    xp = namespace(matrix)
    last, largest = matrix[..., -1:, -1:], xp.max(xp.abs(matrix), axis=(-2, -1), keepdims=True)
    return matrix / xp.where(xp.abs(last) > 1e-9 * largest, last, largest)
