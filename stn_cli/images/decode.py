"""One image file to one array, by these rules.

    stored as                     becomes
    1                             8-bit grey, 0 and 255
    L, LA, RGB, RGBA              the same
    La, RGBa                      LA, RGBA: alpha no longer multiplied in
    P, PA                         RGB, or RGBA when the palette has transparency
    L, RGB with a clear colour    LA, RGBA
    I;16, and I within 0..65535   16-bit grey (a clear colour is dropped, with a note)
    12 bits of grey               16-bit grey, white as white
    I beyond that, F              ImageError: no range to show it in is known
    CMYK, LAB                     RGB; to sRGB through the embedded ICC profile where there is a fitting one
    YCbCr, HSV                    RGB
    16 bits in colour             8 bits, with a note: Pillow reads no more
    several frames or pages       the first, with a note

Pillow reads all of them but whole JPEGs in grey or RGB, which simplejpeg reads several times faster to the same values.

The pixels are as a person sees them: EXIF orientation is applied. An ICC profile that still describes the pixels
is kept as it is. A file is what its bytes say, whatever its name; formats beyond those asked for are refused.
"""

import hashlib
import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import cv2
import numpy as np
import numpy.typing as npt
import PIL.Image
import simplejpeg
from PIL import (
    ExifTags,
    TiffImagePlugin,
    WebPImagePlugin,  # noqa: F401  with TIFF, what `PIL.Image.open` would else import every plugin for
)
from PIL.JpegImagePlugin import JpegImageFile, get_sampling

from stn_cli.errors import ImageError
from stn_cli.images.containment import contained_pillow
from stn_cli.images.formats import READABLE

MAX_PIXELS = 250_000_000
"""Height × width that is decoded at most: 1 GB as RGBA. Larger headers are more often attacks than images."""

Pixels = npt.NDArray[np.uint8] | npt.NDArray[np.uint16]

Size = tuple[int, int]
"""(height, width) in pixels."""
Shrink = Callable[[Size], int]
"""By how much an image of a size, as a person sees it, may be shrunk at most."""

_UPRIGHT: dict[int, Callable[[Pixels], npt.NDArray[np.generic]]] = {
    2: lambda pixels: cv2.flip(pixels, 1),
    3: lambda pixels: cv2.rotate(pixels, cv2.ROTATE_180),
    4: lambda pixels: cv2.flip(pixels, 0),
    5: cv2.transpose,
    6: lambda pixels: cv2.rotate(pixels, cv2.ROTATE_90_CLOCKWISE),
    7: lambda pixels: cv2.transpose(cv2.rotate(pixels, cv2.ROTATE_180)),
    8: lambda pixels: cv2.rotate(pixels, cv2.ROTATE_90_COUNTERCLOCKWISE),
}
_SALVAGE = "Repair the file, or leave it out; `stn rectify --salvage` rectifies what can be read of it."
SHRINKS = (8, 4, 2, 1)
"""By which a JPEG can be decoded smaller, from the lower frequencies of its blocks."""


@dataclass(frozen=True, slots=True)
class JpegTables:
    """How finely a JPEG was quantised, so that it can be written again at no worse quality."""

    quantization: tuple[tuple[int, ...], ...]
    """One to four tables of 64 values."""
    subsampling: int
    """Of the colours, in Pillow's numbers: 0 is 4:4:4, 1 is 4:2:2, 2 is 4:2:0."""


@dataclass(frozen=True, slots=True, eq=False)
class Image:
    """A decoded image and what is known of its file."""

    pixels: Pixels
    """(height, width, channels), C-contiguous, uint8 or uint16 over the whole range of the type.

    Channels: 1 grey, 2 grey and alpha, 3 RGB, 4 RGB and alpha. uint16 is grey only."""
    format: str
    """Pillow's name for it, one of `formats.READABLE` or MPO."""
    source_mode: str
    """Pillow's mode of the image as stored."""
    exif_orientation: int
    """1 to 8, as stored; already applied to `pixels`."""
    icc_profile: bytes | None
    frames: int
    sha256: str
    file_size: int
    jpeg_tables: JpegTables | None
    notes: tuple[str, ...]
    """What a person may want to know: what was dropped or reduced, and Pillow's warnings."""
    damage: str | None = None
    """What is wrong with the file, of which only a part could be read."""
    shrunk: int = 1
    """How many times smaller than stored `pixels` is, in height and in width."""

    @property
    def size(self) -> Size:
        """As stored, upright."""
        height, width = self.pixels.shape[:2]
        return height * self.shrunk, width * self.shrunk


@dataclass(frozen=True, slots=True)
class FileData:
    """The bytes of a file, and their SHA-256 in hexadecimal digits."""

    data: bytes
    sha256: str


def read_file(path: Path) -> FileData:
    """The file, read once; ImageError if it cannot be read. The message does not name the path."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ImageError(f"cannot be read: {(error.strerror or str(error)).lower()}") from error
    except MemoryError as error:
        raise ImageError("is larger than the memory") from error
    return FileData(data, hashlib.sha256(data).hexdigest())


def decode(path: Path, *, max_pixels: int = MAX_PIXELS) -> Image:
    """`read_file`, then `decode_data`; the message of an ImageError names the path."""
    with named(path):
        return decode_data(read_file(path), max_pixels=max_pixels)


@contextmanager
def named(path: Path) -> Iterator[None]:
    """The message of an ImageError begins with the path."""
    try:
        yield
    except ImageError as error:
        raise ImageError(f"{path} {error}", remedy=error.remedy) from error


def decode_data(
    file: FileData,
    *,
    max_pixels: int = MAX_PIXELS,
    formats: tuple[str, ...] = READABLE,
    salvage: bool = False,
    shrink: Shrink | None = None,
) -> Image:
    """The image in the bytes of a file, of one of `formats`.

    Raises ImageError for whatever is wrong with it. With `salvage`, what can be read of a damaged file is an image all
    the same, and the rest grey or black. An image of more than `max_pixels` is refused by its header, before memory is
    taken for it; Pillow's own limit plays no part, and is switched off for the process while decodes are under way.

    A JPEG whose sides can be divided by 2, 4 or 8 is decoded that much smaller if `shrink` says so.
    """
    if not file.data:
        raise ImageError("is empty")
    try:
        with contained_pillow() as warned:
            return _decode(file, max_pixels, formats, warned, shrink)
    except ImageError:
        raise
    except Exception as error:  # a decoder fed with damaged bytes raises nearly anything
        damage = _reason(error, file.data, formats)
        if not salvage or isinstance(error, MemoryError):
            is_partly_read = not isinstance(error, MemoryError | PIL.UnidentifiedImageError)
            raise ImageError(damage, remedy=_SALVAGE if is_partly_read else None) from error
    try:
        with contained_pillow.lenient() as warned:
            return replace(_decode(file, max_pixels, formats, warned, None), damage=damage)
    except Exception as error:
        raise ImageError(damage) from error


def _decode(
    file: FileData, max_pixels: int, formats: tuple[str, ...], warned: list[str], shrink: Shrink | None
) -> Image:
    notes: list[str] = []
    with PIL.Image.open(io.BytesIO(file.data), formats=formats) as image:
        _check_size(image.size, max_pixels)
        source_format, source_mode = image.format or "", image.mode
        frames: int = getattr(image, "n_frames", 1)
        if frames > 1:
            notes.append(f"first of {frames} frames")
        _check_depth(image, notes)
        white_is_zero = _is_white_zero(image)
        jpeg_tables = _jpeg_tables(image)
        orientation = _orientation(image, notes)
        shrunk = _factor(image, orientation, shrink)
        icc_profile: bytes | None = image.info.get("icc_profile")
        pixels = _jpeg_pixels(image, file.data, shrunk, notes)
        if pixels is None:
            shrunk = 1
            image.load()
            plain, icc_profile = _plain(image, icc_profile, notes)
            pixels = _grey16(plain, _bits(image)) if plain.mode.startswith("I") else np.array(plain)
        if orientation != 1 and source_format != "TIFF":  # Pillow turns a TIFF while loading it
            pixels = cast("Pixels", _UPRIGHT[orientation](pixels))
        if white_is_zero:
            pixels = np.invert(pixels)
    return Image(
        pixels=pixels[:, :, None] if pixels.ndim == 2 else pixels,
        format=source_format,
        source_mode=source_mode,
        exif_orientation=orientation,
        icc_profile=icc_profile or None,
        frames=frames,
        sha256=file.sha256,
        file_size=len(file.data),
        jpeg_tables=jpeg_tables,
        notes=tuple(dict.fromkeys(notes + warned)),
        shrunk=shrunk,
    )


def _jpeg_pixels(image: PIL.Image.Image, data: bytes, shrunk: int, notes: list[str]) -> Pixels | None:
    """The pixels of a whole JPEG in grey or RGB, as Pillow would read them; None of anything else.

    Pillow says nothing of damage that leaves a JPEG as long as it should be.
    """
    if not isinstance(image, JpegImageFile) or image.mode not in ("L", "RGB"):
        return None
    width, height = image.size
    sides = {"min_height": height // shrunk, "min_width": width // shrunk} if shrunk > 1 else {}
    try:
        pixels: Pixels = simplejpeg.decode_jpeg(data, "GRAY" if image.mode == "L" else "RGB", **sides)
    except ValueError as error:  # Pillow knows what can be done about damage
        notes.append(f"warning of the JPEG decoder: {error}")
        return None
    return pixels[:, :, 0] if image.mode == "L" else pixels


def _factor(image: PIL.Image.Image, orientation: int, shrink: Shrink | None) -> int:
    if shrink is None or not isinstance(image, JpegImageFile):
        return 1
    width, height = image.size
    most = shrink((height, width) if orientation < 5 else (width, height))
    return next((factor for factor in SHRINKS if factor <= most and not (width % factor or height % factor)), 1)


def _check_size(size: tuple[int, int], max_pixels: int) -> None:
    width, height = size
    if width * height > max_pixels:
        raise ImageError(f"{width}x{height} pixels exceed the limit of {max_pixels}")


def _check_depth(image: PIL.Image.Image, notes: list[str]) -> None:
    """Note the 16-bit colours that Pillow reduces to 8 bits, and refuse those that it misreads."""
    if image.mode.startswith(("I", "F")):
        return
    tile = cast("list[tuple[str, object, int, object]]", getattr(image, "tile", []))
    args = tile[0][3] if tile else ""
    raw_mode, *more = args if isinstance(args, tuple) else (args,)
    deep_pnm = image.format == "PPM" and bool(more) and more[0] > 255
    if deep_pnm or ";16" in str(raw_mode):
        notes.append("16 bits per channel read as 8")
    elif isinstance(image, TiffImagePlugin.TiffImageFile):
        bits = image.tag_v2.get(TiffImagePlugin.BITSPERSAMPLE, (8,))
        if max(bits) > 8:  # uncompressed planes: Pillow takes each byte for a sample
            raise ImageError(f"stores {max(bits)}-bit colour planes, which cannot be read")


def _is_white_zero(image: PIL.Image.Image) -> bool:
    """Whether grey runs from white to black; Pillow inverts such a TIFF up to 8 bits but not at 16."""
    return (
        isinstance(image, TiffImagePlugin.TiffImageFile)
        and image.mode.startswith("I;16")
        and image.tag_v2.get(TiffImagePlugin.PHOTOMETRIC_INTERPRETATION) == 0
    )


def _jpeg_tables(image: PIL.Image.Image) -> JpegTables | None:
    if not isinstance(image, JpegImageFile) or not image.quantization:
        return None
    tables = tuple(tuple(table) for _, table in sorted(image.quantization.items()))
    return JpegTables(tables, max(get_sampling(image), 0))


def _orientation(image: PIL.Image.Image, notes: list[str]) -> int:
    """The EXIF orientation, 1 where there is none or it makes no sense."""
    if image.format == "PNG":
        image.load()  # its EXIF may follow the pixels
    try:  # now, for loading drops that of a TIFF
        stored = image.getexif().get(ExifTags.Base.Orientation, 1)
        return int(stored) if stored in range(1, 9) else 1
    except Exception:  # a parser of its own, fed by cameras and phones: not a reason to lose the photo
        notes.append("damaged EXIF data ignored")
        return 1


def _plain(image: PIL.Image.Image, icc_profile: bytes | None, notes: list[str]) -> tuple[PIL.Image.Image, bytes | None]:
    """The image in a mode that is stored as an array (L, LA, RGB, RGBA, I, I;16*), and the profile of that."""
    mode = image.mode
    if mode == "F":
        raise ImageError("stores floating-point values, whose range is not known")
    if mode.startswith("I"):
        if "transparency" in image.info:
            notes.append("clear colour of 16-bit grey dropped")
        return image, icc_profile
    if mode in ("CMYK", "LAB"):
        return _to_srgb(image, icc_profile, notes), None
    base = "L" if mode in ("1", "L", "LA", "La") else "RGB"
    target = base + "A" if image.has_transparency_data else base
    if mode == target:
        return image, icc_profile
    notes.append(f"{mode} converted to {target}")
    return image.convert(target), icc_profile


def _to_srgb(image: PIL.Image.Image, icc_profile: bytes | None, notes: list[str]) -> PIL.Image.Image:
    """CMYK and LAB as sRGB. Pillow has by now undone the inversion of Adobe's CMYK JPEGs."""
    from PIL import ImageCms  # noqa: PLC0415  most images need no colour management

    if icc_profile:
        try:
            profile = ImageCms.ImageCmsProfile(io.BytesIO(icc_profile))
            converted = ImageCms.profileToProfile(image, profile, ImageCms.createProfile("sRGB"), outputMode="RGB")
        except (OSError, ImageCms.PyCMSError):
            notes.append(f"embedded profile does not fit {image.mode} and is ignored")
        else:
            notes.append(f"{image.mode} converted to sRGB through the embedded profile")
            return cast("PIL.Image.Image", converted)
    notes.append(f"{image.mode} converted to RGB without a profile")
    return image.convert("RGB")


def _bits(image: PIL.Image.Image) -> int:
    """Of a sample of grey."""
    if not isinstance(image, TiffImagePlugin.TiffImageFile):
        return 16
    return int(max(image.tag_v2.get(TiffImagePlugin.BITSPERSAMPLE, (16,))))


def _grey16(image: PIL.Image.Image, bits: int) -> npt.NDArray[np.uint16]:
    values = np.asarray(image)
    if bits == 12:  # as Pillow has them: 0..4095
        values = values.astype(np.uint16)
        return cast("npt.NDArray[np.uint16]", values << 4 | values >> 8)
    if values.min() < 0 or values.max() > 65535:
        raise ImageError("stores 32-bit values outside 0..65535, whose range is not known")
    return values.astype(np.uint16)


def _reason(error: Exception, data: bytes, formats: tuple[str, ...]) -> str:
    if isinstance(error, PIL.UnidentifiedImageError):
        accepts = (PIL.Image.OPEN[name][1] for name in formats)
        if any(accept is not None and accept(data[:16]) is True for accept in accepts):
            return "is damaged: its header cannot be read"
        return f"is not an image in a supported format ({', '.join(formats)})"
    if isinstance(error, MemoryError):
        return "does not fit into memory"
    text = str(error).strip() or type(error).__name__
    if isinstance(error, EOFError) or "truncated" in text.lower():
        return "is truncated"
    return f"is damaged: {text}"
