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
from jaxtyping import Float
from torch import Tensor

from mindseye.errors import OptionError, WeightsError
from mindseye.networks.bart import Bart
from mindseye.networks.vqgan import VQGAN
from mindseye.noise import Noise
from mindseye.request import Request, Steps, candidate_seed
from mindseye.shapes import Ids, Pixels
from mindseye.systems import writing
from mindseye.systems.base import known, option
from mindseye.text.bart_tokenizer import SPELLINGS, BartTokenizer
from mindseye.text.tokenizer import Tokenizer

__all__ = ["DalleMini"]


@final
@dataclass(frozen=True, kw_only=True)
class Knobs(writing.FromTheTop):
    """The knobs of the method."""

    top_k: int = option(256, "draw each code from so many of the likeliest; 0 = from all", low=0, high=1 << 20)
    grid: int = option(1, "so many by so many drawings of the prompt on one sheet, each of the size", low=1, high=8)
    joined: bool = option(False, "decode a grid as one picture: no borders between its drawings")
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
        config = self.network.config
        writing.belong(
            self.tokenizer, vocabulary=config.vocabulary, length=config.text_length, pad=config.pad, spare=writing.SPARE
        )
        writing.paints(self.codec, config.codes)
        if math.isqrt(config.length) ** 2 != config.length:
            raise WeightsError(f"the network writes {config.length} codes, which are no square picture")

    @property
    def native(self) -> tuple[int, int]:
        """Width and height of what is painted."""
        side = math.isqrt(self.network.length) * self.codec.factor
        return side, side

    def notices(self, request: Request) -> list[str]:
        """Words that do not fit, a size that is not its own."""
        asked = str(request.options.get("spelling", ""))
        return writing.unread(self._spelled(asked), request) + writing.scaled(request, self.native)

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
        if options.grid > 1 and request.image is not None:
            raise OptionError("a grid is drawn from a prompt alone, not from a start picture", hint="--set grid=1")
        rows = math.isqrt(self.network.length)
        prime = writing.begun(request, self.codec, (rows, rows), options.prime)
        if (cells := options.grid**2) > 1:
            noise = Noise([candidate_seed(seed, number) for seed in noise.seeds for number in range(cells)])
        paint, words = partial(self._paint, options=options, request=request), self._spelled(options.spelling)
        codes = yield from writing.written(
            self.network, self.codec, words, request, options, noise, prime=prime, look=paint
        )
        return paint(codes)

    def _spelled(self, spelling: str) -> Tokenizer | BartTokenizer:
        """The tokenizer; vocabularies of other kinds have one spelling."""
        if spelling and isinstance(self.tokenizer, BartTokenizer):
            return self.tokenizer.spelled(spelling)
        return self.tokenizer

    @torch.no_grad()
    def _paint(self, codes: Ids, options: Knobs, request: Request) -> Float[Tensor, "P 3 H W"]:
        """Pictures, or grids of pictures row by row, from the codes of all drawings."""
        grid, rows = options.grid, math.isqrt(codes.shape[1])
        if options.joined:
            codes = codes.unflatten(0, (-1, grid, grid)).unflatten(-1, (rows, rows)).transpose(2, 3).flatten(1)
            pixels = self.codec.from_ids(codes).float()
        else:
            pixels = self.codec.from_ids(codes).float()
            cells = pixels.unflatten(0, (-1, grid, grid)).permute(0, 3, 1, 4, 2, 5)
            pixels = cells.flatten(4, 5).flatten(2, 3)
        width, height = known(request.size, "size")
        return writing.fitted(pixels, (grid * width, grid * height))
