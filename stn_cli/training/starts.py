"""Where a refining stage begins in training: where the stages before it end, and near the truth, turned over or not.

A stage that only ever saw what its predecessor finds in training would know neither that one's failures nor its own
results, from which it starts when it repeats. ASTER (Shi et al. 2018, section 3.1.2) perturbs starts likewise.
"""

import torch
from torch import Tensor

from stn_cli.annotations import Float
from stn_cli.geometry import BorderLayout, ThinPlateSpline, Transform
from stn_cli.geometry.arrays import like
from stn_cli.networks.transformer import Stage, Start

_FROM_FOUND = 0.5
_TURNED_OVER = 0.25


def disturbed(truth: Float[Tensor, "b 2n 2"], *, near: bool = False) -> Start:
    """Starts for a batch of bent frames, half of them where the stage before ended, or all of them `near` the truth.

    Drawn by torch's global generator on the CPU, whatever the device.
    """
    layout = BorderLayout(truth.shape[1] // 2)

    def start(stage: Stage, found: Transform) -> Transform:
        if stage.spec.kind != ThinPlateSpline.kind:
            return found
        points = _near(truth.to(found.theta.dtype))
        if not near:
            border = found(like(layout.points, found.theta))
            points = torch.where(_uniform(points, len(truth), 1, 1) < _FROM_FOUND, border, points)
        share = 0.5 if near else _TURNED_OVER
        points = torch.where(_uniform(points, len(truth), 1, 1) < share, points.flip(1), points)
        return stage.spec(points.reshape(len(points), -1))

    return start


def _near(points: Float[Tensor, "b 2n 2"]) -> Float[Tensor, "b 2n 2"]:
    """The frame moved, turned, scaled and bent a little; by as much as a first pass of a spline errs, or less."""
    count, most = len(points), _uniform(points, len(points), 1, 1)
    upper, lower = points.chunk(2, dim=1)
    height = torch.linalg.vector_norm(upper - lower, dim=-1).mean(dim=1)[:, None, None]
    middle = points.mean(dim=1, keepdim=True)
    scale = 1 + 0.15 * most * _normal(points, count, 1, 2)
    angle = 0.12 * most[:, 0, 0] * _normal(points, count)
    turn = torch.stack((angle.cos(), -angle.sin(), angle.sin(), angle.cos()), dim=1).reshape(count, 2, 2)
    moved = middle + (points - middle) * scale @ turn.mT + 0.2 * most * height * _normal(points, count, 1, 2)
    bent: Tensor = moved + 0.2 * most * height * _bent(upper)
    return bent


def _bent(row: Float[Tensor, "b n 2"]) -> Float[Tensor, "b 2n 2"]:
    """Smooth displacements along both rows of a border, of unit size."""
    count, columns, _ = row.shape
    x = torch.linspace(-1, 1, columns, device=row.device)
    shapes = torch.stack((x, x**2 - 0.4, (x * 3.0).sin()))
    rows = torch.einsum("brsd,sn->brnd", 0.6 * _normal(row, count, 2, 3, 2), shapes)
    return rows.reshape(count, 2 * columns, 2)


def _uniform(beside: Tensor, *shape: int) -> Tensor:
    """Numbers of 0…1 on the device of `beside`, the same on every device."""
    return torch.rand(shape).to(beside.device)


def _normal(beside: Tensor, *shape: int) -> Tensor:
    return torch.randn(shape).to(beside.device)
