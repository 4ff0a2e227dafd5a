"""The differentiable sampler (Jaderberg et al. 2015, section 3.3), for images and volumes."""

import torch
import torch.nn.functional as F
from torch import Tensor

from stn_cli.annotations import Float, Int64, Num
from stn_cli.geometry import Transform, grid
from stn_cli.geometry.arrays import like
from stn_cli.sampling.footprint import Footprint, fill_values, footprint, footprints, interpolation
from stn_cli.sampling.kinds import ANTI_ALIASED, Fill, Resample


def sample(
    image: Num[Tensor, "b c *size"],
    transform: Transform,
    size: tuple[int, ...],
    *,
    resample: Resample = "auto",
    fill: Fill = "border",
    plan: Footprint | None = None,
) -> Float[Tensor, "b c *crop"]:
    """The crop of `size` that `transform` shows of `image`.

    Args:
        image: batch of images (b, c, h, w) or volumes (b, c, d, h, w), any real values.
        transform: output → input, θ (b, dof) or (dof,) for the whole batch; differentiable with respect to both.
        size: (height, width), or (depth, height, width), of the crop.
        resample: `auto` is bilinear, anti-aliased by the local footprint; `sharp` likewise, and of images bicubic where
            nothing shrinks; `bilinear`, `bicubic` (images only) and `nearest` read one point for every pixel.
        fill: what lies outside the image.
        plan: of the anti-aliased reading, for all images alike; None: as each image needs it, whatever the others do.

    Returns:
        The crop, in the wider of the dtypes of image and θ (never below float32).

    Raises:
        UsageError: there are neither one nor as many fill values as channels.
    """
    if resample not in ANTI_ALIASED:
        plan = Footprint(0, (1,) * len(size))
    if plan is not None:
        return _read(image, transform, size, plan, resample, fill)
    groups = _alike(transform, tuple(image.shape[2:]), size)
    if len(groups) == 1:
        (plan,) = groups
        return _read(image, transform, size, plan, resample, fill)
    crops = [_read(image[rows], transform[rows], size, each, resample, fill) for each, rows in groups.items()]
    order = torch.cat(list(groups.values())).argsort()
    return torch.cat(crops)[order.to(image.device)]


def _alike(
    transform: Transform, source_size: tuple[int, ...], size: tuple[int, ...]
) -> dict[Footprint, Int64[Tensor, " rows"]]:
    """The images of a batch by how finely they are read; of a single θ, or of no image, one entry."""
    theta = transform.theta
    if theta.ndim == 1:
        return {footprint(transform, source_size, size): torch.zeros(0, dtype=torch.long)}
    plans = footprints(transform, [source_size] * len(theta), [size] * len(theta))
    plans = plans or [Footprint(0, (1,) * len(size))]
    rows: dict[Footprint, list[int]] = {}
    for row, plan in enumerate(plans):
        rows.setdefault(plan, []).append(row)
    return {plan: torch.tensor(some) for plan, some in rows.items()}


def _read(
    image: Num[Tensor, "b c *size"],
    transform: Transform,
    size: tuple[int, ...],
    plan: Footprint,
    resample: Resample,
    fill: Fill,
) -> Float[Tensor, "b c *crop"]:
    with torch.autocast(image.device.type, enabled=False):
        dtype = torch.promote_types(image.dtype, transform.theta.dtype)
        background = _background(fill, image.shape[1], image.to(dtype))
        source, extent = _shrunk(image.to(dtype) - background, plan.level, fill)
        fine = tuple(n * k for n, k in zip(size, plan.readings, strict=True))
        points = transform(like(grid(fine), transform.theta)).to(dtype)
        if plan.level:
            points = (points + 1.0) * like(extent, points) - 1.0
        points = points.expand(image.shape[0], *points.shape[-2:]).reshape(image.shape[0], *fine, len(size))
        crop = F.grid_sample(
            source,
            points,
            mode=interpolation(resample, plan),
            padding_mode="border" if fill == "border" else "zeros",
            align_corners=False,
        )
        return _averaged(crop, plan.readings) + background


def coverage(
    transform: Transform, source: Float[Tensor, "b c *size"], size: tuple[int, ...]
) -> Float[Tensor, "b 1 *crop"]:
    """Share of each pixel of the crop that lies inside the source, 0…1."""
    inside = torch.ones((source.shape[0], 1, *source.shape[2:]), device=source.device)
    return sample(inside, transform, size, fill=(0.0,))


def _background(fill: Fill, channels: int, image: Tensor) -> Tensor | float:
    if fill == "border":
        return 0.0
    background: Tensor = like(fill_values(fill, channels), image)
    return background.reshape(1, channels, *(1,) * (image.ndim - 2))


def _shrunk(image: Tensor, level: int, fill: Fill) -> tuple[Tensor, list[float]]:
    """The pyramid level, and the image's extent (x before y) as a share of it: levels are padded to whole pixels."""
    if level == 0:
        return image, [1.0] * (image.ndim - 2)
    step = 2**level
    sizes = image.shape[2:]
    padding = [end for n in reversed(sizes) for end in (0, -n % step)]
    padded = F.pad(image, padding, mode="replicate" if fill == "border" else "constant")
    return _averaged(padded, (step,) * len(sizes)), [n / (n + -n % step) for n in reversed(sizes)]


def _averaged(image: Tensor, factors: tuple[int, ...]) -> Tensor:
    if all(factor == 1 for factor in factors):
        return image
    return (F.avg_pool2d if len(factors) == 2 else F.avg_pool3d)(image, factors)
