"""Image files: which to take (discover), their pixels (decode, encode), and what outputs are called (naming)."""

from stn_cli.images.containment import contained_pillow
from stn_cli.images.decode import (
    MAX_PIXELS,
    SHRINKS,
    FileData,
    Image,
    JpegTables,
    Pixels,
    Shrink,
    Size,
    decode,
    decode_data,
    named,
    read_file,
)
from stn_cli.images.discover import Source, discover
from stn_cli.images.encode import JPEG_QUALITY, Encoded, encode, output_format
from stn_cli.images.formats import FORMAT_OF_SUFFIX, READABLE, SUFFIXES, format_of_suffix, readable
from stn_cli.images.naming import Collision, find_collisions, output_path
from stn_cli.images.storage import (
    Staged,
    check_free,
    exclusive,
    make_folder,
    publish,
    remove_leftovers,
    stage,
    withdraw,
    write_atomically,
)

__all__ = [
    "FORMAT_OF_SUFFIX",
    "JPEG_QUALITY",
    "MAX_PIXELS",
    "READABLE",
    "SHRINKS",
    "SUFFIXES",
    "Collision",
    "Encoded",
    "FileData",
    "Image",
    "JpegTables",
    "Pixels",
    "Shrink",
    "Size",
    "Source",
    "Staged",
    "check_free",
    "contained_pillow",
    "decode",
    "decode_data",
    "discover",
    "encode",
    "exclusive",
    "find_collisions",
    "format_of_suffix",
    "make_folder",
    "named",
    "output_format",
    "output_path",
    "publish",
    "read_file",
    "readable",
    "remove_leftovers",
    "stage",
    "withdraw",
    "write_atomically",
]
