"""The half of an encoder-decoder that reads: token ids to one vector a token, each seeing all others.

A stack of pre-norm blocks with learned positions and a norm at its end. Padding is told by its id and never looked at.
"""

from typing import final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from mindseye.nn.transformer import Stack

__all__ = ["TextEncoder"]


@final
class TextEncoder(nn.Module):
    """Ids to vectors.

    Args:
        vocabulary: different ids.
        length: most ids a text can have.
        pad: the id that fills what is left.
        width: channels.
        layers: blocks.
        heads: attention heads; divides `width`.
        hidden: channels inside the perceptrons.
    """

    def __init__(
        self, vocabulary: int, length: int, pad: int, *, width: int, layers: int, heads: int, hidden: int
    ) -> None:
        super().__init__()
        if not 0 <= pad < vocabulary:
            raise ValueError(f"the id {pad} that fills a text is none of {vocabulary}")
        self.length, self.pad = length, pad
        self.embedding = nn.Embedding(vocabulary, width)
        self.positions = nn.Parameter(torch.empty(length, width))
        self.stack = Stack(width, layers, heads, hidden)
        self.norm = nn.LayerNorm(width)
        for table in (self.embedding.weight, self.positions):
            nn.init.normal_(table, std=0.02)

    def forward(self, text: Int[Tensor, "B L"]) -> tuple[Float[Tensor, "B L D"], Bool[Tensor, "B L"]]:
        """One vector a token, and which of them count; a text of padding alone still has its first.

        Raises:
            ValueError: More ids than it reads.
        """
        if text.shape[1] > self.length:
            raise ValueError(f"a text has {text.shape[1]} ids, and {self.length} is the most that are read")
        mask = text != self.pad
        mask[:, 0] = True
        x, _ = self.stack(self.embedding(text) + self.positions[: text.shape[1]], mask)
        return self.norm(x), mask
