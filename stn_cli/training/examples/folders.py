"""What the folders mean in which images lie: all of the data, parts of it, classes."""

import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

from stn_cli.training.examples.known import Part
from stn_cli.training.examples.splits import part_called


@dataclass(frozen=True)
class Folders:
    """By the names of all images, with `/` between folders.

    Attributes:
        outer: those in which all images lie, but for parts: they say nothing of one that they do not say of all.
        are_parts: the first ones below are parts. All of them are called so, or two parts are: a class may be called
            `valid`, or `train`, beside others.
    """

    outer: str
    are_parts: bool

    @classmethod
    def of(cls, names: Iterable[str]) -> Self:
        folders = [name.split("/")[:-1] for name in names]
        levels = zip(*folders, strict=False)
        common = itertools.takewhile(lambda level: len(set(level)) == 1 and part_called(level[0]) is None, levels)
        outer = [folder for folder, *_ in common]
        parts = {part_called(path[len(outer)]) for path in folders if len(path) > len(outer)}
        return cls("".join(f"{folder}/" for folder in outer), None not in parts or len(parts) > 2)

    def part_of(self, name: str) -> Part | None:
        """The part that the first folder means."""
        first, *others = self._below(name)
        return part_called(first) if self.are_parts and others else None

    def class_of(self, name: str) -> str | None:
        """The folder that names an image's class: the first, or the second where that is a part."""
        folders = self._below(name)[:-1]
        if self.part_of(name) is not None:
            folders = folders[1:]
        return folders[0] if folders else None

    def _below(self, name: str) -> list[str]:
        return name.removeprefix(self.outer).split("/")
