"""The U-Net of OpenAI's lineage, in the form latent diffusion gave it.

Residual blocks conditioned on time (Ho et al. 2020, arXiv:2006.11239; Dhariwal and Nichol 2021, arXiv:2105.05233) and,
at chosen levels, transformers over all places that attend to the text (Rombach et al. 2022, arXiv:2112.10752). SDXL
(arXiv:2307.01952) adds a vector beside the time and deeper transformers. What the output means (noise, velocity, flow)
is up to whoever trained the weights.

One class, configured, is Stable Diffusion 1, 2 and XL (`SD1`, `SD2`, `SDXL`) and the pocket U-Net (`POCKET`). Where we
deviate: the parts of a level are named instead of numbered through one list, and an odd size is met by upsampling to
the size of the skip connection, so any size runs. Everything is ``channels_last`` friendly: the step from places to
tokens and back is a view there.
"""

from dataclasses import dataclass
from typing import TypeVar, final

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from mindseye.nn.attention import Attention
from mindseye.nn.embeddings import sinusoidal
from mindseye.nn.layers import Conv2d, Linear, added, normed_silu
from mindseye.nn.resnet import Downsample, ResBlock, Upsample
from mindseye.shapes import Latents, Sigma

__all__ = ["POCKET", "SD1", "SD2", "SDXL", "Config", "Transformers", "UNet"]

M = TypeVar("M", bound=nn.Module)
EPS = 1e-5
_ROWS = 1024
"""Of one block of the feed-forward layer."""


@dataclass(frozen=True, kw_only=True)
class Transformers:
    """Where the U-Net attends, and to what.

    Attributes:
        depth: Transformer blocks after each residual block, for each level; 0 = none.
        middle: The same for the middle.
        context: Channels of the text tokens; None = the network takes none and attends to itself twice.
        heads: Heads of every attention; None where ``head_dim`` is given.
        head_dim: Channels a head; None where ``heads`` is given.
        linear: Whether the projections around the blocks are linear layers; else 1x1 convolutions. The same sums, but
            another shape in the file.
    """

    depth: tuple[int, ...]
    middle: int
    context: int | None
    heads: int | None = None
    head_dim: int | None = None
    linear: bool = True

    def __post_init__(self) -> None:
        if (self.heads is None) == (self.head_dim is None):
            raise ValueError("give either heads or head_dim")

    def heads_at(self, channels: int) -> int:
        """Number of heads of an attention ``channels`` wide."""
        if self.heads is not None:
            return self.heads
        if self.head_dim is None or channels % self.head_dim:
            raise ValueError(f"{channels} channels cannot be split into heads of {self.head_dim}")
        return channels // self.head_dim


@dataclass(frozen=True, kw_only=True)
class Config:
    """Shape of a `UNet`.

    Attributes:
        in_channels: Channels of the noisy latents, and of whatever is concatenated to them.
        out_channels: Channels of the prediction.
        channels: Channels of each level, finest first; the first is also the width of the timestep sinusoids.
        blocks: Residual blocks of a level on the way down; one more on the way up.
        transformers: Where and how it attends.
        embedding: Width of the time embedding; 4 x the first channels in every public model.
        vector: Width of the conditioning vector; None = it takes none.
        groups: Groups of every GroupNorm.
    """

    in_channels: int
    out_channels: int
    channels: tuple[int, ...]
    blocks: int
    transformers: Transformers
    embedding: int
    vector: int | None = None
    groups: int = 32

    def __post_init__(self) -> None:
        if len(self.transformers.depth) != len(self.channels):
            raise ValueError(f"one transformer depth for each of {len(self.channels)} levels")


SD1 = Config(
    in_channels=4,
    out_channels=4,
    channels=(320, 640, 1280, 1280),
    blocks=2,
    transformers=Transformers(depth=(1, 1, 1, 0), middle=1, context=768, heads=8, linear=False),
    embedding=1280,
)
"""Stable Diffusion 1: 859,520,964 parameters."""

SD2 = Config(
    in_channels=4,
    out_channels=4,
    channels=(320, 640, 1280, 1280),
    blocks=2,
    transformers=Transformers(depth=(1, 1, 1, 0), middle=1, context=1024, head_dim=64),
    embedding=1280,
)
"""Stable Diffusion 2: 865,910,724 parameters."""

SDXL = Config(
    in_channels=4,
    out_channels=4,
    channels=(320, 640, 1280),
    blocks=2,
    transformers=Transformers(depth=(0, 2, 10), middle=10, context=2048, head_dim=64),
    embedding=1280,
    vector=2816,
)
"""Stable Diffusion XL base: 2,567,463,684 parameters."""

POCKET = Config(
    in_channels=8,
    out_channels=8,
    channels=(64, 128, 192),
    blocks=1,
    transformers=Transformers(depth=(0, 1, 1), middle=1, context=192, head_dim=32),
    embedding=496,
    vector=192,
)
"""The pocket U-Net over 8x16x16 latents, told the tokens and the vector of the pocket CLIP: as many parameters
as fit 24 MB in half precision, nearly all of them at 8x8 and 4x4, where they are cheap, and a thin level above that
draws outlines."""


def zeroed(module: M) -> M:
    """The module, its parameters set to zero: a block that ends in one starts as the identity."""
    for parameter in module.parameters():
        nn.init.zeros_(parameter)
    return module


def repeated(x: Float[Tensor, "B *S"], rows: int) -> Float[Tensor, "R *S"]:
    """``x``, one below the other until there are ``rows``; itself if there are already."""
    return x if len(x) == rows else torch.cat([x] * (rows // len(x)))


@final
class GEGLU(nn.Module):
    """Feed-forward layer gated by a GELU (Shazeer 2020, arXiv:2002.05202), four times as wide inside."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.proj = Linear(width, 8 * width)
        self.out = Linear(4 * width, width)

    def forward(self, x: Float[Tensor, "B N C"]) -> Float[Tensor, "B N C"]:
        """The second half of the projection is the gate."""
        if torch.is_grad_enabled():
            value, gate = self.proj(x).chunk(2, dim=-1)
            return self.out(value * F.gelu(gate))
        # A block of rows at a time and in place: the inside of all rows at once would be the largest tensor of the
        # network, and no product of two matrices gains from more rows than these.
        rows, out = x.flatten(0, -2), torch.empty_like(x, memory_format=torch.contiguous_format)
        for part, target in zip(rows.split(_ROWS), out.flatten(0, -2).split(_ROWS), strict=True):
            value, gate = self.proj(part).chunk(2, dim=-1)
            target.copy_(self.out(torch.ops.aten.gelu_(gate).mul_(value)))
        return out


@final
class Block(nn.Module):
    """Self-attention, attention to the text, feed-forward; each behind its LayerNorm and added."""

    def __init__(self, width: int, *, heads: int, context: int | None) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attention = Attention(width, heads=heads)
        self.norm2 = nn.LayerNorm(width)
        self.cross = Attention(width, heads=heads, context=context)
        self.norm3 = nn.LayerNorm(width)
        self.feed_forward = GEGLU(width)

    def forward(self, x: Float[Tensor, "B N C"], tokens: Float[Tensor, "R L D"] | None) -> Float[Tensor, "R N C"]:
        """Run the block; ``x`` may have fewer rows than ``tokens``, and is then repeated where they are first seen."""
        x = added(self.attention(self.norm1(x)), x)
        if tokens is not None:
            x = repeated(x, len(tokens))
        x = added(self.cross(self.norm2(x), tokens), x)
        return added(self.feed_forward(self.norm3(x)), x)


@final
class SpatialTransformer(nn.Module):
    """Transformer blocks over the places of a feature map, added to it."""

    def __init__(self, channels: int, *, depth: int, config: Transformers, groups: int) -> None:
        super().__init__()
        heads = config.heads_at(channels)
        self.norm = nn.GroupNorm(groups, channels, eps=1e-6)
        self.proj_in = Linear(channels, channels) if config.linear else Conv2d(channels, channels, 1)
        self.blocks = nn.ModuleList(Block(channels, heads=heads, context=config.context) for _ in range(depth))
        self.proj_out = zeroed(Linear(channels, channels) if config.linear else Conv2d(channels, channels, 1))
        self.linear = config.linear

    def forward(self, x: Float[Tensor, "B C H W"], tokens: Float[Tensor, "R L D"] | None) -> Float[Tensor, "R C H W"]:
        """Attend from every place to every place and to the tokens."""
        h = self.norm(x)
        if not self.linear:
            h = self.proj_in(h)
        h = h.permute(0, 2, 3, 1).flatten(1, 2)
        if self.linear:
            h = self.proj_in(h)
        for block in self.blocks:
            h = block(h, tokens)
        if self.linear:
            h = self.proj_out(h)
        h = h.unflatten(1, x.shape[2:]).permute(0, 3, 1, 2)
        if not self.linear:
            h = self.proj_out(h)
        return added(h, repeated(x, len(h)))


@final
class Stage(nn.Module):
    """A residual block and, where the level has one, the transformer after it."""

    def __init__(self, channels: int, out_channels: int, *, depth: int, config: Config) -> None:
        super().__init__()
        groups = config.groups
        self.residual = ResBlock(channels, out_channels, groups=groups, eps=EPS, embedding=config.embedding)
        zeroed(self.residual.conv2)
        self.transformer = (
            SpatialTransformer(out_channels, depth=depth, config=config.transformers, groups=groups) if depth else None
        )

    def forward(
        self, x: Float[Tensor, "B C H W"], embedding: Float[Tensor, "R E"], tokens: Float[Tensor, "R L D"] | None
    ) -> Float[Tensor, "S C2 H W"]:
        """Run both."""
        x = self.residual(x, embedding[: len(x)])
        return x if self.transformer is None else self.transformer(x, tokens)


@final
class Down(nn.Module):
    """The stages of one resolution and the halving after them."""

    def __init__(self, stages: list[Stage], resample: Downsample | None) -> None:
        super().__init__()
        self.stages = nn.ModuleList(stages)
        self.resample = resample

    def forward(
        self, x: Float[Tensor, "B C H W"], embedding: Float[Tensor, "R E"], tokens: Float[Tensor, "R L D"] | None
    ) -> list[Tensor]:
        """Every feature map on the way, the last one being what goes on; all of them are skip connections."""
        features = []
        for stage in self.stages:
            x = stage(x, embedding, tokens)
            features.append(x)
        if self.resample is not None:
            features.append(self.resample(x))
        return features


@final
class Up(nn.Module):
    """The stages of one resolution, each fed with a skip connection, and the doubling after them."""

    def __init__(self, stages: list[Stage], resample: Upsample | None) -> None:
        super().__init__()
        self.stages = nn.ModuleList(stages)
        self.resample = resample

    def forward(
        self,
        x: Float[Tensor, "B C H W"],
        skips: list[Tensor],
        embedding: Float[Tensor, "R E"],
        tokens: Float[Tensor, "R L D"] | None,
    ) -> Float[Tensor, "B C2 H2 W2"]:
        """Takes its skip connections off the end of ``skips``; the next one there says what size to return."""
        for stage in self.stages:
            x = stage(torch.cat([x, repeated(skips.pop(), len(x))], dim=1), embedding, tokens)
        return x if self.resample is None else self.resample(x, skips[-1].shape[2:])


@final
class Middle(nn.Module):
    """A residual block, the transformer, a residual block, at the coarsest resolution."""

    def __init__(self, channels: int, config: Config) -> None:
        super().__init__()
        self.before = Stage(channels, channels, depth=config.transformers.middle, config=config)
        self.after = Stage(channels, channels, depth=0, config=config)

    def forward(
        self, x: Float[Tensor, "B C H W"], embedding: Float[Tensor, "R E"], tokens: Float[Tensor, "R L D"] | None
    ) -> Float[Tensor, "S C H W"]:
        """Run all three."""
        return self.after(self.before(x, embedding, tokens), embedding, tokens)


@final
class UNet(nn.Module):
    """Predicts, from noisy latents, the time and the text, whatever it was trained to."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        widths, depths, last = config.channels, config.transformers.depth, len(config.channels) - 1
        self.time = self._embedder(widths[0])
        self.vector = None if config.vector is None else self._embedder(config.vector)
        self.conv_in = Conv2d(config.in_channels, widths[0], 3, padding=1)

        channels, skips, down = widths[0], [widths[0]], []
        for level, (width, depth) in enumerate(zip(widths, depths, strict=True)):
            stages = []
            for _ in range(config.blocks):
                stages.append(Stage(channels, width, depth=depth, config=config))
                channels = width
                skips.append(channels)
            if level < last:
                skips.append(channels)
            down.append(Down(stages, Downsample(channels) if level < last else None))
        self.down = nn.ModuleList(down)

        self.middle = Middle(channels, config)

        up = []
        for level in range(last, -1, -1):
            stages = []
            for _ in range(config.blocks + 1):
                stages.append(Stage(channels + skips.pop(), widths[level], depth=depths[level], config=config))
                channels = widths[level]
            up.insert(0, Up(stages, Upsample(channels) if level > 0 else None))
        self.up = nn.ModuleList(up)

        self.norm_out = nn.GroupNorm(config.groups, channels, eps=EPS)
        self.conv_out = zeroed(Conv2d(channels, config.out_channels, 3, padding=1))

    @property
    def shares(self) -> bool:
        """Whether pictures may be seen with several texts each at the price of one, as far as texts do not matter."""
        return self.config.vector is None and self.config.transformers.context is not None

    def _embedder(self, width: int) -> nn.Sequential:
        embedding = self.config.embedding
        return nn.Sequential(Linear(width, embedding), nn.SiLU(), Linear(embedding, embedding))

    def forward(
        self,
        x: Latents,
        timesteps: Sigma,
        tokens: Float[Tensor, "R L D"] | None = None,
        vector: Float[Tensor, "B V"] | None = None,
    ) -> Float[Tensor, "R C2 h w"]:
        """Predict.

        Guidance asks about the same latents with two texts. Where only tokens tell the two apart (`shares`), nothing
        before the first cross-attention does: give ``B`` latents with ``R`` = 2 B rows of tokens, and that part is
        computed once.

        Args:
            x: Noisy latents ``B C h w``, any size.
            timesteps: One a picture, in the units of the training (Stable Diffusion: [0, 1000)), whole or not.
            tokens: What to attend to, ``R L D``, R a multiple of B and more than B only where it `shares`; needed if
                and only if the network was built with a context.
            vector: Added to the time embedding after its own two layers; needed if and only if built with one.

        Returns:
            ``R C' h w``.

        Raises:
            ValueError: Tokens or a vector are missing or not wanted, or there are more tokens than it can share
                latents among.
        """
        for name, given, wanted in (
            ("tokens", tokens, self.config.transformers.context),
            ("vector", vector, self.config.vector),
        ):
            if (given is None) != (wanted is None):
                raise ValueError(f"this U-Net {'takes no' if wanted is None else 'needs'} {name}")
        rows = len(x) if tokens is None else len(tokens)
        if rows != len(x) and not (self.shares and rows % len(x) == 0):
            raise ValueError(f"{len(x)} latents with {rows} texts")
        embedding = self.time(sinusoidal(timesteps, self.config.channels[0]).to(x.dtype))
        if self.vector is not None:
            embedding = embedding + self.vector(vector)
        embedding = repeated(F.silu(embedding), rows)  # every residual block wants it activated: once is enough

        skips = [self.conv_in(x)]
        for level in self.down:
            skips += level(skips[-1], embedding, tokens)
        x = self.middle(skips[-1], embedding, tokens)
        for level in reversed(self.up):
            x = level(x, skips, embedding, tokens)
        return self.conv_out(normed_silu(self.norm_out, x))
