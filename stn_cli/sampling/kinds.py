"""How a crop may be read; words alone, so that options are read without NumPy."""

from typing import Literal

Resample = Literal["auto", "bilinear", "bicubic", "nearest"]
Fill = Literal["border"] | tuple[float, ...]
"""What lies outside the source: its border pixels continued, or one value a channel (a single value serves all)."""

RESAMPLES: tuple[Resample, ...] = ("auto", "bilinear", "bicubic", "nearest")

LONGEST_SIDE = 32_766
"""Of a crop, in pixels: OpenCV counts them in 16 bits."""

LONGEST_SHOWN = 128
"""Voxels along a side of the small copy of a volume that nets look at."""
