"""How a word lies in the plane: waves and tapers, then an arc, then a homography; each with its exact inverse.

Word coordinates: half heights of the ink, the word's centre at the origin: |u| ≤ aspect, |v| ≤ 1, v downwards.
Plane coordinates: half heights too, until the homography scales them.
"""

import math
from dataclasses import dataclass

import numpy as np

_INNERMOST = 0.35
"""Radius of the inner border of an arc at least, in half heights."""


@dataclass(frozen=True)
class Bend:
    """A map of the word to the plane.

    Attributes:
        waves: (amplitude, angular frequency, phase) of sines that shift the word across its line.
        taper: relative change of the height from the middle to the right end, and quadratically to both.
        aspect: half width of the word in half heights.
        arc: angle in radians that the word spans; positive bends its ends down (∩).
        matrix: homography of the bent word to the plane, (3, 3).
    """

    waves: tuple[tuple[float, float, float], ...]
    taper: tuple[float, float]
    aspect: float
    arc: float
    matrix: np.ndarray

    def __call__(self, u: np.ndarray, v: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Plane coordinates of points of the word."""
        v = v * self._height(u) + self._shift(u)
        if self.arc:
            radius = self._radius
            angle = u / radius
            u, v = (radius - v) * np.sin(angle), radius - (radius - v) * np.cos(angle)
        return _homography(self.matrix, u, v)

    def inverse(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Word coordinates of points of the plane."""
        u, v = _homography(np.linalg.inv(self.matrix), x, y)
        if self.arc:
            radius = self._radius
            side = math.copysign(1.0, radius)
            angle = np.arctan2(u * side, (radius - v) * side)
            u, v = radius * angle, radius - side * np.hypot(u, radius - v)
        return u, (v - self._shift(u)) / self._height(u)

    @property
    def _radius(self) -> float:
        """Of the middle line; negative where the centre lies above."""
        radius = max(2.0 * self.aspect / abs(self.arc), 1.0 + _INNERMOST)
        return math.copysign(radius, self.arc)

    def _shift(self, u: np.ndarray) -> np.ndarray:
        shift = np.zeros_like(u)
        for amplitude, frequency, phase in self.waves:
            shift = shift + amplitude * np.sin(frequency * u + phase)
        return shift

    def _height(self, u: np.ndarray) -> np.ndarray:
        along = np.clip(u / self.aspect, -1.5, 1.5)
        return 1.0 + self.taper[0] * along + self.taper[1] * along * along


def _homography(matrix: np.ndarray, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    m = matrix.astype(np.float32 if x.dtype == np.float32 else np.float64)
    if m[2, 0] == 0 and m[2, 1] == 0:
        return m[0, 0] * x + m[0, 1] * y + m[0, 2], m[1, 0] * x + m[1, 1] * y + m[1, 2]
    weight = m[2, 0] * x + m[2, 1] * y + m[2, 2]
    weight = np.where(weight < 1e-3, np.asarray(1e-3, weight.dtype), weight)
    return (m[0, 0] * x + m[0, 1] * y + m[0, 2]) / weight, (m[1, 0] * x + m[1, 1] * y + m[1, 2]) / weight
