"""Which family of transforms a network predicts: a kind, and a layout where the kind has one."""

from dataclasses import dataclass

import numpy as np

from stn_cli.errors import GeometryError
from stn_cli.geometry.arrays import Array
from stn_cli.geometry.base import Transform
from stn_cli.geometry.layouts import Layout, layout_from_name
from stn_cli.geometry.linear import PLANAR, Affine3d, Linear
from stn_cli.geometry.tps import ThinPlateSpline

_FAMILIES: tuple[type[Linear], ...] = (*PLANAR, Affine3d)
_LINEAR = {family.kind: family for family in _FAMILIES}
KINDS = (*_LINEAR, ThinPlateSpline.kind)
"""The kinds that a localization net can predict."""


@dataclass(frozen=True)
class TransformSpec:
    """A family of transforms.

    Attributes:
        kind: one of `KINDS`.
        layout: `grid NxN`, `border 2xN` or `ribbon 2xN` for `tps`, None for the others.
    """

    kind: str
    layout: str | None = None

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise GeometryError(f"unknown transform {self.kind!r}; it is one of {', '.join(KINDS)}")
        if (self.layout is not None) != (self.kind == ThinPlateSpline.kind):
            raise GeometryError("a layout belongs to tps, and to no other transform")
        if self.layout is not None:
            layout_from_name(self.layout)

    @property
    def identity_theta(self) -> np.ndarray:
        """θ of the identity, (dof,) float64."""
        if self.kind == ThinPlateSpline.kind:
            return self._layout.points.ravel()
        return np.array(_LINEAR[self.kind].identity_theta)

    @property
    def dof(self) -> int:
        return len(self.identity_theta)

    def __call__(self, theta: Array) -> Transform:
        """The transform with parameters θ, (..., dof)."""
        if self.kind == ThinPlateSpline.kind:
            return ThinPlateSpline(theta, self._layout)
        return _LINEAR[self.kind](theta)

    @property
    def _layout(self) -> Layout:
        return layout_from_name(self.layout or "")
