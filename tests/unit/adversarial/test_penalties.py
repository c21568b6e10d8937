"""Penalties on judges whose slope is known."""

import pytest
import torch
from torch import nn

from mindseye.adversarial.penalties import gradient_penalty, matching_aware, r1
from mindseye.adversarial.spectral import folded, normalised

PIXELS = torch.randn(5, 3, 4, 4, generator=torch.Generator().manual_seed(0))
SLOPE = torch.randn(3, 4, 4, generator=torch.Generator().manual_seed(1))


def linear(pixels):
    """A judge whose slope is SLOPE everywhere."""
    return (pixels * SLOPE).sum((1, 2, 3))


def test_r1():
    """Half the squared slope; of a quadratic judge, its slope at the pictures."""
    assert float(r1(linear, PIXELS).detach()) == pytest.approx(0.5 * float(SLOPE.square().sum()), rel=1e-5)
    squared = r1(lambda x: 0.5 * x.square().sum((1, 2, 3)), PIXELS)
    assert float(squared.detach()) == pytest.approx(0.5 * float(PIXELS.square().sum((1, 2, 3)).mean()), rel=1e-5)


def test_gradient_penalty():
    """Between fake and real, at the places drawn: 0.5 |x|^2 has slope |x| there."""
    where = torch.tensor([0.0, 0.25, 0.5, 0.75, 1.0])
    fake = PIXELS.flip(0)
    between = fake + (PIXELS - fake) * where[:, None, None, None]
    expected = (between.square().sum((1, 2, 3)).sqrt() - 1).square().mean()
    found = gradient_penalty(lambda x: 0.5 * x.square().sum((1, 2, 3)), PIXELS, fake, where)
    assert float(found.detach()) == pytest.approx(float(expected), rel=1e-5)
    unit = SLOPE / SLOPE.norm()
    assert gradient_penalty(lambda x: (x * unit).sum((1, 2, 3)), PIXELS, fake, where) < 1e-8


def test_matching_aware():
    """The slope in picture and text at once, to the sixth power."""
    told = torch.randn(5, 2, generator=torch.Generator().manual_seed(2))
    weight = torch.tensor([0.3, -0.4])
    found = matching_aware(lambda x, y: 0.1 * linear(x) + (y * weight).sum(1), PIXELS, told)
    length = (0.01 * SLOPE.square().sum() + weight.square().sum()).sqrt()
    assert float(found.detach()) == pytest.approx(float(length) ** 6, rel=1e-5)


def test_penalties_train_the_judge():
    """Their gradient reaches its weights: second derivatives are there."""
    judge = nn.Sequential(nn.Flatten(), nn.Linear(48, 1))
    r1(lambda x: judge(x)[:, 0], PIXELS).backward()
    assert torch.allclose(judge[1].weight.grad, judge[1].weight.detach(), atol=1e-5)


def test_spectral_norm_while_training_and_folded():
    """The largest singular value comes to 1 and stays 1 as a plain weight of the same name."""
    torch.manual_seed(0)
    network = normalised(nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten(), nn.Linear(32, 4)))
    with torch.no_grad():
        for _ in range(30):
            network(PIXELS)
        norms = [torch.linalg.svdvals(network[i].weight.flatten(1))[0] for i in (0, 2)]
    assert all(float(norm) == pytest.approx(1, abs=1e-2) for norm in norms)
    network.eval()
    with torch.no_grad():
        before = network(PIXELS)
        plain = folded(network)
        assert torch.allclose(plain(PIXELS), before, atol=1e-6)
    assert set(plain.state_dict()) == {"0.weight", "0.bias", "2.weight", "2.bias"}
    assert normalised(normalised(nn.Sequential(nn.Linear(2, 2)))) is not None
