"""WDSR (Yu et al. 2018, arXiv:1808.08718): pictures twice as large, by convolutions alone.

Residual blocks that are wide before the curve and narrow after it, and a short way around them all; both ends in sub-
pixels. Parti's pictures of 256x256 become 512x512 and 1024x1024 by one and two of these, trained on what its ViT-VQGAN
makes of pictures. The paper gives no more than the kind of network and about how large it is: twelve blocks of 128
channels, widened by four, have 14 of its 15 million parameters for one doubling.

Left out: weight normalisation, which trained weights do not need, and the mean colour, since pictures are centred here.
"""

from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from mindseye.nn.layers import Conv2d
from mindseye.shapes import Pixels

__all__ = ["PARTI", "POCKET", "WDSR", "Config"]


@dataclass(frozen=True, kw_only=True)
class Config:
    """Shape of a `WDSR`.

    Attributes:
        width: Channels between blocks.
        layers: Blocks.
        expansion: How many times wider a block is inside.
        factor: How many times larger a side becomes.
    """

    width: int
    layers: int
    expansion: int = 4
    factor: int = 2


PARTI = Config(width=128, layers=12)
"""One doubling of Parti's pictures."""
POCKET = Config(width=32, layers=6)


@final
class Wide(nn.Module):
    """x + narrow(curve(wide(x)))."""

    def __init__(self, width: int, expansion: int) -> None:
        super().__init__()
        self.wide = Conv2d(width, expansion * width, 3, padding=1)
        self.narrow = Conv2d(expansion * width, width, 3, padding=1)

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
        """One step of refinement."""
        return x + self.narrow(F.relu(self.wide(x)))


@final
class WDSR(nn.Module):
    """Pictures in [-1, 1] to larger ones."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        out = 3 * config.factor**2
        self.head = Conv2d(3, config.width, 3, padding=1)
        self.blocks = nn.Sequential(*(Wide(config.width, config.expansion) for _ in range(config.layers)))
        self.tail = Conv2d(config.width, out, 3, padding=1)
        self.around = Conv2d(3, out, 5, padding=2)
        # At first it repeats every pixel.
        for value in (*self.tail.parameters(), *self.around.parameters()):
            nn.init.zeros_(value)
        with torch.no_grad():
            for channel in range(out):
                self.around.weight[channel, channel // config.factor**2, 2, 2] = 1

    def forward(self, pixels: Pixels) -> Float[Tensor, "B 3 H2 W2"]:
        """About in [-1, 1], not clamped."""
        fine = self.tail(self.blocks(self.head(pixels))) + self.around(pixels)
        return F.pixel_shuffle(fine, self.config.factor)
