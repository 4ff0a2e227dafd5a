"""One transform of every kind, none of them near the identity."""

import numpy as np
import torch

from stn_cli.geometry import Affine, Cascade, ThinPlateSpline, TransformSpec, layout_from_name

THETA = {
    "translation": (0.1, -0.2),
    "attention": (0.7, 0.1, -0.2),
    "similarity": (-0.3, 0.4, 0.1, -0.2),
    "affine": (0.8, 0.2, 0.1, -0.15, 0.9, -0.05),
    "projective": (0.9, 0.1, 0.05, -0.1, 0.8, 0.1, 0.15, -0.1),
    "affine3d": (0.9, 0.1, -0.1, 0.05, -0.1, 0.8, 0.1, -0.1, 0.05, 0.1, 1.1, 0.2),
}
LINEAR = tuple(THETA)
PLANAR_LINEAR = LINEAR[:-1]
SPLINES = ("grid 4x4", "border 2x5", "ribbon 2x5")
PLANAR = (*PLANAR_LINEAR, *SPLINES, "cascade")
ALL = (*PLANAR, "affine3d")


def spline_theta(layout, spread=0.06, seed=3):
    points = layout_from_name(layout).points.ravel()
    return points + spread * np.random.default_rng(seed).standard_normal(points.shape)


def example(name, array=np.asarray):
    """The example of a kind, layout name or `cascade`, its θ made by `array`."""
    if name == "cascade":
        return example("border 2x5", array) @ example("affine", array)
    if name in SPLINES:
        return ThinPlateSpline(array(spline_theta(name)), layout_from_name(name))
    return TransformSpec(name)(array(np.array(THETA[name])))


def spec(name):
    return TransformSpec("tps", name) if name in SPLINES else TransformSpec(name)


def as_torch(transform, dtype=torch.float64):
    """The same transform with θ in torch."""
    if isinstance(transform, Cascade):
        return Cascade(tuple(as_torch(stage, dtype) for stage in transform.stages))
    theta = torch.tensor(np.asarray(transform.theta), dtype=dtype)
    if isinstance(transform, ThinPlateSpline):
        return ThinPlateSpline(theta, transform.layout)
    return type(transform)(theta)


def points_in(transform, n=40, seed=5):
    return np.random.default_rng(seed).uniform(-1, 1, (n, transform.dims))


def random_affines(shape, seed=7):
    return Affine(np.array(Affine.identity_theta) + np.random.default_rng(seed).uniform(-0.4, 0.4, (*shape, 6)))
