"""Where a word lies on its crop, drawn at random, and what the crop box leaves of it."""

import math
from dataclasses import dataclass

import numpy as np

from stn_cli.geometry import BorderLayout
from stn_cli.training.text.bends import Bend
from stn_cli.training.text.config import TextScene

FIDUCIALS = BorderLayout(10)
Box = tuple[float, float, float, float]

_OUTLINE = np.linspace(-1.0, 1.0, 25)


@dataclass(frozen=True)
class Pose:
    """A bent word and its crop box.

    Attributes:
        bend: word → plane.
        box: (left, top, right, bottom) of the crop in the plane.
        paper: half sizes (u, v) of the word's own rectangle in unbent coordinates, or None.
    """

    bend: Bend
    box: Box
    paper: tuple[float, float] | None

    @property
    def fiducials(self) -> np.ndarray:
        """Where the border points of the word lie, (20, 2) float64, normalised to −1…1 across the box."""
        u, v = (FIDUCIALS.points * (self.bend.aspect, 1.0)).T
        left, top, right, bottom = self.box
        x, y = self.bend(u, v)
        return np.stack((2 * (x - left) / (right - left) - 1, 2 * (y - top) / (bottom - top) - 1), axis=-1)


def random_pose(rng: np.random.Generator, scene: TextScene, aspect: float) -> Pose:
    """The pose of a word whose ink is `aspect` times as long as high."""
    aspect = aspect * math.exp(rng.normal(0, 0.15))
    paper = rng.random() < scene.paper
    matrix = _homography(rng, scene, aspect)
    if paper:
        bend = Bend((), (0.0, 0.0), aspect, 0.0, matrix)
    else:
        bend = Bend(_waves(rng, scene, aspect), _taper(rng, scene), aspect, _arc(rng, scene, aspect), matrix)
    if not paper:
        return Pose(bend, _box(rng, scene, *_extent(bend, 1.0, 1.0)), None)
    reach = tuple(1.0 + np.abs(rng.normal(0.0, 0.2, 2)) * (1 / aspect, 1.0))
    return Pose(bend, _extent(bend, *reach), (reach[0] * aspect, reach[1]))


def _taper(rng: np.random.Generator, scene: TextScene) -> tuple[float, float]:
    if rng.random() >= scene.waves:
        return 0.0, 0.0
    along, both = rng.normal(0, 0.06, 2).clip(-0.15, 0.15)
    return float(along), float(both)


def _waves(rng: np.random.Generator, scene: TextScene, aspect: float) -> tuple[tuple[float, float, float], ...]:
    if rng.random() >= scene.waves:
        return ()
    waves = []
    for _ in range(int(rng.integers(1, 3))):
        period = rng.uniform(0.7, 3.0) * 2 * aspect
        frequency = 2 * math.pi / max(period, 4.0)
        # The slope stays below one: letters on a steeper line would be sheared beyond recognition.
        amplitude = min(rng.uniform(0.05, scene.wave) * min(aspect, 3.0) / 2, 0.6 / frequency)
        waves.append((amplitude, frequency, rng.uniform(0, 2 * math.pi)))
    return tuple(waves)


def _arc(rng: np.random.Generator, scene: TextScene, aspect: float) -> float:
    if rng.random() >= scene.arcs or aspect < 1.0:
        return 0.0
    angle = math.radians(rng.uniform(*scene.arc))
    # Short words span little of a circle: on a tight one their letters would fan out.
    most = 2.0 * aspect / 2.2
    return min(angle, most) * (1.0 if rng.random() < 0.6 else -1.0)


def _homography(rng: np.random.Generator, scene: TextScene, aspect: float) -> np.ndarray:
    angle = math.radians(rng.uniform(-scene.rotation, scene.rotation))
    cos, sin = math.cos(angle), math.sin(angle)
    shear = rng.uniform(-scene.shear, scene.shear)
    px, py = rng.uniform(-scene.perspective, scene.perspective, 2)
    turn = np.array([[cos, -sin, 0.0], [sin, cos, 0.0], [0.0, 0.0, 1.0]])
    lean = np.array([[1.0, shear, 0.0], [0.0, 1.0, 0.0], [px / (aspect + 1.0), py / 3.0, 1.0]])
    matrix: np.ndarray = turn @ lean
    return matrix


def _extent(bend: Bend, reach_u: float, reach_v: float) -> Box:
    """The box around the word's border, or around a rectangle larger than it."""
    steps, ones = _OUTLINE, np.ones_like(_OUTLINE)
    u = np.concatenate((steps, steps, -ones, ones)) * bend.aspect * reach_u
    v = np.concatenate((-ones, ones, steps, steps)) * reach_v
    x, y = bend(u, v)
    return float(x.min()), float(y.min()), float(x.max()), float(y.max())


def _box(rng: np.random.Generator, scene: TextScene, left: float, top: float, right: float, bottom: float) -> Box:
    """A crop box as detectors and people draw it: margins of its own on every side, in half heights of the word."""
    kind = rng.random()
    if kind < scene.cut:
        margins = rng.uniform(-0.22, 0.25, 4)
    elif kind < scene.cut + scene.loose:
        margins = rng.uniform(0.1, 2.2, 4) * rng.uniform(0.3, 1.0)
    else:
        margins = rng.uniform(-0.04, 0.35, 4)
    return left - margins[0], top - margins[1], right + margins[2], bottom + margins[3]
