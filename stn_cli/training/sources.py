"""Upright images to train on: MNIST's idx files, class sub-folders, or a flat folder."""

import gzip
import math
import os
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import cv2
import numpy as np

from stn_cli.errors import ImageError, NoInputError, TrainingDataError
from stn_cli.images import decode, discover

_LONGEST_SIDE = 96
"""Images are kept in memory at most this large; training canvases are smaller."""
_IDX_IMAGES, _IDX_LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"


@dataclass(frozen=True)
class Uprights:
    """Images, (h, w, c) uint8 each, with their class indices, or −1 where they have none.

    Attributes:
        images, labels: as said; of equal length.
        classes: names of the classes in order, empty if there are none.
        unreadable: files that were left out, with the reason.
    """

    images: tuple[np.ndarray, ...]
    labels: np.ndarray
    classes: tuple[str, ...]
    unreadable: tuple[tuple[Path, str], ...] = ()

    @property
    def summary(self) -> str:
        """What the data is, for a person."""
        return f"{len(self.images)} images, {len(self.classes)} classes"

    @property
    def foreground(self) -> Literal["ink", "opaque"]:
        """`ink` where all images are grey and mostly black around the border, as MNIST is; else `opaque`."""
        if any(image.shape[2] != 1 for image in self.images):
            return "opaque"
        border = [np.concatenate((i[0], i[-1], i[:, 0], i[:, -1])).mean() for i in self.images[:1000]]
        return "ink" if float(np.median(border)) < 8 else "opaque"

    def split(self, share: float) -> tuple["Uprights", "Uprights"]:
        """Training and validation part; every n-th image is held out, so that every folder takes part in both.

        Of few images at least one is held out.
        """
        every = min(max(2, round(1 / share)), len(self.images))
        held_out = np.arange(len(self.images)) % every == every - 1
        return self._part(~held_out), self._part(held_out)

    def _part(self, chosen: np.ndarray) -> "Uprights":
        images = tuple(image for image, keep in zip(self.images, chosen, strict=True) if keep)
        return Uprights(images, self.labels[chosen], self.classes, self.unreadable)


def read_uprights(folders: Sequence[Path]) -> Uprights:
    """All images of the folders; classes of one name in several folders are one class.

    Raises:
        TrainingDataError: a folder is missing or damaged, or fewer than two images can be read.
    """
    parts = [_read_folder(folder) for folder in folders]
    classes = tuple(sorted({name for part in parts for name in part.classes}))
    labels = [_relabelled(part, classes) for part in parts]
    uprights = Uprights(
        tuple(image for part in parts for image in part.images),
        np.concatenate(labels) if labels else np.zeros(0, np.int64),
        classes,
        tuple(failure for part in parts for failure in part.unreadable),
    )
    if len(uprights.images) < 2:
        raise TrainingDataError(
            f"only {len(uprights.images)} readable images in {', '.join(map(str, folders))}; two are the least",
            remedy="Name a folder of images, of class sub-folders, or of MNIST's idx files.",
        )
    return uprights


def _relabelled(part: Uprights, classes: tuple[str, ...]) -> np.ndarray:
    table = np.array([*(classes.index(name) for name in part.classes), -1], dtype=np.int64)
    labels: np.ndarray = table[part.labels]
    return labels


def _read_folder(folder: Path) -> Uprights:
    if not folder.is_dir():
        raise TrainingDataError(f"{folder} is not a folder")
    images = _idx_file(folder, _IDX_IMAGES)
    if images is not None:
        return _read_idx_pair(images, _idx_file(folder, _IDX_LABELS))
    return _read_images(folder)


def _idx_file(folder: Path, stem: str) -> Path | None:
    return next((path for path in (folder / stem, folder / f"{stem}.gz") if path.is_file()), None)


def _read_idx_pair(images_path: Path, labels_path: Path | None) -> Uprights:
    images = read_idx(images_path)
    if images.ndim != 3:
        raise TrainingDataError(f"{images_path} holds {images.ndim}-dimensional data, not images")
    if labels_path is None:
        return Uprights(tuple(images[..., None]), np.full(len(images), -1), ())
    labels = read_idx(labels_path).astype(np.int64)
    if labels.shape != images.shape[:1]:
        raise TrainingDataError(f"{images_path} has {len(images)} images, {labels_path} has {labels.size} labels")
    classes = tuple(str(digit) for digit in range(int(labels.max(initial=0)) + 1))
    return Uprights(tuple(images[..., None]), labels, classes)


def read_idx(path: Path) -> np.ndarray:
    """An idx file of unsigned bytes (LeCun's MNIST format), gzipped or not.

    Raises:
        TrainingDataError: it cannot be read, is not of that format, or is shorter or longer than it says.
    """
    try:
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        zeros, kind, dimensions = struct.unpack_from(">HBB", data)
        shape = struct.unpack_from(f">{dimensions}I", data, 4)
    except (OSError, EOFError, zlib.error, struct.error) as error:
        raise TrainingDataError(f"{path} cannot be read as an idx file: {error}") from error
    start = 4 + 4 * dimensions
    if zeros or kind != 8 or len(data) - start != int(np.prod(shape, dtype=np.int64)):
        raise TrainingDataError(f"{path} is not a complete idx file of unsigned bytes")
    array: np.ndarray = np.frombuffer(data, np.uint8, offset=start).reshape(shape)
    return array


def _read_images(folder: Path) -> Uprights:
    images, labels, unreadable = [], [], []
    try:
        sources = discover([folder])
    except NoInputError as error:
        raise TrainingDataError(str(error)) from error
    classes = tuple(sorted({source.relative.parts[0] for source in sources if len(source.relative.parts) > 1}))
    held, most = 0, _half_of_memory()
    for source in sources:
        try:
            images.append(_at_most(decode(source.path).pixels))
        except ImageError as error:
            unreadable.append((source.path, str(error)))
            continue
        held += images[-1].nbytes
        if held > most:
            raise TrainingDataError(
                f"the first {len(images)} of {len(sources)} images in {folder} take half of this machine's memory",
                remedy="Name a folder that holds fewer of them.",
            )
        labels.append(classes.index(source.relative.parts[0]) if len(source.relative.parts) > 1 else -1)
    return Uprights(tuple(images), np.array(labels, dtype=np.int64), classes, tuple(unreadable))


def _half_of_memory() -> float:
    """Bytes; without bound where the system does not say."""
    if not hasattr(os, "sysconf"):
        return math.inf
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2


def _at_most(pixels: np.ndarray) -> np.ndarray:
    """8 bits, no alpha, and no side longer than training needs."""
    if pixels.dtype != np.uint8:
        pixels = (pixels // 257).astype(np.uint8)
    pixels = pixels[..., : 1 if pixels.shape[2] < 3 else 3]
    height, width, channels = pixels.shape
    scale = _LONGEST_SIDE / max(height, width)
    if scale < 1:
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        pixels = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA).reshape(size[1], size[0], channels)
    return np.ascontiguousarray(pixels)
