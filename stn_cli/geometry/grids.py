"""Points of the crop: its pixel centres and its outline."""

from functools import lru_cache

import numpy as np

from stn_cli.annotations import Float64


def grid(size: tuple[int, ...], rows: slice = slice(None)) -> Float64[np.ndarray, "n d"]:
    """Centres of all pixels of a crop (height, width), or of some of its rows, row by row, as points (x, y) in −1…1.

    Of a volume (depth, height, width) the points are (x, y, z), and rows are slices.
    """
    axes = [(2.0 * np.arange(n) + 1.0) / n - 1.0 for n in size]
    axes[0] = axes[0][rows]
    mesh = np.meshgrid(*axes, indexing="ij")
    return np.stack([axis.ravel() for axis in reversed(mesh)], axis=-1)


def corners(dims: int) -> Float64[np.ndarray, "n d"]:
    """Of the frame: of images as in `border 2x2`, upper left, upper right, lower left, lower right.

    Of volumes likewise: x runs fastest, then z, and the four of the upper face come first.
    """
    signs = np.meshgrid(*[(-1.0, 1.0)] * dims, indexing="ij")
    y, *others = (axis.ravel() for axis in signs)
    return np.stack((others[-1], y, *others[:-1]), axis=-1)


@lru_cache(maxsize=8)
def outline(points_per_edge: int = 2) -> Float64[np.ndarray, "n 2"]:
    """The border of the crop from its top left corner clockwise, not closed: 4·(points_per_edge − 1) points."""
    step = np.linspace(-1.0, 1.0, points_per_edge)[:-1]
    edge = np.ones_like(step)
    x = np.concatenate((step, edge, -step, -edge))
    y = np.concatenate((-edge, step, edge, -step))
    border = np.stack((x, y), axis=-1)
    border.flags.writeable = False  # it is handed out again and again
    return border
