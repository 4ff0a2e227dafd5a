import io

import numpy as np
import PIL.Image
import pytest
from PIL import ImageCms

from stn_cli.errors import ImageError, UsageError
from stn_cli.images import SUFFIXES, decode, encode, output_format

LOSSLESS = ["PNG", "WEBP", "TIFF", "BMP", "PPM"]


def noise(channels, dtype=np.uint8, shape=(37, 23)):
    rng = np.random.default_rng(channels)
    return rng.integers(0, np.iinfo(dtype).max, (*shape, channels), dtype=dtype, endpoint=True)


def photo(channels=3, shape=(96, 128)):
    """Smooth enough for JPEG to be close."""
    y, x = np.mgrid[: shape[0], : shape[1]]
    waves = [127 + 100 * np.sin(x / (9 + c) + y / (17 - c)) for c in range(channels)]
    return np.stack(waves, axis=2).round().astype(np.uint8)


def reopen(encoded):
    image = PIL.Image.open(io.BytesIO(encoded.data))
    image.load()
    return image


def reread(encoded, tmp_path):
    path = tmp_path / "image"
    path.write_bytes(encoded.data)
    return decode(path)


@pytest.mark.parametrize("format", LOSSLESS)
@pytest.mark.parametrize("channels", [1, 3])
def test_lossless_round_trip(format, channels, tmp_path):
    pixels = noise(channels)
    encoded = encode(pixels, format)
    back = reread(encoded, tmp_path)
    assert (back.format, encoded.notes) == (format, ())
    # WEBP has no grey: it comes back as three equal channels.
    np.testing.assert_array_equal(back.pixels, np.broadcast_to(pixels, back.pixels.shape))


@pytest.mark.parametrize("format", ["PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("channels", [2, 4])
def test_alpha_round_trip_keeps_the_colour_of_clear_pixels(format, channels, tmp_path):
    pixels = noise(channels)
    pixels[:5, :, -1] = 0
    back = reread(encode(pixels, format), tmp_path).pixels
    expected = pixels if back.shape[2] == channels else pixels[:, :, [0, 0, 0, 1]]
    np.testing.assert_array_equal(back, expected)


@pytest.mark.parametrize("format", ["PNG", "TIFF", "PPM"])
def test_16_bit_round_trip(format, tmp_path):
    pixels = noise(1, np.uint16)
    encoded = encode(pixels, format)
    assert encoded.notes == ()
    np.testing.assert_array_equal(reread(encoded, tmp_path).pixels, pixels)


@pytest.mark.parametrize("format", ["BMP", "WEBP", "JPEG"])
def test_16_bit_is_reduced_where_it_does_not_fit(format, tmp_path):
    pixels = photo(1)
    encoded = encode(pixels.astype(np.uint16) * 257, format)
    assert encoded.notes == ("16 bits reduced to 8",)
    back = reread(encoded, tmp_path).pixels
    assert np.abs(back.astype(int) - pixels).max() <= (3 if format == "JPEG" else 0)


@pytest.mark.parametrize("format", ["BMP", "PPM"])
@pytest.mark.parametrize("channels", [2, 4])
def test_alpha_is_laid_over_white_as_pillow_does_it(format, channels, tmp_path):
    pixels = noise(channels)
    encoded = encode(pixels, format)
    assert encoded.notes == (f"alpha laid over white, as {format} cannot hold it",)
    rgba = PIL.Image.fromarray(pixels).convert("RGBA")
    over = PIL.Image.alpha_composite(PIL.Image.new("RGBA", rgba.size, "white"), rgba)
    expected = np.asarray(over.convert("RGB"))[:, :, : channels - 1].astype(int)
    assert np.abs(reread(encoded, tmp_path).pixels - expected).max() <= 1


def test_jpeg_from_a_jpeg_is_no_coarser(tmp_path):
    for quality, subsampling in ((30, 2), (75, 1), (98, 0)):
        path = tmp_path / "source.jpg"
        PIL.Image.fromarray(photo()).save(path, quality=quality, subsampling=subsampling)
        source = decode(path)
        written = reopen(encode(source.pixels, "JPEG", jpeg_tables=source.jpeg_tables))
        with PIL.Image.open(path) as original:
            assert written.quantization == original.quantization
            assert written.layer == original.layer
        assert np.abs(np.asarray(written).astype(int) - source.pixels).mean() < 1.5


def test_jpeg_of_grey_source(tmp_path):
    PIL.Image.fromarray(photo(1)[:, :, 0]).save(tmp_path / "grey.jpg", quality=60)
    source = decode(tmp_path / "grey.jpg")
    written = reopen(encode(source.pixels, "JPEG", jpeg_tables=source.jpeg_tables))
    assert (written.mode, tuple(written.quantization[0])) == ("L", source.jpeg_tables.quantization[0])


def test_jpeg_quality_given_and_by_default(tmp_path):
    path = tmp_path / "source.jpg"
    PIL.Image.fromarray(photo()).save(path, quality=30)
    tables = decode(path).jpeg_tables

    def tables_of(quality):
        buffer = io.BytesIO()
        PIL.Image.new("RGB", (8, 8)).save(buffer, "JPEG", quality=quality)
        return PIL.Image.open(buffer).quantization

    given = reopen(encode(photo(), "JPEG", quality=80, jpeg_tables=tables))
    default = reopen(encode(photo(), "JPEG"))
    assert given.quantization == tables_of(80)
    assert default.quantization == tables_of(92)
    assert {component[1:3] for component in default.layer} == {(1, 1)}  # 4:4:4


@pytest.mark.parametrize("format", ["PNG", "TIFF", "WEBP", "JPEG"])
def test_optimized_files_are_smaller_and_hold_the_same(format, tmp_path):
    usual, optimized = (encode(photo(), format, optimize=optimize) for optimize in (False, True))
    assert len(optimized.data) < len(usual.data)
    np.testing.assert_array_equal(*(reread(each, tmp_path).pixels for each in (usual, optimized)))


def test_webp_quality_is_lossy_and_smaller():
    pixels = noise(3, shape=(128, 128))
    assert len(encode(pixels, "WEBP", quality=50).data) < len(encode(pixels, "WEBP").data) / 2


@pytest.mark.parametrize("format", list(SUFFIXES))
def test_icc_profile(format, tmp_path):
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    encoded = encode(photo(), format, icc_profile=profile)
    back = reread(encoded, tmp_path)
    if format in ("BMP", "PPM"):
        assert back.icc_profile is None
        assert encoded.notes == (f"ICC profile dropped, which {format} cannot hold",)
    else:
        assert (back.icc_profile, encoded.notes) == (profile, ())


def test_too_large_for_the_format():
    with pytest.raises(ImageError, match="1x16384 pixels cannot be written as WEBP"):
        encode(np.zeros((16384, 1, 3), np.uint8), "WEBP")


@pytest.mark.parametrize(
    ("source", "dtype", "channels", "requested", "expected"),
    [
        ("PNG", np.uint8, 3, None, "PNG"),
        ("JPEG", np.uint8, 1, None, "JPEG"),
        ("MPO", np.uint8, 3, None, "JPEG"),
        ("GIF", np.uint8, 4, None, "PNG"),
        ("TIFF", np.uint16, 1, None, "TIFF"),
        ("PPM", np.uint16, 1, None, "PPM"),
        ("BMP", np.uint8, 4, None, "PNG"),
        ("PNG", np.uint16, 1, "jpg", "JPEG"),
        ("PNG", np.uint8, 4, ".TIF", "TIFF"),
        ("JPEG", np.uint8, 3, "webp", "WEBP"),
        ("JPEG", np.uint8, 3, "Jpeg", "JPEG"),
    ],
)
def test_output_format(source, dtype, channels, requested, expected):
    assert output_format(source, dtype, channels, requested) == expected


@pytest.mark.parametrize("requested", ["gif", "pdf", "eps", ""])
def test_format_that_is_not_written(requested):
    with pytest.raises(UsageError, match="PNG, JPEG"):
        output_format("PNG", np.uint8, 3, requested)
