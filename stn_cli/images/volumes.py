"""One file to one volume, and back: NumPy's `.npy`, and TIFF whose pages are the slices."""

import io
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import PIL.Image
from PIL import ImageSequence
from PIL.TiffImagePlugin import TiffImageFile

from stn_cli.errors import ImageError, UsageError
from stn_cli.images.containment import contained_pillow
from stn_cli.images.decode import MAX_PIXELS, FileData

VOLUME_OF_SUFFIX: Mapping[str, str] = {".npy": "NPY", ".tif": "TIFF", ".tiff": "TIFF"}
VOLUME_SUFFIXES: Mapping[str, str] = {"NPY": ".npy", "TIFF": ".tif"}
"""The formats in which volumes are read and written, and the suffix of each."""

_NPY = b"\x93NUMPY"
_TYPES = frozenset(
    ("uint8", "uint16", "uint32", "int8", "int16", "int32", "float16", "float32", "float64"),
)
_SAMPLE_FORMAT, _SIGNED, _BITS, _COMPRESSION = 339, 2, 258, 259
_OF_PAGES = {
    **{("L", 8, 1): "uint8", ("L", 8, 2): "int8", ("I;16", 16, 1): "uint16", ("I;16B", 16, 1): "uint16"},
    **{("I", 16, 2): "int16", ("I", 32, 2): "int32", ("I", 32, 1): "uint32", ("F", 32, 3): "float32"},
}
"""Pillow's mode, bits and sample format of pages, and what these are: Pillow tells neither int8 from uint8, nor uint32
from int32, and widens int16."""
_SIGNED_AS = {"int8": "uint8", "int16": "uint16"}
_AS_PAGES = {**{name: name for name in ("uint8", "uint16", "int32", "float32")}, **_SIGNED_AS}
"""What Pillow writes as pages, and as what."""

Voxels = np.ndarray[tuple[int, int, int], np.dtype[Any]]


@dataclass(frozen=True, slots=True, eq=False)
class Volume:
    """A volume and what is known of its file."""

    voxels: Voxels
    """(depth, height, width), C-contiguous, of an integer type of 8 to 32 bits or a floating-point type; finite."""
    format: str
    """One of `VOLUME_SUFFIXES`."""
    sha256: str
    file_size: int


def decode_volume(file: FileData, *, max_voxels: int = MAX_PIXELS) -> Volume:
    """The volume in the bytes of a file; ImageError for whatever is wrong with it.

    One of more than `max_voxels` is refused by its header, before memory is taken for it.
    """
    if not file.data:
        raise ImageError("is empty")
    is_array = file.data.startswith(_NPY)
    stored = _array(file.data, max_voxels) if is_array else _pages(file.data, max_voxels)
    voxels = checked_voxels(stored)
    return Volume(voxels, "NPY" if is_array else "TIFF", file.sha256, len(file.data))


def checked_voxels(array: np.ndarray) -> Voxels:
    """The array, C-contiguous, if it is a volume; ImageError says why it is none."""
    _check_shape(array.shape)
    _check_type(array.dtype)
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise ImageError("holds values that are not finite")
    return cast("Voxels", np.ascontiguousarray(array))


def holds_volume(data: bytes) -> bool:
    """Whether a file is a volume: an array of three dimensions, or a TIFF of several grey pages that are alike."""
    try:
        if data.startswith(_NPY):
            return len(_array_header(io.BytesIO(data))[0]) == 3
        with contained_pillow(), PIL.Image.open(io.BytesIO(data), formats=("TIFF",)) as image:
            pages = [(page.size, _type_of_page(page)) for page in ImageSequence.Iterator(image)]
            return len(pages) > 1 and len(set(pages)) == 1
    except Exception:  # whoever reads it will say what is wrong with it
        return False


def volume_format(source_format: str, requested: str | None = None) -> str:
    """The format to write: the requested one, or else that of the input; UsageError for one that holds no volume."""
    if requested is None:
        return source_format
    name = requested.removeprefix(".").lower()
    known = VOLUME_OF_SUFFIX.get(f".{name}", name.upper())
    if known not in VOLUME_SUFFIXES:
        raise UsageError(f"{requested} holds no volume; choose from {', '.join(VOLUME_SUFFIXES)}")
    return known


def encode_volume(voxels: Voxels, format: str) -> bytes:
    """The bytes of a file that holds `voxels`, losslessly; ImageError where TIFF has no such numbers."""
    buffer = io.BytesIO()
    if format == "NPY":
        np.save(buffer, voxels, allow_pickle=False)
        return buffer.getvalue()
    if voxels.dtype.name not in _AS_PAGES:
        raise ImageError(f"TIFF cannot hold pages of {voxels.dtype} here; --format npy keeps them")
    plain = voxels.view(_AS_PAGES[voxels.dtype.name])
    options = {"tiffinfo": {_SAMPLE_FORMAT: _SIGNED}} if voxels.dtype.name in _SIGNED_AS else {}
    first, *others = (PIL.Image.fromarray(page) for page in plain)
    try:
        first.save(buffer, "TIFF", save_all=True, append_images=others, compression="tiff_adobe_deflate", **options)
    except (OSError, ValueError, MemoryError) as error:
        raise ImageError(f"{len(voxels)} pages cannot be written as TIFF: {error}") from error
    return buffer.getvalue()


def _array(data: bytes, max_voxels: int) -> Voxels:
    stream = io.BytesIO(data)
    shape, by_columns, dtype = _array_header(stream)
    _check_shape(shape, max_voxels)
    _check_type(dtype)
    content = memoryview(data)[stream.tell() :]
    if len(content) != math.prod(shape) * dtype.itemsize:
        raise ImageError("is truncated" if len(content) < math.prod(shape) * dtype.itemsize else "is too long")
    stored = np.frombuffer(content, dtype).reshape(shape, order="F" if by_columns else "C")
    return cast("Voxels", np.array(stored, dtype.newbyteorder("="), order="C"))


def _array_header(stream: io.BytesIO) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, whether it lies column by column, and type; the stream then stands where the values begin."""
    try:
        version = np.lib.format.read_magic(stream)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        return read(stream)
    except Exception as error:  # the header is a line of Python, and what parses it raises nearly anything
        raise ImageError(f"is damaged: {error}") from error


def _pages(data: bytes, max_voxels: int) -> Voxels:
    try:
        with contained_pillow(), PIL.Image.open(io.BytesIO(data), formats=("TIFF",)) as image:
            count, (width, height) = int(getattr(image, "n_frames", 1)), image.size
            _check_shape((count, height, width), max_voxels)
            dtype = np.dtype(_type_of_page(image))
            voxels = np.empty((count, height, width), dtype)
            for number, page in enumerate(ImageSequence.Iterator(image), 1):
                if page.size != (width, height) or _type_of_page(page) != dtype.name:
                    _differs(number)
                read = np.asarray(page)
                native = read.astype(read.dtype.newbyteorder("="), copy=False)
                voxels[number - 1] = native.view(dtype) if native.itemsize == dtype.itemsize else native.astype(dtype)
    except ImageError:
        raise
    except PIL.UnidentifiedImageError as error:
        known = ", ".join(sorted(set(_OF_PAGES.values())))
        raise ImageError(f"is no volume: neither NumPy's .npy, nor TIFF of {known}") from error
    except Exception as error:  # a decoder fed with damaged bytes raises nearly anything
        raise ImageError(f"is damaged: {error}") from error
    return voxels


def _type_of_page(page: PIL.Image.Image) -> str:
    tags = cast("TiffImageFile", page).tag_v2
    bits, format = (tags.get(tag, (default,)) for tag, default in ((_BITS, 1), (_SAMPLE_FORMAT, 1)))
    if tags.prefix == b"MM" and bits[0] > 8 and tags.get(_COMPRESSION, 1) != 1:  # Pillow swaps the bytes of some twice
        raise ImageError("has compressed big-endian pages, which cannot be read safely; store them little-endian")
    found = _OF_PAGES.get((page.mode, bits[0], format[0]))
    if found is None:
        raise ImageError(
            f"has pages of mode {page.mode} in {bits[0]} bits; those of a volume are grey, of 8 to 32 bits"
        )
    return found


def _differs(number: int) -> None:
    raise ImageError(f"is no volume: page {number} differs from the first in size or type")


def _check_type(dtype: np.dtype[Any]) -> None:
    if dtype.name not in _TYPES:
        raise ImageError(f"holds numbers of type {dtype}; a volume has one of {', '.join(sorted(_TYPES))}")


def _check_shape(shape: tuple[int, ...], max_voxels: int | None = None) -> None:
    if len(shape) != 3:
        raise ImageError(f"has {len(shape)} dimensions; a volume has three, depth × height × width")
    if min(shape) < 2:
        raise ImageError("is no volume: along one of its sides it has a single voxel, or none")
    if max_voxels is not None and math.prod(shape) > max_voxels:  # by a header that may claim anything
        raise ImageError(f"its voxels exceed the limit of {max_voxels}")
