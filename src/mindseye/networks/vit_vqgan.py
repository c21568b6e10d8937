"""ViT-VQGAN (Yu et al. 2022, arXiv:2110.04627): a VQGAN of two transformers; Parti's tokenizer.

A picture is cut into patches, each a token of the encoder; what comes out of each is projected to a few channels, put
on the unit sphere and replaced by the code nearest to it (`mindseye.nn.quantize.NearestQuantizer`), which with short
vectors of one length keeps nearly all codes in use. The decoder goes the same way back. Both are pre-norm transformers
over the whole grid, with a last norm; places are told by fixed sinusoids, so a picture may have any size.

The contract is `mindseye.networks.vqgan`'s: `encode` gives vectors before they are quantised, `decode` quantises
nothing.

Where we deviate from enhancing-transformers (thuanz123, MIT), whose weights are the public ones: the table of places is
computed for the grid at hand instead of kept for one; and pictures are in [-1, 1], which ``positive`` maps to the
[0, 1] that those weights know.
"""

from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from mindseye.nn.embeddings import sinusoidal
from mindseye.nn.layers import Conv2d, Linear
from mindseye.nn.quantize import NearestQuantizer, Quantised, as_grid, look_up
from mindseye.nn.transformer import Activation, Stack
from mindseye.shapes import Latents, Pixels, check_sides

__all__ = ["BASE", "LARGE", "POCKET", "SMALL", "Config", "Tower", "ViTVQGAN", "places"]


@dataclass(frozen=True, kw_only=True)
class Tower:
    """One of the transformers.

    Attributes:
        width: Channels of a token; a multiple of 4.
        layers: Blocks.
        heads: Attention heads.
        hidden: Channels inside the perceptrons.
    """

    width: int
    layers: int
    heads: int
    hidden: int

    def __post_init__(self) -> None:
        if self.width % 4:
            raise ValueError(f"a width is a multiple of 4, not {self.width}")


@dataclass(frozen=True, kw_only=True)
class Config:
    """Shape of a `ViTVQGAN`.

    Attributes:
        encoder: From patches to vectors.
        decoder: From vectors to patches.
        codes: Size of the codebook.
        code_channels: Channels of a code.
        patch: Side of a patch.
        activation: The perceptrons' curve.
        positive: Whether pictures are in [0, 1] inside.
    """

    encoder: Tower
    decoder: Tower
    codes: int
    code_channels: int
    patch: int = 8
    activation: Activation = "tanh"
    positive: bool = False

    @property
    def factor(self) -> int:
        """How many times smaller a side of the grid is."""
        return self.patch


def _public(encoder: Tower, decoder: Tower) -> Config:
    return Config(encoder=encoder, decoder=decoder, codes=8192, code_channels=32, positive=True)


_SMALL = Tower(width=512, layers=8, heads=8, hidden=2048)
_BASE = Tower(width=768, layers=12, heads=12, hidden=3072)

SMALL = _public(_SMALL, _SMALL)
"""256x256 pictures to 32x32 tokens, as all published ones."""
BASE = _public(_BASE, _BASE)
LARGE = _public(_SMALL, Tower(width=1280, layers=32, heads=16, hidden=5120))

POCKET = Config(
    encoder=Tower(width=160, layers=4, heads=5, hidden=640),
    decoder=Tower(width=160, layers=6, heads=5, hidden=640),
    codes=1024,
    code_channels=32,
    activation="gelu",
)
"""The pocket ViT-VQGAN: pictures of 128x128 to 16x16 tokens."""


def places(grid: tuple[int, int], width: int) -> Float[Tensor, "N {width}"]:
    """Sinusoids that tell the places of a grid, row by row: of the column in the first half, of the row in the other.

    Args:
        grid: Rows and columns.
        width: A multiple of 4.
    """
    down, across = (sinusoidal(torch.arange(count).float(), width // 2) for count in grid)
    # Sines come first here.
    down, across = (table.roll(width // 4, dims=1) for table in (down, across))
    rows, columns = grid
    return torch.cat([across.repeat(rows, 1), down.repeat_interleave(columns, dim=0)], dim=1)


@final
class _Transformer(nn.Module):
    """Tokens that know their places through blocks and a last norm."""

    def __init__(self, tower: Tower, activation: Activation) -> None:
        super().__init__()
        self.width = tower.width
        self.stack = Stack(tower.width, tower.layers, tower.heads, tower.hidden, activation, bias=False)
        self.norm = nn.LayerNorm(tower.width)

    def forward(self, x: Float[Tensor, "B N D"], grid: tuple[int, int]) -> Float[Tensor, "B N D"]:
        """All of them at once."""
        return self.norm(self.stack(x + places(grid, self.width).to(x))[0])


@final
class ViTVQGAN(nn.Module):
    """Pictures in [-1, 1] to ids of codes and back; satisfies `mindseye.codec.TokenCodec`.

    ``encode`` and ``decode`` are about vectors of length 1 that are not quantised.
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.factor: int = config.factor
        self.to_patches = Conv2d(3, config.encoder.width, config.patch, stride=config.patch)
        self.encoder = _Transformer(config.encoder, config.activation)
        self.pre_quant = Linear(config.encoder.width, config.code_channels)
        self.quantizer = NearestQuantizer(config.codes, config.code_channels, unit=True)
        self.post_quant = Linear(config.code_channels, config.decoder.width)
        self.decoder = _Transformer(config.decoder, config.activation)
        self.to_pixels = nn.ConvTranspose2d(config.decoder.width, 3, config.patch, stride=config.patch)

    @property
    def codebook(self) -> Float[Tensor, "K C"]:
        """The codes, as `decode` takes them: of length 1."""
        return self.quantizer.codebook

    def encode(self, pixels: Pixels) -> Latents:
        """Vectors of length 1, not yet quantised: ``B C h w`` with C = ``config.code_channels``.

        Raises:
            ValueError: A side is no multiple of ``factor``.
        """
        check_sides(pixels, self.factor)
        x = self.to_patches((pixels + 1) / 2 if self.config.positive else pixels)
        grid = (x.shape[2], x.shape[3])
        z = self.pre_quant(self.encoder(x.flatten(2).transpose(1, 2), grid))
        return F.normalize(z, dim=2).transpose(1, 2).unflatten(2, grid)

    def quantise(self, z: Latents) -> Quantised:
        """Choose the nearest code for every vector of `encode`.

        Returns:
            Embeddings with a gradient to ``z``, ids ``B h w``, and what a loss is made of.
        """
        return self.quantizer(z)

    def decode(self, z: Latents) -> Pixels:
        """Pictures in about [-1, 1] (not clamped) from vectors, quantised or not."""
        grid = (z.shape[2], z.shape[3])
        x = self.decoder(self.post_quant(z.flatten(2).transpose(1, 2)), grid)
        pixels = self.to_pixels(x.transpose(1, 2).unflatten(2, grid))
        return pixels * 2 - 1 if self.config.positive else pixels

    def to_ids(self, pixels: Pixels) -> Int[Tensor, "B N"]:
        """Ids of the codes, row by row."""
        return self.quantise(self.encode(pixels)).ids.flatten(1)

    def from_ids(self, ids: Int[Tensor, "B N"], grid: tuple[int, int] | None = None) -> Pixels:
        """As `mindseye.codec.TokenCodec`."""
        return self.decode(look_up(as_grid(ids, grid), self.codebook))
