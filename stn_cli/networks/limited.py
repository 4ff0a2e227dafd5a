"""θ within limits: every parameter has a meaning of its own, and no step leads where nothing can be seen any more.

Bounded steps keep the collapses out that free matrix entries invite: zooming out until the image is a dot, turning it
over, leaving it. Each number x of a net becomes L·tanh(x/L) of its limit L, so that zero is the identity.
"""

import math

import torch
from torch import Tensor

from stn_cli.annotations import Float
from stn_cli.geometry.arrays import like, matmul
from stn_cli.networks.config import Limits, TransformConfig


def limited(
    raw: Float[Tensor, "b dof"], identity: Float[Tensor, " dof"], transform: TransformConfig, limits: Limits
) -> tuple[Float[Tensor, "b dof"], Float[Tensor, "b dof"]]:
    """θ of a family from as many numbers, and how far each has gone towards its limit, −1…1."""
    bounds = like(_bounds(transform, limits), raw)
    share = torch.tanh(raw / bounds)
    step = bounds * share
    match transform.kind:
        case "attention":
            theta = torch.cat((step[:, :1].exp(), step[:, 1:]), dim=1)
        case "affine":
            theta = _affine(step)
        case "projective":
            theta = _projective(step)
        case "affine3d":
            theta = affine3d(step)
        case _:
            theta = identity + step
    return theta, share


def _bounds(transform: TransformConfig, limits: Limits) -> list[float]:
    zoom, turn, shift = math.log(limits.zoom), math.radians(limits.turn), limits.shift
    linear = {
        "translation": [shift, shift],
        "attention": [zoom, shift, shift],
        "similarity": [zoom, turn, shift, shift],
        "affine": [zoom, zoom, turn, limits.shear, shift, shift],
        "projective": [zoom, zoom, turn, limits.shear, shift, shift, limits.perspective, limits.perspective],
        "affine3d": [zoom] * 3 + [turn] * 3 + [limits.shear] * 3 + [shift] * 3,
    }
    return linear.get(transform.kind) or [limits.bend] * transform.spec.dof


def _affine(step: Float[Tensor, "b 6"]) -> Float[Tensor, "b 6"]:
    """Turned after it is sheared after it is scaled: (log-width, log-height, angle, shear, x, y)."""
    log_width, log_height, angle, shear, x, y = step.unbind(1)
    width, height, cos, sin = log_width.exp(), log_height.exp(), angle.cos(), angle.sin()
    columns = (width * cos, height * (shear * cos - sin), x, width * sin, height * (shear * sin + cos), y)
    return torch.stack(columns, dim=1)


def _projective(step: Float[Tensor, "b 8"]) -> Float[Tensor, "b 8"]:
    """An affine map after one that tilts the crop, (p, q), and leaves its centre where it is."""
    a, b, x, c, d, y = _affine(step[:, :6]).unbind(1)
    p, q = step[:, 6:].unbind(1)
    return torch.stack((a + x * p, b + x * q, x, c + y * p, d + y * q, y, p, q), dim=1)


def affine3d(step: Float[Tensor, "b 12"]) -> Float[Tensor, "b 12"]:
    """Scaled, then sheared, then turned about x, y and z: (3 log-sides, 3 angles, 3 shears, 3 shifts)."""
    sides, angles, (xy, xz, yz), shift = step[:, :3].exp(), step[:, 3:6], step[:, 6:9].unbind(1), step[:, 9:]
    one, zero = torch.ones_like(xy), torch.zeros_like(xy)
    sheared = torch.stack((one, xy, xz, zero, one, yz, zero, zero, one), dim=1).reshape(-1, 3, 3)
    linear = matmul(_turned(angles), sheared) * sides[:, None, :]
    return torch.cat((linear, shift[:, :, None]), dim=2).reshape(-1, 12)


def _turned(angles: Float[Tensor, "b 3"]) -> Float[Tensor, "b 3 3"]:
    """About x, then y, then z."""
    one, zero = torch.ones_like(angles[:, 0]), torch.zeros_like(angles[:, 0])
    (cx, cy, cz), (sx, sy, sz) = angles.cos().unbind(1), angles.sin().unbind(1)
    about_x = torch.stack((one, zero, zero, zero, cx, -sx, zero, sx, cx), dim=1).reshape(-1, 3, 3)
    about_y = torch.stack((cy, zero, sy, zero, one, zero, -sy, zero, cy), dim=1).reshape(-1, 3, 3)
    about_z = torch.stack((cz, -sz, zero, sz, cz, zero, zero, zero, one), dim=1).reshape(-1, 3, 3)
    turned: Tensor = matmul(matmul(about_z, about_y), about_x)
    return turned
