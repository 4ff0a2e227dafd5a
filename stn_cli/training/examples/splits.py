"""Which images are learned from, and which are held out."""

import hashlib
import re
from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from stn_cli.errors import UsageError
from stn_cli.training.examples.known import Part

_NAMES: dict[str, Part] = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "validation"),
    **dict.fromkeys(("test", "testing", "t10k"), "test"),
}


def part_called(name: str | None) -> Part | None:
    """The part that a folder, a column or a file name means; None if it means none."""
    return None if name is None else _NAMES.get(name.lower())


def digest(content: bytes) -> str:
    """By which equal images stay together, and the same ones are held out every time."""
    return hashlib.blake2b(content, digest_size=8).hexdigest()


def group_of(name: str, pattern: str) -> str:
    """What of a name says which images belong together: the first group of the expression, or all that it matches.

    A group that may be missing, and is, counts as if there were none.
    """
    try:
        match = re.search(pattern, name)
    except re.error as error:
        raise UsageError(f"--group-by {pattern!r} is not a regular expression: {error}") from error
    if match is None:
        raise UsageError(
            f"--group-by {pattern!r} does not match {name!r}",
            remedy="It has to match the name of every image, below the folder, as in '^([^/]*/\\d+)_'.",
        )
    return (match[1] if match.re.groups else None) or match[0]


def held_out(keys: Sequence[str], strata: Sequence[int], share: float) -> np.ndarray:
    """Whether each image is held out: of every stratum a share of its keys, by their hash.

    Equal keys stay together, in the stratum that they come up in first. Of two keys or more one is held out, and one is
    not; where no stratum has two, all count as one.
    """
    stratum_of: dict[str, int] = {}
    for key, stratum in zip(keys, strata, strict=True):
        stratum_of.setdefault(key, stratum)
    members: dict[int, list[str]] = defaultdict(list)
    for key, stratum in stratum_of.items():
        members[stratum].append(key)
    chosen = {key for stratum in members.values() for key in _share_of(stratum, share)}
    chosen = chosen or _share_of(list(stratum_of), share)
    return np.array([key in chosen for key in keys], dtype=bool)


def _share_of(keys: list[str], share: float) -> set[str]:
    if len(keys) < 2:
        return set()
    chances = {key: int(hashlib.blake2b(key.encode(), digest_size=6).hexdigest(), 16) / 2**48 for key in keys}
    first, *rest = sorted(keys, key=chances.__getitem__)
    return {first} | {key for key in rest[:-1] if chances[key] < share}
