"""A crop with a word on it: bent, coloured, lit, blurred, compressed. A pure function of its random generator."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from stn_cli.training.text.config import TextScene
from stn_cli.training.text.masks import HEIGHT, Mask
from stn_cli.training.text.pose import Pose, random_pose

_PAD_U, _PAD_V = round(1.6 * HEIGHT), round(1.15 * HEIGHT)
"""What is drawn beside, above and below a word: parts of its neighbours."""
_SHARPEST_SHRINK = 1.6
_LEAST_CONTRAST = 22.0
_SMALLEST = 5.0
"""Height of the ink on the canvas, in pixels, below which nobody could tell what is written."""


@dataclass(frozen=True)
class Drawn:
    """A crop with a word on it.

    Attributes:
        canvas: (side, side) uint8; the crop in its middle, its border continued.
        fiducials: (20, 2) float64, where the word's border points lie on the canvas, normalised to −1…1.
        size: (height, width) of the crop.
        arc: angle in degrees that the word spans, either way; 0 where it is not on an arc.
        text: what is written.
    """

    canvas: np.ndarray
    fiducials: np.ndarray
    size: tuple[int, int]
    arc: float
    text: str


def draw_word(
    rng: np.random.Generator, masks: Sequence[Mask], textures: np.ndarray, scene: TextScene, side: int
) -> Drawn:
    """Draws one word of the masks, in a pose of the scene, on a crop whose longer side is `side` pixels."""
    letter = 0.0
    while letter < _SMALLEST:
        text, mask = masks[int(rng.integers(len(masks)))]
        pose = random_pose(rng, scene, mask.shape[1] / HEIGHT)
        left, top, right, bottom = pose.box
        scale = side / max(right - left, bottom - top)
        letter = 2 * scale
    size = (max(4, round((bottom - top) * scale)), max(4, round((right - left) * scale)))
    crop = _photographed(rng, masks, mask, textures, pose, size, letter)
    canvas, offset = _on_square(crop, side)
    extent = np.array([size[1] / side, size[0] / side])
    arc = math.degrees(abs(pose.bend.arc))
    return Drawn(canvas, pose.fiducials * extent + offset, size, arc, text)


def _photographed(
    rng: np.random.Generator,
    masks: Sequence[Mask],
    mask: np.ndarray,
    textures: np.ndarray,
    pose: Pose,
    size: tuple[int, int],
    letter: float,
) -> np.ndarray:
    """The crop (h, w) uint8; `letter` is the height of the ink in pixels."""
    page = _with_neighbours(rng, masks, mask)
    shrink = min(1.0, _SHARPEST_SHRINK * letter / HEIGHT)
    if shrink < 1.0:
        page = cv2.resize(page, None, fx=shrink, fy=shrink, interpolation=cv2.INTER_AREA)
    u, v = _word_coordinates(pose, size)
    x, y = _page_positions(u, v, pose.bend.aspect, mask.shape[1], shrink)
    cover = _read(page, x, y)
    ground, ink = _two_greys(rng)
    contrast = abs(ground - ink)
    canvas = _surface(rng, textures, size, ground, rng.uniform(0.0, 0.55) * contrast * (rng.random() < 0.8))
    colour = _surface(rng, textures, size, ink, rng.uniform(0.0, 0.2) * contrast * (rng.random() < 0.3))
    canvas = _edged(rng, canvas, page, (x, y), (ground, ink), shrink)
    canvas += cover * (colour - canvas)
    canvas = _lit(rng, canvas, contrast)
    if rng.random() < 0.06:
        _occlude(rng, canvas, letter)
    if pose.paper is not None:
        outside = (np.abs(u) > pose.paper[0]) | (np.abs(v) > pose.paper[1])
        canvas[outside] = ground if rng.random() < 0.7 else rng.uniform(0, 255)
    return _developed(rng, canvas, contrast, letter)


def _with_neighbours(rng: np.random.Generator, masks: Sequence[Mask], mask: np.ndarray) -> np.ndarray:
    """The word in the middle of a page with parts of other words around it, now and then."""
    height, width = HEIGHT + 2 * _PAD_V, mask.shape[1] + 2 * _PAD_U
    page = np.zeros((height, width), np.uint8)
    page[_PAD_V : _PAD_V + HEIGHT, _PAD_U : _PAD_U + mask.shape[1]] = mask
    if rng.random() < 0.5:
        return page
    for above in (True, False):
        if rng.random() < 0.35:
            other = _resized(masks[int(rng.integers(len(masks)))].ink, rng.uniform(0.6, 1.2))
            gap = round(rng.uniform(0.12, 0.8) * HEIGHT)
            top = _PAD_V - gap - len(other) if above else _PAD_V + HEIGHT + gap
            _paste(page, other, top, int(rng.integers(-other.shape[1] + 20, width - 20)))
    for before in (True, False):
        if rng.random() < 0.3:
            other = masks[int(rng.integers(len(masks)))].ink
            gap = round(rng.uniform(0.5, 1.2) * HEIGHT)
            start = _PAD_U - gap - other.shape[1] if before else width - _PAD_U + gap
            _paste(page, other, _PAD_V, start)
    return page


def _resized(mask: np.ndarray, factor: float) -> np.ndarray:
    resized: np.ndarray = cv2.resize(mask, None, fx=factor, fy=factor, interpolation=cv2.INTER_LINEAR)
    return resized


def _paste(page: np.ndarray, other: np.ndarray, top: int, left: int) -> None:
    """Adds what of the other lies on the page."""
    rows = slice(max(0, top), min(len(page), top + len(other)))
    columns = slice(max(0, left), min(page.shape[1], left + other.shape[1]))
    if rows.start < rows.stop and columns.start < columns.stop:
        part = other[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left]
        np.maximum(page[rows, columns], part, out=page[rows, columns])


def _word_coordinates(pose: Pose, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Word coordinates (h, w) of the crop's pixel centres."""
    left, top, right, bottom = pose.box
    x = left + (np.arange(size[1], dtype=np.float32) + 0.5) * np.float32((right - left) / size[1])
    y = top + (np.arange(size[0], dtype=np.float32) + 0.5) * np.float32((bottom - top) / size[0])
    return pose.bend.inverse(*np.meshgrid(x, y))


def _page_positions(
    u: np.ndarray, v: np.ndarray, aspect: float, width: int, shrink: float
) -> tuple[np.ndarray, np.ndarray]:
    """Where word coordinates lie on the page, in OpenCV's pixels."""
    x = (_PAD_U + (u / aspect + 1) * (width / 2)) * shrink - 0.5
    y = (_PAD_V + (v + 1) * (HEIGHT / 2)) * shrink - 0.5
    return x.astype(np.float32), y.astype(np.float32)


def _read(page: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Coverage 0…1 at positions of the page."""
    values = cv2.remap(page, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=0)
    cover: np.ndarray = values.astype(np.float32) * np.float32(1 / 255)
    return cover


def _edged(
    rng: np.random.Generator,
    canvas: np.ndarray,
    page: np.ndarray,
    positions: tuple[np.ndarray, np.ndarray],
    greys: tuple[float, float],
    shrink: float,
) -> np.ndarray:
    """An outline around the letters, or a shadow beside them, for some."""
    kind = rng.random()
    x, y = positions
    width = max(1, round(rng.uniform(0.02, 0.07) * HEIGHT * shrink))
    if kind < 0.10:
        wide = cv2.dilate(page, np.ones((2 * width + 1, 2 * width + 1), np.uint8))
        return canvas + _read(wide, x, y) * (np.float32(rng.uniform(0, 255)) - canvas)
    if kind < 0.25:
        dx, dy = rng.uniform(-2.0, 2.0, 2) * width
        cover = _read(page, x - np.float32(dx), y - np.float32(dy))
        grey = rng.uniform(0, min(greys)) if rng.random() < 0.8 else rng.uniform(max(greys), 255)
        return canvas + cover * np.float32(rng.uniform(0.3, 0.9)) * (np.float32(grey) - canvas)
    return canvas


def _two_greys(rng: np.random.Generator) -> tuple[float, float]:
    """Of ground and ink; mostly of clear contrast."""
    while True:
        ground, ink = rng.uniform(0, 255, 2)
        if abs(ground - ink) >= _LEAST_CONTRAST and rng.random() < 0.25 + abs(ground - ink) / 120:
            return float(ground), float(ink)


def _surface(
    rng: np.random.Generator, textures: np.ndarray, size: tuple[int, int], grey: float, amplitude: float
) -> np.ndarray:
    """(h, w) float32: the grey, with a window of a texture of about the given peak amplitude."""
    if amplitude <= 0:
        return np.full(size, grey, np.float32)
    texture = textures[int(rng.integers(len(textures)))]
    limit = len(texture)
    height, width = min(size[0], limit), min(size[1], limit)
    top, left = rng.integers(0, limit - height + 1), rng.integers(0, limit - width + 1)
    window = texture[top : top + height, left : left + width]
    if window.shape != size:
        window = cv2.resize(window, size[::-1], interpolation=cv2.INTER_LINEAR)
    if rng.random() < 0.5:
        window = window[:, ::-1]
    surface: np.ndarray = np.float32(grey) + (window.astype(np.float32) - 128) * np.float32(amplitude / 100)
    return surface


def _lit(rng: np.random.Generator, canvas: np.ndarray, contrast: float) -> np.ndarray:
    """Light that falls off along some direction, and its shadows."""
    if rng.random() < 0.4:
        height, width = canvas.shape
        angle, strength = rng.uniform(0, 2 * math.pi), rng.uniform(0.1, 0.7) * contrast
        x = np.linspace(-math.cos(angle), math.cos(angle), width, dtype=np.float32)
        y = np.linspace(-math.sin(angle), math.sin(angle), height, dtype=np.float32)
        slope = (x[None, :] + y[:, None]) * np.float32(strength)
        if rng.random() < 0.3:  # the edge of a shadow
            slope = np.sign(slope + np.float32(rng.normal(0, strength))) * np.float32(0.4 * strength)
        canvas = canvas + slope
    return canvas


def _occlude(rng: np.random.Generator, canvas: np.ndarray, letter: float) -> None:
    height, width = canvas.shape
    start, end = ((int(rng.integers(width)), int(rng.integers(height))) for _ in range(2))
    cv2.line(canvas, start, end, float(rng.uniform(0, 255)), max(1, round(rng.uniform(0.03, 0.25) * letter)))


def _developed(rng: np.random.Generator, canvas: np.ndarray, contrast: float, letter: float) -> np.ndarray:
    """Out of focus, in motion, at the resolution of a thumbnail, noisy, compressed: each for some."""
    if rng.random() < 0.45:
        canvas = cv2.GaussianBlur(canvas, (0, 0), max(0.3, rng.uniform(0.01, 0.075) * letter))
    if rng.random() < 0.1:
        canvas = cv2.filter2D(canvas, -1, _motion(rng, letter))
    full = canvas.shape
    wanted = math.exp(rng.uniform(math.log(9.0), math.log(60.0)))
    if wanted < letter:
        size = (max(3, round(full[1] * wanted / letter)), max(3, round(full[0] * wanted / letter)))
        canvas = cv2.resize(canvas, size, interpolation=cv2.INTER_AREA)
    if rng.random() < 0.5:
        noise = rng.standard_normal(canvas.shape, dtype=np.float32)
        canvas = canvas + noise * np.float32(rng.uniform(0.5, 0.10 * contrast + 2))
    image: np.ndarray = np.clip(canvas, 0, 255).astype(np.uint8)
    if rng.random() < 0.35:
        _, data = cv2.imencode(".jpg", image, (cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(25, 92))))
        image = np.asarray(cv2.imdecode(data, cv2.IMREAD_GRAYSCALE))
    if image.shape != full:
        image = cv2.resize(image, full[::-1], interpolation=cv2.INTER_LINEAR if rng.random() < 0.7 else cv2.INTER_CUBIC)
    return image


def _motion(rng: np.random.Generator, letter: float) -> np.ndarray:
    """A kernel that smears along some direction."""
    length = max(2, round(rng.uniform(0.05, 0.16) * letter))
    kernel = np.zeros((2 * length + 1, 2 * length + 1), np.float32)
    angle = rng.uniform(0, math.pi)
    reach = (length * math.cos(angle), length * math.sin(angle))
    start, end = ((round(length + sign * reach[0]), round(length + sign * reach[1])) for sign in (-1, 1))
    cv2.line(kernel, start, end, 1.0)
    kernel /= kernel.sum()
    return kernel


def _on_square(crop: np.ndarray, side: int) -> tuple[np.ndarray, np.ndarray]:
    """The crop in the middle of a square, its border continued, and its centre there, normalised."""
    height, width = crop.shape
    top, left = (side - height) // 2, (side - width) // 2
    canvas = cv2.copyMakeBorder(crop, top, side - height - top, left, side - width - left, cv2.BORDER_REPLICATE)
    return canvas, np.array([(2 * left + width) / side - 1, (2 * top + height) / side - 1])
