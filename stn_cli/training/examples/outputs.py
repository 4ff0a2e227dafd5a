"""What `stn rectify` made in folders of the data, by its records."""

import posixpath
from contextlib import suppress

import msgspec

from stn_cli.images.formats import RECORDS
from stn_cli.training.examples.files import Files


class _Place(msgspec.Struct):
    relative: str


class _Record(msgspec.Struct):
    """As much of a line of `theta.jsonl` as it takes."""

    source: _Place
    output: _Place | None = None


def output_folders(files: Files) -> tuple[str, ...]:
    """Folders below the root with records of a run, each with its `/`."""
    return tuple(name.removesuffix(RECORDS) for name in files.names if name.endswith(f"/{RECORDS}"))


def recorded_crops(files: Files) -> set[str]:
    """Crops in such folders of images that are there as well."""
    there, crops = set(files.names), set()
    for folder in output_folders(files):
        for line in files.read(folder + RECORDS).splitlines():
            with suppress(msgspec.DecodeError, UnicodeDecodeError):
                record = msgspec.json.decode(line, type=_Record)
                if record.output is not None and _below(folder, record.source) in there:
                    crops.add(_below(folder, record.output))
    return crops


def _below(folder: str, place: _Place) -> str:
    return posixpath.normpath(folder + place.relative)
