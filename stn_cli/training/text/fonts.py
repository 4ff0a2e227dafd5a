"""Fonts that write Latin words: found in folders, screened, split into those trained on and those held out."""

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageFont

_SUFFIXES = {".ttf", ".otf", ".pfb"}
_LETTERS = "aegknrstHMBRSAE2357"
_SIDE = 20
_LEAST_LIKENESS = 0.35
"""Correlation of a font's letters with the mean letters of all fonts: below it, they are ornaments or dingbats."""
_DRAWN_ALIKE = 0.985


def writing_fonts(folders: Iterable[Path]) -> list[Path]:
    """The fonts below the folders whose letters look like letters, in the order of their names."""
    paths = sorted({path for folder in folders for path in folder.rglob("*") if path.suffix.lower() in _SUFFIXES})
    drawn = [(path, letters) for path in paths if (letters := _letters(path)) is not None]
    if not drawn:
        return []
    mean = np.mean([letters for _, letters in drawn], axis=0)
    return [path for path, letters in drawn if _likeness(letters, mean) > _LEAST_LIKENESS]


def held_out(fonts: Sequence[Path], share: float) -> tuple[list[Path], list[Path]]:
    """Fonts to train on, and fonts to validate on that are not drawn like any of them.

    Families stay together (by the first word of the file's name), chosen by its hash.
    """
    chosen = [_unit_hash(_family(path)) < share for path in fonts]
    trained = [path for path, out in zip(fonts, chosen, strict=True) if not out]
    seen = [letters for path in trained if (letters := _letters(path)) is not None]
    others = [path for path, out in zip(fonts, chosen, strict=True) if out and not _is_alike(path, seen)]
    return trained, others


def _is_alike(path: Path, seen: Sequence[np.ndarray]) -> bool:
    letters = _letters(path)
    return letters is not None and any(_likeness(letters, other) > _DRAWN_ALIKE for other in seen)


def _letters(path: Path) -> np.ndarray | None:
    """Images (letters, pixels) of zero mean and unit norm; None where the font lacks letters or draws two alike."""
    try:
        font = ImageFont.truetype(path, 40)
        images = [_letter(font, letter) for letter in _LETTERS]
    except (OSError, ValueError):
        return None
    drawn = [image for image in images if image is not None]
    if len({image.tobytes() for image in drawn}) < len(_LETTERS):
        return None
    return np.stack(drawn)


def _letter(font: ImageFont.FreeTypeFont, letter: str) -> np.ndarray | None:
    mask = font.getmask(letter)
    if 0 in mask.size or min(mask.size) < 2:
        return None
    image = Image.frombytes("L", mask.size, bytes(mask)).resize((_SIDE, _SIDE), Image.Resampling.BOX)
    pixels = np.asarray(image, dtype=np.float32).ravel()
    pixels = pixels - pixels.mean()
    norm = float(np.linalg.norm(pixels))
    return pixels / norm if norm > 0 else None


def _likeness(a: np.ndarray, b: np.ndarray) -> float:
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return float(np.mean(np.sum(a * b, axis=1) / norms))


def _family(path: Path) -> str:
    """`DejaVuSans-Bold` and `DejaVuSans` are one family."""
    return path.stem.split("-")[0].split("_")[0].rstrip("0123456789").lower()[:10]


def _unit_hash(text: str) -> float:
    """A number in 0…1 that is a pure function of the text."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") / 2**64
