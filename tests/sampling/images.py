"""Images to sample, and crops read by others."""

import numpy as np
import PIL.Image
import torch
from scipy import ndimage

from stn_cli.geometry import grid, pixel_matrix

BILINEAR = PIL.Image.Resampling.BILINEAR


def noise(shape, seed=0, top=255.0):
    return np.random.default_rng(seed).uniform(0, top, shape)


def blobs(size, seed=0):
    """A smooth image (h, w), 0…255."""
    y, x = np.mgrid[: size[0], : size[1]]
    image = np.zeros(size)
    for cy, cx, radius in np.random.default_rng(seed).uniform((0, 0, 0.1), (1, 1, 0.25), (12, 3)):
        image += np.exp(-(((y / size[0] - cy) ** 2 + (x / size[1] - cx) ** 2) / (2 * radius**2)))
    return 255 * image / image.max()


def checkers(size, tile=7):
    y, x = np.mgrid[: size[0], : size[1]]
    return 255.0 * ((y // tile + x // tile) % 2)


def batch(image):
    """(h, w) or (h, w, c) as a batch of one, (1, c, h, w)."""
    image = np.atleast_3d(np.asarray(image))
    return torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)[None]


def picture(crop):
    """The first of a batch as (h, w, c)."""
    return crop[0].permute(1, 2, 0).numpy()


def source_pixels(transform, source, size):
    """Corner-based source pixels (h, w, 2) of the crop's pixel centres."""
    points = np.asarray(transform(grid(size))) + 1
    return (points * np.array(source[::-1]) / 2).reshape(*size, 2)


def well_inside(transform, source, size, margin=1.0):
    """Which pixels of the crop read the source at least `margin` pixels from its border."""
    at = source_pixels(transform, source, size)
    return np.all((at > margin) & (at < np.array(source[::-1]) - margin), axis=-1)


def pillow_crop(image, transform, size):
    """The crop that Pillow reads, given the pixel matrix."""
    matrix = pixel_matrix(transform, image.shape, size)
    how = PIL.Image.Transform.PERSPECTIVE if transform.kind == "projective" else PIL.Image.Transform.AFFINE
    data = matrix.ravel()[: 8 if transform.kind == "projective" else 6].tolist()
    return np.asarray(PIL.Image.fromarray(image.astype(np.float32)).transform(size[::-1], how, data, BILINEAR))


def scipy_crop(image, transform, size, *, order=1, mode="nearest", cval=0.0):
    """The crop that SciPy interpolates of an image (h, w) or a volume (d, h, w)."""
    points = (np.asarray(transform(grid(size))) + 1) * np.array(image.shape[::-1]) / 2 - 0.5
    return ndimage.map_coordinates(image, points[:, ::-1].T, order=order, mode=mode, cval=cval).reshape(size)


def psnr(a, b):
    return float(10 * np.log10(255**2 / np.mean((np.asarray(a, float) - np.asarray(b, float)) ** 2)))
