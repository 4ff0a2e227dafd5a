"""Arrays to the bytes of a file."""

import io
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import PIL.Image

from stn_cli.errors import ImageError, UsageError
from stn_cli.images.channels import eight_bit, over_white
from stn_cli.images.decode import JpegTables, Pixels
from stn_cli.images.formats import FORMAT_OF_SUFFIX, SUFFIXES

JPEG_QUALITY = 92
"""Where neither a quality nor a JPEG source says another; Pillow's scale of 1 to 95."""

_HOLD_ALPHA = frozenset({"PNG", "TIFF", "WEBP"})
_HOLD_16_BIT = frozenset({"PNG", "TIFF", "PPM"})
_HOLD_PROFILE = frozenset({"PNG", "JPEG", "TIFF", "WEBP"})

# Chosen on 3-megapixel photos and scanned pages. PNG level 6 takes 4 times as long as 1 to save 6 to 15 %. LZW
# with the horizontal predictor beats deflate in time 3 to 6 times, at the same size or 20 % more. Lossless WEBP:
# method 0 makes pages 2.6 times as large, methods above 1 are slower and save 1 %.
_PNG_LEVEL = 1
_TIFF_OPTIONS = {"compression": "tiff_lzw", "tiffinfo": {317: 2}}  # 317: Predictor, 2: horizontal differences
_WEBP_LOSSLESS = {"lossless": True, "quality": 20, "method": 1, "exact": True}  # exact: also below alpha 0


class Encoded(NamedTuple):
    data: bytes
    notes: tuple[str, ...]
    """What the format could not hold."""


def output_format(source_format: str, dtype: npt.DTypeLike, channels: int, requested: str | None = None) -> str:
    """The format to write: the requested one, else that of the input, else PNG where it cannot hold the pixels.

    Names as in `SUFFIXES`, in any case, or a suffix such as `jpg`. Raises UsageError for one that is not written.
    """
    if requested is not None:
        name = requested.removeprefix(".").lower()
        known = FORMAT_OF_SUFFIX.get(f".{name}", name.upper())
        if known not in SUFFIXES:
            raise UsageError(f"{requested} is not a format to write; choose from {', '.join(SUFFIXES)}")
        return known
    source = "JPEG" if source_format == "MPO" else source_format
    holds_alpha = channels in (1, 3) or source in _HOLD_ALPHA
    holds_depth = np.dtype(dtype) == np.uint8 or source in _HOLD_16_BIT
    return source if source in SUFFIXES and holds_alpha and holds_depth else "PNG"


def encode(
    pixels: Pixels,
    format: str,
    *,
    quality: int | None = None,
    optimize: bool = False,
    icc_profile: bytes | None = None,
    jpeg_tables: JpegTables | None = None,
) -> Encoded:
    """The bytes of a file that holds `pixels`, (height, width, channels) as in `decode.Image`.

    `format` is one of `SUFFIXES`. All are lossless but JPEG, and WEBP with a `quality` (1 to 100). A JPEG is
    written with `quality`, else as finely as `jpeg_tables` say, else with `JPEG_QUALITY`. What the format cannot
    hold is reduced and noted: alpha is laid over white, 16 bits become 8, the profile is left out.
    `optimize` takes longer for a smaller file. Raises ImageError where the format cannot hold so large an image.
    """
    pixels, notes = _fit(pixels, format)
    options = _options(format, quality, optimize, jpeg_tables)
    if format in _HOLD_PROFILE:
        options["icc_profile"] = icc_profile
    elif icc_profile is not None:
        notes.append(f"ICC profile dropped, which {format} cannot hold")
    buffer = io.BytesIO()
    image = PIL.Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
    try:
        image.save(buffer, format, **options)
    except (OSError, ValueError, MemoryError) as error:
        size = f"{image.width}x{image.height}"
        raise ImageError(f"{size} pixels cannot be written as {format}: {error}") from error
    return Encoded(buffer.getvalue(), tuple(notes))


def _options(format: str, quality: int | None, optimize: bool, jpeg_tables: JpegTables | None) -> dict[str, Any]:
    match format:
        case "PNG":
            return {"optimize": True} if optimize else {"compress_level": _PNG_LEVEL}
        case "TIFF":
            return {**_TIFF_OPTIONS, **({"compression": "tiff_adobe_deflate"} if optimize else {})}
        case "WEBP" if quality is None:
            return {**_WEBP_LOSSLESS, **({"quality": 100, "method": 6} if optimize else {})}
        case "WEBP":
            return {"quality": quality, **({"method": 6} if optimize else {})}
        case "JPEG":
            return {**_jpeg_fineness(quality, jpeg_tables), "optimize": optimize}
        case _:
            return {}


def _jpeg_fineness(quality: int | None, jpeg_tables: JpegTables | None) -> dict[str, Any]:
    if quality is None and jpeg_tables is not None:
        return {"qtables": list(jpeg_tables.quantization), "subsampling": jpeg_tables.subsampling}
    return {"quality": quality or JPEG_QUALITY, "subsampling": 0}


def _fit(pixels: Pixels, format: str) -> tuple[Pixels, list[str]]:
    """The pixels as the format holds them, and what that took."""
    notes = []
    channels = pixels.shape[2]
    # Pillow holds 16 bits in a single channel only, whatever the format.
    if pixels.dtype == np.uint16 and (format not in _HOLD_16_BIT or channels > 1):
        pixels = eight_bit(pixels)
        notes.append("16 bits reduced to 8")
    if channels in (2, 4) and format not in _HOLD_ALPHA:
        pixels = over_white(pixels)
        notes.append(f"alpha laid over white, as {format} cannot hold it")
    return pixels, notes
