"""Where the picture of an inspection goes, settled before anything is looked at."""

from pathlib import Path

from stn_cli.errors import NoInputError, OutputExistsError, StorageError, UsageError
from stn_cli.images import FORMAT_OF_SUFFIX, check_free, encode, make_folder, write_atomically
from stn_cli.images.formats import INSPECTED
from stn_cli.reports.inspection import Inspection
from stn_cli.reports.overlay import overlay


def picture_path(image: Path, out: Path | None = None, *, overwrite: bool = False) -> Path:
    """`out`, or `img.inspect.png` beside the image.

    Raises:
        NoInputError: there is no such image.
        UsageError: `out` is not the name of a PNG.
        OutputExistsError: it exists and is not to be overwritten, or is the image itself.
        StorageError: one of them cannot be looked at.
    """
    stem = image.stem if image.suffix.lower() in FORMAT_OF_SUFFIX else image.name
    target = image.with_name(f"{stem}{INSPECTED}.png") if out is None else out
    if target.suffix.lower() != ".png":
        raise UsageError(f"-o {target} does not end in .png")
    try:
        if not image.exists():
            raise NoInputError(f"{image} does not exist", remedy="Name an image.")
        if target.exists() and target.samefile(image):
            raise OutputExistsError(f"{target} is the image itself", remedy="Choose another file with -o.")
    except OSError as error:
        raise StorageError(f"cannot look at {error.filename}: {error.strerror}") from error
    if not overwrite:
        check_free(target)
    return target


def write_picture(inspection: Inspection, target: Path) -> None:
    """Draws and writes; StorageError if it cannot be written."""
    make_folder(target.parent)
    write_atomically(target, encode(overlay(inspection), "PNG").data)
