"""Small pictures in square cells: an image with the outline of its crop, a crop."""

import cv2
import numpy as np

from stn_cli.annotations import Float
from stn_cli.geometry import outline, pixel_points
from stn_cli.images import Size
from stn_cli.reports.overlay import rgb

OUTLINE = outline(17)
_PAPER, _FRAME, _HALO = (255, 255, 255), (240, 228, 66), (0, 0, 0)


def framed(image: np.ndarray, borders: Float[np.ndarray, "k n 2"], side: int) -> np.ndarray:
    """The image (h, w, c) in a cell, and closed lines through points that are stated against it."""
    cell, inner = fitted(image, side), fitting(image.shape[:2], side)
    top, left = ((side - length) // 2 for length in inner)
    points = pixel_points(borders, inner) + np.array([left, top]) - 0.5
    placed = np.rint(np.nan_to_num(np.clip(points, -2000, 2000)) * 16).astype(np.int32)
    for colour, thickness in ((_HALO, 3), (_FRAME, 1)):
        cv2.polylines(cell, list(placed), True, colour, thickness, cv2.LINE_AA, 4)
    return cell


def fitted(image: np.ndarray, side: int) -> np.ndarray:
    """The image in the middle of a square cell (side, side, 3), its aspect kept; pixels stay square if it grows."""
    picture = rgb(image)
    height, width = fitting(picture.shape[:2], side)
    way = cv2.INTER_AREA if height < picture.shape[0] else cv2.INTER_NEAREST
    cell = np.full((side, side, 3), _PAPER, np.uint8)
    top, left = (side - height) // 2, (side - width) // 2
    cell[top : top + height, left : left + width] = cv2.resize(picture, (width, height), interpolation=way)
    return cell


def fitting(size: tuple[int, ...], side: int) -> Size:
    """(height, width) as large as a square cell holds, aspect kept."""
    scale = side / max(size)
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))
