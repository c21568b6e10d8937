"""A canvas of waves: the picture's spectrum in colours that do not lean on each other.

Olah, Mordvintsev, Schubert 2017, "Feature Visualization" (distill.pub): natural pictures have amplitudes that fall with
frequency, and red, green and blue that rise together. A step of equal size for every wave divided by its frequency,
along axes in which colours are independent, is then a step of equal surprise everywhere, and grain no longer wins. The
matrix of colours is theirs, measured on ImageNet.
"""

from collections.abc import Iterable
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from mindseye.noise import Noise
from mindseye.shapes import Pixels

__all__ = ["FourierCanvas"]

_COLOURS = ((0.26, 0.09, 0.02), (0.27, 0.00, -0.05), (0.27, -0.09, 0.03))
"""Square root of the covariance of ImageNet's colours, one row each for red, green, blue."""
_CONTRAST = 4.0
"""What the waves' sum is divided by, as published: at the start, pictures are a hair from grey."""
_EDGE = 0.98
"""Colours of a start picture are pulled this far inside the range, whose ends the sigmoid never reaches."""


@final
class FourierCanvas:
    """Pictures by their spectra.

    Args:
        spectrum: Real and imaginary part of each wave, before division by frequency; copied.
        width: Of the pictures: the spectrum does not tell an odd one from an even one.
    """

    def __init__(self, spectrum: Float[Tensor, "B 3 H K 2"], width: int) -> None:
        self.spectrum = spectrum.detach().float().clone().requires_grad_()
        self.size = (spectrum.shape[2], width)
        self.scale = _falling(*self.size).to(spectrum.device)
        self.colours = _colours().to(spectrum.device)

    @classmethod
    def of_noise(
        cls, noise: Noise, size: tuple[int, int], *, amount: float = 0.01, device: torch.device | str = "cpu"
    ) -> "FourierCanvas":
        """Faint noise, of all frequencies alike in how they differ from nothing.

        Args:
            noise: One seed a picture.
            size: Height and width.
            amount: Standard deviation.
            device: Where.
        """
        height, width = size
        return cls((noise.normal(3, height, width // 2 + 1, 2) * amount).to(device), width)

    @classmethod
    @torch.no_grad()
    def of_picture(cls, start: Pixels) -> "FourierCanvas":
        """The spectrum that shows this picture, its extremes pulled in by a fiftieth."""
        height, width = start.shape[-2:]
        plain = 2 * torch.atanh(start.float().clamp(-1, 1) * _EDGE)
        waves = torch.einsum("dc,bchw->bdhw", torch.linalg.inv(_colours().to(plain)), plain) * _CONTRAST
        spectrum = torch.view_as_real(torch.fft.rfft2(waves, norm="ortho"))
        return cls(spectrum / _falling(height, width).to(plain)[..., None], width)

    def parameters(self) -> Iterable[Tensor]:
        """The spectrum."""
        return [self.spectrum]

    def render(self) -> Pixels:
        """Waves to colours to pixels; a sigmoid keeps the range."""
        waves = torch.fft.irfft2(torch.view_as_complex(self.spectrum) * self.scale, s=self.size, norm="ortho")
        return torch.tanh(torch.einsum("cd,bdhw->bchw", self.colours, waves) / (2 * _CONTRAST))

    def settle(self) -> None:
        """Nothing to do."""

    def terms(self) -> None:
        """No wish."""
        return None

    @torch.no_grad()
    def final(self) -> Pixels:
        """As it is."""
        return self.render()


def _colours() -> Float[Tensor, "3 3"]:
    """From independent axes to red, green, blue; the longest axis has length 1."""
    matrix = torch.tensor(_COLOURS)
    return matrix / matrix.norm(dim=0).max()


def _falling(height: int, width: int) -> Float[Tensor, "H K"]:
    """One over each wave's frequency; the constant wave counts as the slowest."""
    rows, columns = torch.fft.fftfreq(height)[:, None], torch.fft.rfftfreq(width)[None]
    return 1 / torch.hypot(rows, columns).clamp(min=1 / max(height, width))
