"""Rendered words as training data: fonts and words in, samples out."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from stn_cli.errors import TrainingDataError
from stn_cli.training.samples import Batch, DrawnSamples, one_sample
from stn_cli.training.text.config import TextConfig
from stn_cli.training.text.drawing import draw_word
from stn_cli.training.text.fonts import held_out, writing_fonts
from stn_cli.training.text.masks import render_masks
from stn_cli.training.text.textures import render_textures

_TEXTURES = 512
_HELD_OUT_MASKS = 4000
_EVERY = 20
"""Every so many-th word is held out."""
_LONGEST_WORD = 14


@dataclass(frozen=True)
class Lettering:
    """Fonts and words, both split: what is trained on, and what is never seen in training."""

    fonts: tuple[Path, ...]
    held_out_fonts: tuple[Path, ...]
    words: tuple[str, ...]
    held_out_words: tuple[str, ...]

    @property
    def fingerprint(self) -> str:
        """The same for fonts of the same names, and the same words."""
        fonts = [[path.name for path in paths] for paths in (self.fonts, self.held_out_fonts)]
        known = repr((fonts, self.words, self.held_out_words)).encode()
        return hashlib.blake2b(known, digest_size=16).hexdigest()

    @property
    def summary(self) -> str:
        """What the data is, for a person."""
        held_out = f"{len(self.held_out_fonts)} and {len(self.held_out_words)} held out"
        return f"{len(self.fonts)} fonts, {len(self.words)} words, {held_out}"


class TextSamples(DrawnSamples):
    """Words in all poses of the scenes, rendered into masks when this is made."""

    def __init__(
        self,
        config: TextConfig,
        fonts: Sequence[Path],
        words: Sequence[str],
        *,
        masks: int,
        canvas: int,
        seed: int,
        length: int,
        workers: int = 1,
    ) -> None:
        super().__init__(config.scenes, seed=seed, length=length)
        self.config, self.canvas = config, canvas
        self.masks = render_masks(fonts, words, masks, seed, workers, short=config.short)
        self.textures = render_textures(_TEXTURES, seed)

    def draw(self, rng: np.random.Generator) -> Batch:
        number = self.random_scene(rng)
        drawn = draw_word(rng, self.masks, self.textures, self.config.scenes[number], self.canvas)
        return one_sample(drawn.canvas[..., None], drawn.fiducials, -1, number)


def read_lettering(folders: Sequence[Path], config: TextConfig) -> Lettering:
    """The fonts below the folders and the words of the configured file.

    Raises:
        TrainingDataError: a folder or the file is missing, or there are too few of either to hold some out.
    """
    for folder in folders:
        if not folder.is_dir():
            raise TrainingDataError(f"{folder} is not a folder", remedy="Name folders that hold fonts.")
    trained, validated = held_out(writing_fonts(folders), config.held_out_fonts)
    words = _read_words(Path(config.words))
    if not trained or not validated or len(words) < _EVERY:
        raise TrainingDataError(
            f"{len(trained)} fonts, {len(validated)} more to hold out, and {len(words)} words are too few",
            remedy="Name folders with more fonts, and a longer file of words.",
        )
    kept = tuple(word for number, word in enumerate(words) if number % _EVERY)
    return Lettering(tuple(trained), tuple(validated), kept, tuple(words[::_EVERY]))


def training_samples(lettering: Lettering, config: TextConfig, **common: int) -> TextSamples:
    """Samples of what is trained on; `common` has canvas, seed, length and workers."""
    return TextSamples(config, lettering.fonts, lettering.words, masks=config.masks, **common)


def held_out_samples(lettering: Lettering, config: TextConfig, **common: int) -> TextSamples:
    """Samples in fonts and of words that training never sees."""
    count = min(_HELD_OUT_MASKS, config.masks)
    return TextSamples(config, lettering.held_out_fonts, lettering.held_out_words, masks=count, **common)


def _read_words(path: Path) -> list[str]:
    """ASCII words of letters alone, of 1 to 14 of them, in the order of the file."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise TrainingDataError(
            f"the words cannot be read from {path}: {error}", remedy="Name a text file with one word a line."
        ) from error
    return [word for word in lines if word.isascii() and word.isalpha() and len(word) <= _LONGEST_WORD]
