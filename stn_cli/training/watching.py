"""Whoever follows a run: a terminal, a film, an event file."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from stn_cli.training.loop import Trainer
    from stn_cli.training.validation import Validation


class Watcher:
    """Hears of a run, and does nothing about it; what follows it overrides what it needs.

    A watcher changes nothing of the run: neither weights nor the state of any random generator.
    """

    def started(self, trainer: "Trainer") -> None:
        """The run begins, or goes on, at `trainer.step`."""

    def stepped(self, trainer: "Trainer", means: dict[str, float]) -> None:
        """A step was made; running means of the parts of the loss."""

    def validated(self, trainer: "Trainer", validation: "Validation") -> None:
        """The averaged weights were measured."""

    def warned(self, text: str) -> None:
        """Something is amiss, and the run goes on."""

    def finished(self, trainer: "Trainer") -> None:
        """The last step was made and saved, and the best weights are known."""
