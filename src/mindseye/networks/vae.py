"""The KL autoencoder of latent diffusion (Rombach et al. 2022, arXiv:2112.10752).

A convolutional encoder gives the mean and log variance of a Gaussian over latents, a decoder paints pictures back. One
class serves the public KL-f8 of Stable Diffusion (`KL_F8`) and the pocket autoencoder (`POCKET`).

Where we deviate: ``patch`` folds the picture into channels before the first convolution (pixel unshuffle) and unfolds
it after the last, so that a small autoencoder never convolves at full resolution, which is where nearly all of KL-f8's
time goes; encoder and decoder have towers of their own; and the scale factor of the papers is a mean and standard
deviation a channel that live here as buffers, so what leaves `encode` and enters `decode` is normalised and no
diffusion method needs to know about it (Stable Diffusion: mean 0, standard deviation 1 / 0.18215).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, final

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from mindseye.nn.attention import Attention
from mindseye.nn.layers import Conv2d, added, normed_silu
from mindseye.nn.resnet import Downsample, ResBlock, Upsample
from mindseye.shapes import Latents, Pixels, check_sides

__all__ = ["KL_F8", "POCKET", "AutoencoderKL", "Config", "Tower"]

EPS = 1e-6


@dataclass(frozen=True, kw_only=True)
class Tower:
    """One half of the autoencoder, level 0 being the finest in encoder and decoder alike.

    Attributes:
        channels: Channels of each level.
        blocks: Residual blocks of each level.
        middle: Whether the coarsest level also has residual block, single-head attention, residual block.
        taper: Whether the resampling convolutions already go to the next level's channels; otherwise its first residual
            block does, at more cost.
    """

    channels: tuple[int, ...]
    blocks: tuple[int, ...]
    middle: bool = True
    taper: bool = False

    def __post_init__(self) -> None:
        if not self.channels or len(self.channels) != len(self.blocks):
            raise ValueError(f"one block count for each of the {len(self.channels)} levels, not {self.blocks}")


@dataclass(frozen=True, kw_only=True)
class Config:
    """Shape of an `AutoencoderKL`.

    Attributes:
        encoder: Tower from pictures to latents.
        decoder: Tower from latents to pictures; as many levels as the encoder.
        latent_channels: Channels of a latent.
        patch: Side of the squares folded into channels before the first convolution; 1 = none.
        groups: Groups of every GroupNorm.
        quant_conv: Whether 1x1 convolutions stand on both sides of the latent.
    """

    encoder: Tower
    decoder: Tower
    latent_channels: int
    patch: int = 1
    groups: int = 32
    quant_conv: bool = True

    def __post_init__(self) -> None:
        if len(self.encoder.channels) != len(self.decoder.channels):
            raise ValueError("encoder and decoder need the same number of levels")

    @property
    def factor(self) -> int:
        """How many times smaller a side of a latent is."""
        return self.patch * 2 ** (len(self.encoder.channels) - 1)


KL_F8 = Config(
    encoder=Tower(channels=(128, 256, 512, 512), blocks=(2, 2, 2, 2)),
    decoder=Tower(channels=(128, 256, 512, 512), blocks=(3, 3, 3, 3)),
    latent_channels=4,
)
"""Stable Diffusion's: 83,653,863 parameters."""

POCKET = Config(
    encoder=Tower(channels=(64, 128), blocks=(0, 2), middle=False, taper=True),
    decoder=Tower(channels=(64, 128), blocks=(2, 2), middle=False, taper=True),
    latent_channels=8,
    patch=4,
    quant_conv=False,
)
"""The pocket autoencoder: pictures of 128x128 to latents of 8x16x16, every convolution at 32x32 or below."""


@final
class Level(nn.ModuleDict):
    """The parts of one resolution by name, run in their order."""

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C2 H2 W2"]:
        """Run them all."""
        for part in self.values():
            x = part(x)
        return x


@final
class Middle(nn.Module):
    """Residual block, attention over all places, residual block."""

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.before = ResBlock(channels, channels, groups=groups, eps=EPS)
        self.norm = nn.GroupNorm(groups, channels, eps=EPS)
        self.attention = Attention(channels, heads=1, bias=True)
        self.after = ResBlock(channels, channels, groups=groups, eps=EPS)

    def forward(self, x: Float[Tensor, "B C h w"]) -> Float[Tensor, "B C h w"]:
        """The public files have 1x1 convolutions where we have linear layers: the same numbers."""
        x = self.before(x)
        # In channels_last both reshapes are views.
        places = self.attention(self.norm(x).permute(0, 2, 3, 1).flatten(1, 2))
        return self.after(added(places.unflatten(1, x.shape[2:]).permute(0, 3, 1, 2), x))


@final
class Encoder(nn.Module):
    """Pictures, folded by ``patch``, to the 2 x ``latent_channels`` channels of mean and log variance."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        tower, groups = config.encoder, config.groups
        channels = tower.channels[0]
        self.conv_in = Conv2d(3 * config.patch**2, channels, 3, padding=1)
        self.levels = nn.ModuleList()
        for level, (width, count) in enumerate(zip(tower.channels, tower.blocks, strict=True)):
            blocks = nn.Sequential()
            for _ in range(count):
                blocks.append(ResBlock(channels, width, groups=groups, eps=EPS))
                channels = width
            parts = Level({"blocks": blocks})
            if level < len(tower.channels) - 1:
                following = tower.channels[level + 1] if tower.taper else channels
                parts["down"] = Downsample(channels, following, asymmetric=True)
                channels = following
            self.levels.append(parts)
        self.middle = Middle(channels, groups) if tower.middle else nn.Identity()
        self.norm_out = nn.GroupNorm(groups, channels, eps=EPS)
        self.conv_out = Conv2d(channels, 2 * config.latent_channels, 3, padding=1)

    def forward(self, x: Float[Tensor, "B P H W"]) -> Float[Tensor, "B C2 h w"]:
        """Run the tower, finest level first."""
        x = self.conv_in(x)
        for level in self.levels:
            x = level(x)
        return self.conv_out(normed_silu(self.norm_out, self.middle(x)))


@final
class Decoder(nn.Module):
    """Latents to pictures, still folded by ``patch``. ``levels[0]`` is the finest, and so the last to run."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        tower, groups = config.decoder, config.groups
        channels = tower.channels[-1]
        self.conv_in = Conv2d(config.latent_channels, channels, 3, padding=1)
        self.middle = Middle(channels, groups) if tower.middle else nn.Identity()
        levels: list[Level] = []
        for level in reversed(range(len(tower.channels))):
            blocks = nn.Sequential()
            for _ in range(tower.blocks[level]):
                blocks.append(ResBlock(channels, tower.channels[level], groups=groups, eps=EPS))
                channels = tower.channels[level]
            parts = Level({"blocks": blocks})
            if level > 0:
                following = tower.channels[level - 1] if tower.taper else channels
                parts["up"] = Upsample(channels, following)
                channels = following
            levels.insert(0, parts)
        self.levels = nn.ModuleList(levels)
        self.norm_out = nn.GroupNorm(groups, channels, eps=EPS)
        self.conv_out = Conv2d(channels, 3 * config.patch**2, 3, padding=1)

    def forward(self, z: Float[Tensor, "B C h w"]) -> Float[Tensor, "B P H W"]:
        """Run the tower, coarsest level first."""
        x = self.middle(self.conv_in(z))
        for level in reversed(self.levels):
            x = level(x)
        return self.conv_out(normed_silu(self.norm_out, x))


@final
class AutoencoderKL(nn.Module):
    """Pictures in [-1, 1] to normalised latents ``factor`` times smaller and back; satisfies `mindseye.codec.Codec`.

    ``latents_mean`` and ``latents_std`` (buffers, one number a channel, 0 and 1 until set) normalise: they are saved
    with the weights and have no gradient. They stay in float32 whatever the network computes in: in bfloat16, a scale
    of 0.18215 would be off by a five-hundredth.
    """

    exact: ClassVar[tuple[str, ...]] = ("latents_mean", "latents_std")
    """Buffers that keep their dtype."""
    latents_mean: Tensor
    latents_std: Tensor

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.factor: int = config.factor
        channels = config.latent_channels
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)
        self.quant_conv = Conv2d(2 * channels, 2 * channels, 1) if config.quant_conv else nn.Identity()
        self.post_quant_conv = Conv2d(channels, channels, 1) if config.quant_conv else nn.Identity()
        self.register_buffer("latents_mean", torch.zeros(channels))
        self.register_buffer("latents_std", torch.ones(channels))

    def posterior(self, pixels: Pixels) -> tuple[Latents, Latents]:
        """Mean and log variance of the latents, not normalised.

        Args:
            pixels: ``B 3 H W`` in [-1, 1]; sides multiples of ``factor``.

        Returns:
            Mean and log variance, both ``B C h w``; the log variance is clamped to [-30, 20].

        Raises:
            ValueError: A side is no multiple of ``factor``.
        """
        check_sides(pixels, self.factor)
        folded = pixels if self.config.patch == 1 else F.pixel_unshuffle(pixels, self.config.patch)
        mean, logvar = self.quant_conv(self.encoder(folded)).chunk(2, dim=1)
        return mean, logvar.clamp(-30.0, 20.0)

    def encode(self, pixels: Pixels) -> Latents:
        """The mode of the posterior, normalised. Sides must be multiples of ``factor``."""
        return self.normalised(self.posterior(pixels)[0])

    def decode(self, latents: Latents) -> Pixels:
        """Pictures in about [-1, 1] (not clamped) from normalised latents."""
        return self.decode_raw(self.raw(latents))

    def normalised(self, z: Latents) -> Latents:
        """Latents with zero mean and unit variance over the training pictures, from the posterior's."""
        return ((z - self.latents_mean[:, None, None]) / self.latents_std[:, None, None]).to(z.dtype)

    def raw(self, latents: Latents) -> Latents:
        """The inverse of `normalised`."""
        return (latents * self.latents_std[:, None, None] + self.latents_mean[:, None, None]).to(latents.dtype)

    def decode_raw(self, z: Latents) -> Pixels:
        """Pictures from latents as `posterior` gives them: what training the autoencoder needs."""
        folded = self.decoder(self.post_quant_conv(z))
        return folded if self.config.patch == 1 else F.pixel_shuffle(folded, self.config.patch)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "AutoencoderKL":
        before = {name: getattr(self, name) for name in self.exact}
        super()._apply(fn, recurse)
        for name, buffer in before.items():
            if buffer.dtype != (now := getattr(self, name)).dtype:
                setattr(self, name, buffer.to(now.device))
        return self
