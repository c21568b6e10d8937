"""BigGAN-deep's generator: a class and a vector of noise to a picture (Brock et al. 2018, arXiv:1809.11096).

A linear layer paints a 4x4 map, bottleneck blocks double it up to the picture, and every norm in every block is told
the noise and the class: they set its scale and offset. The public weights (DeepMind's, ported by huggingface) hold
statistics of every norm for 51 degrees of truncation, because noise that is drawn closer to zero makes other maps.

Each *site* that listens, the first layer and every block, may hear another vector: that is what Big Sleep paints with.

Deviations, none of which changes what the public weights compute, but for the first:
    - Between two rows of the table the release swaps the weights of the rows, and finds row 28 for truncation 0.58
      where 29 is meant; we interpolate as meant, and as the release does with ``compat=True``.
    - Weights are stored divided by their spectral norms, which are constant once training ends.
    - The last convolution has three outputs; the release's has as many as ``width``, of which three are shown.
    - A network that is not in eval mode normalises by the batch and keeps running means in its table, all rows alike
      (`mindseye.adversarial.standing` measures each row afterwards), so the same class can be trained.
"""

import math
from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from mindseye.nn.layers import Conv2d, Linear, added
from mindseye.shapes import Pixels

__all__ = [
    "BIGGAN_DEEP_128",
    "BIGGAN_DEEP_256",
    "BIGGAN_DEEP_512",
    "POCKET",
    "BigGAN",
    "Config",
    "GlobalAttention",
    "truncated",
]

Condition = Float[Tensor, "B ZE"]
"""What a norm is told: noise and class, side by side."""

FIRST = 4
"""Side of the first map."""


@dataclass(frozen=True, kw_only=True)
class Config:
    """What the generator looks like.

    Attributes:
        z_dim: Numbers of noise.
        class_dim: Numbers that a class becomes.
        num_classes: How many classes there are.
        width: Channels that a multiplier of 1 stands for.
        layers: A block each: whether it doubles the side, multiplier of its channels in, and out (as many, or half).
        attention: The block before which self-attention stands; None = none.
        rows: How many degrees of truncation, evenly from 0 to 1, the norms have statistics for.
        eps: Of the norms.
        labels: The classes' names, in order; empty = not known.
    """

    z_dim: int = 128
    class_dim: int = 128
    num_classes: int = 1000
    width: int = 128
    layers: tuple[tuple[bool, int, int], ...] = ()
    attention: int | None = 8
    rows: int = 51
    eps: float = 1e-4
    labels: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Check what blocks can do."""
        if not self.layers:
            raise ValueError("a generator has at least one block")
        if any(out not in (wide, wide // 2) for _, wide, out in self.layers):
            raise ValueError("a block keeps its channels or halves them")
        if any(before[2] != after[1] for before, after in zip(self.layers, self.layers[1:], strict=False)):
            raise ValueError("a block takes as many channels as the one before it gives")
        if self.labels and len(self.labels) != self.num_classes:
            raise ValueError(f"{len(self.labels)} labels for {self.num_classes} classes")

    @property
    def sites(self) -> int:
        """How many places listen to noise and class: the first layer, and every block."""
        return 1 + len(self.layers)

    @property
    def size(self) -> int:
        """Side of the pictures."""
        return FIRST * 2 ** sum(up for up, _, _ in self.layers)


_HEAD = ((False, 16, 16), (True, 16, 16), (False, 16, 16), (True, 16, 8), (False, 8, 8))
_TAIL = ((True, 8, 4), (False, 4, 4), (True, 4, 2), (False, 2, 2), (True, 2, 1))
_MIDDLE = ((True, 8, 8), (False, 8, 8))

BIGGAN_DEEP_128 = Config(layers=_HEAD + _TAIL)
"""The release at 128x128: 50.4M parameters."""
BIGGAN_DEEP_256 = Config(layers=_HEAD + _MIDDLE + _TAIL)
"""At 256x256: 55.9M."""
BIGGAN_DEEP_512 = Config(layers=_HEAD + _MIDDLE + _TAIL + ((False, 1, 1), (True, 1, 1)))
"""At 512x512: 56.2M."""
POCKET = Config(
    z_dim=64,
    class_dim=64,
    num_classes=33,
    width=16,
    layers=((False, 16, 16), (True, 16, 16), (False, 16, 16), (True, 16, 8), (False, 8, 8), (True, 8, 8), (True, 8, 4)),
    attention=5,
    rows=6,
)
"""The small one that travels with the package: 64x64."""


class _Statistics(nn.Module):
    """Means and variances of channels by truncation; abstract."""

    def __init__(self, channels: int, rows: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.momentum = 0.1
        """How far a batch in training moves the table."""
        self.means: Tensor
        self.variances: Tensor
        self.register_buffer("means", torch.zeros(rows, channels))
        self.register_buffer("variances", torch.ones(rows, channels))

    def normalised(
        self, x: Float[Tensor, "B C H W"], scale: Tensor, offset: Tensor, truncation: float, compat: bool
    ) -> Float[Tensor, "B C H W"]:
        """``(x - mean) / deviation * scale + offset``."""
        if self.training:
            # The fused kernel, and then one pass: written out like below, training takes three times as long.
            mean, variance = (torch.zeros(x.shape[1], device=x.device) for _ in range(2))
            x = F.batch_norm(x, mean, variance, training=True, momentum=1.0, eps=self.eps)
            with torch.no_grad():
                self.means.lerp_(mean.to(self.means), self.momentum)
                self.variances.lerp_(variance.to(self.variances), self.momentum)
            factor, shift = scale, offset
        else:
            mean, variance = (_row(table, truncation, compat) for table in (self.means, self.variances))
            factor = torch.rsqrt(variance + self.eps) * scale
            shift = offset - mean * factor
        return torch.addcmul(shift.to(x.dtype)[:, :, None, None], x, factor.to(x.dtype)[:, :, None, None])


@final
class ConditionalNorm(_Statistics):
    """A batch norm whose scale and offset are linear in what it is told.

    Args:
        channels: Of the map.
        condition: Numbers it is told.
        rows: Of the table of statistics.
        eps: Added to variances.
    """

    def __init__(self, channels: int, condition: int, rows: int, eps: float) -> None:
        super().__init__(channels, rows, eps)
        self.scale = Linear(condition, channels, bias=False)
        self.offset = Linear(condition, channels, bias=False)

    def forward(
        self, x: Float[Tensor, "B C H W"], told: Condition, truncation: float, compat: bool
    ) -> Float[Tensor, "B C H W"]:
        """Normalise, and set scale and offset."""
        return self.normalised(x, 1 + self.scale(told), self.offset(told), truncation, compat)


@final
class PlainNorm(_Statistics):
    """The last norm, which is told nothing."""

    def __init__(self, channels: int, rows: int, eps: float) -> None:
        super().__init__(channels, rows, eps)
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Float[Tensor, "B C H W"], truncation: float, compat: bool) -> Float[Tensor, "B C H W"]:
        """Normalise."""
        return self.normalised(x, self.weight[None], self.bias[None], truncation, compat)


@final
class Block(nn.Module):
    """Norm, ReLU and convolution four times: 1x1 to a quarter of the channels, 3x3, 3x3, 1x1.

    Args:
        channels: In.
        out: As many, or half; the shortcut drops the other half.
        up: Whether the side is doubled, before the first 3x3.
        config: Of the network.
    """

    def __init__(self, channels: int, out: int, up: bool, config: Config) -> None:
        super().__init__()
        inner = channels // 4
        self.out, self.up = out, up
        told = config.z_dim + config.class_dim
        self.norms = nn.ModuleList(
            ConditionalNorm(width, told, config.rows, config.eps) for width in (channels, inner, inner, inner)
        )
        self.convs = nn.ModuleList(
            [
                Conv2d(channels, inner, 1),
                Conv2d(inner, inner, 3, padding=1),
                Conv2d(inner, inner, 3, padding=1),
                Conv2d(inner, out, 1),
            ]
        )

    def forward(
        self, x: Float[Tensor, "B C H W"], told: Condition, truncation: float, compat: bool
    ) -> Float[Tensor, "B C2 H2 W2"]:
        """Run the block."""
        h = x
        for place, (norm, conv) in enumerate(zip(self.norms, self.convs, strict=True)):
            h = F.relu(norm(h, told, truncation, compat), inplace=not torch.is_grad_enabled())
            if self.up and place == 1:
                h = F.interpolate(h, scale_factor=2.0, mode="nearest")
            h = conv(h)
        skip = x[:, : self.out]
        if self.up:
            skip = F.interpolate(skip, scale_factor=2.0, mode="nearest")
        return added(h, skip)


@final
class GlobalAttention(nn.Module):
    """SAGAN's self-attention (Zhang et al. 2018, arXiv:1805.08318): every place reads every fourth, scores not scaled.

    Args:
        channels: In and out.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.query = Conv2d(channels, channels // 8, 1, bias=False)
        self.key = Conv2d(channels, channels // 8, 1, bias=False)
        self.value = Conv2d(channels, channels // 2, 1, bias=False)
        self.out = Conv2d(channels // 2, channels, 1, bias=False)
        self.gain = nn.Parameter(torch.zeros(1))

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
        """``x`` and what is read, times a learned gain that starts at 0."""
        q = self.query(x).flatten(2)
        k = F.max_pool2d(self.key(x), 2).flatten(2)
        v = F.max_pool2d(self.value(x), 2).flatten(2)
        # Not by `attend`: values are four times as wide as keys here.
        read = v @ (q.transpose(1, 2) @ k).softmax(-1).transpose(1, 2)
        return x + self.gain * self.out(read.unflatten(2, x.shape[2:]))


@final
class BigGAN(nn.Module):
    """The generator.

    Args:
        config: What to build.

    Attributes:
        config: As given.
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.embeddings = Linear(config.num_classes, config.class_dim, bias=False)
        self.channels = config.layers[0][1] * config.width
        self.first = Linear(config.z_dim + config.class_dim, FIRST * FIRST * self.channels)
        self.blocks = nn.ModuleList(
            Block(wide * config.width, out * config.width, up, config) for up, wide, out in config.layers
        )
        self.attention = None
        if config.attention is not None:
            self.attention = GlobalAttention(config.layers[config.attention][1] * config.width)
        last = config.layers[-1][2] * config.width
        self.norm = PlainNorm(last, config.rows, config.eps)
        self.to_rgb = Conv2d(last, 3, 3, padding=1)
        for module in self.modules():
            if isinstance(module, (nn.Linear, nn.Conv2d)):
                nn.init.orthogonal_(module.weight)

    def forward(
        self,
        z: Float[Tensor, "B Z"] | Float[Tensor, "B R Z"],
        classes: Float[Tensor, "B N"] | Float[Tensor, "B R N"],
        truncation: float = 1.0,
        *,
        compat: bool = False,
    ) -> Pixels:
        """Draw.

        Args:
            z: Noise, already multiplied by the truncation; three axes give each site its own, in running order.
            classes: Weights of the classes, one-hot as a rule; any mixture is drawn. Also one a site.
            truncation: Above 0 up to 1: which row of the norms' statistics is meant.
            compat: Read between the rows as the release does.

        Returns:
            ``B 3 size size`` in [-1, 1].

        Raises:
            ValueError: A truncation outside 0 to 1, or rows that do not fit the sites.
        """
        if not 0 <= truncation <= 1:
            raise ValueError(f"truncation lies within 0 and 1, not {truncation}")
        told = self.told(z, classes)
        x = self.first(told[0]).view(-1, FIRST, FIRST, self.channels).permute(0, 3, 1, 2)
        for place, block in enumerate(self.blocks):
            if self.attention is not None and place == self.config.attention:
                x = self.attention(x)
            x = block(x, told[1 + place], truncation, compat)
        x = F.relu(self.norm(x, truncation, compat), inplace=not torch.is_grad_enabled())
        return torch.tanh(self.to_rgb(x))

    def told(self, z: Tensor, classes: Tensor) -> list[Condition]:
        """What each site hears: its noise beside its classes' vector."""
        sites = self.config.sites
        for rows in (z, classes):
            if rows.ndim == 3 and rows.shape[1] != sites:
                raise ValueError(f"{rows.shape[1]} rows for {sites} sites")
        vector = self.embeddings(classes)
        if z.ndim == vector.ndim == 2:
            return [torch.cat([z, vector], dim=-1)] * sites
        each = [rows if rows.ndim == 3 else rows[:, None].expand(-1, sites, -1) for rows in (z, vector)]
        return list(torch.cat(each, dim=-1).unbind(1))


def truncated(normal: Float[Tensor, "*S"]) -> Float[Tensor, "*S"]:
    """Normal numbers as numbers of a normal distribution cut off at -2 and 2, the larger the larger.

    The release redraws what lies outside; a monotone map makes neighbours of neighbours, so that noise between two
    seeds' noise stays between them.
    """
    cut = math.erf(2**0.5)  # of the mass within -2 and 2, the share -1 .. 1
    return 2**0.5 * torch.erfinv(torch.erf(normal.double() / 2**0.5) * cut).to(normal.dtype)


def _row(table: Float[Tensor, "T C"], truncation: float, compat: bool) -> Float[Tensor, "C"]:
    """Statistics for a truncation, between two rows where it lies between them."""
    if len(table) == 1:
        return table[0]
    if compat:
        share, low = math.modf(truncation / (1 / (len(table) - 1)))
        here = int(low)
        # The weights of the two rows are swapped in the release; where there is no next row, there is no share either.
        return table[here] * share + table[here + 1] * (1 - share) if share else table[here]
    place = round(truncation * (len(table) - 1), 6)  # 0.58 * 50 is 28.999999999999996
    here = min(int(place), len(table) - 2)
    return torch.lerp(table[here], table[here + 1], place - here)
