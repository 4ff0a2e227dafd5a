"""Makes the sample images and `truth.json` from MNIST's test digits and fonts with digits of their own.

    python sample_images/make_digits.py $STN_DATA/mnist FONT [FONT ...]

`truth.json` holds, for every file, its digit and the corner-based pixel matrix from the upright 28×28 frame.
"""

import json
import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from stn_cli.training.config import Scene
from stn_cli.training.examples.files import open_files
from stn_cli.training.examples.idx import read_idx
from stn_cli.training.scenes import draw

FRAME = 280
SMALL = {
    "rotated": Scene(pixels=(28, 28), rotation=85, extent=(1, 1), reach=0, plain=1),
    "displaced": Scene(pixels=(42, 42), rotation=45, extent=(0.5, 0.8), plain=1),
    "cluttered": Scene(
        pixels=(60, 60), rotation=0, extent=(0.467, 0.467), clutter=(6, 6), clutter_size=(0.214, 0.214), plain=1
    ),
}
PHOTO = Scene(pixels=(320, 480), rotation=60, extent=(0.45, 0.8), plain=0)


def printed(font: Path, digit: int) -> np.ndarray:
    """The digit in MNIST's framing, (FRAME, FRAME, 1) uint8."""
    image = Image.new("L", (FRAME, FRAME))
    face = ImageFont.truetype(font, FRAME * 20 // 28 * 4 // 3)
    ImageDraw.Draw(image).text((FRAME / 2, FRAME / 2), str(digit), fill=255, font=face, anchor="mm")
    left, top, right, bottom = image.getbbox() or (0, 0, 1, 1)
    scale = FRAME * 20 / 28 / max(right - left, bottom - top)
    ink = image.crop((left, top, right, bottom)).resize((round((right - left) * scale), round((bottom - top) * scale)))
    framed = Image.new("L", (FRAME, FRAME))
    framed.paste(ink, ((FRAME - ink.width) // 2, (FRAME - ink.height) // 2))
    return np.asarray(framed)[..., None]


def pixel_matrix(truth: np.ndarray, side: int) -> list[list[float]]:
    """From the 28×28 frame to pixels of a square canvas, both corner-based."""
    to_canvas = np.array([[side / 2, 0, side / 2], [0, side / 2, side / 2], [0, 0, 1]])
    from_frame = np.array([[2 / 28, 0, -1], [0, 2 / 28, -1], [0, 0, 1]])
    matrix: list[list[float]] = (to_canvas @ truth @ from_frame).tolist()
    return matrix


def main(mnist: Path, fonts: list[Path], folder: Path) -> None:
    files = open_files(mnist)
    images = read_idx(files, "t10k-images-idx3-ubyte.gz")[..., None]
    labels = read_idx(files, "t10k-labels-idx1-ubyte.gz")
    truth = {}
    for kind, scene in SMALL.items():
        for number in range(3):
            rng = np.random.default_rng((7, number, *kind.encode()))
            index = int(rng.integers(len(images)))
            drawn = draw(rng, images[index], list(images[:100]), scene, scene.pixels[0], ink=True)
            name = f"{kind}-{number + 1}.png"
            Image.fromarray(drawn.canvas[..., 0]).save(folder / name, optimize=True)
            truth[name] = {"digit": int(labels[index]), "pixel_matrix": pixel_matrix(drawn.truth, len(drawn.canvas))}
    for number, digit in enumerate((2, 3, 4, 5, 7)):
        rng = np.random.default_rng((11, number))
        side = int(rng.integers(PHOTO.pixels[0], PHOTO.pixels[1] + 1))
        drawn = draw(rng, printed(fonts[number % len(fonts)], digit), [], PHOTO, side, ink=True)
        name = f"photo-{number + 1}.jpg"
        Image.fromarray(drawn.canvas).save(folder / name, quality=88)
        truth[name] = {"digit": digit, "pixel_matrix": pixel_matrix(drawn.truth, side)}
    (folder / "truth.json").write_text(json.dumps(truth, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), [Path(font) for font in sys.argv[2:]], Path(__file__).parent / "digits")
