"""Geometry: transforms of the plane (and of space), and the one convention that holds everywhere in `stn`.

Convention
----------
- Points are (x, y); in volumes (x, y, z). Sizes are (height, width); of volumes (depth, height, width).
- Normalised coordinates run from −1 to 1 across the outer *edges* of an image, so that pixel centres lie at half
  pixels: column j of W has its centre at (2j + 1)/W − 1. This is `align_corners=False`, and there is no other.
- θ maps output → input, as in Jaderberg et al. 2015 (eq. 1) and `torch.nn.functional.affine_grid`: a transform takes
  a point of the crop to the point of the source that is shown there.
- `(a @ b)(p) == a(b(p))`, hence `sample(sample(I, a), b) == sample(I, a @ b)` up to resampling.
- Pixel matrices are corner-based, x_px = (x + 1)·W/2, as in Pillow. `center_based` gives OpenCV's form, whose origin
  is the centre of the first pixel.
- Angles are radians; positive turns x towards y, which is clockwise as seen, since y points down.
- Arrays are NumPy or torch; leading dimensions are batch. Everything is computed in float32 or better.
"""

from stn_cli.geometry.base import InverseTransform, Transform
from stn_cli.geometry.batches import alike
from stn_cli.geometry.cascade import Cascade
from stn_cli.geometry.frames import (
    center_based,
    corner_based,
    letterbox,
    pixel_matrix,
    pixel_points,
)
from stn_cli.geometry.grids import corners, grid, outline
from stn_cli.geometry.layouts import BorderLayout, GridLayout, Layout, layout_from_name
from stn_cli.geometry.linear import Affine, Affine3d, Attention, Linear, Projective, Similarity, Translation
from stn_cli.geometry.quality import (
    Quality,
    crop_size,
    crop_sizes,
    determinants,
    qualities,
    quality,
    volume_size,
    zooms,
)
from stn_cli.geometry.spec import KINDS, TransformSpec
from stn_cli.geometry.tps import ThinPlateSpline

__all__ = [
    "KINDS",
    "Affine",
    "Affine3d",
    "Attention",
    "BorderLayout",
    "Cascade",
    "GridLayout",
    "InverseTransform",
    "Layout",
    "Linear",
    "Projective",
    "Quality",
    "Similarity",
    "ThinPlateSpline",
    "Transform",
    "TransformSpec",
    "Translation",
    "alike",
    "center_based",
    "corner_based",
    "corners",
    "crop_size",
    "crop_sizes",
    "determinants",
    "grid",
    "layout_from_name",
    "letterbox",
    "outline",
    "pixel_matrix",
    "pixel_points",
    "qualities",
    "quality",
    "volume_size",
    "zooms",
]
