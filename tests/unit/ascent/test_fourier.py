"""Spectra: pictures come back, and what is drawn evenly falls with frequency."""

import pytest
import torch

from mindseye.ascent.canvas import Canvas
from mindseye.ascent.fourier import FourierCanvas
from mindseye.noise import Noise


@pytest.mark.parametrize("size", [(8, 8), (7, 9), (6, 11), (1, 1)])
def test_a_picture_comes_back_but_for_its_extremes(size):
    picture = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(0)) * 2 - 1
    canvas = FourierCanvas.of_picture(picture)
    assert torch.allclose(canvas.final(), picture * 0.98, atol=1e-4)


def test_noise_is_nearly_grey_and_falls_with_frequency():
    canvas = FourierCanvas.of_noise(Noise(range(8)), (64, 64))
    drawn = canvas.final()
    assert 0.002 < drawn.std() < 0.05 and drawn.mean().abs() < 0.01
    power = torch.fft.rfft2(drawn.double()).abs().square().mean((0, 1))
    # Four octaves apart, amplitudes differ by sixteen: power by 256; the sigmoid is nearly straight here.
    assert 60 < power[1, 0] / power[16, 0] < 1000


def test_colours_rise_together():
    drawn = FourierCanvas.of_noise(Noise(range(8)), (32, 32)).final()
    red, green, blue = drawn.movedim(1, 0).flatten(1)
    assert torch.corrcoef(torch.stack([red, green, blue]))[0, 1:].min() > 0.7


def test_gradients_reach_the_waves_of_their_picture_only():
    canvas = FourierCanvas.of_noise(Noise([1, 2]), (8, 10))
    canvas.render()[0].sum().backward()
    assert canvas.spectrum.grad is not None
    assert canvas.spectrum.grad[0].abs().sum() > 0 and canvas.spectrum.grad[1].abs().sum() == 0
    assert isinstance(canvas, Canvas) and canvas.terms() is None


def test_a_seed_is_a_seed_in_any_batch():
    alone = FourierCanvas.of_noise(Noise([5]), (8, 8)).final()
    assert torch.equal(FourierCanvas.of_noise(Noise([4, 5]), (8, 8)).final()[1:], alone)
