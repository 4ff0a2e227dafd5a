"""How exact are geometry and sampling? The largest differences from Pillow, OpenCV, scikit-image and the definition.

    python -m benchmarks.exactness

Images and transforms are those of the tests, which hold the bounds; this prints what lies below them.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from skimage.transform import ThinPlateSplineTransform

from benchmarks.provenance import RESULTS, provenance, write_report
from stn_cli.geometry import Affine, ThinPlateSpline, Translation, grid, layout_from_name, pixel_points
from stn_cli.sampling.differentiable import sample
from stn_cli.sampling.warp import warp
from tests.geometry.examples import ALL, PLANAR, PLANAR_LINEAR, as_torch, example, points_in, spline_theta
from tests.sampling.images import batch, blobs, checkers, noise, picture, pillow_crop, psnr, well_inside

if TYPE_CHECKING:
    from collections.abc import Callable

SOURCE, CROP = (60, 81), (40, 50)
LAYOUTS = ("grid 3x3", "grid 4x4", "border 2x2", "border 2x10")
SHRINK = 30


def crop(image: np.ndarray, transform: object, size: tuple[int, int], **options: Any) -> np.ndarray:
    """The crop by the differentiable sampler in float32."""
    planes = batch(image.astype(np.float32))
    return picture(sample(planes, as_torch(transform, torch.float32), size, **options))[..., 0]


def against_pillow() -> float:
    image, most = noise(SOURCE), 0.0
    for name in PLANAR_LINEAR:
        transform = example(name)
        inside = well_inside(transform, SOURCE, CROP)
        difference = crop(image, transform, CROP, resample="bilinear") - pillow_crop(image, transform, CROP)
        most = max(most, float(np.abs(difference[inside]).max()))
    return most


def identity_and_shift() -> float:
    image = noise((16, 32)).astype(np.float32)
    shift = Translation(np.array([2 * 3 / 32, -2 * 5 / 16]))
    shifted = crop(image, shift, (16, 32), fill=(0.0,))
    whole = np.abs(crop(image, Affine.identity(), (16, 32)) - image).max()
    return float(max(whole, np.abs(shifted[5:, :-3] - image[:-5, 3:]).max()))


def against_scikit_image() -> float:
    most, size = 0.0, (480, 640)
    for name in LAYOUTS:
        spline = ThinPlateSpline(spline_theta(name, spread=0.15), layout_from_name(name))
        oracle = ThinPlateSplineTransform.from_estimate(spline.layout.points, spline.control_points)
        points = grid(size)[::13]
        difference = pixel_points(spline(points), size) - pixel_points(oracle(points), size)
        most = max(most, float(np.abs(difference).max()))
    return most


def resolution() -> float:
    centres, most = grid((64, 64)), 0.0
    for name in PLANAR:
        predicted = example(name, lambda theta: np.asarray(theta, np.float32).astype(np.float64))
        small = pixel_points(predicted(centres), (64, 64)) * 64
        large = as_torch(predicted, torch.float32)(torch.tensor(centres, dtype=torch.float32))
        most = max(most, float(np.abs(pixel_points(large, (4096, 4096)).numpy() - small).max()))
    return most


def composition(*, swapped: bool) -> float:
    image, size = blobs((90, 120)), (80, 100)
    first, second = example("affine"), example("similarity")
    product = second @ first if swapped else first @ second
    twice, once = crop(crop(image, first, size), second, size), crop(image, product, size)
    return float(np.abs(twice - once)[well_inside(second, size, size, margin=2)].max())


def torch_against_numpy() -> float:
    most = 0.0
    for name in ALL:
        ours = example(name)
        points = points_in(ours)
        theirs = as_torch(ours, torch.float64)(torch.tensor(points))
        most = max(most, float(np.abs(theirs.numpy() - ours(points)).max()))
    return most


def shrink(read: Callable[[np.ndarray], np.ndarray]) -> float:
    height, width = 24, 32
    large = (height * SHRINK, width * SHRINK)
    return min(
        psnr(read(image), image.reshape(height, SHRINK, width, SHRINK).mean(axis=(1, 3)))
        for image in (np.rint(blobs(large)), checkers(large), np.rint(noise(large)))
    )


def measures() -> dict[str, float]:
    """Every figure by what it says."""
    identity, small = Affine.identity(), (24, 32)
    return {
        "bilinear, linear kinds, largest difference from Pillow's mode F (of 255)": against_pillow(),
        "identity and whole-pixel shift, largest difference (of 255)": identity_and_shift(),
        "thin-plate spline, largest distance from scikit-image's (px at 480x640)": against_scikit_image(),
        "theta predicted at 64 px, in float32 at 4096 px, largest error (px)": resolution(),
        "sample(sample(I, A), B) against sample(I, A @ B), largest difference (of 255)": composition(swapped=False),
        "the same against sample(I, B @ A) (of 255)": composition(swapped=True),
        "torch against NumPy in float64, largest difference (normalised)": torch_against_numpy(),
        "30x shrink, differentiable sampler, least PSNR (dB)": shrink(lambda image: crop(image, identity, small)),
        "30x shrink, OpenCV sampler on uint8, least PSNR (dB)": shrink(
            lambda image: warp(image.astype(np.uint8)[..., None], identity, small)[..., 0]
        ),
    }


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.exactness", description=__doc__.partition("\n")[0])
    parser.add_argument("--output", type=Path, default=RESULTS / "exactness.json")
    args = parser.parse_args(argv)
    figures = measures()
    for name, value in figures.items():
        print(f"{value:10.3g}  {name}")
    write_report(args.output, provenance("exactness", argv) | {"figures": figures})


if __name__ == "__main__":
    main(sys.argv[1:])
