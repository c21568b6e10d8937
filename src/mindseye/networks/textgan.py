"""A generator that is told a text: deep fusion of words and picture in one pass.

After DF-GAN (Tao et al. 2020, arXiv:2008.05865): one stage, no norms; before every convolution the map is scaled and
shifted, channel by channel, by what a small perceptron makes of noise and sentence, twice with a nonlinearity between.
The sentence says what, but no single vector says well which colour goes with which thing: so on two small maps every
place also reads the words (cross-attention, as in AttnGAN, arXiv:1711.10485, and GigaGAN, arXiv:2303.05511).

Deviations: the text encoder is a frozen CLIP; doubling at the end is a pixel shuffle, which leaves the last, largest
maps to one cheap convolution.
"""

from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from mindseye.nn.attention import Attention
from mindseye.nn.layers import Conv2d, Linear
from mindseye.shapes import Pixels

__all__ = ["POCKET", "Config", "TextGenerator"]

SLOPE = 0.2
FIRST = 4


@dataclass(frozen=True, kw_only=True)
class Config:
    """What the generator looks like.

    Attributes:
        z_dim: Numbers of noise.
        vector: Numbers of a text's vector.
        tokens: Channels of a text's tokens.
        length: How many tokens it was trained to read.
        mixed: Numbers that noise and sentence are mixed to, for every scale and shift.
        widths: Channels of the maps, from 4x4 up, each of twice the side of the one before; the picture is twice the
            last.
        attention: The maps on which places read words, by their place in ``widths``.
        heads: Of that attention.
    """

    z_dim: int = 64
    vector: int = 192
    tokens: int = 192
    length: int = 32
    mixed: int = 96
    widths: tuple[int, ...] = (192, 160, 96, 48)
    attention: tuple[int, ...] = (1, 2)
    heads: int = 4

    @property
    def size(self) -> int:
        """Side of the pictures."""
        return FIRST * 2 ** len(self.widths)


POCKET = Config()
"""The small one that travels with the package: 64x64."""


@final
class Fusion(nn.Module):
    """Scale and shift by what is told, a nonlinearity, and both again.

    Args:
        channels: Of the map.
        told: Numbers that are told.
    """

    def __init__(self, channels: int, told: int) -> None:
        super().__init__()
        self.linear = Linear(told, 4 * channels)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, x: Float[Tensor, "B C H W"], told: Float[Tensor, "B M"]) -> Float[Tensor, "B C H W"]:
        """Fuse."""
        first, shift, second, end = self.linear(told)[:, :, None, None].chunk(4, dim=1)
        x = F.leaky_relu(torch.addcmul(shift, x, 1 + first), SLOPE)
        return F.leaky_relu(torch.addcmul(end, x, 1 + second), SLOPE)


@final
class Reading(nn.Module):
    """Every place reads the words.

    Args:
        channels: Of the map.
        tokens: Of the words.
        heads: Of the attention.
    """

    def __init__(self, channels: int, tokens: int, heads: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.attention = Attention(channels, heads=heads, context=tokens)
        nn.init.zeros_(self.attention.out.weight)
        nn.init.zeros_(self.attention.out.bias)

    def forward(self, x: Float[Tensor, "B C H W"], tokens: Float[Tensor, "B L D"]) -> Float[Tensor, "B C H W"]:
        """The map, and what it read."""
        places = x.flatten(2).transpose(1, 2)
        read = self.attention(self.norm(places), tokens)
        return x + read.transpose(1, 2).unflatten(2, x.shape[2:])


@final
class UpBlock(nn.Module):
    """Doubling, then two fused convolutions beside a 1x1.

    Args:
        channels: In.
        out: Out.
        told: Numbers that are told.
        up: Whether the side is doubled.
    """

    def __init__(self, channels: int, out: int, told: int, up: bool) -> None:
        super().__init__()
        self.up = up
        self.fuse_first, self.fuse_second = Fusion(channels, told), Fusion(out, told)
        self.first = Conv2d(channels, out, 3, padding=1)
        self.second = Conv2d(out, out, 3, padding=1)
        self.shortcut = Conv2d(channels, out, 1) if channels != out else nn.Identity()

    def forward(self, x: Float[Tensor, "B C H W"], told: Float[Tensor, "B M"]) -> Float[Tensor, "B D H2 W2"]:
        """Run the block."""
        skip = self.shortcut(x)
        h = self.fuse_first(x, told)  # before the doubling: the same numbers, a quarter of the work
        if self.up:
            h, skip = (F.interpolate(each, scale_factor=2.0, mode="nearest") for each in (h, skip))
        h = self.second(self.fuse_second(self.first(h), told))
        # Without norms the sum would grow with every block.
        return (skip + h) * 0.5**0.5


@final
class TextGenerator(nn.Module):
    """The generator.

    Args:
        config: What to build.

    Attributes:
        config: As given.
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        widths = config.widths
        self.mix = Linear(config.z_dim + config.vector, config.mixed)
        self.first = Linear(config.z_dim + config.vector, FIRST * FIRST * widths[0])
        before = (widths[0], *widths)
        self.blocks = nn.ModuleList(
            UpBlock(before[place], width, config.mixed, place > 0) for place, width in enumerate(widths)
        )
        self.readings = nn.ModuleList(Reading(widths[place], config.tokens, config.heads) for place in config.attention)
        self.to_rgb = Conv2d(widths[-1], 12, 3, padding=1)

    def forward(self, z: Float[Tensor, "B Z"], vector: Float[Tensor, "B V"], tokens: Float[Tensor, "B L D"]) -> Pixels:
        """Draw.

        Args:
            z: Noise.
            vector: A text's pooled vector, normalised to length ``sqrt(V)``.
            tokens: Its tokens, those after the end included.

        Returns:
            ``B 3 size size`` in [-1, 1].
        """
        told = torch.cat([z, vector], dim=-1)
        x = self.first(told).view(-1, FIRST, FIRST, self.config.widths[0]).permute(0, 3, 1, 2)
        told = F.leaky_relu(self.mix(told), SLOPE)
        for place, block in enumerate(self.blocks):
            x = block(x, told)
            if place in self.config.attention:
                x = self.readings[self.config.attention.index(place)](x, tokens)
        return torch.tanh(F.pixel_shuffle(self.to_rgb(F.leaky_relu(x, SLOPE)), 2))
