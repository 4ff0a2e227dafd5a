"""Volumes as arrays: what nets are shown of them, and crops of any size read slab by slab."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from stn_cli.annotations import Float32
from stn_cli.geometry import Affine3d
from stn_cli.geometry.arrays import like
from stn_cli.sampling.differentiable import sample
from stn_cli.sampling.footprint import footprint
from stn_cli.sampling.kinds import ANTI_ALIASED, Fill, Resample

_SLAB_VOXELS = 1 << 22
"""Of a crop that are read at once: some 100 bytes each are needed on the way."""

_LARGE = 1e28
"""Sums of larger numbers may exceed single precision."""


def shown(voxels: np.ndarray, longest: int) -> Float32[np.ndarray, "d h w"]:
    """What a network is shown of a volume: its least value as 0, its largest as 1, no side longer than `longest`.

    Averages over boxes where it has to shrink; a volume of one value is 0 all over.
    """
    low, high = float(voxels.min()), float(voxels.max())
    if (largest := max(-low, high)) > _LARGE:
        return shown(voxels / largest, longest)
    values = torch.from_numpy(voxels.astype(_wide(voxels)))
    scale = longest / max(voxels.shape)
    if scale < 1:
        size = [max(1, round(side * scale)) for side in voxels.shape]
        values = F.interpolate(values[None, None], size, mode="area")[0, 0]
    scaled: Tensor = (values - low) / ((high - low) or 1.0)
    return scaled.float().numpy()


def crop(
    voxels: np.ndarray,
    transform: Affine3d,
    size: tuple[int, ...],
    *,
    resample: Resample = "auto",
    fill: Fill = "border",
) -> np.ndarray:
    """The crop (depth, height, width) that one transform shows of a volume, in the type of the volume.

    Args:
        voxels: (d, h, w), of an integer type of 8 to 32 bits or a floating-point type.
        transform: crop → volume, θ (12,).
        size: of the crop.
        resample, fill: as in `sample`; a fill of one value.
    """
    wide = _wide(voxels)
    source = torch.from_numpy(voxels.astype(wide))[None, None]
    whole = Affine3d(torch.from_numpy(np.asarray(transform.theta, wide)))
    plan = footprint(whole, voxels.shape, size) if resample in ANTI_ALIASED else None
    made = np.empty(size, voxels.dtype)
    thickness = max(1, _SLAB_VOXELS // (size[1] * size[2] * (1 if plan is None else int(np.prod(plan.readings)))))
    for first in range(0, size[0], thickness):
        last = min(first + thickness, size[0])
        slab = whole @ _slab(first, last, size[0], whole.theta)
        read = sample(source, slab, (last - first, *size[1:]), resample=resample, fill=fill, plan=plan)[0, 0]
        made[first:last] = _as(read.numpy(), voxels.dtype)
    return made


def _wide(voxels: np.ndarray) -> type[np.floating]:
    """A type that holds all of them exactly, and in which torch computes."""
    return np.float32 if np.can_cast(voxels.dtype, np.float32) else np.float64


def _slab(first: int, last: int, depth: int, beside: Tensor) -> Affine3d:
    """From a slab of a crop to the crop: slices `first` to `last` of so many."""
    scale, shift = (last - first) / depth, (first + last) / depth - 1
    return Affine3d(like((1, 0, 0, 0, 0, 1, 0, 0, 0, 0, scale, shift), beside))


def _as(values: np.ndarray, dtype: np.dtype) -> np.ndarray:
    if dtype.kind == "f":
        return values.astype(dtype)
    limits = np.iinfo(dtype)
    rounded: np.ndarray = np.clip(np.rint(values), limits.min, limits.max).astype(dtype)
    return rounded
