"""Procedural surfaces that words are written on, and in: noise of many scales, stripes, bricks, shapes."""

import math

import cv2
import numpy as np

SIDE = 224


def render_textures(count: int, seed: int) -> np.ndarray:
    """(count, SIDE, SIDE) uint8, each of mean about 128; a pure function of the arguments."""
    return np.stack([_texture(np.random.default_rng((seed, index))) for index in range(count)])


def _texture(rng: np.random.Generator) -> np.ndarray:
    kinds = (_noise, _noise, _stripes, _bricks, _shapes, _shapes, _scribble)
    surface = kinds[int(rng.integers(len(kinds)))](rng)
    if rng.random() < 0.5:
        surface = surface + rng.uniform(0.2, 1.0) * _noise(rng)
    if rng.random() < 0.4:
        surface = cv2.GaussianBlur(surface, (0, 0), rng.uniform(0.6, 5.0))
    surface = surface - surface.mean()
    scaled = 128.0 + surface * (48.0 / max(1e-3, float(surface.std())))
    texture: np.ndarray = np.clip(scaled, 0, 255).astype(np.uint8)
    return texture


def _noise(rng: np.random.Generator) -> np.ndarray:
    """Octaves of value noise that fall off like those of natural pictures."""
    total = np.zeros((SIDE, SIDE), np.float32)
    fall = rng.uniform(0.4, 0.95)
    for octave in range(1, 8):
        cells = 2**octave
        values = rng.standard_normal((cells, max(2, round(cells * rng.uniform(0.5, 1.0)))), dtype=np.float32)
        total += fall**octave * cv2.resize(values, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)
    return total / max(1e-6, float(total.std()))


def _stripes(rng: np.random.Generator) -> np.ndarray:
    angle, period, phase = rng.uniform(0, math.pi), math.exp(rng.uniform(1.2, 4.5)), rng.uniform(0, 2 * math.pi)
    axis = np.arange(SIDE, dtype=np.float32) * (2 * math.pi / period)
    wave = np.sin(axis[None, :] * math.cos(angle) + axis[:, None] * math.sin(angle) + phase)
    return np.sign(wave - rng.uniform(-0.8, 0.8)) if rng.random() < 0.6 else wave


def _bricks(rng: np.random.Generator) -> np.ndarray:
    height, width = math.exp(rng.uniform(2.0, 4.2)), math.exp(rng.uniform(2.6, 4.8))
    joint = rng.uniform(0.05, 0.2)
    rows = np.arange(SIDE, dtype=np.float32)[:, None] / height
    columns = np.arange(SIDE, dtype=np.float32)[None, :] / width + 0.5 * (np.floor(rows) % 2)
    shades = rng.standard_normal((64, 128), dtype=np.float32)
    shade = shades[np.floor(rows).astype(int) % 64, np.floor(columns).astype(int)]
    return np.where((rows % 1 < joint) | (columns % 1 < joint * height / width), 2.0, 0.4 * shade).astype(np.float32)


def _shapes(rng: np.random.Generator) -> np.ndarray:
    """Overlapping shapes with sharp edges: frames, poles, window corners, borders of signs."""
    surface = np.zeros((SIDE, SIDE), np.float32)
    for _ in range(int(rng.integers(3, 24))):
        value = float(rng.standard_normal())
        x, y, a, b = (int(n) for n in rng.integers(0, SIDE, 4))
        thickness = -1 if rng.random() < 0.6 else int(rng.integers(1, 9))
        match int(rng.integers(3)):
            case 0:
                cv2.rectangle(surface, (x, y), (a, b), value, thickness)
            case 1:
                axes = (1 + a // 2, 1 + b // 2)
                cv2.ellipse(surface, (x, y), axes, float(rng.uniform(0, 180)), 0, 360, value, thickness)
            case _:
                cv2.line(surface, (x, y), (a, b), value, int(rng.integers(1, 24)))
    return surface


def _scribble(rng: np.random.Generator) -> np.ndarray:
    """Thin strokes all over, like twigs, scratches and small print."""
    surface = np.zeros((SIDE, SIDE), np.float32)
    for _ in range(int(rng.integers(20, 160))):
        start = rng.integers(0, SIDE, 2)
        steps = rng.normal(0, rng.uniform(3, 14), (int(rng.integers(2, 6)), 2)).cumsum(axis=0)
        points = (start + steps).astype(np.int32)[:, None, :]
        cv2.polylines(surface, [points], False, float(rng.choice((-1.0, 1.0))), int(rng.integers(1, 3)))
    return surface
