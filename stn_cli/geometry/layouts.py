"""Where the control points of a spline lie in the crop, and the spline's system, solved once per layout."""

import re
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import ClassVar

import numpy as np

from stn_cli.annotations import Float64
from stn_cli.errors import GeometryError


@dataclass(frozen=True)
class GridLayout:
    """n×n control points over the whole crop, row by row (Jaderberg et al. 2015, section 3.2)."""

    n: int
    kind: ClassVar[str] = "grid"

    def __post_init__(self) -> None:
        if self.n < 2:
            raise GeometryError(f"a grid layout needs n ≥ 2, not {self.n}")

    @property
    def metric(self) -> tuple[float, float]:
        """What distances along x and y count."""
        return 1.0, 1.0

    @cached_property
    def points(self) -> Float64[np.ndarray, "k 2"]:
        axis = np.linspace(-1.0, 1.0, self.n)
        x, y = np.meshgrid(axis, axis)
        return np.stack((x.ravel(), y.ravel()), axis=-1)


@dataclass(frozen=True)
class BorderLayout:
    """n points along the top border, then n along the bottom, left to right (RARE, Shi et al. 2016, section 3.1.2)."""

    n: int
    kind: ClassVar[str] = "border"

    def __post_init__(self) -> None:
        if self.n < 2:
            raise GeometryError(f"a border layout needs n ≥ 2, not {self.n}")

    @property
    def metric(self) -> tuple[float, float]:
        """What distances along x and y count."""
        return 1.0, 1.0

    @cached_property
    def points(self) -> Float64[np.ndarray, "k 2"]:
        x = np.linspace(-1.0, 1.0, self.n)
        return np.concatenate([np.stack((x, np.full(self.n, y)), axis=-1) for y in (-1.0, 1.0)])


@dataclass(frozen=True)
class RibbonLayout(BorderLayout):
    """The points of a border, on a frame n − 1 times as long as high, where columns stand as far apart as rows.

    A line of text is long. In the square frame of `border` its columns crowd, the two rows are far apart, and between
    them the spline follows neither: half way down an arc it strays by a third of the height, and folds near the ends.
    """

    kind: ClassVar[str] = "ribbon"

    @property
    def metric(self) -> tuple[float, float]:
        return self.n - 1.0, 1.0


@dataclass(frozen=True)
class InsetLayout(BorderLayout):
    """The points of a border that lies within the crop, as ASTER has them (Shi et al. 2018, aster.pytorch).

    They are stated there in coordinates that run across pixel centres of a crop of `height` × `width`, 0…1, at a
    distance `margin` from the ends; distances are measured in those coordinates, too.
    """

    margin: float
    height: int
    width: int
    kind: ClassVar[str] = "inset"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.margin < 0.5 or min(self.height, self.width) < 2:
            raise GeometryError("an inset layout needs 0 ≤ margin < 0.5 and two rows and columns or more")

    @property
    def metric(self) -> tuple[float, float]:
        return self.width / (self.width - 1.0), self.height / (self.height - 1.0)

    @cached_property
    def points(self) -> Float64[np.ndarray, "k 2"]:
        points: np.ndarray = BorderLayout(self.n).points * (1.0 - 2.0 * self.margin) / np.array(self.metric)
        return points


Layout = GridLayout | BorderLayout
_INSET = re.compile(r"inset 2x(\d+) by (0(?:\.\d+)?) on (\d+)x(\d+)")
_TWO_ROWS = {layout.kind: layout for layout in (BorderLayout, RibbonLayout)}


def layout_from_name(name: str) -> Layout:
    """`grid 4x4`, `border 2x10`, `ribbon 2x10` or `inset 2x10 by 0.05 on 32x100`, as records and configurations say."""
    if inset := _INSET.fullmatch(name):
        return InsetLayout(int(inset[1]), float(inset[2]), int(inset[3]), int(inset[4]))
    kind, _, size = name.partition(" ")
    rows, _, columns = size.partition("x")
    if kind == "grid" and rows.isdecimal() and rows == columns:
        return GridLayout(int(rows))
    if kind in _TWO_ROWS and rows == "2" and columns.isdecimal():
        return _TWO_ROWS[kind](int(columns))
    raise GeometryError(f"unknown layout {name!r}; it is 'grid NxN', 'border 2xN' or 'ribbon 2xN'")


def layout_name(layout: Layout) -> str:
    """The inverse of `layout_from_name`."""
    if isinstance(layout, InsetLayout):
        return f"{layout.kind} 2x{layout.n} by {layout.margin!r} on {layout.height}x{layout.width}"
    return f"{layout.kind} {2 if isinstance(layout, BorderLayout) else layout.n}x{layout.n}"


@lru_cache(maxsize=32)
def spline_weights(layout: Layout) -> Float64[np.ndarray, "coefficients k"]:
    """Matrix that takes the targets of the control points to the spline's coefficients (Bookstein 1989).

    Distances are measured by the layout's metric. With
    L = [[U, P], [Pᵀ, 0]], P = [1, x, y], it is the first k columns of L⁻¹: the rows are k radial weights and the
    affine part (constant, x, y). Solved in float64.
    """
    points = layout.points
    k = len(points)
    difference = (points[:, None, :] - points[None, :, :]) * layout.metric
    square = np.sum(difference**2, axis=-1)
    system = np.zeros((k + 3, k + 3))
    system[:k, :k] = np.where(square > 0, square * np.log(np.where(square > 0, square, 1.0)), 0.0)
    system[:k, k:] = np.column_stack((np.ones(k), points))
    system[k:, :k] = system[:k, k:].T
    return np.linalg.solve(system, np.eye(k + 3, k))
