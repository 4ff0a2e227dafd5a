"""How a crop may be read; words alone, so that options are read without NumPy."""

from typing import Literal

Resample = Literal["sharp", "auto", "bilinear", "bicubic", "nearest"]
"""`auto` is bilinear, and averages where a pixel of the crop covers several of the source; `sharp` does so, too, and is
bicubic where it covers one or less. The others read one point for every pixel."""
Fill = Literal["border"] | tuple[float, ...]
"""What lies outside the source: its border pixels continued, or one value a channel (a single value serves all)."""

RESAMPLES: tuple[Resample, ...] = ("sharp", "auto", "bilinear", "bicubic", "nearest")
ANTI_ALIASED: tuple[Resample, ...] = ("sharp", "auto")

LONGEST_SIDE = 32_766
"""Of a crop, in pixels: OpenCV counts them in 16 bits."""

LONGEST_SHOWN = 128
"""Voxels along a side of the small copy of a volume that nets look at."""
