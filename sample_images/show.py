"""Draws sample images over the crops that stn makes of them: the pictures in the README.

stn rectify sample_images/words -o rectified
python sample_images/show.py sample_images/words rectified models/text/example.png
"""

import json
import sys
from pathlib import Path

from PIL import Image

SIDE, GAP = 150, 8
"""Of a tile, at most, and between tiles; in pixels."""


def tile(path: Path) -> Image.Image:
    """The image as large as fits."""
    with Image.open(path) as image:
        scale = SIDE / max(image.size)
        size = (round(image.width * scale), round(image.height * scale))
        return image.convert("RGB").resize(size, Image.Resampling.LANCZOS)


def main(folder: Path, rectified: Path, target: Path) -> None:
    names = list(json.loads((folder / "truth.json").read_text(encoding="utf-8")))
    rows = [[tile(source / name) for name in names] for source in (folder, rectified)]
    heights = [max(image.height for image in row) for row in rows]
    widths = [max(image.width for image in column) for column in zip(*rows, strict=True)]
    sheet = Image.new("RGB", (sum(widths) + GAP * (len(names) + 1), sum(heights) + 3 * GAP), "white")
    top = GAP
    for row, height in zip(rows, heights, strict=True):
        left = GAP
        for image, width in zip(row, widths, strict=True):
            sheet.paste(image, (left + (width - image.width) // 2, top + (height - image.height) // 2))
            left += width + GAP
        top += height + GAP
    sheet.save(target, optimize=True)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:4]))
