"""What keeps transforms sane that no known pose supervises."""

from torch import Tensor

from stn_cli.geometry import Transform, determinants, grid
from stn_cli.geometry.arrays import like
from stn_cli.training.config import Penalties

_LATTICES = {2: grid((9, 9)), 3: grid((5, 5, 5))}
_NEAR_FOLD = 0.1
"""Determinants below this share of the mean count as near turning over."""


def penalties(transform: Transform, weights: Penalties) -> dict[str, Tensor]:
    """The weighted penalties on a batch of transforms, each a mean over the batch."""
    points = like(_LATTICES[transform.dims], transform.theta)
    outside = (transform(points).abs() - 1).clamp(min=0).sum(dim=-1).mean()
    parts = {"out_of_frame": weights.out_of_frame * outside}
    if transform.kind in ("tps", "cascade"):  # what is linear never folds within limits
        parts["fold"] = weights.fold * _folds(determinants(transform, points))
    if weights.area:
        parts["area"] = weights.area * determinants(transform, points).clamp(min=1e-3).log().mean()
    return parts


def _folds(values: Tensor) -> Tensor:
    least = _NEAR_FOLD * values.detach().mean(dim=1, keepdim=True).clamp(min=1e-3)
    return ((least - values).clamp(min=0) / least).mean()
