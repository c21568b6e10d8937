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

from dataclasses import dataclass
from math import isqrt
from typing import ClassVar, final

import torch

from mindseye.autoregression import TokenModel, sample, top_share
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
    """

    Options: ClassVar[type] = Knobs

    network: dalle.DALLE | mindalle.MinDALLE
    codec: Painter
    tokenizer: PlainTokenizer

    def __post_init__(self) -> None:
        config = self.network.config
        if not isinstance(self.network, TokenModel):
            raise TypeError(f"a {type(self.network).__name__} writes no tokens")
        reads = config.text_tokens
        writing.belong(self.tokenizer, vocabulary=reads, length=config.text_length, spare=reads, exact=True)
        writing.paints(self.codec, config.image_tokens)

    @property
    def grid(self) -> int:
        """Codes a side."""
        return isqrt(self.network.length)

    @property
    def side(self) -> int:
        """Pixels a side of what it draws."""
        return self.grid * self.codec.factor

    def notices(self, request: Request) -> list[str]:
        """Words that are not read, a negative prompt that is not, a size that is not its own."""
        said = writing.unread(self.tokenizer, request) + writing.scaled(request, (self.side, self.side))
        if request.negative and request.guidance == 1:
            said.append("a negative prompt is heard with --guidance above 1 only")
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
        weight = next(self.network.parameters())
        text, null = writing.spelled(self.tokenizer, request, weight.device)
        top_k = options.top_k
        if options.filter_thres:
            if top_k:
                raise OptionError("top_k and filter_thres say the same in two ways: give one of them")
            config = self.network.config
            # Of the joint vocabulary; DALLE-pytorch counts its own ids for padding, too.
            own = config.text_length if isinstance(config, dalle.Config) else 0
            top_k = top_share(options.filter_thres, config.text_tokens + own + config.image_tokens)
        ids = yield from sample(
            self.network,
            text,
            null,
            noise,
            guidance=known(request.guidance, "guidance"),
            temperature=options.temperature,
            top_k=top_k,
            top_p=options.top_p,
            prime=writing.begun(request, self.codec, (self.grid, self.grid), options.prime, weight),
            look=self.codec.from_ids,
        )
        with torch.no_grad():
            pixels = self.codec.from_ids(ids).float().clamp(-1, 1)
        return writing.fitted(pixels, known(request.size, "size"))
