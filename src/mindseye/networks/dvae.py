"""The discrete VAE of DALL-E (Ramesh et al. 2021, arXiv:2102.12092): every place of a picture says a word.

An encoder gives, for every place of a grid, the logits of all codes; a decoder paints from shares of codes. In training
the shares are a relaxed draw (`mindseye.nn.quantize.relaxed`), in use one code has all of it. There is no codebook
beside the decoder: its first convolution, of 1x1, is one.

The decoder tells a distribution of every pixel, the logit-Laplace: the pixel's logit has a Laplace distribution with
the mean and scale that are told. Logits of 0 and 1 are infinite, so pictures are squeezed into [0.1, 0.9] first
(`squeezed`); that happens in here, and pictures at the door are in [-1, 1].

`encode` gives one code everything, `decode` takes shares, so one undoes the other as far as a discrete VAE can; whoever
wants the logits asks for `DVAE.logits`, whoever wants the distribution for `DVAE.heads`.

Where we deviate: ``patch`` folds the picture into channels before the first convolution and unfolds it after the last,
as in the KL autoencoder (`mindseye.networks.vae`); levels are counted from the finest in both towers.
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

__all__ = ["DVAE", "OPENAI", "POCKET", "Config", "squeezed", "unsqueezed"]

EPS = 0.1
"""What squeezed pictures stay away from 0 and 1."""


@dataclass(frozen=True, kw_only=True)
class Config:
    """Shape of a `DVAE`.

    Attributes:
        channels: Channels of each level, the finest first; multiples of 4.
        blocks: Residual blocks of each level, in either tower.
        codes: How many codes there are.
        code_channels: Channels that a code becomes in the decoder.
        kernel: Side of the encoder's first convolution.
        patch: Side of the squares folded into channels before it; 1 = none.
        gain: What a block's answer is multiplied by; None = one over the square of the number of blocks, as DALL-E's.
    """

    channels: tuple[int, ...]
    blocks: tuple[int, ...]
    codes: int
    code_channels: int
    kernel: int = 7
    patch: int = 1
    gain: float | None = None

    def __post_init__(self) -> None:
        if not self.channels or len(self.channels) != len(self.blocks) or not all(self.blocks):
            raise ValueError(f"at least one block for each of the {len(self.channels)} levels, not {self.blocks}")
        if any(width % 4 for width in self.channels):
            raise ValueError(f"channels are multiples of 4, not {self.channels}")
        if self.kernel % 2 == 0:
            raise ValueError(f"the first convolution's side is odd, not {self.kernel}")

    @property
    def factor(self) -> int:
        """How many times smaller a side of the grid is."""
        return self.patch * 2 ** (len(self.channels) - 1)

    @property
    def loudness(self) -> float:
        """What a block's answer is multiplied by."""
        return sum(self.blocks) ** -2 if self.gain is None else self.gain


OPENAI = Config(channels=(256, 512, 1024, 2048), blocks=(2, 2, 2, 2), codes=8192, code_channels=128)
"""DALL-E's: 53,786,240 parameters in the encoder, 43,829,766 in the decoder; 256x256 pictures to 32x32 tokens."""

POCKET = Config(channels=(96, 192), blocks=(2, 3), codes=1024, code_channels=128, kernel=3, patch=4, gain=0.5)
"""The pocket dVAE: pictures of 128x128 to 16x16 tokens, every convolution at 32x32 or below. Blocks are loud: in a
run as short as its own those turned down as DALL-E's say next to nothing."""


def squeezed(pixels: Pixels) -> Pixels:
    """Pictures in [-1, 1] into [0.1, 0.9], where logits are finite."""
    return pixels * (0.5 - EPS) + 0.5


def unsqueezed(squeezed: Pixels) -> Pixels:
    """The inverse of `squeezed`."""
    return (squeezed - 0.5) / (0.5 - EPS)


def _conv(channels: int, out: int, kernel: int) -> Conv2d:
    """As wide as it was, and at the start as loud."""
    conv = Conv2d(channels, out, kernel, padding=kernel // 2)
    nn.init.normal_(conv.weight, std=(channels * kernel**2) ** -0.5)
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)
    return conv


@final
class Block(nn.Module):
    """Four convolutions through a quarter of the channels, turned down and added to what came in.

    Args:
        channels: In.
        out: Channels out.
        kernels: Sides of the convolutions.
        gain: What the convolutions' answer is multiplied by.
    """

    def __init__(self, channels: int, out: int, kernels: tuple[int, int, int, int], gain: float) -> None:
        super().__init__()
        hidden = out // 4
        self.gain = gain
        self.shortcut = _conv(channels, out, 1) if channels != out else nn.Identity()
        widths = (channels, hidden, hidden, hidden, out)
        self.convs = nn.ModuleList(map(_conv, widths[:-1], widths[1:], kernels))

    def forward(self, x: Float[Tensor, "B C h w"]) -> Float[Tensor, "B D h w"]:
        """Run them, a ReLU before each."""
        y = x
        for conv in self.convs:
            y = conv(F.relu(y))
        return torch.add(self.shortcut(x), y, alpha=self.gain)


def _level(channels: int, out: int, count: int, kernels: tuple[int, int, int, int], gain: float) -> nn.Sequential:
    return nn.Sequential(*(Block(out if place else channels, out, kernels, gain) for place in range(count)))


@final
class Encoder(nn.Module):
    """Squeezed pictures, folded by ``patch``, to the logits of codes."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        gain, kernels = config.loudness, (3, 3, 3, 1)
        widths = (config.channels[0], *config.channels)
        self.input = _conv(3 * config.patch**2, widths[0], config.kernel)
        self.levels = nn.ModuleList(
            _level(*pair, count, kernels, gain)
            for pair, count in zip(zip(widths, config.channels, strict=False), config.blocks, strict=True)
        )
        self.output = _conv(widths[-1], config.codes, 1)

    def features(self, x: Float[Tensor, "B P H W"]) -> Float[Tensor, "B C h w"]:
        """Run the tower, finest level first, but for its last layer."""
        x = self.input(x)
        for place, level in enumerate(self.levels):
            x = level(F.max_pool2d(x, 2) if place else x)
        return F.relu(x)

    def forward(self, x: Float[Tensor, "B P H W"]) -> Float[Tensor, "B K h w"]:
        """Logits of `features`."""
        return self.output(self.features(x))


@final
class Decoder(nn.Module):
    """Shares of codes to means and scales, still folded by ``patch``. ``levels[0]`` is the finest: the last to run."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        gain, kernels = config.loudness, (1, 3, 3, 3)
        widths = (*config.channels, config.code_channels)
        self.input = _conv(config.codes, config.code_channels, 1)
        self.levels = nn.ModuleList(
            _level(coarser, width, count, kernels, gain)
            for coarser, width, count in zip(widths[1:], config.channels, config.blocks, strict=True)
        )
        self.output = _conv(widths[0], 6 * config.patch**2, 1)

    @property
    def codebook(self) -> Float[Tensor, "K C"]:
        """What the first convolution makes of a single code."""
        weight, bias = self.input.weight, self.input.bias
        codes = weight[:, :, 0, 0].T
        return codes if bias is None else codes + bias

    def forward(self, codes: Float[Tensor, "B C h w"]) -> Float[Tensor, "B P H W"]:
        """Run what stands behind the first convolution, coarsest level first."""
        x = codes
        for place, level in enumerate(reversed(self.levels)):
            x = level(F.interpolate(x, scale_factor=2, mode="nearest") if place else x)
        return self.output(F.relu(x))


@final
class DVAE(nn.Module):
    """Pictures in [-1, 1] to ids of codes and back; satisfies `mindseye.codec.TokenCodec`.

    ``encode`` gives, and ``decode`` takes, shares of codes: ``B K h w``, which sum to one at every place.
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.factor: int = config.factor
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)

    @property
    def codebook(self) -> Float[Tensor, "K C"]:
        """What the decoder makes of each code before it paints."""
        return self.decoder.codebook

    @property
    def to_logits(self) -> Conv2d:
        """The encoder's last layer: of `features`, how likely every code is."""
        return self.encoder.output

    def tables(self) -> tuple[nn.Parameter, nn.Parameter]:
        """Its vocabulary: by what a code is found, and what it becomes."""
        return self.get_parameter("encoder.output.weight"), self.get_parameter("decoder.input.weight")

    def logits(self, pixels: Pixels) -> Float[Tensor, "B K h w"]:
        """How likely every code is at every place, before the softmax.

        Raises:
            ValueError: A side is no multiple of ``factor``.
        """
        return self.to_logits(self.features(pixels))

    def features(self, pixels: Pixels) -> Float[Tensor, "B C h w"]:
        """What `logits` are made of by the encoder's last layer. Raises as they do."""
        check_sides(pixels, self.factor)
        x = squeezed(pixels)
        return self.encoder.features(x if self.config.patch == 1 else F.pixel_unshuffle(x, self.config.patch))

    def heads(self, shares: Float[Tensor, "B K h w"]) -> tuple[Pixels, Pixels]:
        """What the decoder tells of every squeezed pixel's logit.

        Returns:
            Its mean, and the logarithm of its scale.
        """
        return self._heads(self.decoder.input(shares))

    def encode(self, pixels: Pixels) -> Latents:
        """All of each place to its likeliest code: ``B K h w``."""
        logits = self.logits(pixels)
        return one_hot(logits.argmax(1), self.config.codes, logits.dtype)

    def decode(self, shares: Latents) -> Pixels:
        """The middle of what the decoder tells, in about [-1, 1] (not clamped; at most a quarter beyond)."""
        return unsqueezed(self.heads(shares)[0].sigmoid())

    def to_ids(self, pixels: Pixels) -> Int[Tensor, "B N"]:
        """Ids of the likeliest codes, row by row."""
        return self.logits(pixels).argmax(1).flatten(1)

    def from_ids(self, ids: Int[Tensor, "B N"], grid: tuple[int, int] | None = None) -> Pixels:
        """As `mindseye.codec.TokenCodec`: the codes are looked up, where `decode` would mix all of them."""
        # In the dtype that it computes in: its layers may be widened when they are first called, and none was yet.
        codebook = self.codebook.to(self.encoder.input.weight)
        return unsqueezed(self._heads(look_up(as_grid(ids, grid), codebook))[0].sigmoid())

    def _heads(self, codes: Float[Tensor, "B C h w"]) -> tuple[Pixels, Pixels]:
        folded, patch = self.decoder(codes), self.config.patch
        mean, scale = (folded if patch == 1 else F.pixel_shuffle(folded, patch)).chunk(2, dim=1)
        return mean, scale
