"""The channels of pixels: what they are with fewer bits, without alpha, in one grey."""

from typing import Any

import cv2
import numpy as np

from stn_cli.annotations import Num

Channels = Num[np.ndarray, "*size c"]

LUMA = (0.299, 0.587, 0.114)
"""What red, green and blue count in luminance (ITU-R BT.601), as Pillow has it."""
_WIDER: dict[Any, Any] = {np.dtype(np.uint8): np.uint16, np.dtype(np.uint16): np.uint32}


def eight_bit(pixels: Channels) -> Channels:
    """uint8, of uint8 or uint16."""
    return pixels if pixels.dtype == np.uint8 else ((pixels.astype(np.uint32) + 128) // 257).astype(np.uint8)


def over_white(pixels: Channels) -> Channels:
    """uint8 or uint16 pixels laid over white where they have alpha (the second of two channels, the fourth of four)."""
    if pixels.shape[2] not in (2, 4):
        return pixels
    full, wide = np.iinfo(pixels.dtype).max, pixels.astype(_WIDER[pixels.dtype])  # which holds full² + full / 2
    colour, alpha = wide[:, :, :-1], wide[:, :, -1:]
    laid: np.ndarray = (colour * alpha + full * (full - alpha) + full // 2) // full
    return laid.astype(pixels.dtype)


def luminance(pixels: Channels) -> Channels:
    """One channel, of one or of red, green and blue, in uint8, uint16 or float32."""
    return pixels if pixels.shape[-1] == 1 else cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)[..., None]


def grey(colour: tuple[float, ...]) -> float:
    """The luminance of one (red, green, blue)."""
    return sum(weight * value for weight, value in zip(LUMA, colour, strict=True))
