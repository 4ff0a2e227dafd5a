"""A sheet of images with what was found in each, the crop beside it."""

from collections.abc import Sequence

import numpy as np
import PIL.Image
import PIL.ImageDraw
import PIL.ImageFont

from stn_cli.engines.engine import Engine
from stn_cli.geometry import Affine3d, Transform, volume_size
from stn_cli.rectify.crop import natural_size
from stn_cli.reports.cells import OUTLINE, fitted, fitting, framed
from stn_cli.reports.evaluation import Case
from stn_cli.training.examples import Examples

_COLUMNS, _SIDE, _GAP, _FONT_SIZE, _LINE = 4, 128, 10, 12, 16
_PAPER, _INK = (255, 255, 255), (20, 20, 20)
_CELL = (_SIDE + 3 * _LINE + _GAP, 2 * _SIDE + 2 * _GAP)
_MOST_CHARACTERS = 40


def contact_sheet(engine: Engine, examples: Examples, cases: Sequence[Case]) -> np.ndarray:
    """The cases in their order, four a row: (h, w, 3) uint8."""
    rows = max(1, -(-len(cases) // _COLUMNS))
    sheet = PIL.Image.new("RGB", (_COLUMNS * _CELL[1] + _GAP, rows * _CELL[0] + _GAP), _PAPER)
    draw, font = PIL.ImageDraw.Draw(sheet), PIL.ImageFont.load_default(_FONT_SIZE)
    for place, case in enumerate(cases):
        left, top = _GAP + place % _COLUMNS * _CELL[1], _GAP + place // _COLUMNS * _CELL[0]
        image, crop, border = _pictures(engine, examples.images[case.number], case.location.transform)
        for offset, picture in ((0, framed(image, border, _SIDE)), (_SIDE + _GAP, fitted(crop, _SIDE))):
            sheet.paste(PIL.Image.fromarray(picture), (left + offset, top))
        name = examples.names[case.number] if examples.names else f"image {case.number}"
        for number, line in enumerate(_said(case, name)):
            draw.text((left, top + _SIDE + number * _LINE), line[:_MOST_CHARACTERS], _INK, font)
    return np.array(sheet)


def _pictures(engine: Engine, image: np.ndarray, transform: Transform) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """An image, its crop, and its outline; of a volume the middle slices of both, without one."""
    if isinstance(transform, Affine3d):
        from stn_cli.sampling.volumes import crop  # noqa: PLC0415  torch, of which images need nothing here

        size = image.shape[:3]
        rectified = crop(image[..., 0], transform, natural_size(volume_size(transform, size), size))
        return image[len(image) // 2], rectified[len(rectified) // 2, ..., None], np.zeros((0, 1, 2))
    picture = engine.crop(image, transform, fitting(engine.model.crop_size, _SIDE), "auto", "border")
    return image, picture, transform(OUTLINE)[None]


def _said(case: Case, name: str) -> tuple[str, str, str]:
    location = case.location
    before = "" if case.before is None else f"{case.before} -> "
    label = "" if location.label is None else f"{before}{location.label}"
    truth = "" if case.truth is None else f" (is {case.truth})"
    overlap = "" if np.isnan(case.iou) else f", overlap {case.iou:.2f}"
    return name[-_MOST_CHARACTERS:], f"{label}{truth}", f"confidence {location.confidence:.2f}{overlap}"
