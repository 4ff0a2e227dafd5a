"""Image files as strangers send them: valid ones of every common kind, and broken and malicious ones.

Each is a name, its bytes, and whether it must be rectified (True), must fail (False), or may do either (None): what a
flipped bit does to a file is the decoder's to say.
"""

import gzip
import io
import itertools
import random
import struct
import zlib
from collections.abc import Iterator

import numpy as np
import PIL.Image
import tifffile

Entry = tuple[str, bytes, bool | None]
SIZE = (60, 40)


def corpus() -> Iterator[Entry]:
    yield from modes()
    yield from orientations()
    yield from frames()
    yield from odd_sizes()
    yield from lying_names()
    yield from truncated()
    yield from flipped()
    yield from spoilt_headers()
    yield from bombs()
    yield from not_images()


def picture(mode: str = "RGB", size: tuple[int, int] = SIZE) -> PIL.Image.Image:
    """Dark strokes on a light ground, with noise: something to find, and nothing that compresses away."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(180, 256, (size[1], size[0], 3), dtype=np.uint8)
    pixels[size[1] // 4 : -size[1] // 4, size[0] // 3 : size[0] // 2] //= 6
    return PIL.Image.fromarray(pixels).convert(mode)


def encoded(image: PIL.Image.Image, format: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def tiff(array: np.ndarray, **options: object) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, array, **options)
    return buffer.getvalue()


def png_chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def png(width: int, height: int, depth: int, colour: int, data: bytes, *more: bytes, interlace: int = 0) -> bytes:
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlace))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(more) + png_chunk(b"IDAT", data) + png_chunk(b"IEND", b"")


def modes() -> Iterator[Entry]:
    for format, suffix, held in (
        ("PNG", "png", ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")),
        ("JPEG", "jpg", ("L", "RGB", "CMYK")),
        ("TIFF", "tif", ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "LAB", "I;16")),
        ("WEBP", "webp", ("RGB", "RGBA")),
        ("BMP", "bmp", ("1", "L", "P", "RGB", "RGBA")),
        ("GIF", "gif", ("L", "P")),
        ("PPM", "ppm", ("1", "L", "RGB")),
    ):
        for mode in held:
            if mode == "I;16":
                image = PIL.Image.fromarray(np.asarray(picture("L")).astype(np.uint16) * 257)
            elif mode == "LAB":
                image = PIL.Image.merge("LAB", picture("RGB").split())
            else:
                image = picture(mode)
            yield f"mode-{mode.replace(';', '')}.{suffix}", encoded(image, format), True
    for quality, subsampling, progressive in itertools.product((5, 50, 100), (0, 1, 2), (False, True)):
        options = {"quality": quality, "subsampling": subsampling, "progressive": progressive}
        yield f"jpeg-{quality}-{subsampling}-{progressive:d}.jpeg", encoded(picture(), "JPEG", **options), True
    for compression in ("tiff_lzw", "tiff_deflate", "tiff_adobe_deflate", "packbits", "jpeg", "raw"):
        options = {} if compression == "raw" else {"compression": compression}
        yield f"tiff-{compression}.tiff", encoded(picture(), "TIFF", **options), True
    yield "tiff-fax.tif", encoded(picture("1"), "TIFF", compression="group4"), True
    yield (
        "tiff-planar-16.tif",
        tiff(np.zeros((3, 40, 60), np.uint16), planarconfig="separate", photometric="rgb"),
        False,
    )
    yield "tiff-float.tif", tiff(np.random.default_rng(0).random((40, 60)).astype(np.float32)), False
    yield "tiff-32-bit.tif", tiff(np.full((40, 60), 1 << 20, np.uint32)), False
    yield "tiff-tiled.tif", tiff(np.asarray(picture()), tile=(16, 16)), True
    yield "webp-lossless.webp", encoded(picture("RGBA"), "WEBP", lossless=True), True
    yield "png-interlaced.png", png(1, 1, 8, 0, zlib.compress(b"\0\x80"), interlace=1), True
    yield "png-clear-colour.png", encoded(picture(), "PNG", transparency=(200, 200, 200)), True
    yield "profile.jpg", encoded(picture(), "JPEG", icc_profile=b"not a profile" * 20), True


def orientations() -> Iterator[Entry]:
    for orientation in (*range(10), 65535):
        exif = PIL.Image.Exif()
        exif[0x0112] = orientation
        for format in ("JPEG", "PNG", "WEBP", "TIFF"):
            yield f"turned-{orientation}.{format.lower()}", encoded(picture(), format, exif=exif), True
    yield "exif-damaged.jpg", encoded(picture(), "JPEG", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff"), True


def frames() -> Iterator[Entry]:
    others = [picture().rotate(angle) for angle in (90, 180)]
    for format, suffix in (("GIF", "gif"), ("PNG", "apng"), ("WEBP", "webp"), ("TIFF", "tif"), ("MPO", "mpo")):
        yield f"frames.{suffix}", encoded(picture(), format, save_all=True, append_images=others), True


def odd_sizes() -> Iterator[Entry]:
    for width, height in ((1, 1), (1, 200), (200, 1), (2, 2), (3, 500), (2000, 3), (7, 7)):
        yield f"size-{width}x{height}.png", encoded(PIL.Image.new("RGB", (width, height), "gray"), "PNG"), True
        yield f"size-{width}x{height}.jpg", encoded(PIL.Image.new("L", (width, height), 200), "JPEG"), True


def lying_names() -> Iterator[Entry]:
    for format, suffix in (("PNG", "jpg"), ("JPEG", "png"), ("WEBP", "gif"), ("TIFF", "bmp"), ("GIF", "ppm")):
        yield f"lying-{format.lower()}.{suffix}", encoded(picture(), format), True
    for format in ("TGA", "PCX", "ICO", "JPEG2000", "EPS", "PDF"):
        yield f"lying-{format.lower()}.png", encoded(picture(), format), False


def wholes() -> dict[str, bytes]:
    return {
        "png": encoded(picture(), "PNG"),
        "jpg": encoded(picture(), "JPEG"),
        "jpeg": encoded(picture(), "JPEG", progressive=True),
        "tif": encoded(picture(), "TIFF"),
        "tiff": encoded(picture(), "TIFF", compression="tiff_lzw"),
        "webp": encoded(picture(), "WEBP"),
        "gif": encoded(picture(), "GIF"),
        "bmp": encoded(picture(), "BMP"),
        "ppm": encoded(picture(), "PPM"),
    }


def truncated() -> Iterator[Entry]:
    """Up to a quarter no format has all its pixels."""
    for suffix, whole in wholes().items():
        for part in (0, 1, 2, 4, 8, 12, 16, 20, 22, 24, 28, 30, 31):
            cut = whole[: len(whole) * part // 32]
            yield f"cut-{part:02d}.{suffix}", cut, False if part <= 24 else None


def flipped() -> Iterator[Entry]:
    for suffix, whole in wholes().items():
        chance = random.Random(suffix)
        for number in range(14):
            data = bytearray(whole)
            for _ in range(1 + number // 4):
                data[chance.randrange(min(len(data), 60 if number % 2 else len(data)))] ^= 1 << chance.randrange(8)
            yield f"flipped-{number:02d}.{suffix}", bytes(data), None


def spoilt_headers() -> Iterator[Entry]:
    for suffix, whole in wholes().items():
        yield f"zeros.{suffix}", bytes(len(whole)), False
        yield f"head-only.{suffix}", whole[:10] + bytes(200), False
        yield f"trailing.{suffix}", whole + b"\0more" * 50, True
    yield "png-without-pixels.png", png(60, 40, 8, 2, b""), False
    yield "png-of-no-size.png", png(0, 0, 8, 2, zlib.compress(b"")), False
    yield "png-of-a-bad-type.png", png(60, 40, 3, 7, zlib.compress(bytes(9000))), False
    yield "png-short-data.png", png(60, 40, 8, 2, zlib.compress(bytes(500))), False


def bombs() -> Iterator[Entry]:
    yield "bomb-of-claims.png", png(2**31 - 1, 2**31 - 1, 8, 2, zlib.compress(b"")), False
    yield "bomb-of-zeros.png", png(60_000, 60_000, 1, 0, zlib.compress(bytes(1 << 20), 9)), False
    text = zlib.compress(bytes(200 << 20), 9)
    yield "bomb-of-text.png", png(1, 1, 8, 0, zlib.compress(b"\0\x80"), png_chunk(b"zTXt", b"t\0\0" + text)), None
    yield "bomb-of-a-profile.png", png(1, 1, 8, 0, zlib.compress(b"\0\x80"), png_chunk(b"iCCP", b"p\0\0" + text)), None
    yield "bomb.gif", b"GIF89a\xff\xff\xff\xff\0\0\0,\0\0\0\0\xff\xff\xff\xff\0\x08\0;", False
    yield "bomb.bmp", b"BM" + struct.pack("<IHHIIiiHHIIIIII", 54, 0, 0, 54, 40, 10**9, 10**9, 1, 24, *[0] * 6), False
    yield "bomb.ppm", b"P6 999999999 999999999 255\n", False
    yield "bomb.tif", encoded(picture(), "TIFF").replace(struct.pack("<H", 60), struct.pack("<H", 65535)), None
    yield "bomb.jpg", encoded(picture(), "JPEG").replace(struct.pack(">HH", 40, 60), b"\xff\xdc\xff\xdc"), False
    yield "squeezed.png", gzip.compress(encoded(picture(), "PNG")), False


def not_images() -> Iterator[Entry]:
    yield "empty.png", b"", False
    yield "text.jpg", b"This is not an image.\n" * 40, False
    yield "page.png", b"<html><body>404 Not Found</body></html>", False
    yield "drawing.png", b"<svg xmlns='http://www.w3.org/2000/svg'/>", False
    yield "noise.webp", random.Random(1).randbytes(5000), False
    yield "program.gif", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n", False
    yield "archive.tif", b"PK\x03\x04" + bytes(100), False
