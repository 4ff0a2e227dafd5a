"""Distorted images with known truth, drawn from upright ones. A sample is a pure function of its random generator."""

import math
from dataclasses import dataclass

import cv2
import numpy as np

from stn_cli.geometry import BorderLayout, Projective, grid
from stn_cli.images.channels import LUMA
from stn_cli.training.config import Scene
from stn_cli.training.seams import is_seamless

_INNER = 20 / 28
"""Share of the upright frame that its content fills, as in MNIST, where 20×20 digits lie in 28×28 frames."""
_GOING_ON = 0.7
"""Share of pictures whose border has one colour that lie on ground of that colour."""
_LEAST_CONTRAST = 55.0
"""Grey levels between the colours of ink and ground, or of a colour channel where they are equally bright."""
_LUMA = np.array(LUMA, dtype=np.float32)


@dataclass(frozen=True)
class Drawn:
    """A distorted image.

    Attributes:
        canvas: (side, side, 3) uint8.
        truth: (3, 3) float64 homogeneous matrix from the upright frame to the canvas, both normalised.
    """

    canvas: np.ndarray
    truth: np.ndarray


def draw(
    rng: np.random.Generator, image: np.ndarray, others: list[np.ndarray], scene: Scene, side: int, *, ink: bool
) -> Drawn:
    """Draws one scene with `image` in it.

    Args:
        rng: decides everything.
        image: (h, w, c) uint8, upright.
        others: images that clutter is cut from; may be empty.
        scene: the ranges.
        side: of the canvas returned; the scene is drawn at its own size first.
        ink: the image is ink on black (c = 1), laid on a background; otherwise an opaque picture.
    """
    pixels = int(rng.integers(scene.pixels[0], scene.pixels[1] + 1))
    truth, scale = _random_pose(rng, scene)
    shows_edges, fills = ink or rng.random() < scene.edges, not ink and rng.random() < 0.5
    goes_on = not ink and is_seamless(image) and rng.random() < _GOING_ON
    if fills and not shows_edges and not goes_on:
        truth, factor = _filling(rng, truth, _half_sides(image))
        scale *= factor
    alpha, colours = _placed(image, truth, pixels, scale, ink=ink)
    if ink:
        alpha = _cluttered(rng, alpha, others, scene, scale * pixels)
    elif goes_on:
        alpha = np.ones_like(alpha)
    elif not (fills or shows_edges):
        alpha = alpha * _disc(rng, truth, pixels, min(_half_sides(image)))
    if rng.random() < scene.plain and ink:
        canvas = np.repeat(np.rint(alpha * 255).astype(np.uint8)[..., None], 3, axis=2)
    else:
        canvas = _photographed(rng, alpha, colours)
    if pixels != side:
        shrinking = pixels > side
        canvas = cv2.resize(canvas, (side, side), interpolation=cv2.INTER_AREA if shrinking else cv2.INTER_LINEAR)
    return Drawn(canvas, truth)


def _random_pose(rng: np.random.Generator, scene: Scene) -> tuple[np.ndarray, float]:
    """The true homography, frame → canvas, and the frame's side as a share of the canvas."""
    low, high = scene.extent
    scale = math.exp(rng.uniform(math.log(low), math.log(high)))
    angle = math.radians(rng.uniform(-scene.rotation, scene.rotation))
    cos, sin = scale * math.cos(angle), scale * math.sin(angle)
    # The half-width that rotated content of the inner share may take up on the canvas.
    half = _INNER * (abs(cos) + abs(sin))
    x, y = rng.uniform(-1, 1, 2) * scene.reach * max(0.0, 1.0 - half)
    shear = rng.uniform(-scene.shear, scene.shear)
    px, py = rng.uniform(-scene.perspective, scene.perspective, 2)
    placed = np.array([[cos, -sin, x], [sin, cos, y], [0.0, 0.0, 1.0]])
    return placed @ np.array([[1.0, shear, 0.0], [0.0, 1.0, 0.0], [px, py, 1.0]]), scale


def _half_sides(image: np.ndarray) -> tuple[float, float]:
    """Of an image in its square frame, x before y."""
    height, width = image.shape[:2]
    return width / max(height, width), height / max(height, width)


def _filling(rng: np.random.Generator, truth: np.ndarray, half_sides: tuple[float, float]) -> tuple[np.ndarray, float]:
    """The pose in the middle, so much larger that the picture covers the whole canvas, and by how much."""
    centred = truth.copy()
    centred[:2, 2] = 0.0
    within = BorderLayout(2).points @ np.linalg.inv(centred)[:, :2].T  # homogeneous, all but their last 1
    least = float((np.abs(within[:, :2]) / half_sides - within[:, 2:]).max())
    factor = least * rng.uniform(1.0, 1.25)
    return np.diag([factor, factor, 1.0]) @ centred, factor


def _disc(rng: np.random.Generator, truth: np.ndarray, pixels: int, radius: float) -> np.ndarray:
    """1 within the largest circle of a picture on the canvas, 0 outside, and something between near its border."""
    within = Projective.from_matrix(np.linalg.inv(truth))(grid((pixels, pixels)))
    distance = np.linalg.norm(within, axis=1).reshape(pixels, pixels) / radius
    cover: np.ndarray = np.clip((1.0 - distance) / rng.uniform(0.03, 0.3), 0.0, 1.0).astype(np.float32)
    return cover


def _finely(image: np.ndarray) -> np.ndarray:
    """The image four times as large, to be read linearly.

    Every interpolation of its own pixels leaves a trace, from which a network reads the angle instead of looking at the
    digit (it once did, and erred twice as much on images turned by another).
    """
    height, width, channels = image.shape
    fine = cv2.resize(image, (4 * width, 4 * height), interpolation=cv2.INTER_CUBIC)
    return fine.reshape(4 * height, 4 * width, channels)


def _placed(
    image: np.ndarray, truth: np.ndarray, pixels: int, scale: float, *, ink: bool
) -> tuple[np.ndarray, np.ndarray | None]:
    """Coverage (pixels, pixels) float32 0…1 of the image on the canvas, and its colours there if it is opaque.

    The frame is square; an image that is not lies in its middle, its aspect kept.
    """
    image = _finely(_shrunk(image, scale * pixels))
    height, width = image.shape[:2]
    within_frame = np.diag([width / max(height, width), height / max(height, width), 1.0])
    to_canvas = _to_pixels(pixels, pixels) @ truth @ within_frame @ np.linalg.inv(_to_pixels(height, width))
    values = image[..., 0].astype(np.float32) / 255 if ink else np.ones((height, width), np.float32)
    alpha = np.clip(cv2.warpPerspective(values, to_canvas, (pixels, pixels), flags=cv2.INTER_LINEAR), 0, 1)
    if ink:
        return alpha, None
    colours = np.repeat(image, 3, axis=2) if image.shape[2] == 1 else image
    size, border = (pixels, pixels), cv2.BORDER_REPLICATE
    warped = cv2.warpPerspective(colours, to_canvas, size, flags=cv2.INTER_LINEAR, borderMode=border)
    return alpha, warped.astype(np.float32)


def _to_pixels(height: int, width: int) -> np.ndarray:
    """Normalised coordinates to OpenCV's, whose origin is the centre of the first pixel."""
    return np.array([[width / 2, 0, width / 2 - 0.5], [0, height / 2, height / 2 - 0.5], [0, 0, 1.0]])


def _shrunk(image: np.ndarray, target: float) -> np.ndarray:
    """The image area-averaged towards the size at which it will be drawn, when that is much smaller."""
    height, width, channels = image.shape
    factor = target / max(height, width)
    if factor > 0.75:
        return image
    size = (max(2, round(width * factor)), max(2, round(height * factor)))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA).reshape(size[1], size[0], channels)


def _cluttered(
    rng: np.random.Generator, alpha: np.ndarray, others: list[np.ndarray], scene: Scene, frame: float
) -> np.ndarray:
    """Patches cut at random from other images, at the scale of this one, wherever they fall."""
    side = len(alpha)
    for _ in range(int(rng.integers(scene.clutter[0], scene.clutter[1] + 1)) if others else 0):
        other = others[int(rng.integers(len(others)))]
        share = rng.uniform(*scene.clutter_size)
        cut = max(2, round(share * other.shape[0]))
        top, left = rng.integers(0, max(1, other.shape[0] - cut + 1)), rng.integers(0, max(1, other.shape[1] - cut + 1))
        size = min(max(2, round(share * frame)), side)
        patch: np.ndarray = other[top : top + cut, left : left + cut, 0].astype(np.float32) / 255
        if patch.shape != (size, size):
            patch = cv2.resize(patch, (size, size), interpolation=cv2.INTER_AREA if cut > size else cv2.INTER_LINEAR)
        y, x = rng.integers(0, side - size + 1, 2)
        region = alpha[y : y + size, x : x + size]
        np.maximum(region, patch, out=region)
    return alpha


def _photographed(rng: np.random.Generator, alpha: np.ndarray, colours: np.ndarray | None) -> np.ndarray:
    """Ink and ground of any colours, texture, uneven light, blur and noise."""
    side = len(alpha)
    ground, ink = _two_colours(rng)
    contrast = float(np.abs(ground - ink).max())
    back: np.ndarray = np.broadcast_to(ground, (side, side, 3)) + _texture(rng, side, 0.35 * contrast)
    front = ink + _texture(rng, side, 0.1 * contrast) if colours is None else colours
    canvas = back + alpha[..., None] * (front - back)
    if rng.random() < 0.5:
        canvas = canvas + _slope(rng, side) * rng.uniform(0, 0.4) * contrast
    if rng.random() < 0.5:
        canvas = cv2.GaussianBlur(canvas, (0, 0), rng.uniform(0.3, 1.2) * side / 60)
    if rng.random() < 0.6:
        noise = rng.standard_normal((side, side, 1 if rng.random() < 0.5 else 3), dtype=np.float32)
        canvas = canvas + noise * rng.uniform(1, 0.12 * contrast + 1)
    photograph: np.ndarray = np.clip(np.rint(canvas), 0, 255).astype(np.uint8)
    return photograph


def _two_colours(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    while True:
        ground, ink = rng.uniform(0, 255, (2, 3)).astype(np.float32)
        if rng.random() < 0.4:  # greys
            ground[:], ink[:] = ground[0], ink[0]
        if abs(float((ground - ink) @ _LUMA)) >= _LEAST_CONTRAST:
            return ground, ink


def _texture(rng: np.random.Generator, side: int, amplitude: float) -> np.ndarray:
    """(side, side, 1 or 3) float32 of the given peak amplitude or less: nothing, value noise, stripes or checks."""
    amplitude *= rng.random()
    kind = rng.random()
    if kind < 0.2:
        return np.zeros((1, 1, 1), np.float32)
    if kind < 0.7:
        channels = 1 if rng.random() < 0.6 else 3
        cells = int(rng.integers(2, max(3, side // 2)))
        noise = rng.uniform(-1, 1, (cells, cells, channels)).astype(np.float32)
        return cv2.resize(noise, (side, side), interpolation=cv2.INTER_CUBIC).reshape(side, side, channels) * amplitude
    angle, period, phase = rng.uniform(0, math.pi), rng.uniform(0.08, 0.8) * side, rng.uniform(0, 2 * math.pi)
    axis = np.arange(side, dtype=np.float32) * (2 * math.pi / period)
    along = axis[None, :] * math.cos(angle) + axis[:, None] * math.sin(angle) + phase
    wave = np.sin(along)
    if kind < 0.8:
        wave = np.sign(wave)
    elif kind < 0.9:
        across = axis[:, None] * math.cos(angle) - axis[None, :] * math.sin(angle)
        wave = np.sign(wave * np.sin(across))
    return (wave * amplitude).astype(np.float32)[..., None]


def _slope(rng: np.random.Generator, side: int) -> np.ndarray:
    axis = np.linspace(-1, 1, side, dtype=np.float32)
    angle = rng.uniform(0, 2 * math.pi)
    return (axis[None, :] * math.cos(angle) + axis[:, None] * math.sin(angle)).astype(np.float32)[..., None]
