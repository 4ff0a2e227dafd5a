"""The idx files of MNIST (LeCun et al. 1998), gzipped or not."""

import gzip
import re
import struct
import zlib
from collections.abc import Iterator

import numpy as np

from stn_cli.errors import TrainingDataError
from stn_cli.training.examples.files import Files

_IMAGES = re.compile(r".*-images[-.]idx3-ubyte(?:\.gz)?")


def idx_pairs(files: Files) -> Iterator[tuple[str, str | None]]:
    """The names of files of images, each with that of its labels, if there are any."""
    for name in files.names:
        if _IMAGES.fullmatch(name):
            labels = name.replace("-images", "-labels").replace("idx3", "idx1")
            others = (labels, f"{labels}.gz", labels.removesuffix(".gz"))
            yield name, next((other for other in others if other in files.names), None)


def read_idx_pair(files: Files, images_name: str, labels_name: str | None) -> tuple[np.ndarray, np.ndarray | None]:
    """Images (n, h, w) uint8, and their labels (n,)."""
    images = read_idx(files, images_name)
    if images.ndim != 3:
        raise TrainingDataError(f"{files.where(images_name)} holds {images.ndim}-dimensional data, not images")
    if labels_name is None:
        return images, None
    labels = read_idx(files, labels_name)
    if labels.shape != images.shape[:1]:
        raise TrainingDataError(
            f"{files.where(images_name)} has {len(images)} images, {files.where(labels_name)} {labels.size} labels",
            remedy="One of the two belongs to another set, or is cut; fetch both again.",
        )
    return images, labels


def read_idx(files: Files, name: str) -> np.ndarray:
    """An idx file of unsigned bytes.

    Raises:
        TrainingDataError: it cannot be read, is not of that format, or is shorter or longer than it says.
    """
    try:
        data = files.read(name)
        data = gzip.decompress(data) if name.endswith(".gz") else data
        zeros, kind, dimensions = struct.unpack_from(">HBB", data)
        shape = struct.unpack_from(f">{dimensions}I", data, 4)
    except (OSError, EOFError, zlib.error, struct.error) as error:
        raise TrainingDataError(f"{files.where(name)} cannot be read as an idx file: {error}") from error
    start = 4 + 4 * dimensions
    if zeros or kind != 8 or len(data) - start != int(np.prod(shape, dtype=np.int64)):
        raise TrainingDataError(f"{files.where(name)} is not a complete idx file of unsigned bytes")
    array: np.ndarray = np.frombuffer(data, np.uint8, offset=start).reshape(shape)
    return array
