"""A picture to a picture: the generators of pix2pix and of CycleGAN.

`UNetTranslator` (Isola et al. 2016, arXiv:1611.07004): down to a single place and up again, each level's map handed
across, so that outlines stay where they are: sketch to picture. `ResNetTranslator` (Zhu et al. 2017, arXiv:1703.10593,
after Johnson et al. 2016): two halvings, residual blocks, two doublings: another style, the same scene.

Deviations: doubling is nearest-neighbour and a convolution instead of a transposed convolution, which leaves
checkerboards (Odena et al. 2016); pix2pix's noise, which is its dropout, is drawn by whoever calls (``noise``).
"""

from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from mindseye.nn.layers import Conv2d
from mindseye.shapes import Pixels

__all__ = ["ResNetConfig", "ResNetTranslator", "UNetConfig", "UNetTranslator"]


@dataclass(frozen=True, kw_only=True)
class UNetConfig:
    """pix2pix's generator.

    Attributes:
        size: Side of the pictures it was trained on.
        width: Channels at half the side; doubled at each level, up to eight times.
        levels: Halvings; sides are multiples of ``2 ** levels``.
        noise: Channels of noise at the bottom; 0 = the picture decides everything.
    """

    size: int = 64
    width: int = 32
    levels: int = 5
    noise: int = 16

    def __post_init__(self) -> None:
        """Check the depth."""
        if self.levels < 2 or self.size % 2**self.levels:
            raise ValueError(f"{self.levels} halvings of {self.size} pixels")

    @property
    def multiple(self) -> int:
        """Sides are multiples of this."""
        return 2**self.levels


@final
class UNetTranslator(nn.Module):
    """pix2pix's generator.

    Args:
        config: What to build.

    Attributes:
        config: As given.
    """

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        self.config = config
        widths = [config.width * min(2**level, 8) for level in range(config.levels)]
        into = [3, *widths]
        self.downs = nn.ModuleList(Conv2d(a, b, 4, stride=2, padding=1) for a, b in zip(into, into[1:], strict=False))
        self.down_norms = nn.ModuleList(nn.InstanceNorm2d(width, affine=True) for width in widths[1:-1])
        bottom = widths[-1] + config.noise
        sources = [bottom] + [2 * width for width in reversed(widths[:-1])]
        targets = [*reversed(widths[:-1]), 3]
        self.ups = nn.ModuleList(Conv2d(a, b, 3, padding=1) for a, b in zip(sources, targets, strict=True))
        self.up_norms = nn.ModuleList(nn.InstanceNorm2d(width, affine=True) for width in targets[:-1])
        _initial(self)

    def forward(self, pixels: Pixels, z: Float[Tensor, "B Z"] | None = None) -> Pixels:
        """Translate.

        Args:
            pixels: The source.
            z: ``config.noise`` numbers a picture; None = zeros, the middle of what is possible.
        """
        skips = []
        x: Tensor = pixels
        for place, conv in enumerate(self.downs):
            x = conv(F.leaky_relu(x, 0.2) if place else x)
            if 0 < place < len(self.downs) - 1:  # no norm at the picture, nor where a single place may be left
                x = self.down_norms[place - 1](x)
            skips.append(x)
        if self.config.noise:
            told = x.new_zeros(len(x), self.config.noise) if z is None else z.to(x.dtype)
            x = torch.cat([x, told[:, :, None, None].expand(-1, -1, *x.shape[2:])], dim=1)
        for place, conv in enumerate(self.ups):
            x = conv(F.interpolate(F.relu(x), scale_factor=2.0, mode="nearest"))
            if place < len(self.ups) - 1:
                x = torch.cat([self.up_norms[place](x), skips[-2 - place]], dim=1)
        return torch.tanh(x)


@dataclass(frozen=True, kw_only=True)
class ResNetConfig:
    """CycleGAN's generator.

    Attributes:
        size: Side of the pictures it was trained on.
        width: Channels at full resolution.
        blocks: Residual blocks at a quarter of the side; 6 for 128 pixels, 9 for 256.
    """

    size: int = 64
    width: int = 24
    blocks: int = 4

    @property
    def multiple(self) -> int:
        """Sides are multiples of this."""
        return 4


@final
class _Residual(nn.Module):
    """Two convolutions beside the identity, reflecting at the edge."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = Conv2d(width, width, 3)
        self.second = Conv2d(width, width, 3)
        self.norms = nn.ModuleList(nn.InstanceNorm2d(width, affine=True) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu(self.norms[0](self.first(_reflected(x, 1))))
        return x + self.norms[1](self.second(_reflected(h, 1)))


@final
class ResNetTranslator(nn.Module):
    """CycleGAN's generator, one direction.

    Args:
        config: What to build.

    Attributes:
        config: As given.
    """

    def __init__(self, config: ResNetConfig) -> None:
        super().__init__()
        self.config = config
        width = config.width
        self.first = Conv2d(3, width, 7)
        self.downs = nn.ModuleList(Conv2d(width * k, width * k * 2, 3, stride=2, padding=1) for k in (1, 2))
        self.blocks = nn.ModuleList(_Residual(4 * width) for _ in range(config.blocks))
        self.ups = nn.ModuleList(Conv2d(width * k, width * k // 2, 3, padding=1) for k in (4, 2))
        self.norms = nn.ModuleList(nn.InstanceNorm2d(width * k, affine=True) for k in (1, 2, 4, 2, 1))
        self.to_rgb = Conv2d(width, 3, 7)
        _initial(self)

    def forward(self, pixels: Pixels, z: Float[Tensor, "B Z"] | None = None) -> Pixels:
        """Translate; ``z`` is taken and not used: the same picture always becomes the same picture."""
        x = F.relu(self.norms[0](self.first(_reflected(pixels, 3))))
        for place, conv in enumerate(self.downs):
            x = F.relu(self.norms[1 + place](conv(x)))
        for block in self.blocks:
            x = block(x)
        for place, conv in enumerate(self.ups):
            x = F.relu(self.norms[3 + place](conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))))
        return torch.tanh(self.to_rgb(_reflected(x, 3)))


def _reflected(x: Tensor, by: int) -> Tensor:
    return F.pad(x, (by, by, by, by), mode="reflect")


def _initial(network: nn.Module) -> None:
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.normal_(module.weight, std=0.02)
