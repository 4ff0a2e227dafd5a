"""Where the output of an input goes, and what must not happen there."""

import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from stn_cli.images.discover import Source, canonical_names
from stn_cli.images.formats import FORMAT_OF_SUFFIX, RECTIFIED


class Collision(NamedTuple):
    """The output of `source` would replace `target`, which is the output of `other` or `other` itself."""

    source: Source
    other: Source
    target: Path


def output_path(source: Source, out_dir: Path | None, suffix: str, known: Mapping[str, str] = FORMAT_OF_SUFFIX) -> Path:
    """`out_dir` / the relative name, or `img.rectified.png` beside the input; the name then ends in `suffix`.

    A suffix that already says the same format stays as the user wrote it (`.jpeg`, `.JPG`). One that says no image
    format is part of the name: `scan.001` becomes `scan.001.png`, or all of its kind would become `scan.png`.
    """
    path = source.path if out_dir is None else out_dir / source.relative
    said = known.get(path.suffix.lower())
    stem = path.name if said is None else path.stem
    if said == known[suffix]:
        suffix = path.suffix
    return path.with_name(f"{stem}{RECTIFIED if out_dir is None else ''}{suffix}")


def find_collisions(targets: Sequence[tuple[Source, Path]]) -> list[Collision]:
    """Outputs that would replace an input or another output; `targets` are all inputs, each with its output.

    Names that differ only in case or in Unicode normalisation count as equal, since some file systems take them
    for one. An input that is a link stands for its own name and for the file it points to.
    """
    canonical = canonical_names()

    def key(path: Path) -> str:
        return unicodedata.normalize("NFC", unicodedata.normalize("NFC", canonical(path)).casefold())

    inputs = {key(name): source for source, _ in targets for name in _names(source.path)}
    outputs: dict[str, Source] = {}
    collisions = []
    for source, target in targets:
        name = key(target)
        other = inputs[name] if name in inputs else outputs.setdefault(name, source)
        if name in inputs or other is not source:
            collisions.append(Collision(source, other, target))
    return collisions


def _names(path: Path) -> Iterator[Path]:
    yield path
    if path.is_symlink():
        yield path.resolve()
