"""The ablated diffusion model: the U-Net over pixels of Dhariwal and Nichol 2021 (arXiv:2105.05233).

What guided-diffusion trained, and what CLIP-guided diffusion and Disco Diffusion steered. Against the U-Net of latent
diffusion (`mindseye.networks.unet`): no text; plain self-attention between residual blocks; the time scales and shifts
the second norm (FiLM) instead of being added; halving and doubling happen inside residual blocks; and half of the
answer may be a variance for every pixel (Nichol and Dhariwal 2021, arXiv:2102.09672). Each of these is a field of the
Config, since derived releases differ in them (KaliYuga's pixel-art models have none but the variance).

Where we deviate: the parts of a level are named instead of numbered through one list; and with ``patch`` above 1 the
network works on blocks of pixels (space to depth before the first convolution and back after the last), which public
releases do not, and the pocket network does: convolutions at full resolution are what costs.
"""

from dataclasses import dataclass
from typing import Literal, final

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from mindseye.networks.unet import zeroed
from mindseye.nn.attention import attend
from mindseye.nn.embeddings import sinusoidal
from mindseye.nn.layers import Conv2d, Linear, added, normed_silu, silu
from mindseye.nn.resnet import Downsample, Upsample
from mindseye.shapes import Sigma

__all__ = ["ADM", "KALIYUGA", "POCKET", "UNCOND_256", "UNCOND_512", "Config", "SelfAttention"]

EPS = 1e-5
Order = Literal["legacy", "new"]
Resampling = Literal["up", "down"]


@dataclass(frozen=True, kw_only=True)
class SelfAttention:
    """Where the network attends to itself, besides its middle.

    Attributes:
        levels: For each level, finest first, whether attention follows its residual blocks.
        heads: Heads of every attention; None where ``head_dim`` is given.
        head_dim: Channels a head; None where ``heads`` is given.
        order: How queries, keys and values lie in the fused projection: "legacy" has all three of a head together,
            "new" all queries first. Shapes do not tell; of the public models only ImageNet 64x64 is "new".
    """

    levels: tuple[bool, ...]
    heads: int | None = None
    head_dim: int | None = None
    order: Order = "legacy"

    def __post_init__(self) -> None:
        if (self.heads is None) == (self.head_dim is None):
            raise ValueError("give either heads or head_dim")

    def heads_at(self, channels: int) -> int:
        """Number of heads of an attention ``channels`` wide."""
        heads = self.heads if self.head_dim is None else channels // self.head_dim
        if not heads or channels % heads or (self.head_dim and channels % self.head_dim):
            raise ValueError(f"{channels} channels cannot be split into heads of {self.head_dim or self.heads}")
        return heads


@dataclass(frozen=True, kw_only=True)
class Config:
    """Shape of an `ADM`.

    Attributes:
        in_channels: Channels of the noisy picture.
        out_channels: Channels of the answer: as many as come in, or twice as many with a variance for each.
        width: Channels of the sinusoids of the time; the embedding is four times as wide.
        channels: Channels of each level, finest first.
        blocks: Residual blocks of a level on the way down; one more on the way up.
        attention: Where and how it attends.
        classes: How many classes it may be told; None = it is told none.
        film: Whether the time scales and shifts the second norm; else it is added before it.
        residual: Whether sizes change inside residual blocks; else by convolutions.
        groups: Groups of every GroupNorm.
        patch: Side of the blocks of pixels that are one place to the network.
    """

    in_channels: int = 3
    out_channels: int = 6
    width: int
    channels: tuple[int, ...]
    blocks: int
    attention: SelfAttention
    classes: int | None = None
    film: bool = True
    residual: bool = True
    groups: int = 32
    patch: int = 1

    def __post_init__(self) -> None:
        if len(self.attention.levels) != len(self.channels):
            raise ValueError(f"attention or none for each of {len(self.channels)} levels")

    @property
    def multiple(self) -> int:
        """Sides of pictures are multiples of this."""
        return self.patch * 2 ** (len(self.channels) - 1)


UNCOND_256 = Config(
    width=256,
    channels=(256, 256, 512, 512, 1024, 1024),
    blocks=2,
    attention=SelfAttention(levels=(False, False, False, True, True, True), head_dim=64),
)
"""OpenAI's 256x256_diffusion_uncond: 552,814,086 parameters."""

UNCOND_512 = Config(
    width=256,
    channels=(128, 256, 256, 512, 512, 1024, 1024),
    blocks=2,
    attention=SelfAttention(levels=(False, False, False, False, True, True, True), head_dim=64),
)
"""Crowson's 512x512_diffusion_uncond_finetune, Disco Diffusion's default: 557,973,638 parameters."""

KALIYUGA = Config(
    width=128,
    channels=(128, 128, 256, 256, 512, 512),
    blocks=2,
    attention=SelfAttention(levels=(False, False, False, False, True, False), heads=1),
    film=False,
    residual=False,
)
"""KaliYuga's pixel-art, watercolour and pulp models, 256x256."""

POCKET = Config(
    width=48,
    channels=(48, 80, 128),
    blocks=1,
    attention=SelfAttention(levels=(False, True, True), head_dim=16),
    groups=16,
    patch=2,
)
"""The pocket network over 64x64 pixels, attention at 16x16 and 8x8 places: 3,906,104 parameters, 1.5 GFLOP a look. With
``patch=4`` it draws 128x128 at nearly the same price."""


@final
class Places(nn.Conv1d):
    """A linear layer over the places of a feature map, its weight shaped as the one-dimensional convolution that the
    releases call it."""

    def __init__(self, channels: int, out_channels: int) -> None:
        super().__init__(channels, out_channels, 1)

    def forward(self, input: Float[Tensor, "B N C"]) -> Float[Tensor, "B N D"]:
        """In the dtype of ``input``."""
        weight, bias = self.weight.to(input.dtype), self.bias
        return F.linear(input, weight[:, :, 0], None if bias is None else bias.to(input.dtype))


@final
class Attention(nn.Module):
    """Attention from every place to every place, added to the feature map."""

    def __init__(self, channels: int, config: Config) -> None:
        super().__init__()
        self.heads = config.attention.heads_at(channels)
        self.order = config.attention.order
        self.norm = nn.GroupNorm(config.groups, channels, eps=EPS)
        self.qkv = Places(channels, 3 * channels)
        self.out = zeroed(Places(channels, channels))

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
        """Attend."""
        h = self.qkv(self.norm(x).permute(0, 2, 3, 1).flatten(1, 2))
        if self.order == "legacy":
            q, k, v = (each.flatten(-2) for each in h.unflatten(-1, (self.heads, 3, -1)).unbind(-2))
        else:
            q, k, v = h.chunk(3, dim=-1)
        h = self.out(attend(q, k, v, heads=self.heads))
        return added(h.unflatten(1, x.shape[2:]).permute(0, 3, 1, 2), x)


@final
class Residual(nn.Module):
    """``shortcut(x) + conv(silu(film(norm(conv(resample(silu(norm(x))))))))``, and x resampled likewise.

    Args:
        channels: Channels in.
        out_channels: Channels out.
        config: Of the network.
        resample: Whether the block also doubles or halves the size.
    """

    def __init__(self, channels: int, out_channels: int, config: Config, resample: Resampling | None = None) -> None:
        super().__init__()
        self.film = config.film
        self.resample: Resampling | None = resample
        self.norm1 = nn.GroupNorm(config.groups, channels, eps=EPS)
        self.conv1 = Conv2d(channels, out_channels, 3, padding=1)
        self.embedding = Linear(4 * config.width, out_channels * (2 if config.film else 1))
        self.norm2 = nn.GroupNorm(config.groups, out_channels, eps=EPS)
        self.conv2 = zeroed(Conv2d(out_channels, out_channels, 3, padding=1))
        self.shortcut = nn.Identity() if channels == out_channels else Conv2d(channels, out_channels, 1)

    def forward(self, x: Float[Tensor, "B C H W"], embedding: Float[Tensor, "B E"]) -> Float[Tensor, "B C2 H2 W2"]:
        """``embedding`` is already through its SiLU: the network computes that once for all blocks."""
        h = normed_silu(self.norm1, x)
        if self.resample is not None:
            h, x = _resampled(h, self.resample), _resampled(x, self.resample)
        h = self.conv1(h)
        told = self.embedding(embedding)[:, :, None, None]
        if self.film:
            scale, shift = told.chunk(2, dim=1)
            h = torch.addcmul(shift, self.norm2(h), 1 + scale)
        else:
            h = self.norm2(added(h, told))
        return added(self.conv2(silu(h)), self.shortcut(x))


def _resampled(x: Tensor, how: Resampling) -> Tensor:
    """Twice the size by repeating, or half of it by averaging."""
    return F.avg_pool2d(x, 2) if how == "down" else F.interpolate(x, scale_factor=2, mode="nearest")


@final
class Stage(nn.Module):
    """A residual block and, where the level has one, the attention after it."""

    def __init__(self, channels: int, out_channels: int, config: Config, *, attends: bool) -> None:
        super().__init__()
        self.residual = Residual(channels, out_channels, config)
        self.attention = Attention(out_channels, config) if attends else None

    def forward(self, x: Float[Tensor, "B C H W"], embedding: Float[Tensor, "B E"]) -> Float[Tensor, "B C2 H W"]:
        """Run both."""
        x = self.residual(x, embedding)
        return x if self.attention is None else self.attention(x)


@final
class Level(nn.Module):
    """The stages of one resolution and the change of size after them."""

    def __init__(self, stages: list[Stage], resample: nn.Module | None) -> None:
        super().__init__()
        self.stages = nn.ModuleList(stages)
        self.resample = resample

    def after(self, x: Float[Tensor, "B C H W"], embedding: Float[Tensor, "B E"]) -> Float[Tensor, "B C H2 W2"]:
        """The change of size."""
        if isinstance(self.resample, Residual):
            return self.resample(x, embedding)
        return x if self.resample is None else self.resample(x)


@final
class ADM(nn.Module):
    """Predicts, from noisy pixels and the time, the noise (or whatever it was trained to) and perhaps a variance."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        widths, attends, last = config.channels, config.attention.levels, len(config.channels) - 1
        embedding, pixels = 4 * config.width, config.patch**2
        self.time = nn.Sequential(Linear(config.width, embedding), nn.SiLU(), Linear(embedding, embedding))
        self.label = None if config.classes is None else nn.Embedding(config.classes, embedding)
        self.conv_in = Conv2d(config.in_channels * pixels, widths[0], 3, padding=1)

        channels, skips, down = widths[0], [widths[0]], []
        for level, width in enumerate(widths):
            stages = []
            for _ in range(config.blocks):
                stages.append(Stage(channels, width, config, attends=attends[level]))
                channels = width
                skips.append(channels)
            if level < last:
                skips.append(channels)
            down.append(Level(stages, self._resampler(channels, "down") if level < last else None))
        self.down = nn.ModuleList(down)

        self.before = Stage(channels, channels, config, attends=True)
        self.after = Residual(channels, channels, config)

        up = []
        for level in range(last, -1, -1):
            stages = []
            for _ in range(config.blocks + 1):
                stages.append(Stage(channels + skips.pop(), widths[level], config, attends=attends[level]))
                channels = widths[level]
            up.insert(0, Level(stages, self._resampler(channels, "up") if level > 0 else None))
        self.up = nn.ModuleList(up)

        self.norm_out = nn.GroupNorm(config.groups, channels, eps=EPS)
        self.conv_out = zeroed(Conv2d(channels, config.out_channels * pixels, 3, padding=1))

    def _resampler(self, channels: int, how: Resampling) -> nn.Module:
        if self.config.residual:
            return Residual(channels, channels, self.config, how)
        return Downsample(channels) if how == "down" else Upsample(channels)

    def forward(
        self, x: Float[Tensor, "B C H W"], timesteps: Sigma, y: Int[Tensor, "B"] | None = None
    ) -> Float[Tensor, "B C2 H W"]:
        """Predict.

        Args:
            x: Noisy pictures in the network's own coordinates, sides multiples of ``config.multiple``.
            timesteps: One a picture, in [0, 1000), whole or not.
            y: The class of each picture; given if and only if the network has classes.

        Raises:
            ValueError: Classes are missing or not wanted.
        """
        if (y is None) != (self.label is None):
            raise ValueError(f"this network {'takes no' if self.label is None else 'needs'} classes")
        embedding = self.time(sinusoidal(timesteps, self.config.width).to(x.dtype))
        if self.label is not None and y is not None:
            embedding = embedding + self.label(y).to(x.dtype)
        embedding = F.silu(embedding)

        h = self.conv_in(x if self.config.patch == 1 else F.pixel_unshuffle(x, self.config.patch))
        skips = [h]
        for level in self.down:
            for stage in level.stages:  # type: ignore[union-attr]
                h = stage(h, embedding)
                skips.append(h)
            if level.resample is not None:
                h = level.after(h, embedding)  # type: ignore[operator]
                skips.append(h)
        h = self.after(self.before(h, embedding), embedding)
        for level in reversed(self.up):
            for stage in level.stages:  # type: ignore[union-attr]
                h = stage(torch.cat([h, skips.pop()], dim=1), embedding)
            h = level.after(h, embedding)  # type: ignore[operator]
        h = self.conv_out(normed_silu(self.norm_out, h))
        return h if self.config.patch == 1 else F.pixel_shuffle(h, self.config.patch)
