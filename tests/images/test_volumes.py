"""Volume files, as NumPy and tifffile write them."""

import io
import struct

import numpy as np
import PIL.Image
import pytest
import tifffile

from stn_cli.errors import ImageError, UsageError
from stn_cli.images import FileData
from stn_cli.images.volumes import (
    checked_voxels,
    decode_volume,
    encode_volume,
    holds_volume,
    volume_format,
)

TYPES = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "float16", "float32", "float64")


def file(data):
    return FileData(data, sha256="")


def npy(array, **options):
    buffer = io.BytesIO()
    np.save(buffer, array, **options)
    return buffer.getvalue()


def voxels(dtype, shape=(3, 4, 5)):
    return np.random.default_rng(0).uniform(0, 100, shape).astype(dtype)


def extremes(dtype, shape=(4, 6, 8)):
    """Numbers over the whole range of a type."""
    if np.dtype(dtype).kind == "f":
        return voxels(dtype, shape)
    limits = np.iinfo(dtype)
    return np.random.default_rng(0).integers(limits.min, limits.max, shape, dtype, endpoint=True)


def tiff(pages, **options):
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, pages, photometric="minisblack", **options)
    return buffer.getvalue()


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("order", ["<", ">"])
def test_an_array_of_numpy(dtype, order):
    stored = np.asfortranarray(voxels(np.dtype(dtype).newbyteorder(order)))
    volume = decode_volume(file(npy(stored)))
    np.testing.assert_array_equal(volume.voxels, stored)
    assert (volume.voxels.dtype, volume.format) == (np.dtype(dtype), "NPY")
    assert volume.voxels.flags.c_contiguous
    assert volume.voxels.dtype.isnative


@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int16", "uint32", "int32", "float32"])
def test_the_pages_of_a_tiff(dtype):
    pages = extremes(dtype)
    volume = decode_volume(file(tiff(pages)))
    np.testing.assert_array_equal(volume.voxels, pages)
    assert (volume.voxels.dtype, volume.format) == (np.dtype(dtype), "TIFF")


@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int16", "int32", "float32"])
def test_what_is_written_as_tiff_others_read(dtype):
    pages = extremes(dtype)
    read = tifffile.imread(io.BytesIO(encode_volume(pages, "TIFF")))
    np.testing.assert_array_equal(read, pages)
    assert read.dtype == pages.dtype


@pytest.mark.parametrize("dtype", TYPES)
def test_what_is_written_as_npy_numpy_reads(dtype):
    array = voxels(dtype)
    read = np.load(io.BytesIO(encode_volume(array, "NPY")))
    np.testing.assert_array_equal(read, array)
    assert read.dtype == array.dtype


def test_tiff_has_no_doubles():
    with pytest.raises(ImageError, match="TIFF cannot hold pages of float64"):
        encode_volume(voxels("float64"), "TIFF")


@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int16", "int32", "float32"])
def test_big_endian_pages_are_read_or_refused(dtype):
    stored = extremes(dtype)
    np.testing.assert_array_equal(decode_volume(file(tiff(stored, byteorder=">"))).voxels, stored)
    packed = file(tiff(stored, byteorder=">", compression="zlib"))
    if stored.itemsize == 1:
        np.testing.assert_array_equal(decode_volume(packed).voxels, stored)
    else:
        with pytest.raises(ImageError, match="store them little-endian"):
            decode_volume(packed)


class Trap:
    def __reduce__(self):
        return (pytest.fail, ("the pickle was run",))


def lying(array, shape):
    """The array under a header that claims another shape."""
    data = npy(array)
    length = struct.unpack("<H", data[8:10])[0]
    header = data[10 : 10 + length].decode().replace(str(array.shape), str(shape)).rstrip()
    return data[:8] + struct.pack("<H", length) + (header.ljust(length - 1) + "\n").encode() + data[10 + length :]


def with_rgb():
    buffer = io.BytesIO()
    pages = [PIL.Image.new("RGB", (4, 4))] * 3
    pages[0].save(buffer, "TIFF", save_all=True, append_images=pages[1:])
    return buffer.getvalue()


def of_two_sizes():
    buffer = io.BytesIO()
    pages = [PIL.Image.new("L", (4, 4)), PIL.Image.new("L", (5, 4))]
    pages[0].save(buffer, "TIFF", save_all=True, append_images=pages[1:])
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is empty"),
        (b"\x93NUMPY", "is damaged"),
        (b"\x93NUMPY\x01\x00\x10\x00nonsense", "is damaged"),
        (b"\x93NUMPY\x01\x00\x10\x00(((((((((((((((\n", "is damaged"),
        (b"\x93NUMPY\x02\x00\xff\xff\xff\xff{}", "is damaged"),
        (npy(voxels("uint8"))[:-1], "is truncated"),
        (npy(voxels("uint8")) + b"!", "is too long"),
        (lying(voxels("uint8"), (3, 4, 6)), "is truncated"),
        (lying(voxels("uint8"), (9999, 9999, 9999)), "exceed the limit"),
        (npy(np.array([[[Trap()]]]), allow_pickle=True), "is no volume"),
        (npy(np.full((2, 2, 2), Trap()), allow_pickle=True), "holds numbers of type object"),
        (npy(np.zeros((2, 2, 2), complex)), "holds numbers of type complex128"),
        (npy(np.zeros((2, 2, 2), bool)), "holds numbers of type bool"),
        (npy(np.zeros((4, 4))), "has 2 dimensions"),
        (npy(np.zeros((1, 4, 4))), "is no volume"),
        (npy(np.zeros((0, 4, 4))), "is no volume"),
        (npy(np.full((2, 2, 2), np.nan)), "not finite"),
        (npy(np.full((2, 2, 2), np.inf, np.float32)), "not finite"),
        (b"GIF89a", "neither NumPy's .npy, nor TIFF of float32"),
        (tiff(voxels("uint8", (4, 6, 8)))[:150], "is damaged|neither"),
        (tiff(voxels("float64", (4, 6, 8))), "nor TIFF of float32"),
        (with_rgb(), "pages of mode RGB"),
        (of_two_sizes(), "page 2 differs from the first"),
        (tiff(voxels("uint8", (1, 6, 8))[0]), "is no volume"),
    ],
)
def test_what_is_no_volume_says_why(data, message):
    with pytest.raises(ImageError, match=message):
        decode_volume(file(data))


def test_a_large_one_is_refused_by_its_header():
    with pytest.raises(ImageError, match="exceed the limit of 59"):
        decode_volume(file(npy(voxels("uint8"))), max_voxels=59)
    assert decode_volume(file(npy(voxels("uint8"))), max_voxels=60).voxels.size == 60


@pytest.mark.parametrize("shape", ["(0x{}, 2, 2)", "(2, 0x{}, 0)", "(0x{}, 1, 1)"])
def test_a_side_of_thousands_of_digits_is_a_failure_like_others(shape):
    header = ("{'descr': '|u1', 'fortran_order': False, 'shape': " + shape.format("f" * 9000) + "}\n").encode()
    with pytest.raises(ImageError):
        decode_volume(file(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + bytes(8)))


def test_a_limit_above_the_usual_one_is_one(monkeypatch):
    monkeypatch.setattr("stn_cli.images.volumes.MAX_PIXELS", 10)
    assert decode_volume(file(npy(voxels("uint8"))), max_voxels=100).voxels.size == 60


@pytest.mark.parametrize("array", [np.zeros((2, 2)), np.zeros((2, 2, 2, 2)), np.full((2, 2, 2), np.nan)])
def test_arrays_in_memory_are_looked_at_too(array):
    with pytest.raises(ImageError):
        checked_voxels(array)


def test_which_files_hold_volumes():
    assert holds_volume(npy(voxels("uint8")))
    assert holds_volume(tiff(voxels("uint8")))
    assert not holds_volume(tiff(voxels("uint8")[0]))
    assert not holds_volume(npy(voxels("uint8")[0]))
    assert not holds_volume(of_two_sizes())
    assert not holds_volume(with_rgb())
    assert not holds_volume(b"nothing")


def test_formats():
    assert volume_format("TIFF") == "TIFF"
    assert volume_format("TIFF", "npy") == volume_format("TIFF", ".NPY") == "NPY"
    assert volume_format("NPY", "tif") == "TIFF"
    with pytest.raises(UsageError, match="png holds no volume"):
        volume_format("NPY", "png")
