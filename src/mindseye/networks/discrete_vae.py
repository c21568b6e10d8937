"""The discrete VAE of DALLE-pytorch (lucidrains, MIT): what people trained their own DALL-Es on.

The same idea as `mindseye.networks.dvae`, in plainer layers: strided convolutions down, residual blocks, logits of
codes; a codebook, residual blocks, transposed convolutions up. Every residual block stands at the coarsest level. Its
pixels are normalised by mean and deviation of a half, which is our [-1, 1].

Repaired: DALLE-pytorch's own program stretches each decoded picture from its darkest to its brightest value, which
changes colours; here a decoded picture is as it was decoded. And pictures need not be square, nor of one size.
"""

from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from mindseye.nn.layers import Conv2d
from mindseye.nn.quantize import as_grid, look_up, one_hot
from mindseye.shapes import Latents, Pixels, check_sides

__all__ = ["POCKET", "Config", "DiscreteVAE"]


@dataclass(frozen=True, kw_only=True)
class Config:
    """Shape of a `DiscreteVAE`; the defaults are its own.

    Attributes:
        layers: Halvings of the side.
        codes: Size of the codebook.
        code_channels: Channels of a code.
        hidden: Channels of all layers.
        blocks: Residual blocks of each tower; with none, the decoder has no 1x1 convolution before it goes up either.
    """

    layers: int = 3
    codes: int = 512
    code_channels: int = 512
    hidden: int = 64
    blocks: int = 0

    def __post_init__(self) -> None:
        if self.layers < 1 or self.blocks < 0:
            raise ValueError(f"at least one halving and no fewer than no blocks, not {self.layers} and {self.blocks}")

    @property
    def factor(self) -> int:
        """How many times smaller a side of the grid is."""
        return 2**self.layers


POCKET = Config(layers=3, codes=1024, code_channels=128, hidden=64, blocks=2)
"""The pocket one: pictures of 128x128 to 16x16 tokens."""


@final
class Block(nn.Module):
    """Two convolutions of 3x3 and one of 1x1, added to what came in."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList(Conv2d(channels, channels, side, padding=side // 2) for side in (3, 3, 1))

    def forward(self, x: Float[Tensor, "B C h w"]) -> Float[Tensor, "B C h w"]:
        """Run them."""
        first, second, last = self.convs
        return last(F.relu(second(F.relu(first(x))))) + x


@final
class DiscreteVAE(nn.Module):
    """Pictures in [-1, 1] to ids of codes and back; satisfies `mindseye.codec.TokenCodec`.

    ``encode`` gives, and ``decode`` takes, shares of codes: ``B K h w``, which sum to one at every place.
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.factor: int = config.factor
        hidden, layers = config.hidden, range(config.layers)
        entry = hidden if config.blocks else config.code_channels
        self.codes = nn.Parameter(torch.randn(config.codes, config.code_channels))
        self.down = nn.ModuleList(Conv2d(hidden if i else 3, hidden, 4, stride=2, padding=1) for i in layers)
        self.encoder_blocks = nn.Sequential(*(Block(hidden) for _ in range(config.blocks)))
        self.to_logits = Conv2d(hidden, config.codes, 1)
        self.from_code = Conv2d(config.code_channels, hidden, 1) if config.blocks else nn.Identity()
        self.decoder_blocks = nn.Sequential(*(Block(hidden) for _ in range(config.blocks)))
        self.up = nn.ModuleList(
            nn.ConvTranspose2d(hidden if i else entry, hidden, 4, stride=2, padding=1) for i in layers
        )
        self.to_pixels = Conv2d(hidden, 3, 1)

    @property
    def codebook(self) -> Float[Tensor, "K C"]:
        """The codes."""
        return self.codes

    def tables(self) -> tuple[nn.Parameter, nn.Parameter]:
        """Its vocabulary: by what a code is found, and what it becomes."""
        return self.get_parameter("to_logits.weight"), self.codes

    def logits(self, pixels: Pixels) -> Float[Tensor, "B K h w"]:
        """How likely every code is at every place, before the softmax.

        Raises:
            ValueError: A side is no multiple of ``factor``.
        """
        return self.to_logits(self.features(pixels))

    def features(self, pixels: Pixels) -> Float[Tensor, "B C h w"]:
        """What `logits` are made of by the encoder's last layer. Raises as they do."""
        check_sides(pixels, self.factor)
        x = pixels
        for conv in self.down:
            x = F.relu(conv(x))
        return self.encoder_blocks(x)

    def encode(self, pixels: Pixels) -> Latents:
        """All of each place to its likeliest code: ``B K h w``."""
        logits = self.logits(pixels)
        return one_hot(logits.argmax(1), self.config.codes, logits.dtype)

    def decode(self, shares: Latents) -> Pixels:
        """Pictures in about [-1, 1] (not clamped) from shares of codes."""
        return self._paint(torch.einsum("bkhw,kc->bchw", shares, self.codebook.to(shares.dtype)))

    def to_ids(self, pixels: Pixels) -> Int[Tensor, "B N"]:
        """Ids of the likeliest codes, row by row."""
        return self.logits(pixels).argmax(1).flatten(1)

    def from_ids(self, ids: Int[Tensor, "B N"], grid: tuple[int, int] | None = None) -> Pixels:
        """As `mindseye.codec.TokenCodec`."""
        return self._paint(look_up(as_grid(ids, grid), self.codebook))

    def _paint(self, codes: Float[Tensor, "B C h w"]) -> Pixels:
        x = self.decoder_blocks(self.from_code(codes))
        for conv in self.up:
            x = F.relu(conv(x))
        return self.to_pixels(x)
