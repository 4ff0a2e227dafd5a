"""Draws the sample images over the crops that stn makes of them: the picture in the README.

stn rectify sample_images -o rectified && python sample_images/show.py rectified models/digits/example.png
"""

import json
import sys
from pathlib import Path

from PIL import Image

SIDE, GAP, SPACE = 104, 6, 11
"""Of a tile, between tiles, between the rows; in pixels."""


def tile(path: Path) -> Image.Image:
    with Image.open(path) as image:
        return image.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BICUBIC)


def main(rectified: Path, target: Path) -> None:
    folder = Path(__file__).parent
    names = list(json.loads((folder / "truth.json").read_text(encoding="utf-8")))
    sheet = Image.new("RGB", (len(names) * (SIDE + GAP), 2 * SIDE + SPACE + GAP), "white")
    for column, name in enumerate(names):
        for row, source in enumerate((folder, rectified)):
            sheet.paste(tile(source / name), (GAP // 2 + column * (SIDE + GAP), GAP // 2 + row * (SIDE + SPACE)))
    sheet.save(target, optimize=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
