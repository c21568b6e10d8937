"""minDALL-E's network (Kim et al. 2021, https://github.com/kakaobrain/minDALL-E): the plain transformer as a DALL-E.

L text tokens and N image tokens in one causal stream of pre-norm blocks (`mindseye.nn.transformer`), with learned
places and a head for each vocabulary; nothing marks the beginning, and padding is a token like any other. The last text
token, padding as a rule, predicts the first of the picture.

Writing step by step, a state holds keys and values of all layers (`mindseye.nn.cache`).
"""

from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from mindseye.nn.cache import KeyValues
from mindseye.nn.layers import Linear
from mindseye.nn.transformer import Activation, Stack

__all__ = ["RELEASED", "Config", "MinDALLE", "Written"]


@dataclass(frozen=True, kw_only=True)
class Config:
    """Shape of a `MinDALLE`.

    Attributes:
        width: Channels.
        layers: Blocks.
        heads: Attention heads; divides `width`.
        text_tokens: Text vocabulary.
        text_length: Text tokens.
        image_tokens: Image vocabulary.
        image_length: Image tokens.
        activation: The curve of the perceptrons.
    """

    width: int
    layers: int
    heads: int
    text_tokens: int
    text_length: int
    image_tokens: int
    image_length: int
    activation: Activation = "gelu"


RELEASED = Config(
    width=1536,
    layers=42,
    heads=24,
    text_tokens=16_384,
    text_length=64,
    image_tokens=16_384,
    image_length=256,
)
"""What was released: 1,291,081,728 parameters over a VQGAN of 16 x 16 codes."""


@final
class Written:
    """What was read so far.

    Attributes:
        caches: Keys and values, one a layer.
        last: What left the last layer for the last place.
        written: Image tokens that were read.
    """

    def __init__(self, caches: list[KeyValues], last: Tensor, written: int) -> None:
        self.caches, self.last, self.written = caches, last, written

    def select(self, rows: Int[Tensor, "R"]) -> "Written":
        """A state of these rows, each as often as it is named."""
        return Written([cache.select(rows) for cache in self.caches], self.last[rows], self.written)


@final
class MinDALLE(nn.Module):
    """Text and image tokens to what comes next.

    Satisfies `mindseye.autoregression`'s TokenModel, Reader and Predictor.
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.length, self.codes = config.image_length, config.image_tokens
        self.text_embedding = nn.Embedding(config.text_tokens, config.width)
        self.image_embedding = nn.Embedding(config.image_tokens, config.width)
        self.text_places = nn.Embedding(config.text_length, config.width)
        self.image_places = nn.Embedding(config.image_length, config.width)
        self.stack = Stack(config.width, config.layers, config.heads, activation=config.activation)
        self.norm = nn.LayerNorm(config.width)
        self.text_head = Linear(config.width, config.text_tokens, bias=False)
        self.image_head = Linear(config.width, config.image_tokens, bias=False)
        for each in (self.text_embedding, self.image_embedding, self.text_places, self.image_places):
            nn.init.normal_(each.weight, std=0.02)

    def targets(self, text: Int[Tensor, "B L"]) -> Int[Tensor, "B T"]:
        """The text but for its first token: what the text logits of `forward` are about."""
        return text[:, 1:]

    def forward(
        self, text: Int[Tensor, "B L"], ids: Int[Tensor, "B N"]
    ) -> tuple[Float[Tensor, "B T V"], Float[Tensor, "B N K"]]:
        """Logits of every token from those before it.

        Args:
            text: Ids, L = ``config.text_length``.
            ids: The picture, or the beginning of one; what is predicted from its last token is not computed.

        Returns:
            Of the text tokens but the first, and of the image tokens.
        """
        x = torch.cat([self.text_embedding(text) + self.text_places.weight, self._image(ids[:, :-1], 0)], 1)
        x = self.norm(self.stack(x, causal=True)[0])
        words = text.shape[1] - 1
        return self.text_head(x[:, :words]), self.image_head(x[:, words:])

    @torch.no_grad()
    def start(self, text: Int[Tensor, "B L"]) -> Written:
        """Read texts."""
        config = self.config
        x = self.text_embedding(text) + self.text_places.weight
        places = config.text_length + config.image_length - 1  # the last token is never read
        shape = (len(x), config.heads, places, config.width // config.heads)
        state = Written([KeyValues(*shape, like=x) for _ in range(config.layers)], x[:, -1], 0)
        self._advance(x, state)
        return state

    @torch.no_grad()
    def next(self, ids: Int[Tensor, "B"] | None, state: Written) -> Float[Tensor, "B K"]:
        """Logits of the next image token, after one more was read."""
        if ids is not None:
            self._advance(self._image(ids[:, None], state.written), state)
            state.written += 1
        return self.image_head(self.norm(state.last))

    @torch.no_grad()
    def read(self, ids: Int[Tensor, "B P"], state: Written) -> Float[Tensor, "B K"]:
        """Logits after the next P image tokens."""
        self._advance(self._image(ids, state.written), state)
        state.written += ids.shape[1]
        return self.image_head(self.norm(state.last))

    def _advance(self, x: Float[Tensor, "B N D"], state: Written) -> None:
        """Run the next places through all blocks."""
        for block, cache in zip(self.stack.blocks, state.caches, strict=True):
            x = block(x, None, x.shape[1] > 1, cache)
        state.last = x[:, -1]

    def _image(self, ids: Int[Tensor, "B N"], place: int) -> Float[Tensor, "B N D"]:
        """Image tokens from a place on, embedded."""
        return self.image_embedding(ids) + self.image_places.weight[place : place + ids.shape[1]]
