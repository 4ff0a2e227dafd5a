"""What was found in folders and archives, before it is read."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self

import msgspec
import numpy as np

from stn_cli.errors import ImageError, UsageError
from stn_cli.images import FileData, decode_data
from stn_cli.images.volumes import decode_volume
from stn_cli.training.examples.files import Files
from stn_cli.training.examples.known import Part, Problem
from stn_cli.training.examples.tables import Row


class Split(msgspec.Struct, frozen=True):
    """How a run held images out, as in `Reading`."""

    group_by: str | None = None
    validation_share: float = 0.1

    @classmethod
    def of_run(cls, training: Mapping[str, Any]) -> Self:
        """By what a checkpoint says of its training; as runs usually do where that is none: strangers say anything."""
        try:
            return msgspec.convert(training.get("config", {}), cls)
        except msgspec.ValidationError:
            return cls()


@dataclass(kw_only=True, frozen=True)
class Reading:
    """How data is to be read.

    Attributes:
        labels: a table, if it is not called `labels` and beside the images.
        label_means: what a label of no name is; None: as many images as share it suggest.
        group_by: regular expression of what in a name says which images stay in one part.
        validation_share: of what is trained on, held out where the data names no such part.
        longest_side: images, and volumes, are kept in memory at most this large.
        widest_word: images of words are kept at most this large, if that is larger.
        volumes: what TIFFs of several pages are; None: volumes, if their pages are alike and nothing else is there.
    """

    labels: Path | None = None
    label_means: Literal["class", "text"] | None = None
    group_by: str | None = None
    validation_share: float = 0.1
    longest_side: int = 96
    widest_word: int = 0
    volumes: bool | None = None

    def __post_init__(self) -> None:
        if not 0 < self.validation_share < 1:
            raise UsageError("the share that is held out is more than 0 and less than 1")


class Entry(NamedTuple):
    """An image that is to be read, and what is known of it."""

    name: str
    pixels: Callable[[], np.ndarray]  # (h, w, c), or (d, h, w) of a volume
    row: Row
    part: Part | None


@dataclass
class Found:
    """All that was found, before it is read."""

    entries: list[Entry] = field(default_factory=list)
    layouts: list[str] = field(default_factory=list)
    classes: set[str] = field(default_factory=set)
    volumes: bool = False
    _reported: dict[tuple[str, str], list[str]] = field(default_factory=dict)

    def take(self, files: Files, name: str, row: Row, part: Part | None) -> None:
        """One more image, which is read later."""

        def pixels() -> np.ndarray:
            try:
                file = FileData(files.read(name), sha256="")
            except OSError as error:
                raise ImageError(f"cannot be read: {error.strerror}") from error
            return decode_volume(file).voxels if self.volumes else decode_data(file).pixels

        self.entries.append(Entry(name, pixels, row, part))

    def report(self, what: str, remedy: str, where: Sequence[str]) -> None:
        """What is wrong, wherever it is; the same elsewhere is the same problem."""
        if where:
            self._reported.setdefault((what, remedy), []).extend(where)

    @property
    def problems(self) -> tuple[Problem, ...]:
        return tuple(Problem(*said, tuple(where)) for said, where in self._reported.items())
