"""The image formats that are opened and written, by Pillow's names for them."""

from collections.abc import Iterable, Mapping

from stn_cli.errors import UsageError

READABLE = ("PNG", "JPEG", "TIFF", "WEBP", "BMP", "GIF", "PPM")
"""What a file may hold, whatever its name says. An MPO is opened as the JPEG it begins with."""

NEVER = frozenset({"EPS"})
"""Not even if asked for: Pillow hands these to an interpreter of programs, Ghostscript."""

FORMAT_OF_SUFFIX: Mapping[str, str] = {
    ".png": "PNG",
    ".apng": "APNG",
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".jpe": "JPEG",
    ".jfif": "JPEG",
    ".mpo": "MPO",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".webp": "WEBP",
    ".bmp": "BMP",
    ".gif": "GIF",
    ".ppm": "PPM",
    ".pgm": "PPM",
    ".pnm": "PPM",
    ".pbm": "PBM",
}
"""What a name promises. APNG, MPO, GIF and PBM are never written, so such an output gets another suffix."""

SUFFIXES = {
    "PNG": ".png",
    "JPEG": ".jpg",
    "WEBP": ".webp",
    "TIFF": ".tif",
    "BMP": ".bmp",
    "PPM": ".ppm",
}
"""The formats that are written, and the suffix of each."""

RECTIFIED = ".rectified"
"""Stands before the suffix of an output that lies beside its input."""

INSPECTED = ".inspect"
"""Likewise, of a picture that shows what was found in an image."""

RECORDS = "theta.jsonl"
"""Of a run, in its output folder."""


def is_output(name: str) -> bool:
    """Whether a file's name says that stn made it, beside an input."""
    return name.rpartition(".")[0].endswith((RECTIFIED, INSPECTED))


def readable(more: Iterable[str]) -> tuple[str, ...]:
    """The formats that may be opened if some are allowed beyond the usual ones; UsageError for what cannot be."""
    more = [name.upper() for name in more]
    known = _all_of_pillow() if more else frozenset()  # which takes a while
    for name in more:
        if name in NEVER:
            raise UsageError(f"--allow-format {name} is refused: such files are programs", remedy="Convert them first.")
        if name not in known:
            choice = ", ".join(sorted(known - NEVER - set(READABLE)))
            raise UsageError(
                f"--allow-format {name} is not a format that Pillow reads here", remedy=f"One of {choice}."
            )
    return tuple(dict.fromkeys((*READABLE, *more)))


def format_of_suffix(formats: Iterable[str]) -> Mapping[str, str]:
    """`FORMAT_OF_SUFFIX`, and the suffixes of further formats."""
    more = set(formats) - set(READABLE)
    if not more:
        return FORMAT_OF_SUFFIX
    from PIL import Image  # noqa: PLC0415  not to be loaded where only names are looked at

    return {suffix: name for suffix, name in Image.EXTENSION.items() if name in more} | dict(FORMAT_OF_SUFFIX)


def _all_of_pillow() -> frozenset[str]:
    from PIL import Image  # noqa: PLC0415  as above

    Image.init()
    return frozenset(Image.OPEN)
