"""DALL-E (Ramesh et al. 2021, arXiv:2102.12092): a text is continued with the codes of a picture.

A codec turned pictures into a grid of integers; a network learned to write text and integers as one sentence. Whoever
gives it the text gets the rest, one code after the other (`mindseye.autoregression`), and the codec draws it. Pictures
are cheap next to the reading of their text, and so DALL-E's authors drew 512 and had CLIP choose: ``--candidates``.

The network is DALLE-pytorch's, minDALL-E's, or ours of the first kind: they differ in how they stand places and
padding, and in nothing that is said here.

- A start picture is completed: its upper rows are kept as codes, the rest is written. ``prime`` says how many rows, or
  else ``--strength`` says how much of the picture is new. DALL-E's authors kept 14 of 32.
- Guidance is against the negative prompt, or against no text at all, which the pocket model was trained to know.
"""

from dataclasses import dataclass, replace
from math import isqrt
from typing import ClassVar, final

import torch

from mindseye.autoregression import TokenModel, top_share
from mindseye.errors import OptionError
from mindseye.networks import dalle, mindalle
from mindseye.noise import Noise
from mindseye.request import Request, Steps
from mindseye.shapes import Pixels
from mindseye.systems import writing
from mindseye.systems.base import known, option
from mindseye.systems.writing import Painter
from mindseye.text.plain_tokenizer import PlainTokenizer

__all__ = ["DALLE", "Knobs"]


@dataclass(frozen=True, kw_only=True)
class Knobs(writing.FromTheTop):
    """What can be set."""

    filter_thres: float = option(
        0.0, "DALLE-pytorch's way of saying top_k: the share of text and image codes together that goes", low=0, high=1
    )


@final
@dataclass(frozen=True, eq=False)
class DALLE:
    """A network that writes pictures.

    Attributes:
        network: What writes.
        codec: What its codes are of.
        tokenizer: What its text is read by.
        always_told: Whether nothing says that it was ever trained without a text: then guidance has nothing to leave.
    """

    Options: ClassVar[type] = Knobs

    network: dalle.DALLE | mindalle.MinDALLE
    codec: Painter
    tokenizer: PlainTokenizer
    always_told: bool = False

    def __post_init__(self) -> None:
        config = self.network.config
        if not isinstance(self.network, TokenModel):
            raise TypeError(f"a {type(self.network).__name__} writes no tokens")
        reads, length = config.text_tokens, config.text_length
        writing.belong(self.tokenizer, vocabulary=reads, length=length, spare=writing.SPARE, exact=True)
        writing.paints(self.codec, config.image_tokens)

    @property
    def grid(self) -> int:
        """Codes a side."""
        return isqrt(self.network.length)

    @property
    def native(self) -> tuple[int, int]:
        """Width and height of what is painted."""
        return self.grid * self.codec.factor, self.grid * self.codec.factor

    def notices(self, request: Request) -> list[str]:
        """Words that are not read, a negative prompt that is not, a size that is not its own, guidance for nothing."""
        said = writing.unread(self.tokenizer, request) + writing.scaled(request, self.native)
        if request.negative and request.guidance == 1:
            said.append("a negative prompt is heard with --guidance above 1 only")
        if self.always_told and request.guidance != 1:
            said.append(
                "guidance needs a model that was trained without its text now and then, and nothing says that this one "
                "was; DALLE-pytorch's own is no measure, for it forgets the prompt after the first code"
            )
        return said

    def synthesize(self, request: Request, options: Knobs, noise: Noise) -> Steps[Pixels]:
        """Write one picture a seed, and draw it.

        Args:
            request: Resolved.
            options: The knobs.
            noise: One seed a picture.

        Raises:
            OptionError: A mask; more rows to keep than there are; both ways of saying top_k.
        """
        if options.filter_thres:
            if options.top_k:
                raise OptionError("top_k and filter_thres say the same in two ways: give one of them")
            config = self.network.config
            # Of the joint vocabulary; DALLE-pytorch counts its own ids for padding, too.
            own = config.text_length if isinstance(config, dalle.Config) else 0
            share = top_share(options.filter_thres, config.text_tokens + own + config.image_tokens)
            options = replace(options, top_k=share)
        prime = writing.begun(request, self.codec, (self.grid, self.grid), options.prime)
        ids = yield from writing.written(
            self.network, self.codec, self.tokenizer, request, options, noise, prime=prime, look=self.codec.from_ids
        )
        with torch.no_grad():
            pixels = self.codec.from_ids(ids).float().clamp(-1, 1)
        return writing.fitted(pixels, known(request.size, "size"))
