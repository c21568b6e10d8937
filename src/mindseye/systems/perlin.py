"""Clouds to start from: sums of gradient noise (Perlin 1985), as Disco Diffusion's ``perlin_init``.

Two sums are drawn, one of twelve octaves from a grid of one cell, one of eight from four by four, each octave of half
the cells' side and two thirds of the strength of the one before; each sum is stretched to the full range, and the two
are averaged. Where we deviate: octaves finer than a pixel, which average out, are not drawn, and what is drawn comes
from the pictures' own noise.
"""

import math
from typing import Literal, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from mindseye.noise import Noise
from mindseye.shapes import Pixels

__all__ = ["Colouring", "gradient_noise", "perlin"]

Colouring: TypeAlias = Literal["mixed", "colour", "grey"]


def perlin(noise: Noise, height: int, width: int, colouring: Colouring = "mixed") -> Pixels:
    """Clouds in [-1, 1], one picture a seed.

    Args:
        noise: Of the pictures.
        height: In pixels.
        width: In pixels.
        colouring: Both sums in colour, both grey, or the coarser one in colour and the finer grey.
    """
    coarse = _octaves(noise, height, width, cells=1, count=12, grey=colouring == "grey")
    fine = _octaves(noise, height, width, cells=4, count=8, grey=colouring != "colour")
    return (_stretched(coarse) + _stretched(fine)) - 1


def _octaves(noise: Noise, height: int, width: int, *, cells: int, count: int, grey: bool) -> Float[Tensor, "B 3 H W"]:
    """A sum of octaves."""
    total = torch.zeros(len(noise.seeds), 1 if grey else 3, height, width)
    for octave in range(count):
        # The same octaves at every size up to the pixels': a picture's first draws do not depend on it.
        side = cells * 2**octave
        if octave and side > max(height, width):
            break
        total = total + 0.5 * 1.5**-octave * gradient_noise(noise, height, width, side, total.shape[1])
    return total.expand(-1, 3, -1, -1)


def gradient_noise(noise: Noise, height: int, width: int, cells: int, channels: int) -> Float[Tensor, "B C H W"]:
    """Perlin's noise on a grid of ``cells`` by ``cells`` over the picture: zero at its knots, with slopes drawn."""
    slopes = noise.normal(channels, 2, cells + 1, cells + 1)
    axes = []
    for length in (height, width):
        place = (torch.arange(length) + 0.5) * (cells / length)
        low = place.floor().long().clamp(max=cells - 1)
        within = place - low
        axes.append((low, within, 3 * within**2 - 2 * within**3))
    (rows, down, fade_down), (columns, across, fade_across) = axes
    total = torch.zeros(())
    for below in (0, 1):
        for right in (0, 1):
            slope = slopes[:, :, :, rows + below][..., columns + right]
            rise = slope[:, :, 0] * (down - below)[:, None] + slope[:, :, 1] * (across - right)
            weight = (fade_down if below else 1 - fade_down)[:, None] * (fade_across if right else 1 - fade_across)
            total = total + rise * weight
    return total


def _stretched(sums: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
    """Every channel of every picture from 0 to 1."""
    low, high = sums.amin((2, 3), keepdim=True), sums.amax((2, 3), keepdim=True)
    return (sums - low) / (high - low).clamp(min=math.ulp(1.0))
