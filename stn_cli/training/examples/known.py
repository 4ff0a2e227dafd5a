"""What is known of a set of images."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

Part = Literal["train", "validation", "test"]
PARTS: tuple[Part, ...] = ("train", "validation", "test")
_LOOKED_AT = 4096
"""Bytes of an image, spread over all of it, that tell it from another."""


@dataclass(frozen=True)
class Problem:
    """What is wrong with some of the data, what to do about it, and where."""

    what: str
    remedy: str
    where: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Examples:
    """Images and what is known of each.

    Attributes:
        images: (h, w, c) uint8 each, c of 1 or 3; or volumes, (d, h, w, 1) uint8.
        labels: class indices (n,), −1 where there is none.
        classes: names of the classes in order, empty if there are none.
        texts: transcriptions, None where there is none; empty if there are none at all.
        corners: (n, 4, 2) where the upright frame lies, normalised, in the order of `border 2x2`; NaN where that is
            not known.
        names: of the files, below their roots; empty if they have none.
    """

    images: tuple[np.ndarray, ...]
    labels: np.ndarray
    classes: tuple[str, ...]
    texts: tuple[str | None, ...] = ()
    corners: np.ndarray | None = None
    names: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.images)

    @property
    def dims(self) -> int:
        """2 of images, 3 of volumes."""
        return self.images[0].ndim - 1

    @property
    def is_grey(self) -> bool:
        """All of them have one channel."""
        return all(image.shape[-1] == 1 for image in self.images)

    @property
    def foreground(self) -> Literal["ink", "opaque"]:
        """`ink` where all images are grey and mostly black around the border, as MNIST is; else `opaque`."""
        if self.dims == 3 or not self.is_grey:
            return "opaque"
        border = [np.concatenate((i[0], i[-1], i[:, 0], i[:, -1])).mean() for i in self.images[:1000]]
        return "ink" if float(np.median(border)) < 8 else "opaque"

    @property
    def alphabet(self) -> str:
        """The characters of all transcriptions, sorted."""
        return "".join(sorted({character for text in self.texts if text is not None for character in text}))

    @property
    def fingerprint(self) -> str:
        """The same for the same examples in the same order."""
        found = hashlib.blake2b(repr((self.classes, self.texts)).encode(), digest_size=16)
        found.update(self.labels.tobytes())
        found.update(b"" if self.corners is None else self.corners.tobytes())
        for image in self.images:
            found.update(repr(image.shape).encode())
            found.update(image.ravel()[:: 1 + image.size // _LOOKED_AT].tobytes())
        return found.hexdigest()

    def chosen(self, indices: Sequence[int] | np.ndarray) -> "Examples":
        """Those of the given indices."""
        return Examples(
            tuple(self.images[i] for i in indices),
            self.labels[indices],
            self.classes,
            tuple(self.texts[i] for i in indices) if self.texts else (),
            None if self.corners is None else self.corners[indices],
            tuple(self.names[i] for i in indices) if self.names else (),
        )


def joined(parts: Sequence[Examples]) -> Examples:
    """The examples of several parts of one dataset."""
    parts = list(dict.fromkeys(part for part in parts if len(part))) or parts[:1]  # validation may be training again
    return Examples(
        tuple(image for part in parts for image in part.images),
        np.concatenate([part.labels for part in parts]),
        parts[0].classes,
        tuple(text for part in parts for text in part.texts),
        None
        if parts[0].corners is None
        else np.concatenate([part.corners for part in parts if part.corners is not None]),
        tuple(name for part in parts for name in part.names),
    )


@dataclass(frozen=True, eq=False)
class Dataset:
    """What a run is given.

    Attributes:
        train, validation: what it learns from, and what it is measured on while it does.
        test: what it never sees, as far as the data names such a part; may be empty.
        layout: how the data lies, for a person.
        split: how the parts came about, for a person.
        problems: what was left out, and why.
    """

    train: Examples
    validation: Examples
    test: Examples
    layout: str
    split: str
    problems: tuple[Problem, ...] = ()

    @property
    def classes(self) -> tuple[str, ...]:
        return self.train.classes

    @property
    def dims(self) -> int:
        """2 of images, 3 of volumes."""
        return next(part.dims for part in (self.train, self.validation, self.test) if len(part))

    @property
    def fingerprint(self) -> str:
        """The same for the same examples in the same parts; the test part does not count."""
        return f"{self.train.fingerprint}-{self.validation.fingerprint}"
