"""Noise is found again, what is masked does not count, and a batch changes nothing."""

import torch

from mindseye.adversarial.inversion import distance, invert
from mindseye.adversarial.sketch import sketch
from mindseye.request import drain

torch.manual_seed(0)
BASIS = torch.linalg.qr(torch.randn(3 * 8 * 8, 6))[0].T.reshape(6, 3, 8, 8) * 2


def paint(z):
    """A generator that is linear."""
    return torch.tensordot(z, BASIS, 1)


def test_noise_is_found_again():
    """The nearest try is followed to the noise that made the target."""
    wanted = torch.randn(1, 6, generator=torch.Generator().manual_seed(1))
    wanted = wanted / wanted.norm() * 6**0.5 * 0.9
    starts = torch.randn(2, 4, 6, generator=torch.Generator().manual_seed(2))
    found = drain(invert(paint, starts, paint(wanted), torch.ones(1, 1, 8, 8), steps=150))
    assert (found - wanted).abs().max() < 0.1
    alone = drain(invert(paint, starts[1:], paint(wanted), torch.ones(1, 1, 8, 8), steps=150))
    assert torch.allclose(alone[0], found[1], atol=1e-5)


def test_what_is_masked_does_not_count():
    """Another picture under the mask, the same distance; another outside, another."""
    keep = torch.ones(1, 1, 8, 8)
    keep[..., :4] = 0
    target, pixels = torch.randn(1, 3, 8, 8), torch.randn(2, 3, 8, 8)
    changed = target.clone()
    changed[..., :4] += 1
    assert torch.equal(distance(pixels, target, keep), distance(pixels, changed, keep))
    assert not torch.equal(distance(pixels, target, keep), distance(pixels, target, torch.ones_like(keep)))
    # With everything kept, the first of its scales is the mean squared difference over the three channels' mean.
    flat = distance(torch.ones(1, 3, 8, 8), torch.zeros(1, 3, 8, 8), torch.ones(1, 1, 8, 8))
    assert torch.allclose(flat, torch.tensor([3.0]))


def test_progress_and_no_grad_mode_left_behind():
    """One step of progress a step, under no grad as the engine may call it."""
    with torch.no_grad():
        steps = invert(paint, torch.randn(1, 1, 6), torch.zeros(1, 3, 8, 8), torch.ones(1, 1, 8, 8), steps=3)
        seen = [progress.step for progress in steps]
        assert seen == [1, 2, 3] and not torch.is_grad_enabled()


def test_sketches():
    """White where nothing changes, dark along an edge, whatever channel it is in."""
    pixels = -torch.ones(1, 3, 16, 16)
    assert torch.equal(sketch(pixels), torch.ones(1, 3, 16, 16))
    pixels[:, 2, :, 8:] = 1
    lines = sketch(pixels)
    assert lines[..., 7:9].max() < -0.9 and lines[..., :6].min() == 1 and lines[..., 10:].min() == 1
    assert torch.equal(lines[:, 0], lines[:, 2])
