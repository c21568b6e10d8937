"""What systems share that read a text and write tokens: their knobs, what must fit together, what a prompt becomes."""

from dataclasses import dataclass
from typing import TypeAlias

import torch
from jaxtyping import Int
from torch import Tensor

from mindseye.errors import WeightsError
from mindseye.networks.parti import Text
from mindseye.networks.vit_vqgan import ViTVQGAN
from mindseye.networks.vqgan import VQGAN
from mindseye.request import Request
from mindseye.systems.base import known, option
from mindseye.text.tokenizer import Tokenizer

__all__ = ["GridCodec", "Knobs", "belong", "scaled", "spelled", "unread"]

GridCodec: TypeAlias = VQGAN | ViTVQGAN
"""Codecs that decode a grid of codes of any size."""


@dataclass(frozen=True, kw_only=True)
class Knobs:
    """How tokens are drawn."""

    temperature: float = option(1.0, "below 1 likelier tokens, above 1 rarer ones; 0 = the likeliest", low=0, high=10)
    top_k: int = option(0, "draw each token from so many of the likeliest; 0 = from all", low=0, high=1 << 20)
    top_p: float = option(1.0, "draw from the likeliest tokens that together reach this share", low=0.01, high=1)


def belong(text: Text, codes: int, tokenizer: Tokenizer, codec: GridCodec) -> None:
    """Check that a network, a vocabulary and a codec were made for each other.

    Args:
        text: What the network reads.
        codes: How many different ones it writes.
        tokenizer: What spells prompts.
        codec: What paints.

    Raises:
        WeightsError: They were not.
    """
    apart = "they do not belong together"
    if tokenizer.vocabulary != text.vocabulary:
        raise WeightsError(
            f"the vocabulary has {tokenizer.vocabulary:,} tokens and the network reads {text.vocabulary:,}: {apart}"
        )
    if tokenizer.length > text.length or tokenizer.pad != text.pad:
        raise WeightsError(
            f"the vocabulary gives {tokenizer.length} ids filled with {tokenizer.pad}, and the network reads "
            f"{text.length} filled with {text.pad}: {apart}"
        )
    if codec.config.codes != codes:
        raise WeightsError(
            f"the network writes {codes:,} different tokens and the codec has {codec.config.codes:,}: {apart}"
        )


def unread(tokenizer: Tokenizer, request: Request) -> list[str]:
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
    tokenizer: Tokenizer, request: Request, device: torch.device
) -> tuple[Int[Tensor, "1 L"], Int[Tensor, "1 L"]]:
    """The ids of the prompt and of what to keep away from, which is no text where nothing is said."""
    ids, _ = tokenizer.encode([request.prompt, request.negative])
    text, null = ids.to(device).split(1)
    return text, null
