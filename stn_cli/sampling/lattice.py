"""Where the pixels of a crop lie in its source, interpolated between the knots of a lattice.

A bent transform costs too much to be evaluated at every pixel. It is smooth, so that piecewise cubics through a few
knots stray from it by hundredths of a pixel; every lattice is held against one half as fine before it is used. Even
these cost more than reading the pixels of a large crop, so that they are followed at every few of them, in straight
pieces, as far as that shows as little.
"""

import math
from collections.abc import Sequence
from functools import lru_cache

import cv2
import numpy as np

from stn_cli.annotations import Float, Float32, Float64
from stn_cli.geometry import Transform

Knots = Float64[np.ndarray, "2 _ _"]
"""x and y in the source, 0…1 across it, of knots from one corner of the crop to the other."""

_CELL = 8
"""Pixels of the crop between two knots, to begin with, where that takes neither too few nor too many cells."""
_FEWEST_CELLS, _MANY_CELLS = 4, 32
_MOST_KNOTS = 1 << 16
_TOLERANCE, _OF_EXTENT = 0.005, 1e-5
"""By which a lattice half as fine may be wrong: pixels, or if that is more, a share of the larger extent.

The error of the lattice itself is about a quarter of it: 0.02 pixels in a source of 8,000, 0.08 in one of 32,000."""
_LONGEST_PIECE, _STRAIGHT = 8, 0.0025
"""Of the straight pieces: pixels of the crop at most, and pixels of the source by which they may leave their cubic."""
_LARGE = 1 << 16
"""Pixels of a crop from which on it pays to follow the cubics in pieces."""


def lattices(
    transforms: Transform, extents: Sequence[Float[np.ndarray, "2"]], sizes: Sequence[tuple[int, ...]]
) -> list[Knots | None]:
    """The lattice of each transform of a batch for its crop; None for one so wild that it would not pay.

    Args:
        extents: (width, height) of each source, in the pixels that count.
        sizes: (height, width) of each crop.
    """
    found: list[Knots | None] = [None] * len(extents)
    pixels = np.array(extents)
    tolerance = np.maximum(_TOLERANCE, _OF_EXTENT * pixels.max(axis=1))
    cells = [_cells(size) for size in sizes]
    most = np.array([max(math.prod(c), min(math.prod(s), _MOST_KNOTS)) for c, s in zip(cells, sizes, strict=True)])
    pending = [(np.array([n for n, each in enumerate(cells) if each == c]), *c) for c in dict.fromkeys(cells)]
    while pending:
        numbers, rows, columns = pending.pop()
        knots = _knots(transforms[numbers], rows, columns)
        too_coarse = ~(
            _strays(knots, pixels[numbers]) <= tolerance[numbers, None]
        )  # what is no number is never fine enough
        for number, each, coarse in zip(numbers, knots, too_coarse, strict=True):
            found[number] = None if coarse.any() else each
        for down, along in ((1, 0), (0, 1), (1, 1)):  # each by its own needs, whatever the others of its batch need
            needy = numbers[(too_coarse == (down, along)).all(axis=1)]
            needy = needy[(rows << down) * (columns << along) <= most[needy]]
            if len(needy):
                pending.append((needy, rows << down, columns << along))
    return found


def between(
    knots: Float32[np.ndarray, "2 m n"], size: tuple[int, ...], rows: slice
) -> tuple[Float32[np.ndarray, "h w"], Float32[np.ndarray, "h w"]]:
    """What the knots say, x and y in pixels of the source, at the pixel centres of some rows of a crop of `size`."""
    down, along = _piece(knots, size, axis=0), _piece(knots, size, axis=1)
    (top, bottom), (left, right) = _around(rows.start, rows.stop, down), _around(0, size[1], along)
    _, m, n = knots.shape
    of_rows = _weights(m - 1, size[0] / down, top, bottom)
    of_columns = _weights(n - 1, size[1] / along, left, right)
    x, y = of_rows @ knots @ of_columns.T  # at the middles of pieces
    if (down, along) != (1, 1):
        x, y = (cv2.resize(each, None, fx=along, fy=down, interpolation=cv2.INTER_LINEAR) for each in (x, y))
    cut = slice(rows.start - top * down, rows.stop - top * down), slice(-left * along, size[1] - left * along)
    return x[cut], y[cut]


def _piece(knots: Float32[np.ndarray, "2 m n"], size: tuple[int, ...], axis: int) -> int:
    """Pixels of the crop that a straight piece along an axis spans."""
    if math.prod(size) < _LARGE:
        return 1
    bend = float(np.abs(np.diff(knots, 2, axis=axis + 1)).max())
    longest = size[axis] / (knots.shape[axis + 1] - 1) * math.sqrt(8.0 * _STRAIGHT / max(bend, 1e-9))
    return max(1, min(_LONGEST_PIECE, int(longest)))


def _around(first: int, last: int, piece: int) -> tuple[int, int]:
    """The pieces around some pixels, with one more on each side, from whose middle the outermost are reached."""
    return (first, last) if piece == 1 else (first // piece - 1, -(-last // piece) + 1)


def _knots(transforms: Transform, rows: int, columns: int) -> Float64[np.ndarray, "b 2 _ _"]:
    source = transforms(_lattice(rows, columns)).astype(np.float64, copy=False)
    knots = (source.swapaxes(-1, -2) + 1.0) / 2.0
    return np.ascontiguousarray(knots).reshape(-1, 2, rows + 1, columns + 1)


def _strays(knots: Float64[np.ndarray, "b 2 m n"], extents: Float[np.ndarray, "b 2"]) -> Float[np.ndarray, "b 2"]:
    """How far knots lie from the cubics through every second of them, along columns and along rows, in pixels."""
    b, _, m, n = knots.shape
    by_columns = _from_every_second(m - 1) @ knots[:, :, ::2]
    by_rows = knots[..., ::2] @ _from_every_second(n - 1).T
    farthest = [np.abs(cubic - knots).reshape(b, 2, -1).max(axis=-1) for cubic in (by_columns, by_rows)]
    return np.stack([(far * extents).max(axis=1) for far in farthest], axis=1)


def _cells(size: tuple[int, ...]) -> tuple[int, int]:
    """Powers of two, so that the lattice can be halved."""
    rows, columns = (2 ** math.ceil(math.log2(side / _CELL)) for side in size)
    return min(max(_FEWEST_CELLS, rows), _MANY_CELLS), min(max(_FEWEST_CELLS, columns), _MANY_CELLS)


@lru_cache(maxsize=64)
def _lattice(rows: int, columns: int) -> Float64[np.ndarray, "n 2"]:
    """Points of the crop, −1…1, row by row."""
    y, x = np.meshgrid(np.linspace(-1.0, 1.0, rows + 1), np.linspace(-1.0, 1.0, columns + 1), indexing="ij")
    return np.stack((x.ravel(), y.ravel()), axis=-1)


@lru_cache(maxsize=16)
def _from_every_second(cells: int) -> Float64[np.ndarray, "n knots"]:
    return _cubic(cells // 2, np.arange(cells + 1) / 2)


@lru_cache(maxsize=256)  # crops of all widths come by; those of one width again
def _weights(cells: int, side: float, first: int, last: int) -> Float32[np.ndarray, "n knots"]:
    """What every knot along an axis counts at the middles of the pieces from `first` to `last` of `side`."""
    return _cubic(cells, (np.arange(first, last) + 0.5) * (cells / side)).astype(np.float32)


def _cubic(cells: int, at: Float64[np.ndarray, " n"]) -> Float64[np.ndarray, "n knots"]:
    """Weights of Lagrange's interpolation between the four nearest of the knots at 0, 1, …, `cells`."""
    nodes = min(4, cells + 1)
    first = np.clip(np.floor(at).astype(int) - 1, 0, cells + 1 - nodes)
    local, row = at - first, np.arange(len(at))
    weights = np.zeros((len(at), cells + 1))
    for node in range(nodes):
        weights[row, first + node] = np.prod([(local - n) / (node - n) for n in range(nodes) if n != node], axis=0)
    return weights
