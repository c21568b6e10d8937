"""Sinusoids against the formula, number by number."""

import math

import pytest
import torch

from mindseye.nn.embeddings import sinusoidal


def test_cosines_first():
    out = sinusoidal(torch.tensor([0.0, 7.5]), 6)
    frequencies = [10_000 ** (-i / 3) for i in range(3)]
    truth = [math.cos(7.5 * f) for f in frequencies] + [math.sin(7.5 * f) for f in frequencies]
    assert out[0].tolist() == [1, 1, 1, 0, 0, 0]
    assert out[1].tolist() == pytest.approx(truth, abs=1e-6)


def test_many_axes_and_another_period():
    positions = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    out = sinusoidal(positions, 4, period=100.0)
    assert out.shape == (2, 3, 4)
    assert out[1, 2].tolist() == pytest.approx([math.cos(6), math.cos(0.6), math.sin(6), math.sin(0.6)], abs=1e-6)


def test_halves_come_out_as_float32():
    assert sinusoidal(torch.tensor([3.0], dtype=torch.bfloat16), 4).dtype == torch.float32


def test_odd_widths_are_refused():
    with pytest.raises(ValueError, match="even width, not 5"):
        sinusoidal(torch.zeros(1), 5)
