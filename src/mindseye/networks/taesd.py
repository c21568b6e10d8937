"""The tiny autoencoders: a stand-in for a diffusion model's own autoencoder at a hundredth of its price.

TAESD and its kin (Ollin Boer Bohan 2023, https://github.com/madebyollin/taesd) are plain stacks of 3x3 convolutions
without norms or attention, 1.2 million parameters a half, distilled from the large autoencoder. Their latents are the
large one's times its scale factor, which is what we call normalised (raw / standard deviation): a `TinyAutoencoder`
takes the place of an `AutoencoderKL` as it is, for previews, for final pictures where speed counts, and for both
directions of image-to-image.

One class serves the releases of factor 8: Stable Diffusion 1 and XL (4 channels), the 16-channel ones, and the
32-channel one, whose coarsest blocks also add what a grouped norm over the whole picture tells them (`pooled`). The
release of factor 32 has another skeleton and is not read.

Deviations, none of which changes what the weights compute: pictures are [-1, 1] like everywhere in mindseye, the
release's [0, 1]; levels are counted from the finest in both halves.
"""

from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from mindseye.shapes import Latents, Pixels, check_sides

__all__ = ["TAESD", "Config", "TinyAutoencoder"]

SOFT_LIMIT = 3.0
"""Latents are bent into this range by a hyperbolic tangent before they are decoded."""
POOL_GROUPS = 4
"""Groups of the norm in a pooled block, and how many times wider it is than the block."""


@dataclass(frozen=True, kw_only=True)
class Config:
    """Shape of a `TinyAutoencoder`; the defaults are those of Stable Diffusion 1 and XL.

    Attributes:
        latent_channels: Channels of a latent.
        width: Channels of every convolution inside.
        encoder: Blocks of each level, finest first.
        decoder: Blocks of each level, finest first; as many levels.
        pooled: Whether the blocks of the coarsest level look at the whole picture through a grouped norm.
    """

    latent_channels: int = 4
    width: int = 64
    encoder: tuple[int, ...] = (1, 3, 3, 3)
    decoder: tuple[int, ...] = (1, 3, 3, 3)
    pooled: bool = False

    def __post_init__(self) -> None:
        if not self.encoder or len(self.encoder) != len(self.decoder):
            raise ValueError(f"encoder {self.encoder} and decoder {self.decoder} need the same number of levels")

    @property
    def factor(self) -> int:
        """How many times smaller a side of a latent is."""
        return 2 ** (len(self.encoder) - 1)


TAESD = Config()
"""Stable Diffusion's: 2,445,063 parameters."""


def _conv(inside: int, outside: int, stride: int = 1, bias: bool = True) -> nn.Conv2d:
    """A 3x3 convolution that keeps the sides, or halves them."""
    return nn.Conv2d(inside, outside, 3, stride=stride, padding=1, bias=bias)


@final
class Block(nn.Module):
    """Three convolutions around a shortcut, rectified.

    Args:
        width: Channels.
        pooled: Whether a wide, normed 1x1 bottleneck over the whole picture is added first.
    """

    def __init__(self, width: int, pooled: bool) -> None:
        super().__init__()
        self.first, self.second, self.third = (_conv(width, width) for _ in range(3))
        wide = POOL_GROUPS * width
        self.pool = (
            nn.ModuleDict(
                {
                    "up": nn.Conv2d(width, wide, 1, bias=False),
                    "norm": nn.GroupNorm(POOL_GROUPS, wide),
                    "down": nn.Conv2d(wide, width, 1, bias=False),
                }
            )
            if pooled
            else None
        )

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
        """Refine."""
        if self.pool is not None:
            x = x + self.pool["down"](F.relu(self.pool["norm"](self.pool["up"](x))))
        return F.relu(self.third(F.relu(self.second(F.relu(self.first(x))))) + x)


@final
class Encoder(nn.Module):
    """Pictures in [0, 1] to latents. ``downs[i]`` leads from level i to level i + 1."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        width, last = config.width, len(config.encoder) - 1
        self.conv_in = _conv(3, width)
        self.levels = nn.ModuleList(
            nn.Sequential(*(Block(width, config.pooled and level == last) for _ in range(count)))
            for level, count in enumerate(config.encoder)
        )
        self.downs = nn.ModuleList(_conv(width, width, stride=2, bias=False) for _ in range(last))
        self.conv_out = _conv(width, config.latent_channels)

    def forward(self, x: Pixels) -> Latents:
        """Run it, finest level first."""
        x = self.levels[0](self.conv_in(x))
        for down, level in zip(self.downs, self.levels[1:], strict=True):
            x = level(down(x))
        return self.conv_out(x)


@final
class Decoder(nn.Module):
    """Latents to pictures in [0, 1]. ``ups[i]`` leads from level i + 1 to level i."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        width, last = config.width, len(config.decoder) - 1
        self.conv_in = _conv(config.latent_channels, width)
        self.levels = nn.ModuleList(
            nn.Sequential(*(Block(width, config.pooled and level == last) for _ in range(count)))
            for level, count in enumerate(config.decoder)
        )
        self.ups = nn.ModuleList(_conv(width, width, bias=False) for _ in range(last))
        self.conv_out = _conv(width, 3)

    def forward(self, z: Latents) -> Pixels:
        """Run it, coarsest level first."""
        x = F.relu(self.conv_in(torch.tanh(z / SOFT_LIMIT) * SOFT_LIMIT))
        for level in reversed(range(len(self.levels))):
            x = self.levels[level](x)
            if level:
                x = self.ups[level - 1](F.interpolate(x, scale_factor=2.0, mode="nearest"))
        return self.conv_out(x)


@final
class TinyAutoencoder(nn.Module):
    """Pictures in [-1, 1] to normalised latents ``factor`` times smaller and back; satisfies `mindseye.codec.Codec`."""

    def __init__(self, config: Config = TAESD) -> None:
        super().__init__()
        self.config = config
        self.factor: int = config.factor
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)

    def encode(self, pixels: Pixels) -> Latents:
        """Normalised latents of pictures.

        Raises:
            ValueError: A side is no multiple of ``factor``.
        """
        check_sides(pixels, self.factor)
        return self.encoder(pixels * 0.5 + 0.5)

    def decode(self, latents: Latents) -> Pixels:
        """Pictures in about [-1, 1] (not clamped) from normalised latents."""
        return self.decoder(latents) * 2 - 1
