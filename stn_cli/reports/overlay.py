"""The picture of an inspection: what was found, drawn over the image, beside the crop."""

import textwrap

import cv2
import numpy as np
import PIL.Image
import PIL.ImageDraw
import PIL.ImageFont

from stn_cli.annotations import Float, UInt8
from stn_cli.geometry import Transform, crop_size, outline, pixel_points
from stn_cli.images import Pixels
from stn_cli.images.channels import eight_bit, over_white
from stn_cli.rectify.record import fiducials
from stn_cli.reports.inspection import Inspection, InspectionRecord

Canvas = UInt8[np.ndarray, "h w 3"]
Colour = tuple[int, int, int]

_IMAGE_SIDE, _LONGEST_SIDE, _CROP_SIDE = 800, 1600, 480
"""Longest side of the image, to which a small one is enlarged and a large one is shrunk; and of the crop."""
_GAP, _FONT_SIZE, _LINE_HEIGHT, _CHARACTER_WIDTH = 16, 16, 22, 8.0
_PAPER, _BEYOND, _INK, _HALO = (255, 255, 255), (220, 220, 226), (20, 20, 20), (0, 0, 0)
# Okabe and Ito's colours, which the colour-blind tell apart.
_GRID, _FRAME, _CROP = (86, 180, 233), (255, 255, 255), (240, 228, 66)
_UPPER, _LOWER, _BETWEEN = (213, 94, 0), (0, 114, 178), (204, 121, 167)
_ROWS, _MOST_COLUMNS, _CURVE_POINTS = 5, 25, 65
_SHIFT = 4
"""OpenCV draws at sixteenths of a pixel."""


class _Sheet:
    """The image, enlarged or shrunk, with a margin; it is drawn on in coordinates of the image, −1…1."""

    def __init__(self, pixels: Pixels, border: Float[np.ndarray, "n 2"]) -> None:
        shown = _scaled(rgb(pixels), _IMAGE_SIDE, _LONGEST_SIDE)
        self.size = shown.shape[:2]
        beyond = float(np.nan_to_num(np.abs(border).max(), nan=1.0)) - 1.0
        self.pad = _GAP + round(max(self.size) / 2 * min(0.5, max(0.0, beyond)))
        height, width = (side + 2 * self.pad for side in self.size)
        self.canvas: Canvas = np.full((height, width, 3), _BEYOND, np.uint8)
        self.canvas[self.pad : -self.pad, self.pad : -self.pad] = shown

    def hairline(self, points: Float[np.ndarray, "n 2"], colour: Colour) -> None:
        self._draw(points, colour, 1, closed=False)

    def border(self, points: Float[np.ndarray, "n 2"], colour: Colour) -> None:
        for tone, thickness in ((_HALO, 4), (colour, 2)):
            self._draw(points, tone, thickness, closed=True)

    def dot(self, point: Float[np.ndarray, "2"], colour: Colour, radius: int) -> None:
        if np.isfinite(point).all():
            x, y = self._placed(point).tolist()
            for tone, wide in ((_HALO, radius + 1), (colour, radius)):
                cv2.circle(self.canvas, (x, y), wide << _SHIFT, tone, cv2.FILLED, cv2.LINE_AA, _SHIFT)

    def _draw(self, points: Float[np.ndarray, "n 2"], colour: Colour, thickness: int, *, closed: bool) -> None:
        if np.isfinite(points).all():
            cv2.polylines(self.canvas, [self._placed(points)], closed, colour, thickness, cv2.LINE_AA, _SHIFT)

    def _placed(self, points: Float[np.ndarray, "*n 2"]) -> np.ndarray:
        """On the canvas in OpenCV's fixed-point numbers, which have an end."""
        pixels = np.clip(pixel_points(points, self.size) + self.pad - 0.5, -16_000, 16_000)
        placed: np.ndarray = np.rint(pixels * (1 << _SHIFT)).astype(np.int32)
        return placed


def overlay(inspection: Inspection) -> Canvas:
    """The picture: the image with all that was found in it, the crop beside it, a caption below."""
    drawn = _drawn(inspection)
    crop = _scaled(rgb(inspection.crop), _CROP_SIDE, _CROP_SIDE)
    return _captioned(_beside(drawn, crop), _caption(inspection.record))


def _drawn(inspection: Inspection) -> Canvas:
    """The grid and the outline of the crop (of the frame alone where there is no crop), the frame, its fiducials."""
    frame, decision = inspection.frame, inspection.decision
    shown = frame if decision.unchanged is not None else decision.transform
    border = outline(_CURVE_POINTS)
    sheet = _Sheet(inspection.pixels, shown(border))
    for line in _grid_lines(shown, inspection.pixels.shape[:2]):
        sheet.hairline(shown(line), _GRID)
    sheet.border(frame(border), _FRAME)
    if decision.unchanged is None:
        sheet.border(shown(border), _CROP)
    _draw_fiducials(sheet, frame)
    return sheet.canvas


def _grid_lines(transform: Transform, source_size: tuple[int, int]) -> list[Float[np.ndarray, "n 2"]]:
    """Lines of the crop, −1…1: five along it, and as many across as make the meshes square."""
    height, width = crop_size(transform, source_size)
    aspect = width / height if 0 < height < np.inf and 0 < width < np.inf else 1.0
    columns = int(np.clip(round((_ROWS - 1) * aspect) + 1, 2, _MOST_COLUMNS))
    steps = np.linspace(-1.0, 1.0, _CURVE_POINTS)
    along = [np.stack((steps, np.full_like(steps, y)), axis=-1) for y in np.linspace(-1.0, 1.0, _ROWS)]
    across = [np.stack((np.full_like(steps, x), steps), axis=-1) for x in np.linspace(-1.0, 1.0, columns)]
    return along + across


def _draw_fiducials(sheet: _Sheet, frame: Transform) -> None:
    """Upper row, lower row and what lies between in their own colours; the first, where reading begins, is ringed."""
    places, points = fiducials(frame)
    sheet.dot(points[0], _FRAME, 9)
    for (_, y), point in zip(places, points, strict=True):
        sheet.dot(point, _UPPER if y == -1.0 else _LOWER if y == 1.0 else _BETWEEN, 5)


def _caption(record: InspectionRecord) -> str:
    label = f" · reads {record.label.value} ({record.label.confidence:.2f})" if record.label else ""
    why = f": {record.reason}" if record.reason else ""
    name = record.model.name if record.model else ""
    return f"{name} · confidence {record.confidence:.2f}{label} · {record.status}{why}"


def _beside(image: Canvas, crop: Canvas) -> Canvas:
    """Both on one sheet, the crop to the right, in the middle of the height."""
    height = max(image.shape[0], crop.shape[0])
    sheet = np.full((height, image.shape[1] + _GAP + crop.shape[1], 3), _PAPER, np.uint8)
    left = 0
    for part in (image, crop):
        top = (height - part.shape[0]) // 2
        sheet[top : top + part.shape[0], left : left + part.shape[1]] = part
        left += part.shape[1] + _GAP
    return sheet


def _captioned(picture: Canvas, text: str) -> Canvas:
    height, width = picture.shape[:2]
    lines = textwrap.wrap(text, int((width - 2 * _GAP) / _CHARACTER_WIDTH))
    sheet = PIL.Image.new("RGB", (width, height + _GAP + _LINE_HEIGHT * len(lines)), _PAPER)
    sheet.paste(PIL.Image.fromarray(picture))
    font = PIL.ImageFont.load_default(_FONT_SIZE)
    for number, line in enumerate(lines):
        place = (_GAP, height + _GAP // 2 + _LINE_HEIGHT * number)
        PIL.ImageDraw.Draw(sheet).text(place, line, _INK, font)
    return np.array(sheet)


def _scaled(pixels: Canvas, least: int, most: int) -> Canvas:
    """A small image enlarged by a whole factor, so that its pixels stay square; a large one shrunk to fit."""
    longest = max(pixels.shape[:2])
    if longest <= most:
        factor = max(1, least // longest)
        return np.repeat(np.repeat(pixels, factor, axis=0), factor, axis=1)
    height, width = (max(1, round(side * most / longest)) for side in pixels.shape[:2])
    shrunk: Canvas = cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA)
    return shrunk


def rgb(pixels: Pixels) -> Canvas:
    """What a person sees: 8 bits a channel, alpha laid over white."""
    plain = eight_bit(over_white(pixels))
    return np.repeat(plain, 3, axis=2) if plain.shape[2] == 1 else plain
