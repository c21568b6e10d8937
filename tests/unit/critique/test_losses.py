"""Distances against angles, and the gradient below a stop."""

import math

import pytest
import torch
from torch.nn import functional as F

from mindseye.critique.losses import DISTANCES, cosine, spherical, stopped


def at(*degrees):
    """Unit rows at angles in a plane."""
    angles = torch.tensor(degrees, dtype=torch.float64) * math.pi / 180
    return torch.stack([angles.cos(), angles.sin()], dim=1)


def test_spherical_is_half_the_squared_angle():
    found = spherical(at(0, 10, 90, 179), at(0))[:, 0]
    angles = torch.tensor([0, 10, 90, 179], dtype=torch.float64) * math.pi / 180
    torch.testing.assert_close(found, angles**2 / 2)


def test_cosine():
    torch.testing.assert_close(cosine(at(60), at(0, 120)), torch.tensor([[-50.0, -50.0]], dtype=torch.float64))


@pytest.mark.parametrize("angle", [0, 1e-5, 180])
@pytest.mark.parametrize("name", DISTANCES)
def test_gradients_are_finite_everywhere(name, angle):
    x = at(angle).float().requires_grad_()
    (gradient,) = torch.autograd.grad(DISTANCES[name](F.normalize(x, dim=1), at(0).float()).sum(), x)
    assert gradient.isfinite().all()


def test_near_vectors_keep_their_digits():
    # A cosine in float32 cannot tell these apart from equal ones.
    x, y = at(0.001).float(), at(0).float()
    torch.testing.assert_close(
        spherical(x, y)[0, 0], torch.tensor((0.001 * math.pi / 180) ** 2 / 2).float(), rtol=1e-3, atol=0
    )


def test_stop():
    distances = torch.tensor([[0.5, 0.5, 0.5, 0.5]], requires_grad=True)
    weights, stops = torch.tensor([2.0, 2.0, -2.0, -2.0]), torch.tensor([0.4, 0.6, -0.6, -0.4])
    found = stopped(distances, weights, stops)
    # The value is reported in full either way.
    torch.testing.assert_close(found.detach(), torch.tensor([[1.0, 1.0, -1.0, -1.0]]))
    (gradient,) = torch.autograd.grad(found.sum(), distances)
    torch.testing.assert_close(gradient, torch.tensor([[2.0, 0.0, -2.0, 0.0]]))
