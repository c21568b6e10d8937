"""Who tells pictures from paintings: of the whole picture, told a class or a text, and of each of its patches.

`Discriminator` is BigGAN's (Brock et al. 2018, arXiv:1809.11096) without attention: residual blocks, a sum over places,
and Miyato and Koyama's projection (2018, arXiv:1802.05637): what the picture should show enters as an inner product
with what is seen. A class is told as a one-hot row, a text as its vector: a matching pair scores high, and with
mismatched pairs among its fakes it becomes the matching-aware judge of Reed et al. 2016 (arXiv:1605.05396).

Deviations: two by two pixels are folded into channels first, for a convolution at full resolution costs as much as all
others together; halving is a stride; and the batch's deviation is one more feature (Karras et al. 2017,
arXiv:1710.10196), by which a generator that always paints the same is found out.

`PatchGAN` (Isola et al. 2016, arXiv:1611.07004) judges every 70x70 patch by itself: texture, not composition.
"""

from dataclasses import dataclass
from typing import Literal, final

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from mindseye.nn.layers import Conv2d, Linear

__all__ = ["SLOPE", "Config", "Discriminator", "PatchConfig", "PatchGAN", "deviation"]

SLOPE = 0.2


@dataclass(frozen=True, kw_only=True)
class Config:
    """A judge of whole pictures.

    Attributes:
        size: Side of the pictures, a power of two.
        widths: Channels at half the side, and after every halving; the last map is ``size / 2 ** len(widths)`` wide.
        told: Numbers that say what the picture should show: classes, or a text vector's; 0 = nothing is said.
        group: Pictures whose deviation from each other is a feature; 1 = none.
    """

    size: int = 64
    widths: tuple[int, ...] = (32, 64, 128, 256)
    told: int = 0
    group: int = 4


@final
class DownBlock(nn.Module):
    """Two convolutions, the second one of stride 2, beside a pooled 1x1.

    Args:
        channels: In.
        out: Out.
    """

    def __init__(self, channels: int, out: int) -> None:
        super().__init__()
        self.first = Conv2d(channels, channels, 3, padding=1)
        self.second = Conv2d(channels, out, 3, stride=2, padding=1)
        self.shortcut = Conv2d(channels, out, 1)

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B D H2 W2"]:
        """Run the block."""
        h = self.first(F.leaky_relu(x, SLOPE))
        h = self.second(F.leaky_relu(h, SLOPE))
        return h + self.shortcut(F.avg_pool2d(x, 2))


@final
class Discriminator(nn.Module):
    """A judge of whole pictures.

    Args:
        config: What to build.

    Attributes:
        config: As given.
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        widths = config.widths
        self.first = Conv2d(12, widths[0], 3, padding=1)
        self.blocks = nn.ModuleList(DownBlock(a, b) for a, b in zip(widths, widths[1:], strict=False))
        self.last = Conv2d(widths[-1] + (config.group > 1), widths[-1], 3, padding=1)
        self.judge = Linear(widths[-1], 1)
        self.projection = Linear(config.told, widths[-1], bias=False) if config.told else None

    def forward(self, pixels: Float[Tensor, "B 3 H W"], told: Float[Tensor, "B N"] | None = None) -> Float[Tensor, "B"]:
        """A logit a picture; above 0 is taken for real, and for what it should show.

        Raises:
            ValueError: Something is said to a judge that is told nothing, or the other way round.
        """
        return self.compare(self.look(pixels), told)

    def look(self, pixels: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B D"]:
        """What is seen, before anything is said."""
        x = self.first(F.pixel_unshuffle(pixels, 2))
        for block in self.blocks:
            x = block(x)
        if self.config.group > 1:
            x = torch.cat([x, deviation(x, self.config.group)], dim=1)
        x = F.leaky_relu(self.last(F.leaky_relu(x, SLOPE)), SLOPE)
        return x.mean((2, 3)) * 2

    def compare(self, seen: Float[Tensor, "B D"], told: Float[Tensor, "B N"] | None) -> Float[Tensor, "B"]:
        """The logits of what was seen, with what it should have been: many texts for one look."""
        if (told is None) != (self.projection is None):
            raise ValueError("this judge is told nothing" if self.projection is None else "this judge must be told")
        score = self.judge(seen)[:, 0]
        if told is None or self.projection is None:
            return score
        return score + (self.projection(told) * seen).sum(1) / seen.shape[1] ** 0.5


def deviation(x: Float[Tensor, "B C H W"], group: int) -> Float[Tensor, "B 1 H W"]:
    """How far pictures of a group differ, as a map: the group is every B / group-th picture."""
    count = next(size for size in range(min(group, len(x)), 0, -1) if len(x) % size == 0)
    grouped = x.float().view(count, -1, *x.shape[1:])
    spread = (grouped.var(0, unbiased=False) + 1e-8).sqrt().mean((1, 2, 3))
    return spread.repeat(count)[:, None, None, None].expand(-1, 1, *x.shape[2:]).to(x.dtype)


@dataclass(frozen=True, kw_only=True)
class PatchConfig:
    """A judge of patches.

    Attributes:
        channels: Of what is judged: 3, or 6 where the source picture is shown beside it (pix2pix).
        width: Channels after the first convolution.
        layers: Strided convolutions after it; 3 see 70x70 pixels, 1 sees 16x16.
        norm: "instance" (CycleGAN), "batch" (pix2pix) or "none" (for gradient penalties).
    """

    channels: int = 3
    width: int = 64
    layers: int = 3
    norm: Literal["instance", "batch", "none"] = "instance"


@final
class PatchGAN(nn.Module):
    """A judge of patches.

    Args:
        config: What to build.

    Attributes:
        config: As given.
    """

    def __init__(self, config: PatchConfig) -> None:
        super().__init__()
        self.config = config
        widths = [config.width * min(2**place, 8) for place in range(config.layers + 1)]
        channels = (config.channels, *widths)
        # Two by two at stride 2 each; the last before the judge keeps the side, as in the paper.
        self.convs = nn.ModuleList(
            Conv2d(a, b, 4, stride=2 if place < config.layers else 1, padding=1)
            for place, (a, b) in enumerate(zip(channels, channels[1:], strict=False))
        )
        self.norms = nn.ModuleList(_norm(config.norm, width) for width in widths[1:])
        self.judge = Conv2d(widths[-1], 1, 4, padding=1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, std=0.02)

    def forward(self, pixels: Float[Tensor, "B C H W"]) -> Float[Tensor, "B 1 h w"]:
        """A logit a patch."""
        x = F.leaky_relu(self.convs[0](pixels), SLOPE)
        for conv, norm in zip(list(self.convs)[1:], self.norms, strict=True):
            x = F.leaky_relu(norm(conv(x)), SLOPE)
        return self.judge(x)


def _norm(kind: str, width: int) -> nn.Module:
    if kind == "batch":
        return nn.BatchNorm2d(width)
    return nn.InstanceNorm2d(width) if kind == "instance" else nn.Identity()
