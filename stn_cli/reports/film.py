"""The film of a training run: the same held-out images with their windows and crops, as the transformer learns."""

import io
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import PIL.Image
import PIL.ImageDraw
import PIL.ImageFont
import torch

from stn_cli.geometry import corners
from stn_cli.geometry.arrays import like
from stn_cli.images import encode, make_folder, write_atomically
from stn_cli.reports.cells import OUTLINE, fitted, framed
from stn_cli.training.samples import Batch
from stn_cli.training.watching import Watcher

if TYPE_CHECKING:
    from stn_cli.training.loop import Trainer

FILM = "training.gif"
_FRAMES, _IMAGES, _COLUMNS = 48, 12, 6
_SIDE, _GAP, _LINE, _FONT_SIZE = 84, 6, 20, 13
_PAPER, _INK = (255, 255, 255), (20, 20, 20)
_MILLISECONDS, _LAST_MILLISECONDS = 120, 2500


class Film(Watcher):
    """Draws frames, close to each other at first, into `film/` in the folder of the run, and joins them at the end."""

    def __init__(self) -> None:
        self.batch: Batch | None = None
        self.steps: frozenset[int] = frozenset()

    def started(self, trainer: "Trainer") -> None:
        self.batch = shown(trainer)
        total = trainer.config.steps
        self.steps = frozenset(round(total * (number / _FRAMES) ** 2) for number in range(1, _FRAMES + 1))
        make_folder(trainer.run / "film")
        if trainer.step == 0:
            self._shoot(trainer)

    def stepped(self, trainer: "Trainer", means: dict[str, float]) -> None:
        del means
        if trainer.step in self.steps:
            self._shoot(trainer)

    def finished(self, trainer: "Trainer") -> None:
        frames = sorted((trainer.run / "film").glob("*.png"))
        if frames:
            write_atomically(trainer.run / FILM, _joined(frames))

    def _shoot(self, trainer: "Trainer") -> None:
        assert self.batch is not None
        picture = encode(frame(trainer, self.batch), "PNG").data
        write_atomically(trainer.run / "film" / f"{trainer.step:08d}.png", picture)


def shown(trainer: "Trainer", count: int = _IMAGES) -> Batch:
    """Some held-out images, from all over them."""
    length = len(trainer.data.held_out)
    return trainer.data.held_out.__getitems__([length * number // count for number in range(count)])


@torch.no_grad()
def frame(trainer: "Trainer", batch: Batch) -> np.ndarray:
    """One picture (h, w, 3) uint8: every image with the outline of its crop, the crop below it."""
    model, canvas = trainer.averaged_model(), batch.canvas.to(trainer.device)
    image = canvas.float() / 255
    transform = model.transformer.locate(image).transform
    others = [transformer.locate(image).transform for transformer in model.transformers[1:]]
    outline = OUTLINE if transform.dims == 2 else corners(3)
    borders = np.stack([each(like(outline, each.theta)).cpu().numpy() for each in (transform, *others)], axis=1)
    crops = model.transformer.sample(canvas.float(), transform).round().clamp(0, 255).byte()
    if transform.dims == 3:  # their middle slices; a window would be a cut through a box
        canvas, crops = (part[:, :, part.shape[2] // 2] for part in (canvas, crops))
        borders = np.zeros((len(canvas), 0, 1, 2))
    images, pictures = (part.permute(0, 2, 3, 1).cpu().numpy() for part in (canvas, crops))
    rows = -(-len(images) // _COLUMNS)
    size = (_COLUMNS * (_SIDE + _GAP) + _GAP, _LINE + rows * 2 * (_SIDE + _GAP) + _GAP)
    sheet = PIL.Image.new("RGB", size, _PAPER)
    for number, (image, border, crop) in enumerate(zip(images, borders, pictures, strict=True)):
        row, column = divmod(number, _COLUMNS)
        left, top = _GAP + column * (_SIDE + _GAP), _LINE + row * 2 * (_SIDE + _GAP)
        sheet.paste(PIL.Image.fromarray(framed(image, border, _SIDE)), (left, top))
        sheet.paste(PIL.Image.fromarray(fitted(crop, _SIDE)), (left, top + _SIDE + _GAP // 2))
    font = PIL.ImageFont.load_default(_FONT_SIZE)
    PIL.ImageDraw.Draw(sheet).text((_GAP, 2), f"step {trainer.step} of {trainer.config.steps}", _INK, font)
    return np.array(sheet)


def _joined(frames: list[Path]) -> bytes:
    first, *others = (PIL.Image.open(path).quantize(128) for path in frames)
    durations = [*[_MILLISECONDS] * len(others), _LAST_MILLISECONDS]
    buffer = io.BytesIO()
    first.save(buffer, "GIF", save_all=True, append_images=others, duration=durations, loop=0)
    return buffer.getvalue()
