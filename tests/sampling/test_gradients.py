"""Analytic gradients of the sampler against finite differences, through θ and through the image."""

import pytest
import torch
from torch.autograd import gradcheck

from stn_cli.geometry import Affine, Affine3d
from stn_cli.sampling.differentiable import sample
from stn_cli.sampling.footprint import footprint
from tests.geometry.examples import example, spec


def image_of(*shape):
    return torch.rand(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).requires_grad_()


def theta_of(name, n=1):
    theta = torch.tensor(example(name).theta)
    offsets = 0.03 * torch.rand(n, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    return (theta + offsets).requires_grad_()


@pytest.mark.parametrize("fill", ["border", (0.5,)])
@pytest.mark.parametrize("name", ["similarity", "affine", "projective", "grid 4x4", "border 2x5"])
def test_gradients_through_image_and_theta(name, fill):
    def crop(image, theta):
        return sample(image, spec(name)(theta), (2, 3), resample="bilinear", fill=fill)

    assert gradcheck(crop, (image_of(2, 1, 4, 5), theta_of(name, 2)), eps=1e-7, atol=1e-5)


@pytest.mark.parametrize(("side", "level", "readings"), [(11, 0, 4), (40, 1, 6)])
@pytest.mark.parametrize("name", ["affine", "border 2x5"])
def test_gradients_with_anti_aliasing(name, side, level, readings):
    image, theta = image_of(1, 1, side, side), theta_of(name)
    plan = footprint(spec(name)(theta)[0], (side, side), (2, 3))
    assert plan.level >= level
    assert max(plan.readings) >= readings
    assert gradcheck(lambda i, t: sample(i, spec(name)(t), (2, 3)), (image, theta), eps=1e-7, atol=1e-5, fast_mode=True)


def test_gradients_through_volumes():
    def crop(volume, theta):
        return sample(volume, Affine3d(theta), (2, 3, 2))

    assert gradcheck(crop, (image_of(1, 1, 3, 4, 5), theta_of("affine3d")), eps=1e-7, atol=1e-5)


def test_bicubic_gradients():
    def crop(image, theta):
        return sample(image, Affine(theta), (3, 4), resample="bicubic")

    assert gradcheck(crop, (image_of(1, 1, 6, 7), theta_of("affine")), eps=1e-7, atol=1e-5)
