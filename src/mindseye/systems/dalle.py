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
from jaxtyping import Int
from torch import Tensor
from torch.nn import functional as F

from mindseye.autoregression import TokenModel, sample, top_share
from mindseye.codec import TokenCodec
from mindseye.errors import OptionError, WeightsError
from mindseye.networks import dalle, mindalle
from mindseye.noise import Noise
from mindseye.pixels import from_image
from mindseye.request import Request, Steps
from mindseye.shapes import Pixels
from mindseye.systems.base import known, option
from mindseye.text.plain_tokenizer import PlainTokenizer

__all__ = ["DALLE", "Knobs"]


@dataclass(frozen=True, kw_only=True)
class Knobs:
    """What can be set."""

    temperature: float = option(
        1.0, "how evenly codes are drawn; less is more typical, 0 the likeliest", low=0, high=10
    )
    top_k: int = option(0, "draw from so many of the likeliest codes, and those that tie; 0 = all", low=0)
    top_p: float = option(1.0, "draw from the likeliest codes that reach this probability together", low=0, high=1)
    filter_thres: float = option(
        0.0, "DALLE-pytorch's way of saying top_k: the share of text and image codes together that goes", low=0, high=1
    )
    prime: int = option(0, "rows of the start picture that are kept, from the top; 0 = as --strength says", low=0)


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
    codec: TokenCodec
    tokenizer: PlainTokenizer

    def __post_init__(self) -> None:
        config = self.network.config
        if not isinstance(self.network, TokenModel):
            raise TypeError(f"a {type(self.network).__name__} writes no tokens")
        if self.tokenizer.vocabulary > config.text_tokens:
            raise WeightsError(
                f"the tokenizer has {self.tokenizer.vocabulary:,} ids, and the network knows {config.text_tokens:,}: "
                "it was trained with another"
            )
        if self.tokenizer.length != config.text_length:
            raise WeightsError(f"the network reads {config.text_length} ids, not {self.tokenizer.length}")

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
        said = []
        for name, text in (("prompt", request.prompt), ("negative prompt", request.negative)):
            _, (cut,) = self.tokenizer.encode([text])
            if cut:
                said.append(f"the {name} is cut after {self.tokenizer.length} tokens: {cut!r:.200} is left out")
        if request.negative and request.guidance == 1:
            said.append("a negative prompt is heard with --guidance above 1 only")
        if request.size not in (None, (self.side, self.side)):
            width, height = request.size
            said.append(f"this model draws {self.side}x{self.side}: the picture is scaled to {width}x{height}")
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
        device = next(self.network.parameters()).device
        text, null = (self.tokenizer.encode([words])[0].to(device) for words in (request.prompt, request.negative))
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
            prime=self._prime(request, options, device),
            look=self.codec.from_ids,
        )
        return self._drawn(ids, known(request.size, "size"))

    @torch.no_grad()
    def _prime(self, request: Request, options: Knobs, device: torch.device) -> Int[Tensor, "1 P"] | None:
        """The codes of the start picture's upper rows."""
        if request.image is None:
            return None
        if request.mask is not None:
            raise OptionError(
                "this model writes from the top to the bottom, and cannot fill in a mask",
                hint="--set prime=ROWS says how many rows of the picture are kept",
            )
        if options.prime > self.grid:
            raise OptionError(f"{options.prime} rows cannot be kept of {self.grid}")
        rows = options.prime or round((1 - request.strength) * self.grid)
        weight = next(p for p in self.network.parameters())
        pixels = from_image(request.image, (self.side, self.side)).to(device, weight.dtype)
        return self.codec.to_ids(pixels)[:, : rows * self.grid]

    @torch.no_grad()
    def _drawn(self, ids: Int[Tensor, "B N"], size: tuple[int, int]) -> Pixels:
        """Pictures of codes, at the size that is wanted."""
        pixels = self.codec.from_ids(ids).float().clamp(-1, 1)
        if size == (self.side, self.side):
            return pixels
        return F.interpolate(pixels, size[::-1], mode="bicubic", antialias=True).clamp(-1, 1)
