"""VQGAN (Esser et al. 2021, arXiv:2012.09841): pictures to a grid of integers and back.

The autoencoder of latent diffusion is its descendant, so the towers are those of `mindseye.networks.vae`, with two
differences: the encoder gives vectors instead of a mean and a variance, and behind every residual block of some levels
stands an attention. Between them, a quantizer (`mindseye.nn.quantize`) replaces each vector by a code of its codebook.

`encode` gives vectors *before* they are quantised and `decode` takes vectors that it does not quantise; neither is
normalised. Whoever paints by searching for vectors (VQGAN-CLIP) quantises in between, by `quantise` or, where it holds
points of the codebook's space rather than an encoder's output, by `mindseye.nn.quantize.snap` to `VQGAN.codebook`;
whoever models tokens uses `to_ids` and `from_ids`.

Where we deviate: ``patch`` folds the picture before the first convolution as in the KL autoencoder; ``unit`` puts
vectors and codes on the unit sphere (ViT-VQGAN: Yu et al. 2022, arXiv:2110.04627), where few of them die; the Gumbel
variant takes the most likely code unless it is given a generator; and where attention stands is a property of the
levels, as it is in taming-transformers' weights, although its configuration speaks of resolutions. Some were published
for pictures in [0, 1] (``positive``), or without an encoder (``encoder`` = None): both are DALL-E mini's.
"""

from dataclasses import dataclass
from itertools import chain
from typing import Literal, final

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from mindseye.errors import WeightsError
from mindseye.networks import vae
from mindseye.networks.vae import EPS, Tower
from mindseye.nn.attention import Attention
from mindseye.nn.layers import Conv2d, added
from mindseye.nn.quantize import GumbelQuantizer, NearestQuantizer, Quantised, as_grid, look_up
from mindseye.shapes import Latents, Pixels, check_sides

__all__ = ["F16", "GUMBEL_F8", "POCKET", "VQGAN", "Config"]


@dataclass(frozen=True, kw_only=True)
class Config:
    """Shape of a `VQGAN`.

    Attributes:
        encoder: Tower from pictures to vectors; None = there is none, and codes can only be turned into pictures.
        decoder: Tower from vectors to pictures; as many levels as the encoder.
        codes: Size of the codebook.
        code_channels: Channels of a code.
        z_channels: Channels that leave the encoder and enter the decoder.
        attention: Levels (0 = the finest) with single-head attention behind every residual block, in both towers.
        quantizer: "nearest" code, or the one that a layer finds likeliest ("gumbel").
        unit: Whether vectors and codes have length 1; of "nearest" only.
        patch: Side of the squares folded into channels before the first convolution; 1 = none.
        groups: Groups of every GroupNorm.
        positive: Whether the towers were trained on pictures in [0, 1]; ours are turned to theirs and back.
    """

    encoder: Tower | None
    decoder: Tower
    codes: int
    code_channels: int
    z_channels: int
    attention: tuple[int, ...] = ()
    quantizer: Literal["nearest", "gumbel"] = "nearest"
    unit: bool = False
    patch: int = 1
    groups: int = 32
    positive: bool = False

    def __post_init__(self) -> None:
        if self.quantizer not in ("nearest", "gumbel"):
            raise ValueError(f'a quantizer is "nearest" or "gumbel", not {self.quantizer!r}')
        if self.unit and self.quantizer != "nearest":
            raise ValueError("only the nearest code can be sought on the unit sphere")
        if any(not 0 <= level < len(self.decoder.channels) for level in self.attention):
            raise ValueError(f"there are {len(self.decoder.channels)} levels, not {self.attention}")

    @property
    def towers(self) -> vae.Config:
        """The autoencoder that the towers are taken from."""
        return vae.Config(
            encoder=self.encoder or self.decoder,
            decoder=self.decoder,
            latent_channels=self.z_channels,
            patch=self.patch,
            groups=self.groups,
        )

    @property
    def factor(self) -> int:
        """How many times smaller a side of the grid is."""
        return self.towers.factor


F16 = Config(
    encoder=Tower(channels=(128, 128, 256, 256, 512), blocks=(2, 2, 2, 2, 2)),
    decoder=Tower(channels=(128, 128, 256, 256, 512), blocks=(3, 3, 3, 3, 3)),
    codes=16_384,
    code_channels=256,
    z_channels=256,
    attention=(4,),
)
"""taming-transformers' ImageNet model of 16,384 codes: encoder 29.3, decoder 42.4 million parameters."""

GUMBEL_F8 = Config(
    encoder=Tower(channels=(128, 128, 256, 512), blocks=(2, 2, 2, 2)),
    decoder=Tower(channels=(128, 128, 256, 512), blocks=(3, 3, 3, 3)),
    codes=8192,
    code_channels=256,
    z_channels=256,
    attention=(3,),
    quantizer="gumbel",
)
"""taming-transformers' OpenImages model of 8,192 codes at an eighth of the side."""

POCKET = Config(
    encoder=Tower(channels=(64, 128), blocks=(0, 2), middle=False, taper=True),
    decoder=Tower(channels=(64, 128), blocks=(2, 2), middle=False, taper=True),
    codes=1024,
    code_channels=16,
    z_channels=32,
    attention=(1,),
    patch=4,
)
"""The pocket VQGAN: pictures of 128x128 to 16x16 tokens, every convolution at 32x32 or below."""


@final
class Attend(nn.Module):
    """GroupNorm and single-head attention over all places, added to what came in."""

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(groups, channels, eps=EPS)
        self.attention = Attention(channels, heads=1, bias=True)

    def forward(self, x: Float[Tensor, "B C h w"]) -> Float[Tensor, "B C h w"]:
        """The public files have 1x1 convolutions where we have linear layers: the same numbers."""
        places = self.attention(self.norm(x).permute(0, 2, 3, 1).flatten(1, 2))
        return added(places.unflatten(1, x.shape[2:]).permute(0, 3, 1, 2), x)


def _attending(tower: vae.Encoder | vae.Decoder, shape: Tower, config: Config) -> None:
    """Put attention behind every residual block of the levels that have it."""
    for level in config.attention:
        parts = tower.levels[level]
        if not isinstance(parts, vae.Level):
            raise TypeError(f"a {type(parts).__name__} is no level")
        pairs = ((block, Attend(shape.channels[level], config.groups)) for block in parts["blocks"].children())
        parts["blocks"] = nn.Sequential(*chain.from_iterable(pairs))


@final
class VQGAN(nn.Module):
    """Pictures in [-1, 1] to ids of codes and back; satisfies `mindseye.codec.TokenCodec`.

    ``encode`` and ``decode`` are about vectors that are not quantised and not normalised.
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.factor: int = config.factor
        self.encoder = None if config.encoder is None else vae.Encoder(config.towers)
        self.decoder = vae.Decoder(config.towers)
        if self.encoder is not None and config.encoder is not None:
            # A mean alone, where the KL autoencoder has a variance, too.
            self.encoder.conv_out = Conv2d(self.encoder.norm_out.num_channels, config.z_channels, 3, padding=1)
            _attending(self.encoder, config.encoder, config)
        _attending(self.decoder, config.decoder, config)
        if self.encoder is not None:
            self.quant_conv = Conv2d(config.z_channels, config.code_channels, 1)
        self.post_quant_conv = Conv2d(config.code_channels, config.z_channels, 1)
        self.quantizer = (
            GumbelQuantizer(config.codes, config.code_channels)
            if config.quantizer == "gumbel"
            else NearestQuantizer(config.codes, config.code_channels, unit=config.unit)
        )

    @property
    def codebook(self) -> Float[Tensor, "K C"]:
        """The codes, as `decode` takes them."""
        return self.quantizer.codebook

    def encode(self, pixels: Pixels) -> Latents:
        """Vectors, not yet quantised: ``B C h w`` with C = ``config.code_channels``.

        Raises:
            ValueError: A side is no multiple of ``factor``.
            WeightsError: It was published without an encoder.
        """
        if self.encoder is None:
            raise WeightsError("these codes were published without an encoder: no picture can be turned into them")
        check_sides(pixels, self.factor)
        pixels = (pixels + 1) / 2 if self.config.positive else pixels
        folded = pixels if self.config.patch == 1 else F.pixel_unshuffle(pixels, self.config.patch)
        z = self.quant_conv(self.encoder(folded))
        return F.normalize(z, dim=1) if self.config.unit else z

    def quantise(self, z: Latents, *, temperature: float = 1.0, generator: torch.Generator | None = None) -> Quantised:
        """Choose a code for every vector of `encode`.

        Args:
            z: ``B C h w``.
            temperature: Of a Gumbel quantizer's gradient and draw.
            generator: CPU generator that a Gumbel quantizer draws by; None = the most likely code.

        Returns:
            Embeddings with a gradient to ``z``, ids ``B h w``, and what a loss is made of.
        """
        if isinstance(self.quantizer, GumbelQuantizer):
            return self.quantizer(z, temperature=temperature, generator=generator)
        return self.quantizer(z)

    def decode(self, z: Latents) -> Pixels:
        """Pictures in about [-1, 1] (not clamped) from vectors, quantised or not."""
        folded = self.decoder(self.post_quant_conv(z))
        pixels = folded if self.config.patch == 1 else F.pixel_shuffle(folded, self.config.patch)
        return 2 * pixels - 1 if self.config.positive else pixels

    def to_ids(self, pixels: Pixels) -> Int[Tensor, "B N"]:
        """Ids of the codes, row by row."""
        return self.quantise(self.encode(pixels)).ids.flatten(1)

    def from_ids(self, ids: Int[Tensor, "B N"], grid: tuple[int, int] | None = None) -> Pixels:
        """As `mindseye.codec.TokenCodec`."""
        return self.decode(look_up(as_grid(ids, grid), self.codebook))
