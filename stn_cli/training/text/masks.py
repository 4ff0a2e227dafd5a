"""Masks of words: rendered once, bent and coloured anew for every sample."""

from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image, ImageFont

from stn_cli.training.text.content import Vocabulary, random_text, vocabulary

HEIGHT = 48
"""Pixels from the top to the bottom of a word's ink."""
_FONT_SIZE = 64
_WORDS_A_FONT = 16
_LEAST_WIDTH, _MOST_WIDTH = 14, 24 * HEIGHT


class Mask(NamedTuple):
    """A word and its ink, (HEIGHT, w) uint8, which touches all four sides."""

    text: str
    ink: np.ndarray


def render_masks(
    fonts: Sequence[Path], words: Sequence[str], count: int, seed: int, workers: int, *, short: float = 0.0
) -> list[Mask]:
    """`count` masks, the same whatever the number of worker processes; `short` as for `random_text`."""
    jobs = range(-(-count // _WORDS_A_FONT))
    render = partial(_render_some, list(fonts), vocabulary(words), short, seed)
    if workers < 2:
        parts = [render(job) for job in jobs]
    else:
        with ProcessPoolExecutor(workers) as pool:
            parts = list(pool.map(render, jobs, chunksize=16))
    return [mask for part in parts for mask in part][:count]


def _render_some(fonts: list[Path], known: Vocabulary, short: float, seed: int, job: int) -> list[Mask]:
    """Words in one font; another font is drawn for what this one cannot write."""
    rng = np.random.default_rng((seed, job))
    masks: list[Mask] = []
    while len(masks) < _WORDS_A_FONT:
        font = ImageFont.truetype(fonts[int(rng.integers(len(fonts)))], _FONT_SIZE)
        for _ in range(2 * _WORDS_A_FONT):
            text = random_text(rng, known, short)
            ink = render_text(font, text, spacing=_spacing(rng))
            if ink is not None and len(masks) < _WORDS_A_FONT:
                masks.append(Mask(text, ink))
    return masks


def _spacing(rng: np.random.Generator) -> float:
    """Between letters, in font sizes; mostly none beyond the font's own."""
    return 0.0 if rng.random() < 0.8 else float(rng.uniform(-0.03, 0.35))


def render_text(font: ImageFont.FreeTypeFont, text: str, *, spacing: float = 0.0) -> np.ndarray | None:
    """The word's ink, HEIGHT pixels high; None where the font writes nothing, or a mere dot or dash."""
    try:
        drawn = _drawn(font, text) if not spacing else _spaced(font, text, spacing * font.size)
    except (OSError, ValueError):
        return None
    if drawn is None or not drawn.any():
        return None
    rows, columns = np.flatnonzero(drawn.max(axis=1) > 32), np.flatnonzero(drawn.max(axis=0) > 32)
    if len(rows) < _FONT_SIZE // 5 or len(columns) < 2:
        return None
    ink = drawn[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    width = round(ink.shape[1] * HEIGHT / ink.shape[0])
    if not _LEAST_WIDTH <= width <= _MOST_WIDTH:
        return None
    shrinks = ink.shape[0] > HEIGHT
    method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    resized: np.ndarray = cv2.resize(ink, (width, HEIGHT), interpolation=method)
    return resized


def _drawn(font: ImageFont.FreeTypeFont, text: str) -> np.ndarray | None:
    mask = font.getmask(text, mode="L")
    if 0 in mask.size:
        return None
    return np.asarray(Image.frombytes("L", mask.size, bytes(mask)))


def _spaced(font: ImageFont.FreeTypeFont, text: str, gap: float) -> np.ndarray:
    """Letter by letter, each `gap` pixels further than the font puts it."""
    starts = np.cumsum([0.0, *(font.getlength(letter) + gap for letter in text)])
    canvas = Image.new("L", (max(0, int(starts[-1])) + 4 * _FONT_SIZE, 4 * _FONT_SIZE))
    for letter, start in zip(text, starts[:-1], strict=True):
        mask, offset = font.getmask2(letter, mode="L")
        if 0 not in mask.size:
            ink = Image.frombytes("L", mask.size, bytes(mask))
            canvas.paste(255, (_FONT_SIZE + round(start) + offset[0], _FONT_SIZE + offset[1]), ink)
    return np.asarray(canvas)
