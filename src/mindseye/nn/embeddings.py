"""Embeddings of numbers and places.

The sinusoids are those of Vaswani et al. 2017 (arXiv:1706.03762) in the order OpenAI's diffusion code made common:
**all cosines, then all sines**, frequencies ``period^(-i / half)``. Stable Diffusion, GLIDE and unCLIP share it for
timesteps, and SDXL for picture sizes; the original DDPM code has sines first and divides by ``half - 1``, which is not
this.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["sinusoidal"]


def sinusoidal(
    positions: Float[Tensor, "*batch"], channels: int, *, period: float = 10_000.0
) -> Float[Tensor, "*batch {channels}"]:
    """Cosines and sines of ``positions`` at geometrically falling frequencies.

    Args:
        positions: Any numbers, whole or not: timesteps in [0, 1000), sizes in pixels.
        channels: Width of the embedding; even.
        period: The slowest wave has a wavelength of nearly ``2 pi period``.

    Returns:
        float32 whatever came in, for halves would blur neighbouring timesteps.
    """
    if channels % 2:
        raise ValueError(f"an embedding of cosines and sines has an even width, not {channels}")
    half = channels // 2
    places = torch.arange(half, dtype=torch.float32, device=positions.device)
    angles = positions.float()[..., None] * torch.exp(places * (-math.log(period) / half))
    return torch.cat([angles.cos(), angles.sin()], dim=-1)
