"""A training run as TensorBoard event files: curves, crops with their windows, histograms of θ."""

from typing import TYPE_CHECKING

import torch

from stn_cli.errors import UsageError
from stn_cli.reports.film import frame, shown
from stn_cli.training.watching import Watcher

if TYPE_CHECKING:
    from stn_cli.training.loop import Trainer
    from stn_cli.training.validation import Validation

_EVERY = 50
_MEASURED = 256


class TensorBoard(Watcher):
    """Writes into `tensorboard/` in the folder of the run.

    Raises:
        UsageError: the package `tensorboard` is not there.
    """

    def __init__(self) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter  # noqa: PLC0415  a second, and another package
        except ImportError as error:
            raise UsageError(
                "--tensorboard needs the package tensorboard", remedy="pip install 'stn-cli[tensorboard]'"
            ) from error
        self.open = SummaryWriter

    def started(self, trainer: "Trainer") -> None:
        self.writer = self.open(str(trainer.run / "tensorboard"), purge_step=trainer.step + 1)

    def stepped(self, trainer: "Trainer", means: dict[str, float]) -> None:
        if trainer.step % _EVERY == 0:
            for name, value in means.items():
                self._scalar(f"train/{name}", value, trainer.step)

    def validated(self, trainer: "Trainer", validation: "Validation") -> None:
        for name, value in validation.overall.items():
            self._scalar(f"validation/{name}", value, trainer.step)
        picture = frame(trainer, shown(trainer))
        self.writer.add_image("held-out images and crops", picture, trainer.step, dataformats="HWC")
        canvas = shown(trainer, min(_MEASURED, len(trainer.data.held_out))).canvas.to(trainer.device)
        with torch.no_grad():
            theta = trainer.averaged_model().transformer.locate(canvas.float() / 255).transform.theta
        for number, values in enumerate(theta.T.cpu()):
            self.writer.add_histogram(f"theta/{number:02d}", values, trainer.step)
        self.writer.flush()

    def finished(self, trainer: "Trainer") -> None:
        del trainer
        self.writer.close()

    def _scalar(self, name: str, value: float, step: int) -> None:
        self.writer.add_scalar(name, value, step)
