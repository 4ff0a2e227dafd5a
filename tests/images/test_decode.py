import hashlib
import io
import itertools
import random
import re
import struct
import threading
import warnings
import zlib

import numpy as np
import PIL.Image
import pytest
import tifffile
from PIL import ExifTags, ImageCms, ImageOps

from stn_cli.errors import ImageError, UsageError
from stn_cli.images import MAX_PIXELS, READABLE, FileData, decode, decode_data, read_file, readable

RNG = np.random.default_rng(0)


def gradient(mode, size=(23, 17)):
    """An image of the mode with no two rows or columns alike."""
    bands = len(PIL.Image.new(mode, (1, 1)).getbands())
    y, x = np.mgrid[: size[1], : size[0]]
    channels = [(x * (5 + c) + y * (9 - c) + 31 * c) % 256 for c in range(bands)]
    merged = [PIL.Image.fromarray(channel.astype(np.uint8)) for channel in channels]
    return PIL.Image.merge(mode, merged) if bands > 1 else merged[0].convert(mode)


def encoded(image, format, **options):
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def png(width, height, depth, colour_type, data, *chunks):
    def chunk(name, body):
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, 0)
    middle = b"".join(itertools.starmap(chunk, chunks))
    body = chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + middle + body


def tiff(array, **options):
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, array, **options)
    return buffer.getvalue()


@pytest.fixture
def read(tmp_path):
    """Decode bytes as if they were in a file."""

    def read(data, **options):
        path = tmp_path / "image.png"
        path.write_bytes(data)
        return decode(path, **options)

    return read


def as_channels(image):
    array = np.asarray(image)
    return array[:, :, None] if array.ndim == 2 else array


@pytest.mark.parametrize(
    ("mode", "format"),
    [(mode, format) for mode in ("L", "RGB") for format in ("PNG", "TIFF", "BMP", "PPM", "JPEG")]
    + [(mode, format) for mode in ("LA", "RGBA") for format in ("PNG", "TIFF")]
    + [("RGB", "WEBP"), ("RGBA", "WEBP")],
)
def test_plain_modes_are_kept(read, mode, format):
    data = encoded(gradient(mode), format)
    image = read(data)
    np.testing.assert_array_equal(image.pixels, as_channels(PIL.Image.open(io.BytesIO(data))))
    assert (image.format, image.source_mode) == (format, mode)
    assert (image.exif_orientation, image.frames, image.notes) == (1, 1, ())
    assert (image.sha256, image.file_size) == (hashlib.sha256(data).hexdigest(), len(data))
    assert (image.pixels.dtype, image.pixels.flags.c_contiguous) == (np.uint8, True)


@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize(
    "options",
    [
        {"quality": 30},
        {"quality": 100, "subsampling": 0},
        {"subsampling": 1},
        {"subsampling": 2, "progressive": True},
        {"restart_marker_rows": 1},
        {"keep_rgb": True},
        {"optimize": True, "comment": b"none"},
    ],
)
def test_jpegs_are_read_to_the_values_that_pillow_reads(read, mode, options):
    noise = PIL.Image.fromarray(RNG.integers(0, 256, (57, 83, 3), dtype=np.uint8)).convert(mode)
    data = encoded(noise, "JPEG", **options)
    np.testing.assert_array_equal(read(data).pixels, as_channels(PIL.Image.open(io.BytesIO(data))))


@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize("factor", [2, 4, 8])
@pytest.mark.parametrize("orientation", [1, 6])
def test_jpegs_are_shrunk_as_pillow_drafts_them(mode, factor, orientation):
    exif = PIL.Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    data = encoded(gradient(mode, (160, 96)), "JPEG", exif=exif)
    asked = []
    image = decode_data(FileData(data, ""), shrink=lambda size: asked.append(size) or factor)
    draft = PIL.Image.open(io.BytesIO(data))
    draft.draft(mode, (160 // factor, 96 // factor))
    np.testing.assert_array_equal(image.pixels, as_channels(ImageOps.exif_transpose(draft)))
    assert asked == [image.size] == [(96, 160) if orientation == 1 else (160, 96)]
    assert image.shrunk == factor


@pytest.mark.parametrize(("size", "most", "factor"), [((160, 96), 7, 4), ((164, 96), 8, 4), ((161, 96), 8, 1)])
def test_jpegs_are_shrunk_by_what_divides_their_sides(size, most, factor):
    image = decode_data(FileData(encoded(gradient("L", size), "JPEG"), ""), shrink=lambda _: most)
    assert image.shrunk == factor
    assert image.size == size[::-1]


def test_damage_that_leaves_a_jpeg_whole_is_noted():
    noise = PIL.Image.fromarray(RNG.integers(0, 256, (64, 64), dtype=np.uint8))
    data = bytearray(encoded(noise, "JPEG"))
    assert decode_data(FileData(bytes(data), "")).notes == ()
    start = data.index(b"\xff\xda")
    data[start + 40 : -2] = bytes(len(data) - start - 42)
    image = decode_data(FileData(bytes(data), ""))
    assert image.pixels.shape == (64, 64, 1)
    (note,) = image.notes
    assert note.startswith("warning of the JPEG decoder: Corrupt JPEG data")


@pytest.mark.parametrize("cut", [2000, -2])
def test_a_damaged_jpeg_is_as_pillow_finds_it_however_small_it_is_asked_for(cut):
    data = encoded(PIL.Image.fromarray(RNG.integers(0, 256, (64, 64), dtype=np.uint8)), "JPEG")[:cut]
    with pytest.raises(ImageError, match="truncated"):
        decode_data(FileData(data, ""), shrink=lambda _: 4)
    salvaged = decode_data(FileData(data, ""), shrink=lambda _: 4, salvage=True)
    assert (salvaged.shrunk, salvaged.pixels.shape, salvaged.damage) == (1, (64, 64, 1), "is truncated")


@pytest.mark.parametrize("format", ["PNG", "TIFF", "BMP", "PPM"])
def test_bitmap_becomes_grey(read, format):
    bitmap = gradient("L").convert("1")
    np.testing.assert_array_equal(read(encoded(bitmap, format)).pixels, as_channels(bitmap.convert("L")))


@pytest.mark.parametrize("format", ["PNG", "GIF", "TIFF", "BMP"])
def test_palette_becomes_rgb(read, format):
    image = gradient("RGB").quantize(17)
    np.testing.assert_array_equal(read(encoded(image, format)).pixels, np.asarray(image.convert("RGB")))


@pytest.mark.parametrize(("format", "transparency"), [("PNG", 3), ("PNG", bytes(range(0, 170, 10))), ("GIF", 3)])
def test_palette_with_transparency_becomes_rgba(read, format, transparency):
    data = encoded(gradient("RGB").quantize(17), format, transparency=transparency)
    expected = np.asarray(PIL.Image.open(io.BytesIO(data)).convert("RGBA"))
    assert expected[:, :, 3].min() < 255
    np.testing.assert_array_equal(read(data).pixels, expected)


def test_premultiplied_tiff_is_divided_by_alpha(read):
    rgba = np.array([[[100, 50, 0, 128], [10, 20, 30, 255]]], np.uint8)
    image = read(tiff(rgba, photometric="rgb", extrasamples=["assocalpha"]))
    expected = np.array([[[199, 99, 0, 128], [10, 20, 30, 255]]])
    assert np.abs(image.pixels.astype(int) - expected).max() <= 1


@pytest.mark.parametrize(("mode", "clear"), [("L", 31), ("RGB", (31, 62, 93))])
def test_clear_colour_becomes_alpha(read, mode, clear):
    source = gradient(mode)
    source.putpixel((4, 5), clear)
    image = read(encoded(source, "PNG", transparency=clear))
    matches = (as_channels(source) == clear).all(axis=2)
    assert matches[5, 4]
    np.testing.assert_array_equal(image.pixels[:, :, -1], np.where(matches, 0, 255))
    np.testing.assert_array_equal(image.pixels[:, :, :-1], as_channels(source))


@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("compression", [None, "deflate"])
def test_16_bit_grey_tiff(read, byteorder, compression):
    values = RNG.integers(0, 65536, (17, 23), dtype=np.uint16)
    image = read(tiff(values, byteorder=byteorder, compression=compression))
    assert image.pixels.dtype == np.dtype("=u2")
    np.testing.assert_array_equal(image.pixels[:, :, 0], values)


def test_12_bit_grey_tiff(read):
    values = RNG.integers(0, 4096, (17, 24), dtype=np.uint16)
    values[0, :2] = 0, 4095
    pairs = values.reshape(-1, 2).astype(int)
    packed = np.stack((pairs[:, 0] >> 4, (pairs[:, 0] & 15) << 4 | pairs[:, 1] >> 8, pairs[:, 1] & 255), axis=1)
    strip = packed.astype(np.uint8).tobytes()
    entries = {256: 24, 257: 17, 258: 12, 259: 1, 262: 1, 273: 8, 277: 1, 278: 17, 279: len(strip)}
    fields = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in entries.items())
    directory = struct.pack("<H", len(entries)) + fields + bytes(4)
    image = read(b"II*\0" + struct.pack("<I", 8 + len(strip)) + strip + directory)
    np.testing.assert_allclose(image.pixels[:, :, 0] / 65535, values / 4095, atol=1 / 65535)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("compression", [None, "deflate"])
def test_tiff_in_which_white_is_zero(read, dtype, compression):
    values = RNG.integers(0, np.iinfo(dtype).max, (17, 23), dtype=dtype)
    image = read(tiff(values, photometric="miniswhite", compression=compression))
    np.testing.assert_array_equal(image.pixels[:, :, 0], np.iinfo(dtype).max - values)


def test_16_bit_grey_png_and_ppm(read):
    values = RNG.integers(0, 65536, (3, 4), dtype=np.uint16)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    clear = (b"tRNS", b"\1\2")
    for data in (png(4, 3, 16, 0, rows), b"P5 4 3 65535\n" + values.astype(">u2").tobytes()):
        np.testing.assert_array_equal(read(data).pixels[:, :, 0], values)
    assert read(png(4, 3, 16, 0, rows, clear)).notes == ("clear colour of 16-bit grey dropped",)


def test_32_bit_integers_and_floats(read):
    values = np.array([[0, 65535], [7, 1]], np.int32)
    image = read(encoded(PIL.Image.fromarray(values), "TIFF"))
    assert (image.source_mode, image.pixels.dtype) == ("I", np.uint16)
    np.testing.assert_array_equal(image.pixels[:, :, 0], values)
    for outside in (65536, -1):
        with pytest.raises(ImageError, match=r"outside 0\.\.65535"):
            read(encoded(PIL.Image.fromarray(np.full((2, 2), outside, np.int32)), "TIFF"))
    with pytest.raises(ImageError, match="floating-point"):
        read(encoded(PIL.Image.fromarray(values.astype(np.float32)), "TIFF"))


def deep_colour_files():
    values = RNG.integers(0, 65536, (3, 4, 3), dtype=np.uint16)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    planes = np.moveaxis(values, 2, 0).copy()
    yield values, png(4, 3, 16, 2, rows)
    yield values, tiff(values, photometric="rgb")
    yield values, tiff(values, photometric="rgb", byteorder=">", compression="deflate")
    yield values, tiff(planes, photometric="rgb", planarconfig="separate", compression="deflate")
    yield values, b"P6 4 3 65535\n" + values.astype(">u2").tobytes()


def test_16_bit_colour_is_reduced_and_says_so(read):
    for values, data in deep_colour_files():
        image = read(data)
        assert image.notes == ("16 bits per channel read as 8",)
        assert np.abs(image.pixels - values / 257).max() <= 1


def test_16_bit_planes_that_pillow_misreads_fail(read):
    planes = RNG.integers(0, 65536, (3, 5, 4), dtype=np.uint16)
    with pytest.raises(ImageError, match="16-bit colour planes"):
        read(tiff(planes, photometric="rgb", planarconfig="separate"))


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(read, format, orientation):
    exif = PIL.Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    data = encoded(gradient("RGB"), format, exif=exif)
    image = read(data)
    expected = ImageOps.exif_transpose(PIL.Image.open(io.BytesIO(data)))
    assert image.exif_orientation == orientation
    np.testing.assert_array_equal(image.pixels, np.asarray(expected))
    assert (image.pixels.shape[0] == 23) == (orientation >= 5)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_of_16_bit_grey(read, orientation):
    exif = PIL.Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    low = gradient("L")
    deep = PIL.Image.fromarray(np.asarray(low).astype(np.uint16) * 257)
    for format in ("PNG", "TIFF"):
        one, two = (read(encoded(image, format, exif=exif)).pixels for image in (low, deep))
        np.testing.assert_array_equal(one * np.uint16(257), two)


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_orientation_without_meaning_is_none(read, orientation):
    exif = PIL.Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    assert read(encoded(gradient("RGB"), "JPEG", exif=exif)).exif_orientation == 1


def test_damaged_exif_does_not_lose_the_photo(read):
    image = read(encoded(gradient("RGB"), "PNG", exif=b"Exif\0\0garbage"))
    np.testing.assert_array_equal(image.pixels, np.asarray(gradient("RGB")))
    assert image.notes == ("damaged EXIF data ignored",)


def cmyk_profile():
    """A CMYK profile whose paper is red, so that its use shows: an lut8 of 2 points along each ink."""
    inks = np.array(list(itertools.product((0, 1), repeat=4)))
    light = 80 - inks @ [15, 15, 5, 45]
    lab = np.stack([light * 2.55, 188 - 40 * inks[:, 0], 168 - 40 * inks[:, 2]], axis=1).round()
    matrix = struct.pack(">9i", *(np.eye(3, dtype=int) * 65536).ravel().tolist())
    ramp = bytes(range(256))
    lut = b"mft1\0\0\0\0" + bytes([4, 3, 2, 0]) + matrix + ramp * 4 + lab.astype(np.uint8).tobytes() + ramp * 3
    white = b"XYZ \0\0\0\0" + struct.pack(">3i", 63190, 65536, 54061)
    text = b"text\0\0\0\0test\0\0\0\0"
    description = b"desc\0\0\0\0" + struct.pack(">I", 5) + b"test\0" + bytes(79)
    tags = {b"desc": description, b"cprt": text, b"wtpt": white, b"A2B0": lut}
    table, body, offset = struct.pack(">I", len(tags)), b"", 132 + 12 * len(tags)
    for name, content in tags.items():
        padded = content + bytes(-len(content) % 4)
        table += name + struct.pack(">II", offset + len(body), len(content))
        body += padded
    size = 128 + len(table) + len(body)
    header = struct.pack(">I", size) + b"none\x02\x10\0\0prtrCMYKLab " + bytes(12) + b"acsp"
    header += bytes(28) + struct.pack(">3i", 63190, 65536, 54061)
    return header.ljust(128, b"\0") + table + body


@pytest.mark.parametrize("format", ["JPEG", "TIFF"])
def test_cmyk_goes_through_its_profile(read, format):
    profile = cmyk_profile()
    data = encoded(gradient("CMYK"), format, icc_profile=profile)
    image = read(data)
    stored = PIL.Image.open(io.BytesIO(data))
    source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    expected = ImageCms.profileToProfile(stored, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
    np.testing.assert_array_equal(image.pixels, np.asarray(expected))
    assert np.abs(image.pixels.astype(int) - np.asarray(stored.convert("RGB"))).mean() > 20
    assert image.notes == ("CMYK converted to sRGB through the embedded profile",)
    assert image.icc_profile is None


def test_paper_of_a_cmyk_jpeg_is_light(read):
    """Adobe stores the inks of a JPEG inverted; read wrongly, paper would be black."""
    image = read(encoded(PIL.Image.new("CMYK", (8, 8), (0, 0, 0, 0)), "JPEG"))
    assert image.pixels.min() == 255
    assert image.notes == ("CMYK converted to RGB without a profile",)


@pytest.mark.parametrize("kind", ["sRGB", "damaged"])
def test_cmyk_profile_that_does_not_fit(read, kind):
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    cmyk = gradient("CMYK")
    image = read(encoded(cmyk, "TIFF", icc_profile=srgb if kind == "sRGB" else b"no profile"))
    np.testing.assert_array_equal(image.pixels, np.asarray(cmyk.convert("RGB")))
    assert "embedded profile does not fit CMYK and is ignored" in image.notes
    assert image.icc_profile is None


def test_lab(read):
    lab = np.full((4, 4, 3), (255, 0, 0), np.uint8)
    image = read(tiff(lab, photometric="cielab"))
    assert (image.source_mode, image.pixels.shape) == ("LAB", (4, 4, 3))
    assert image.pixels.min() >= 250


@pytest.mark.parametrize("format", ["PNG", "JPEG", "TIFF", "WEBP"])
def test_other_profiles_are_kept(read, format):
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert read(encoded(gradient("RGB"), format, icc_profile=profile)).icc_profile == profile


@pytest.mark.parametrize("format", ["GIF", "PNG", "WEBP", "TIFF", "MPO"])
def test_first_frame_of_several(read, format):
    frames = [gradient("RGB").rotate(angle) for angle in (0, 90, 180)]
    lossless = {"lossless": True} if format == "WEBP" else {}
    data = encoded(frames[0], format, save_all=True, append_images=frames[1:], **lossless)
    image = read(data)
    assert (image.format, image.frames, image.notes[0]) == (format, 3, "first of 3 frames")
    expected = PIL.Image.open(io.BytesIO(data)).convert("RGB")
    np.testing.assert_array_equal(image.pixels[:, :, :3], np.asarray(expected))


@pytest.mark.parametrize(("quality", "subsampling"), [(30, 2), (75, 1), (95, 0)])
def test_jpeg_tables(read, quality, subsampling):
    data = encoded(gradient("RGB"), "JPEG", quality=quality, subsampling=subsampling)
    tables = read(data).jpeg_tables
    expected = PIL.Image.open(io.BytesIO(data)).quantization
    assert dict(enumerate(map(list, tables.quantization))) == {k: list(v) for k, v in expected.items()}
    assert tables.subsampling == subsampling
    assert read(encoded(gradient("RGB"), "PNG")).jpeg_tables is None


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "is empty"),
        (b"this is a text\n", r"is not an image in a supported format \(PNG, JPEG"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "is not an image in a supported format"),
        (png(4, 4, 8, 2, b"")[:20], "is truncated"),
        (png(4, 4, 8, 2, b""), "is truncated"),
        (png(0, 4, 8, 2, b""), "is damaged: its header cannot be read"),
        (b"P5 4 0 255\n", "is damaged: its header cannot be read"),
        (png(30000, 30000, 8, 2, b""), "30000x30000 pixels exceed the limit of 250000000"),
    ],
)
def test_reasons(read, tmp_path, data, reason):
    with pytest.raises(ImageError, match=rf"^{re.escape(str(tmp_path))}/image\.png {reason}") as caught:
        read(data)
    assert "BytesIO" not in str(caught.value)


def test_paths_that_cannot_be_read(tmp_path):
    with pytest.raises(ImageError, match="cannot be read: no such file"):
        decode(tmp_path / "missing.png")
    with pytest.raises(ImageError, match="cannot be read: is a directory"):
        decode(tmp_path)


def test_unreadable_file(open_folder, ordinary_user):
    path = open_folder / "image.png"
    path.write_bytes(encoded(gradient("L"), "PNG"))
    with ordinary_user():
        decode(path)
    path.chmod(0)
    with ordinary_user(), pytest.raises(ImageError, match="cannot be read: permission denied"):
        decode(path)


@pytest.mark.parametrize("format", ["PNG", "TIFF", "WEBP", "GIF"])
@pytest.mark.parametrize("pillow_limit", [1, 10**9, None])
def test_the_limit_is_ours_and_pillows_is_left_as_it_was(read, monkeypatch, format, pillow_limit):
    monkeypatch.setattr(PIL.Image, "MAX_IMAGE_PIXELS", pillow_limit)
    data = encoded(gradient("L"), format)
    assert read(data, max_pixels=23 * 17).pixels.shape[:2] == (17, 23)
    with pytest.raises(ImageError, match=f"23x17 pixels exceed the limit of {23 * 17 - 1}"):
        read(data, max_pixels=23 * 17 - 1)
    assert pillow_limit == PIL.Image.MAX_IMAGE_PIXELS
    assert MAX_PIXELS == 250_000_000


def test_pillows_warnings_become_notes_in_every_thread(tmp_path, capfd):
    """An acTL chunk of no frames makes Pillow warn; a plain file beside it must get none of that."""
    animated, plain = tmp_path / "animated.png", tmp_path / "plain.png"
    rows = b"\0abc" * 40
    animated.write_bytes(png(3, 40, 8, 0, rows, (b"acTL", bytes(8))))
    plain.write_bytes(png(3, 40, 8, 0, rows))
    notes = {animated: set(), plain: set()}

    def work(path):
        for _ in range(50):
            notes[path].add(decode(path).notes)

    before = (warnings.showwarning, list(warnings.filters), PIL.Image.MAX_IMAGE_PIXELS)
    threads = [threading.Thread(target=work, args=(path,)) for path in (animated, plain) * 3]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert notes == {animated: {("Invalid APNG, will use default PNG image if possible",)}, plain: {()}}
    assert (warnings.showwarning, list(warnings.filters), PIL.Image.MAX_IMAGE_PIXELS) == before
    assert capfd.readouterr().err == ""


SAMPLES = {
    "png": encoded(gradient("RGB"), "PNG"),
    "png-palette": encoded(gradient("RGB").quantize(9), "PNG", transparency=2),
    "jpeg": encoded(gradient("RGB"), "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\x01\1\x12\0\3\0\0\0\1\0\6\0\0"),
    "jpeg-progressive": encoded(gradient("RGB"), "JPEG", progressive=True),
    "jpeg-cmyk": encoded(gradient("CMYK"), "JPEG", icc_profile=cmyk_profile()),
    "tiff": encoded(gradient("RGB"), "TIFF"),
    "tiff-lzw": encoded(gradient("RGB"), "TIFF", compression="tiff_lzw"),
    "tiff-deflate-16": tiff(RNG.integers(0, 65536, (17, 23), dtype=np.uint16), compression="deflate"),
    "tiff-jpeg": encoded(gradient("RGB"), "TIFF", compression="jpeg"),
    "webp": encoded(gradient("RGB"), "WEBP"),
    "webp-lossless": encoded(gradient("RGBA"), "WEBP", lossless=True),
    "gif": encoded(gradient("RGB"), "GIF", save_all=True, append_images=[gradient("RGB").rotate(90)]),
    "bmp": encoded(gradient("RGB"), "BMP"),
    "ppm": encoded(gradient("RGB"), "PPM"),
}


def attempt(read, data):
    """The image or None; anything but ImageError escapes."""
    try:
        return read(data, max_pixels=1_000_000)
    except ImageError as error:
        assert "BytesIO" not in str(error)
        return None


@pytest.mark.parametrize("name", SAMPLES)
def test_truncated_file_fails_or_has_all_its_pixels(read, name, capfd):
    whole = SAMPLES[name]
    expected = read(whole)
    for length in range(1, len(whole), max(1, len(whole) // 60)):
        image = attempt(read, whole[:length])
        if image is not None:
            np.testing.assert_array_equal(image.pixels, expected.pixels)
            assert length > len(whole) * 0.5
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("name", SAMPLES)
def test_damaged_file_fails_or_gives_a_valid_image(read, name, capfd):
    whole, chance = SAMPLES[name], random.Random(name)
    for _ in range(120):
        damaged = bytearray(whole)
        for _ in range(chance.choice((1, 1, 3, 10))):
            # Headers are where the decisions are, so half of the damage goes there.
            place = chance.randrange(min(len(whole), chance.choice((80, len(whole)))))
            damaged[place] ^= 1 << chance.randrange(8)
        image = attempt(read, bytes(damaged))
        if image is not None:
            height, width, channels = image.pixels.shape
            assert min(height, width) > 0
            assert channels in (1, 2, 3, 4)
            assert image.pixels.dtype in (np.uint8, np.uint16)
            assert image.pixels.flags.c_contiguous
    assert capfd.readouterr() == ("", "")


LENIENT = ("png", "jpeg", "jpeg-progressive", "bmp", "ppm")
"""Formats of which Pillow shows what has arrived."""


@pytest.mark.parametrize("name", LENIENT)
def test_salvage_reads_what_there_is_of_a_truncated_file_and_says_so(tmp_path, name):
    pixels = np.random.default_rng(0).integers(0, 256, (80, 60, 3), dtype=np.uint8)
    options = {"progressive": True} if name == "jpeg-progressive" else {}
    whole = encoded(PIL.Image.fromarray(pixels), name.partition("-")[0].upper(), **options)
    (tmp_path / "whole").write_bytes(whole)
    (tmp_path / "cut").write_bytes(whole[: len(whole) * 3 // 4])
    expected = decode(tmp_path / "whole")
    assert expected.damage is None
    with pytest.raises(ImageError, match="is truncated"):
        decode(tmp_path / "cut")
    image = decode_data(read_file(tmp_path / "cut"), salvage=True)
    assert image.damage == "is truncated"
    assert image.pixels.shape == expected.pixels.shape
    same = (image.pixels == expected.pixels).all(axis=(1, 2))
    if name != "jpeg-progressive":
        assert 0.5 < same.mean() < 1
    assert not decode_data(read_file(tmp_path / "whole"), salvage=True).damage


@pytest.mark.parametrize("name", SAMPLES)
def test_salvage_of_damage_gives_a_marked_image_or_the_error_it_gave_before(tmp_path, name, capfd):
    whole, chance = SAMPLES[name], random.Random(name)
    for _ in range(60):
        damaged = bytearray(whole)[: chance.randrange(1, len(whole))]
        damaged[chance.randrange(len(damaged))] ^= 1 << chance.randrange(8)
        (tmp_path / "x").write_bytes(damaged)
        file = read_file(tmp_path / "x")
        try:
            strict, error = decode_data(file, max_pixels=1_000_000), None
        except ImageError as raised:
            strict, error = None, str(raised)
        try:
            image = decode_data(file, max_pixels=1_000_000, salvage=True)
        except ImageError as raised:
            assert str(raised) == error
            continue
        assert image.damage == error
        assert strict is None or np.array_equal(strict.pixels, image.pixels)
    assert capfd.readouterr() == ("", "")


def test_salvage_in_one_thread_changes_nothing_in_another(tmp_path):
    data = encoded(gradient("RGB", (230, 170)), "JPEG")
    (tmp_path / "cut").write_bytes(data[: len(data) // 2])
    file = read_file(tmp_path / "cut")
    wrong = []

    def strict():
        for _ in range(100):
            try:
                decode_data(file)
                wrong.append("read without a mark")
            except ImageError:
                pass

    def salvage():
        for _ in range(100):
            if decode_data(file, salvage=True).damage is None:
                wrong.append("no mark")

    threads = [threading.Thread(target=work) for work in (strict, salvage, strict, salvage)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_other_formats_are_read_only_if_allowed(read, tmp_path):
    data = encoded(gradient("RGB"), "TGA")
    with pytest.raises(ImageError, match="not an image in a supported format"):
        read(data)
    (tmp_path / "x.tga").write_bytes(data)
    image = decode_data(read_file(tmp_path / "x.tga"), formats=readable(["tga"]))
    np.testing.assert_array_equal(image.pixels, as_channels(gradient("RGB")))
    assert set(readable([])) == set(READABLE)


@pytest.mark.parametrize("name", ["EPS", "eps", "PDF", "nonsense"])
def test_formats_that_are_programs_or_unknown_are_refused(name):
    with pytest.raises(UsageError, match="--allow-format"):
        readable([name])
