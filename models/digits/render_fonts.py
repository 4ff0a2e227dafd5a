"""Renders the ten digits in every font of the given folders, framed as MNIST frames them, into class sub-folders.

    python models/digits/render_fonts.py /usr/share/fonts build/font_digits

MNIST (LeCun et al. 1998): the digit fits a 20×20 box, aspect kept, its centre of mass in the middle of 28×28.
Everything here is twice that. Fonts without digits, or with digits that are not distinct, are left out.
"""

import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

FRAME, BOX = 56, 40


def render(font: ImageFont.FreeTypeFont, digit: str) -> Image.Image | None:
    """The digit, white on black, FRAME×FRAME; None if the font draws nothing."""
    drawn = Image.new("L", (400, 400))
    ImageDraw.Draw(drawn).text((200, 200), digit, fill=255, font=font, anchor="mm")
    box = drawn.getbbox()
    if box is None:
        return None
    ink = drawn.crop(box)
    scale = BOX / max(ink.size)
    ink = ink.resize((max(1, round(ink.width * scale)), max(1, round(ink.height * scale))), Image.Resampling.BOX)
    mass = np.asarray(ink, dtype=float)
    rows, columns = np.indices(mass.shape) + 0.5
    left = round(FRAME / 2 - float((columns * mass).sum() / mass.sum()))
    top = round(FRAME / 2 - float((rows * mass).sum() / mass.sum()))
    framed = Image.new("L", (FRAME, FRAME))
    framed.paste(ink, (left, top))
    return framed


def render_font(path: Path) -> list[Image.Image]:
    """All ten digits, or none."""
    try:
        font = ImageFont.truetype(path, 160)
        digits = [render(font, str(digit)) for digit in range(10)]
    except OSError:
        return []
    drawn = [digit for digit in digits if digit is not None]
    return drawn if len({digit.tobytes() for digit in drawn}) == len(digits) else []


def main(fonts: Path, target: Path) -> None:
    for digit in range(10):
        (target / str(digit)).mkdir(parents=True, exist_ok=True)
    paths = sorted(path for path in fonts.rglob("*") if path.suffix.lower() in {".ttf", ".otf", ".pfb"})
    for number, path in enumerate(paths):
        for digit, image in enumerate(render_font(path)):
            image.save(target / str(digit) / f"{number:04d}-{path.stem}.png")
    print(f"{len(list((target / '0').iterdir()))} fonts rendered")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
