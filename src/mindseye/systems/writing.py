"""What systems share that read a text and write tokens: their knobs, what must fit together, what a prompt becomes."""

from dataclasses import dataclass
from typing import TypeAlias

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from mindseye.errors import OptionError, WeightsError
from mindseye.networks.discrete_vae import DiscreteVAE
from mindseye.networks.dvae import DVAE
from mindseye.networks.vit_vqgan import ViTVQGAN
from mindseye.networks.vqgan import VQGAN
from mindseye.pixels import from_image
from mindseye.request import Request
from mindseye.shapes import Pixels
from mindseye.systems.base import known, option
from mindseye.text.bart_tokenizer import BartTokenizer
from mindseye.text.plain_tokenizer import PlainTokenizer
from mindseye.text.tokenizer import Tokenizer

__all__ = [
    "FromTheTop", "GridCodec", "Knobs", "Painter", "Spelling", "begun", "belong", "fitted", "paints", "scaled",
    "spelled", "unread",
]  # fmt: skip

GridCodec: TypeAlias = VQGAN | ViTVQGAN
"""Codecs that decode a grid of codes of any size."""
Painter: TypeAlias = GridCodec | DVAE | DiscreteVAE
"""Everything that paints codes."""
Spelling: TypeAlias = Tokenizer | BartTokenizer | PlainTokenizer
"""Everything that spells prompts."""


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


@torch.no_grad()
def begun(
    request: Request, codec: Painter, grid: tuple[int, int], prime: int, like: Tensor
) -> Int[Tensor, "1 P"] | None:
    """The codes of the upper part of a start picture, whole rows; None without one.

    Args:
        request: Resolved.
        codec: Pixels to codes.
        grid: Rows and columns of codes.
        prime: Rows to keep; 0 = as the request's strength says.
        like: The codec's dtype and device.

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
    pixels = from_image(request.image, (columns * codec.factor, rows * codec.factor)).to(like)
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


def spelled(
    tokenizer: Spelling, request: Request, device: torch.device
) -> tuple[Int[Tensor, "1 L"], Int[Tensor, "1 L"]]:
    """The ids of the prompt and of what to keep away from, which is no text where nothing is said."""
    ids, _ = tokenizer.encode([request.prompt, request.negative])
    text, null = ids.to(device).split(1)
    return text, null
