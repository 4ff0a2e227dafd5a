"""Where upright images and volumes end without a seam."""

import numpy as np

_SEAM = 0.1
"""Deviation of a border's values as a share of that of all, below which they count as one."""


def is_seamless(image: np.ndarray) -> bool:
    """The border of an image or volume (*size, c) has one value: continued, as paper or air is, it shows no edge."""
    channels = image.shape[-1]
    border = np.concatenate([np.take(image, (0, -1), axis).reshape(-1, channels) for axis in range(image.ndim - 1)])
    return float(border.std(axis=0).max()) < _SEAM * float(image.reshape(-1, channels).std(axis=0).max())
