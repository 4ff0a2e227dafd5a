"""From what was found to pixels, as large as training needs them."""

import math
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import cv2
import numpy as np

from stn_cli.engines.cores import available_cores
from stn_cli.errors import ImageError, TrainingDataError
from stn_cli.images.channels import eight_bit, over_white
from stn_cli.training.examples.found import Entry, Found, Reading
from stn_cli.training.examples.splits import digest, group_of

_READ_AHEAD = 128


class Decoded(NamedTuple):
    """An image that could be read, as large as it is kept; `corners` normalised, `key` common to those of one part."""

    entry: Entry
    pixels: np.ndarray
    corners: np.ndarray | None
    key: str


def decoded_images(found: Found, reading: Reading) -> list[Decoded]:
    decoded: list[Decoded] = []
    unreadable: list[str] = []
    held, most = 0, _half_of_memory()
    for entry, one in _in_order(found, reading):
        if isinstance(one, ImageError):
            unreadable.append(f"{entry.name}: {one}")
            continue
        held += one.pixels.nbytes
        if held > most:
            raise TrainingDataError(
                f"the first {len(decoded)} of {len(found.entries)} images take half of this machine's memory",
                remedy="Train on fewer of them, or on a smaller canvas.",
            )
        decoded.append(one)
    outside = [one.entry.name for one in decoded if one.corners is None and one.entry.row.corners is not None]
    remedy = "State it in pixels of the image, or name the size of the image that it is of: columns width and height."
    found.report("the box lies outside of its image, and is not used", remedy, [] if found.volumes else outside)
    found.report("the image cannot be read", "Repair it, or move it away.", unreadable)
    return decoded


def _in_order(found: Found, reading: Reading) -> Iterator[tuple[Entry, Decoded | ImageError]]:
    """Images, decoded by threads, some way ahead of whoever takes them."""
    entries = found.entries

    def read(entry: Entry) -> Decoded | ImageError:
        try:
            whole = entry.pixels()
        except ImageError as error:
            return error
        pixels = (_volume_at_most if found.volumes else _at_most)(whole, reading.longest_side)
        is_grouped = reading.group_by is not None and entry.part in (None, "train")
        key = group_of(entry.name, str(reading.group_by)) if is_grouped else digest(whole.tobytes())
        corners = entry.row.corners
        if corners is not None and not found.volumes:
            size = np.array(whole.shape[1::-1]) if entry.row.size is None else entry.row.size
            corners = corners * 2 / size - 1
            if (corners.max(axis=0) <= -1).any() or (corners.min(axis=0) >= 1).any():
                corners = None
        return Decoded(entry, pixels, None if found.volumes else corners, key)

    with ThreadPoolExecutor(available_cores()) as pool:
        for start in range(0, len(entries), _READ_AHEAD):
            part = entries[start : start + _READ_AHEAD]
            yield from zip(part, pool.map(read, part), strict=True)


def _half_of_memory() -> float:
    """Bytes; without bound where the system does not say."""
    if not hasattr(os, "sysconf"):
        return math.inf
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2


def _at_most(pixels: np.ndarray, longest: int) -> np.ndarray:
    """8 bits, alpha laid over white, and no side longer than training needs."""
    pixels = eight_bit(over_white(pixels))
    height, width, channels = pixels.shape
    scale = longest / max(height, width)
    if scale < 1:
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        pixels = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA).reshape(size[1], size[0], channels)
    return np.ascontiguousarray(pixels)


def _volume_at_most(voxels: np.ndarray, longest: int) -> np.ndarray:
    """(d, h, w, 1) in 8 bits, from its least to its largest value, no side longer than training needs."""
    from stn_cli.sampling.volumes import shown  # noqa: PLC0415  torch, of which those who have images need nothing

    grey: np.ndarray = np.rint(255 * shown(voxels, longest)).astype(np.uint8)
    return grey[..., None]
