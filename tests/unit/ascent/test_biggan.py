"""Noise and classes as paint."""

import pytest
import torch

from mindseye.ascent import biggan
from mindseye.ascent.biggan import BigGANCanvas, Wishes, class_loss, first_logits, latent_loss, mixture
from mindseye.ascent.canvas import Canvas
from mindseye.noise import Noise


def generator(z, classes, truncation=1.0):
    """Four by four pixels that say what was heard."""
    heard = torch.cat([z.mean((1, 2))[:, None], classes.mean(1)[:, :2]], dim=1)
    return heard.tanh()[:, :, None, None].expand(-1, -1, 4, 4)


def canvas(size=(4, 4), **wishes):
    """Of three classes, with two places that listen."""
    source = Noise([1, 2])
    return BigGANCanvas(generator, source.normal(2, 5), first_logits(source, 2, 3), size, wishes=Wishes(**wishes))


def test_what_is_shown_is_the_mean_of_the_steps():
    one = canvas(decay=0.9)
    seen = [one.latents.detach().clone()]
    for step in range(4):
        with torch.no_grad():
            one.latents.add_(step)
        one.settle()
        seen.append(one.latents.detach().clone())
    weights = 0.1 * 0.9 ** torch.arange(4, -1, -1)
    want = sum(weight * each for weight, each in zip(weights / weights.sum(), seen, strict=True))
    assert torch.allclose(one.average.values[0], want, atol=1e-6)
    assert torch.allclose(one.final(), generator(want, mixture(one.logits.detach(), one.wishes)), atol=1e-6)


def test_without_decay_the_last_step_is_shown():
    one = canvas(decay=0.0)
    with torch.no_grad():
        one.latents.add_(3)
    one.settle()
    assert torch.equal(one.final(), one.render().detach())


def test_mixtures():
    logits = torch.tensor([[[0.0, 2.0, 1.0]]])
    assert torch.allclose(mixture(logits, Wishes()), logits.sigmoid())
    soft = Wishes(mixture="softmax", temperature=1.0)
    assert torch.allclose(mixture(logits, soft), logits.softmax(-1))
    two = mixture(logits, Wishes(most=2, temperature=1.0))
    first = logits.softmax(-1)[0, 0, 1]
    second = torch.tensor([0.0, 1.0]).softmax(0)[1]
    assert torch.allclose(two, torch.stack([torch.tensor(0.0), first, second])[None, None])
    # As many as there are is the most that can be picked, and the last is picked with certainty.
    assert mixture(logits, Wishes(most=9))[0, 0, 0] == 1


def test_a_limited_mixture_has_finite_gradients():
    logits = torch.randn(2, 3, 5, generator=torch.Generator().manual_seed(0)).requires_grad_()
    mixture(logits, Wishes(most=3)).sum().backward()
    assert torch.isfinite(logits.grad).all() and logits.grad.abs().sum() > 0


def test_the_class_loss_counts_all_but_the_greatest():
    classes = torch.tensor([[[0.9, 0.02, 0.04]], [[0.0, 1.0, 0.0]]])
    assert torch.allclose(class_loss(classes), torch.tensor([2500 * (0.0004 + 0.0016) / 2, 0.0]))
    assert class_loss(torch.ones(2, 3, 1)).tolist() == [0, 0]


def test_standard_normal_noise_costs_least():
    drawn = Noise([0]).normal(4, 4096)
    assert 4 < latent_loss(drawn).item() < 4.3
    for wrong in (drawn * 1.5, drawn + 1, drawn.pow(3) / drawn.pow(3).std(), drawn.abs()):
        assert latent_loss(wrong) > 4.5


def test_each_picture_is_judged_by_itself():
    drawn = Noise([0, 1]).normal(3, 16)
    assert torch.allclose(latent_loss(drawn)[1:], latent_loss(drawn[1:]))


@pytest.mark.parametrize("classes", [1, 10, 48, 1000])
def test_the_first_mixture_is_as_strong_for_any_number_of_classes(classes):
    mixed = first_logits(Noise([0]), 200, classes).sigmoid()
    strength = mixed.mean() * classes**0.5
    assert abs(strength - 0.65) < 0.2
    if classes == 1000:
        assert abs(first_logits(Noise([0]), 200, 1000).mean() + 3.9) < 0.01


def test_pictures_come_in_the_size_asked_for():
    one = canvas(size=(6, 10))
    assert one.render().shape == (2, 3, 6, 10) and isinstance(one, Canvas)
    assert one.terms().shape == (2,)
    assert canvas(latents=0.0, classes=0.0).terms().tolist() == [0, 0]
    assert isinstance(biggan.Average(0.5, [torch.ones(1)]).values[0], torch.Tensor)
