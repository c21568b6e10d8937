"""SIREN: a picture as a function from a place to a colour, made of sines.

Sitzmann et al. 2020, "Implicit Neural Representations with Periodic Activation Functions" (arXiv:2006.09661), in the
shape that Deep Daze paints on (siren-pytorch): every layer but the last is sin(w0 (W x + b)), the last is linear.

Where we deviate: one network holds the networks of several pictures, multiplied as a batch, for a picture's parameters
are its own here and no training set is shared. And the shorter side of a picture spans [-1, 1], so that pixels are
square; for square pictures that is the original's grid.
"""

import math
from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mindseye.noise import Noise

__all__ = ["Config", "Siren", "grid"]


@dataclass(frozen=True, kw_only=True)
class Config:
    """Shape of a `Siren`.

    Attributes:
        pictures: How many networks side by side.
        hidden: Channels.
        layers: Layers with a sine.
        w0: Frequency of all sines but the first layer's.
        w0_initial: Frequency of the first layer's sines: how fine the picture may be.
    """

    pictures: int = 1
    hidden: int = 256
    layers: int = 16
    w0: float = 30.0
    w0_initial: float = 30.0

    def __post_init__(self) -> None:
        if min(self.pictures, self.hidden, self.layers) < 1:
            raise ValueError("a SIREN has at least one picture, one channel and one layer")


@final
class Layer(nn.Module):
    """One linear layer for each picture. All zero until `Siren.fill`: no hidden source of randomness."""

    def __init__(self, pictures: int, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(pictures, outputs, inputs))
        self.bias = nn.Parameter(torch.zeros(pictures, outputs))

    def forward(self, x: Float[Tensor, "B N I"], scale: float = 1.0) -> Float[Tensor, "B N O"]:
        """``scale`` times the layer's answer; the factor costs nothing inside the product."""
        return torch.baddbmm(self.bias[:, None], x, self.weight.mT, beta=scale, alpha=scale)


@final
class Siren(nn.Module):
    """Places to colours, one network a picture.

    Args:
        config: What to build.
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        widths = [2] + [config.hidden] * config.layers
        self.layers = nn.ModuleList(
            Layer(config.pictures, inputs, outputs) for inputs, outputs in zip(widths, widths[1:], strict=False)
        )
        self.last_layer = Layer(config.pictures, config.hidden, 3)

    @torch.no_grad()
    def fill(self, noise: Noise) -> None:
        """Initial weights as published: uniform within 1 / inputs first, then within sqrt(6 / inputs) / w0.

        Args:
            noise: One seed a picture.

        Raises:
            ValueError: Not one seed a picture.
        """
        if len(noise.seeds) != self.config.pictures:
            raise ValueError(f"{len(noise.seeds)} seeds for {self.config.pictures} pictures")
        for number, layer in enumerate((*self.layers, self.last_layer)):
            bound = math.sqrt(6 / self.config.hidden) / self.config.w0 if number else 1 / 2
            for values in layer.parameters():
                values.copy_((2 * noise.uniform(*values.shape[1:]) - 1) * bound)

    def forward(self, places: Float[Tensor, "N 2"]) -> Float[Tensor, "B N 3"]:
        """The colour that each picture has at each place, about [-1, 1], not clamped.

        Args:
            places: ``N 2``, row before column, about [-1, 1]; see `grid`.
        """
        x = places.to(self.last_layer.weight).expand(self.config.pictures, -1, -1)
        scale = self.config.w0_initial
        for layer in self.layers:
            x = torch.sin(layer(x, scale))
            scale = self.config.w0
        return self.last_layer(x)


def grid(height: int, width: int) -> Float[Tensor, "N 2"]:
    """The places of a picture's pixels, row by row: (row, column), the shorter side from -1 to 1."""
    short = min(height, width)
    rows, columns = (torch.linspace(-1, 1, side) * ((side - 1) / max(short - 1, 1)) for side in (height, width))
    return torch.stack(torch.meshgrid(rows, columns, indexing="ij"), dim=-1).reshape(-1, 2)
