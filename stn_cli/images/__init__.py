"""Image files: which to take (discover), their pixels (decode, encode), and what outputs are called (naming)."""

from stn_cli.images.decode import MAX_PIXELS, Image, JpegTables, Pixels, decode
from stn_cli.images.discover import Source, discover
from stn_cli.images.encode import JPEG_QUALITY, Encoded, encode, output_format, write_atomically
from stn_cli.images.formats import FORMAT_OF_SUFFIX, READABLE, SUFFIXES
from stn_cli.images.naming import Collision, find_collisions, output_path

__all__ = [
    "FORMAT_OF_SUFFIX",
    "JPEG_QUALITY",
    "MAX_PIXELS",
    "READABLE",
    "SUFFIXES",
    "Collision",
    "Encoded",
    "Image",
    "JpegTables",
    "Pixels",
    "Source",
    "decode",
    "discover",
    "encode",
    "find_collisions",
    "output_format",
    "output_path",
    "write_atomically",
]
