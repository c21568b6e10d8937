"""DALL-E mini and mega, later Craiyon: a text is translated into the codes of a picture.

Dayma et al. 2021 (https://github.com/borisdayma/dalle-mini). A `mindseye.networks.bart.Bart` reads the text and writes
a VQGAN's codes one by one (`mindseye.autoregression.sample`); the VQGAN paints them.

*Super-conditioning* (the release's word for guidance): the logits without a text are left behind in the direction of
those with it, ``null + s (text - null)``; Craiyon has 10. A negative prompt takes the place of no text.

A *grid* is several drawings of one prompt on one sheet, as Craiyon showed nine. ``joined`` decodes their codes together
(min-dalle's "seamless"): the decoder sees over the borders, so that drawings run into each other.

From a start picture the codes of its upper part are kept, and what is below is written anew: a code is only ever told
of what stands before it.
"""

import math
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, final

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from mindseye.autoregression import sample
from mindseye.errors import OptionError, WeightsError
from mindseye.networks.bart import Bart
from mindseye.networks.vqgan import VQGAN
from mindseye.noise import Noise
from mindseye.pixels import from_image
from mindseye.request import Request, Steps, candidate_seed
from mindseye.shapes import Ids, Pixels
from mindseye.systems.base import known, option
from mindseye.text.bart_tokenizer import SPELLINGS, BartTokenizer
from mindseye.text.tokenizer import Tokenizer

__all__ = ["DalleMini"]

_SPARE = 512
"""Rows that a table of text may have beyond its vocabulary: published ones are rounded up."""


@final
@dataclass(frozen=True, kw_only=True)
class Knobs:
    """The knobs of the method."""

    top_k: int = option(256, "draw each code from so many of the likeliest; 0 = from all", low=0, high=1 << 20)
    top_p: float = option(1.0, "draw from the likeliest codes that together reach this probability", low=0.01, high=1)
    temperature: float = option(1.0, "below 1 likelier codes, above 1 rarer ones; 0 = the likeliest", low=0, high=10)
    grid: int = option(1, "so many by so many drawings of the prompt on one sheet, each of the size", low=1, high=8)
    joined: bool = option(False, "decode a grid as one picture: no borders between its drawings")
    prime: int = option(0, "rows of the start picture that are kept, from the top; 0 = as --strength says", low=0)
    spelling: str = option(
        "plain", "how a prompt is spelled for BART's vocabulary: as in training, or else", choices=tuple(SPELLINGS)
    )


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class DalleMini:
    """Text to codes to pixels.

    Attributes:
        network: Writes.
        codec: Paints what is written.
        tokenizer: The network's.

    Raises:
        WeightsError: They do not belong together.
    """

    Options: ClassVar[type] = Knobs

    network: Bart
    codec: VQGAN
    tokenizer: Tokenizer | BartTokenizer

    def __post_init__(self) -> None:
        config, tokenizer = self.network.config, self.tokenizer
        if not 0 <= config.vocabulary - tokenizer.vocabulary <= _SPARE:
            raise WeightsError(
                f"the vocabulary has {tokenizer.vocabulary:,} tokens and the network reads {config.vocabulary:,}: "
                "they do not belong together"
            )
        if tokenizer.length > config.text_length or tokenizer.pad != config.pad:
            raise WeightsError(
                f"the vocabulary gives {tokenizer.length} ids filled with {tokenizer.pad}, and the network reads "
                f"{config.text_length} filled with {config.pad}: they do not belong together"
            )
        if self.codec.config.codes != config.codes:
            raise WeightsError(
                f"the network writes {config.codes:,} different codes and the VQGAN has {self.codec.config.codes:,}: "
                "they do not belong together"
            )
        if math.isqrt(config.length) ** 2 != config.length:
            raise WeightsError(f"the network writes {config.length} codes, which are no square picture")

    @property
    def side(self) -> int:
        """Pixels a side of what is drawn."""
        return math.isqrt(self.network.length) * self.codec.factor

    def notices(self, request: Request) -> list[str]:
        """Words that do not fit, a size that is not its own."""
        asked = str(request.options.get("spelling", ""))
        _, cut = self._spelled(asked).encode([request.prompt, request.negative])
        length = self.tokenizer.length
        said = [f"only {length} tokens of a prompt are read; not this: {words}" for words in cut if words]
        width, height = known(request.size, "size")
        if (width, height) != (self.side, self.side):
            said.append(f"it draws {self.side}x{self.side}: the picture is scaled to {width}x{height}")
        return said

    def synthesize(self, request: Request, options: Knobs, noise: Noise) -> Steps[Pixels]:
        """Draw one picture, or one grid, a seed.

        Args:
            request: Resolved.
            options: The knobs of the method.
            noise: One seed a picture.

        Raises:
            OptionError: A mask, a grid from a start picture, or more rows to keep than there are.
            WeightsError: The codec cannot encode a start picture, or the network gave numbers that are not finite.
        """
        prime = self._prime(request, options)
        device = self.codec.codebook.device
        ids, _ = self._spelled(options.spelling).encode([request.prompt, request.negative])
        text, null = ids.to(device).split(1)
        if (cells := options.grid**2) > 1:
            noise = Noise([candidate_seed(seed, number) for seed in noise.seeds for number in range(cells)])
        codes = yield from sample(
            self.network,
            text,
            null,
            noise,
            guidance=known(request.guidance, "guidance"),
            temperature=options.temperature,
            top_k=options.top_k,
            top_p=options.top_p,
            prime=prime,
            look=partial(self._paint, options=options, size=known(request.size, "size")),
        )
        return self._paint(codes, options, known(request.size, "size"))

    def _spelled(self, spelling: str) -> Tokenizer | BartTokenizer:
        """The tokenizer; vocabularies of other kinds have one spelling."""
        if spelling and isinstance(self.tokenizer, BartTokenizer):
            return self.tokenizer.spelled(spelling)
        return self.tokenizer

    @torch.no_grad()
    def _prime(self, request: Request, options: Knobs) -> Int[Tensor, "1 P"] | None:
        """The codes of the upper part of a start picture, whole rows; None without one."""
        if request.image is None:
            return None
        if request.mask is not None:
            raise OptionError(
                "this network writes a picture from its top to its end and repaints nothing under a mask",
                hint="without the mask, --strength 0.5 keeps the upper half",
            )
        if options.grid > 1:
            raise OptionError("a grid is drawn from a prompt alone, not from a start picture", hint="--set grid=1")
        pixels = from_image(request.image, (self.side, self.side)).to(self.codec.codebook)
        grid = math.isqrt(self.network.length)
        if options.prime > grid:
            raise OptionError(f"{options.prime} rows cannot be kept of {grid}")
        rows = options.prime or round((1 - request.strength) * grid)
        return self.codec.to_ids(pixels)[:, : rows * grid]

    @torch.no_grad()
    def _paint(self, codes: Ids, options: Knobs, size: tuple[int, int]) -> Float[Tensor, "P 3 H W"]:
        """Pictures, or grids of pictures row by row, from the codes of all drawings."""
        grid, rows = options.grid, math.isqrt(codes.shape[1])
        if options.joined:
            codes = codes.unflatten(0, (-1, grid, grid)).unflatten(-1, (rows, rows)).transpose(2, 3).flatten(1)
            pixels = self.codec.from_ids(codes).float()
        else:
            pixels = self.codec.from_ids(codes).float()
            cells = pixels.unflatten(0, (-1, grid, grid)).permute(0, 3, 1, 4, 2, 5)
            pixels = cells.flatten(4, 5).flatten(2, 3)
        width, height = grid * size[0], grid * size[1]
        if (height, width) == pixels.shape[-2:]:
            return pixels
        return F.interpolate(pixels, (height, width), mode="bicubic", antialias=True).clamp(-1, 1)
