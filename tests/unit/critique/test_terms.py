"""Terms against their formulas written out."""

import pytest
import torch
from torch.nn import functional as F

from mindseye.critique.terms import (
    Likeness,
    Nearness,
    Range,
    Saturation,
    Smoothness,
    Term,
    excess,
    saturation,
    total_variation,
)


class Eye:
    size = 8

    def embed_text(self, prompts):
        raise NotImplementedError

    def embed_image(self, pixels):
        weight = torch.randn(6, 3 * 64, generator=torch.Generator().manual_seed(0))
        return F.normalize(pixels.flatten(1) @ weight.T, dim=1)


def ramp():
    return torch.linspace(-1.5, 1.5, 7).expand(2, 3, 5, 7).clone()


def test_values():
    x = ramp()
    # Steps of a half to the right, none at the far edge and none down.
    torch.testing.assert_close(total_variation(x), torch.full((2,), 0.25 * 6 / 7))
    torch.testing.assert_close(excess(x), torch.full((2,), 2 * 0.25 / 7))
    torch.testing.assert_close(saturation(x), torch.full((2,), 2 * 0.5 / 7))
    torch.testing.assert_close(total_variation(x.transpose(-1, -2)), total_variation(x))


@pytest.mark.parametrize("make", [Smoothness, Range, Saturation, lambda scale: Nearness(ramp()[:1] / 2, scale)])
def test_terms_scale_and_keep_to_their_picture(make):
    one, three = make(1.0), make(3.0)
    assert isinstance(one, Term) and one.name
    x = ramp()
    x[1] *= 2
    torch.testing.assert_close(three(x), 3 * one(x))
    torch.testing.assert_close(one(x)[:1], one(x[:1]))
    leaf = x.requires_grad_()
    (gradient,) = torch.autograd.grad(one(leaf)[0], leaf)
    assert gradient[0].abs().max() > 0 and gradient[1].abs().max() == 0


def test_nearness():
    start = torch.zeros(1, 3, 4, 4)
    torch.testing.assert_close(Nearness(start, 2.0)(torch.full((2, 3, 4, 4), 0.5)), torch.full((2,), 0.5))


def test_likeness():
    generator = torch.Generator().manual_seed(1)
    start = torch.rand(1, 3, 16, 18, generator=generator)
    term = Likeness(Eye(), start, 2.0)
    assert isinstance(term, Term)
    other = torch.rand(2, 3, 16, 18, generator=generator)
    x = torch.cat([start, other]).requires_grad_()
    values = term(x)
    assert values[0].item() == pytest.approx(0, abs=1e-6) and (values[1:] > 0.01).all()
    (gradient,) = torch.autograd.grad(values.sum(), x)
    assert gradient.isfinite().all() and gradient[1].abs().max() > 0
    # Mean of five views, each half a squared angle.
    flipped = start.flip(-1)
    views = [flipped, *(flipped[..., top : top + 8, left : left + 9] for top in (0, 8) for left in (0, 9))]
    theirs = [start, *(start[..., top : top + 8, left : left + 9] for top in (0, 8) for left in (0, 9))]
    eye = Eye()
    angles = [
        torch.acos((eye.embed_image(F.adaptive_avg_pool2d(a, 8)) * eye.embed_image(F.adaptive_avg_pool2d(b, 8))).sum())
        for a, b in zip(views, theirs, strict=True)
    ]
    expected = 2.0 * sum(angle**2 / 2 for angle in angles) / 5
    torch.testing.assert_close(term(flipped)[0], expected, rtol=1e-4, atol=1e-5)
