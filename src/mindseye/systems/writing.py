"""What systems share that read a text and write tokens: their knobs, what must fit together, and the one way to write.

Such a system has a network, the codec of its tokens and a tokenizer, and no loop of its own: `written` hands a request
to `mindseye.autoregression.sample`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeAlias

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from mindseye.autoregression import TokenModel, sample
from mindseye.errors import OptionError, WeightsError
from mindseye.networks.discrete_vae import DiscreteVAE
from mindseye.networks.dvae import DVAE
from mindseye.networks.parti import Text
from mindseye.networks.vit_vqgan import ViTVQGAN
from mindseye.networks.vqgan import VQGAN
from mindseye.noise import Noise
from mindseye.pixels import from_image
from mindseye.request import Request, Steps
from mindseye.shapes import Ids, Pixels
from mindseye.systems.base import known, option
from mindseye.text.bart_tokenizer import BartTokenizer
from mindseye.text.plain_tokenizer import PlainTokenizer
from mindseye.text.tokenizer import Tokenizer

__all__ = [
    "SPARE", "FromTheTop", "Knobs", "Painter", "Spelling", "begun", "belong", "computes", "fitted", "paints", "reads",
    "scaled", "unread", "written",
]  # fmt: skip

Painter: TypeAlias = VQGAN | ViTVQGAN | DVAE | DiscreteVAE
"""Everything that paints codes."""
Spelling: TypeAlias = Tokenizer | BartTokenizer | PlainTokenizer
"""Everything that spells prompts."""

SPARE: Final = 512
"""Rows that a table of text may have beyond its vocabulary: published ones are rounded up."""


@dataclass(frozen=True, kw_only=True)
class Knobs:
    """How tokens are drawn."""

    temperature: float = option(1.0, "below 1 likelier tokens, above 1 rarer ones; 0 = the likeliest", low=0, high=10)
    top_k: int = option(0, "draw each token from so many of the likeliest; 0 = from all", low=0, high=1 << 20)
    top_p: float = option(1.0, "draw from the likeliest tokens that together reach this share", low=0.01, high=1)


@dataclass(frozen=True, kw_only=True)
class FromTheTop(Knobs):
    """The same of a network that writes a picture row after row."""

    prime: int = option(0, "rows of the start picture that are kept, from the top; 0 = as --strength says", low=0)


def belong(
    tokenizer: Spelling, *, vocabulary: int, length: int, pad: int | None = None, spare: int = 0, exact: bool = False
) -> None:
    """Check that a network and a vocabulary were made for each other.

    Args:
        tokenizer: What spells prompts.
        vocabulary: How many different ids the network reads.
        length: How many it reads of a text.
        pad: Which one fills a text up; None = whichever.
        spare: Ids that the network may read beyond the tokenizer's: published tables are rounded up.
        exact: Whether a text must fill the whole length.

    Raises:
        WeightsError: They were not.
    """
    apart = "they do not belong together"
    if not 0 <= vocabulary - tokenizer.vocabulary <= spare:
        raise WeightsError(
            f"the vocabulary has {tokenizer.vocabulary:,} tokens and the network reads {vocabulary:,}: {apart}"
        )
    short = tokenizer.length < length and exact
    if tokenizer.length > length or short or pad not in (None, tokenizer.pad):
        filled = "" if pad is None else f" filled with {pad}"
        raise WeightsError(
            f"the vocabulary gives {tokenizer.length} ids filled with {tokenizer.pad}, and the network reads "
            f"{length}{filled}: {apart}"
        )


def reads(tokenizer: Spelling, text: Text) -> None:
    """`belong` for a network whose shape says what it reads, to the id."""
    belong(tokenizer, vocabulary=text.vocabulary, length=text.length, pad=text.pad)


def paints(codec: Painter, codes: int) -> None:
    """Check that a codec has the codes that a network writes.

    Raises:
        WeightsError: It has not.
    """
    if codec.config.codes != codes:
        raise WeightsError(
            f"the network writes {codes:,} different tokens and the codec has {codec.config.codes:,}: "
            "they do not belong together"
        )


def computes(codec: Painter) -> Tensor:
    """A tensor of the dtype and on the device that a codec computes in: its first parameter."""
    return next(codec.parameters())


def written(
    network: TokenModel,
    codec: Painter,
    tokenizer: Spelling,
    request: Request,
    options: Knobs,
    noise: Noise,
    *,
    prime: Int[Tensor, "1 P"] | None = None,
    look: Callable[[Ids], Pixels] | None = None,
) -> Steps[Ids]:
    """Write one picture a seed: the codes that follow the prompt, guided away from the negative one.

    Args:
        network: What writes.
        codec: What paints its codes; they are written where it is.
        tokenizer: What texts are spelled by; where nothing is to be kept away from, no text is.
        request: Resolved.
        options: How codes are drawn.
        noise: One seed a picture.
        prime: The first codes, where they are given.
        look: Codes to pictures, for previews.

    Raises:
        WeightsError: The network gave numbers that are not finite.
    """
    ids, _ = tokenizer.encode([request.prompt, request.negative])
    text, null = ids.to(computes(codec).device).split(1)
    return (
        yield from sample(
            network,
            text,
            null,
            noise,
            guidance=known(request.guidance, "guidance"),
            temperature=options.temperature,
            top_k=options.top_k,
            top_p=options.top_p,
            prime=prime,
            look=look,
        )
    )


@torch.no_grad()
def begun(request: Request, codec: Painter, grid: tuple[int, int], prime: int) -> Int[Tensor, "1 P"] | None:
    """The codes of the upper part of a start picture, whole rows; None without one.

    Args:
        request: Resolved.
        codec: Pixels to codes.
        grid: Rows and columns of codes.
        prime: Rows to keep; 0 = as the request's strength says.

    Raises:
        OptionError: A mask; more rows to keep than there are.
    """
    if request.image is None:
        return None
    if request.mask is not None:
        raise OptionError(
            "this network writes a picture from its top to its end and repaints nothing under a mask",
            hint="without the mask, --strength 0.5 keeps the upper half, and --set prime=ROWS so many rows",
        )
    rows, columns = grid
    if prime > rows:
        raise OptionError(f"{prime} rows cannot be kept of {rows}")
    kept = prime or round((1 - request.strength) * rows)
    pixels = from_image(request.image, (columns * codec.factor, rows * codec.factor)).to(computes(codec))
    return codec.to_ids(pixels)[:, : kept * columns]


def fitted(pixels: Pixels, size: tuple[int, int]) -> Float[Tensor, "B 3 H2 W2"]:
    """Pictures at the width and height that are wanted."""
    width, height = size
    if (height, width) == tuple(pixels.shape[-2:]):
        return pixels
    return F.interpolate(pixels, (height, width), mode="bicubic", antialias=True).clamp(-1, 1)


def unread(tokenizer: Spelling, request: Request) -> list[str]:
    """A sentence for each text of which not all is read."""
    _, cut = tokenizer.encode([request.prompt, request.negative])
    return [f"only {tokenizer.length} tokens of a prompt are read; not this: {words}" for words in cut if words]


def scaled(request: Request, size: tuple[int, int]) -> list[str]:
    """A sentence where another size is wanted than what is drawn."""
    width, height = known(request.size, "size")
    if (width, height) == size:
        return []
    return [f"it draws {size[0]}x{size[1]}: the picture is scaled to {width}x{height}"]
