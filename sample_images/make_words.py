"""Makes the words among the sample images, and their `truth.json`, from open fonts on procedural surfaces.

    python sample_images/make_words.py /usr/share/fonts/truetype

`truth.json` holds, for every file, what is written and where the 20 border points of the word lie, in corner-based
pixels: the upper border from left to right, then the lower.
"""

import json
import sys
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageFont

from stn_cli.training.text.config import TextScene
from stn_cli.training.text.masks import HEIGHT, render_text
from stn_cli.training.text.pose import random_pose
from stn_cli.training.text.textures import render_textures

Colour = tuple[int, int, int]


@dataclass(frozen=True)
class Word:
    """What is written in which font, how it lies, its colours, and the longer side of the picture in pixels."""

    text: str
    font: str
    scene: TextScene
    seed: int
    ink: Colour
    ground: Colour
    side: int


ARCH = TextScene(name="arch", rotation=12, arcs=1, arc=(120, 170), shear=0.05, perspective=0.05, cut=0)
RING = TextScene(name="ring", rotation=20, arcs=1, arc=(250, 300), shear=0.02, perspective=0.05, cut=0)
WAVE = TextScene(name="wave", rotation=8, waves=1, wave=0.9, shear=0.1, perspective=0.1, cut=0)
SIGN = TextScene(name="sign", rotation=25, shear=0.3, perspective=0.55, cut=0)
TURN = TextScene(name="turn", rotation=180, shear=0.05, perspective=0.1, cut=0)
FLAT = TextScene(name="flat", rotation=0.5, shear=0.0, perspective=0.0, cut=0, loose=0)
WORDS = {
    "arch.jpg": Word("HARBOUR", "DejaVuSans-Bold", ARCH, 3, (250, 236, 200), (36, 66, 110), 420),
    "ring.jpg": Word("Confectionery", "LiberationSerif-Bold", RING, 5, (110, 24, 40), (238, 224, 206), 520),
    "wave.png": Word("summertime", "Lato-Black", WAVE, 2, (244, 190, 40), (30, 110, 120), 480),
    "sign.jpg": Word("Bakery", "DejaVuSerif-Bold", SIGN, 4, (245, 245, 240), (70, 92, 58), 400),
    "turned.png": Word("Platform 9", "LiberationSans-Bold", TURN, 8, (24, 24, 28), (236, 200, 60), 360),
    "small.png": Word("COFFEE", "DejaVuSansMono-Bold", SIGN, 9, (60, 36, 20), (214, 200, 184), 72),
    "straight.png": Word("straight", "LiberationSans-Regular", FLAT, 1, (20, 20, 20), (240, 240, 236), 240),
}


def draw(word: Word, font: Path, surface: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The picture (h, w, 3) uint8 and the word's border points (20, 2) in pixels."""
    rng = np.random.default_rng(word.seed)
    ink = render_text(ImageFont.truetype(font, 64), word.text)
    if ink is None:
        raise SystemExit(f"{font} cannot write {word.text!r}")
    pose = random_pose(rng, word.scene, ink.shape[1] / HEIGHT)
    left, top, right, bottom = pose.box
    scale = word.side / max(right - left, bottom - top)
    height, width = round((bottom - top) * scale), round((right - left) * scale)
    x, y = np.meshgrid(left + (np.arange(width) + 0.5) / scale, top + (np.arange(height) + 0.5) / scale)
    u, v = pose.bend.inverse(x, y)
    columns, rows = (u / pose.bend.aspect + 1) * ink.shape[1] / 2 - 0.5, (v + 1) * HEIGHT / 2 - 0.5
    cover = cv2.remap(ink, columns.astype(np.float32), rows.astype(np.float32), cv2.INTER_CUBIC) / 255.0
    shade = cv2.resize(surface, (width, height), interpolation=cv2.INTER_CUBIC)[..., None] - 128.0
    ground = np.array(word.ground) + 0.14 * shade
    picture = ground + cover[..., None] * (np.array(word.ink) + 0.06 * shade - ground)
    picture = cv2.GaussianBlur(picture + rng.normal(0, 2.5, picture.shape), (0, 0), 0.6)
    points = (pose.fiducials + 1) * (width / 2, height / 2)
    return np.clip(np.rint(picture), 0, 255).astype(np.uint8), points


def main(fonts: Path, folder: Path) -> None:
    truth = {}
    surfaces = render_textures(len(WORDS), 12)
    for (name, word), surface in zip(WORDS.items(), surfaces, strict=True):
        picture, points = draw(word, next(fonts.rglob(f"{word.font}.ttf")), surface)
        Image.fromarray(picture).save(folder / name, quality=90, optimize=True)
        truth[name] = {"text": word.text, "fiducials": points.round(3).tolist()}
    (folder / "truth.json").write_text(json.dumps(truth, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(__file__).parent / "words")
