"""Parti (Yu et al. 2022, arXiv:2206.10789): an encoder reads the text, a decoder writes the picture's tokens.

Pictures are written as a foreign language: 1,024 tokens of a ViT-VQGAN (`mindseye.networks.vit_vqgan`) row by row, from
up to 128 pieces of text. Sizes differ in depth, mostly the decoder's, and in width.

No weights and no code were published. Where the paper is silent, this is what was chosen:

- Positions are learned, by row and column of the picture and by place in the text.
- The convolution-shaped attention of the decoder sees 11 x 11 places, as DALL-E's, which the paper refers to.
- Perceptrons have two layers and a GELU: with them the blocks have 353, 756, 3,022 and 20,407 million parameters, which
  is what the sizes are called. Embeddings and the last layer do not share weights.
"""

from dataclasses import dataclass
from typing import final

from jaxtyping import Float, Int
from torch import Tensor, nn

from mindseye.nn.raster import RasterDecoder, Writing
from mindseye.nn.text_encoder import TextEncoder
from mindseye.shapes import Ids

__all__ = ["PARTI_3B", "PARTI_20B", "PARTI_350M", "PARTI_750M", "POCKET", "POCKET_TEXT", "Config", "Parti", "Text"]


@dataclass(frozen=True, kw_only=True)
class Text:
    """What is read.

    Attributes:
        vocabulary: Different ids.
        length: Most ids a text can have.
        layers: Blocks of the encoder.
        pad: The id that fills what is left of a text; it is never looked at.
        hidden: Channels inside the encoder's perceptrons; None = as many as the decoder's.
    """

    vocabulary: int = 16_000
    length: int = 128
    layers: int = 12
    pad: int = 0
    hidden: int | None = None

    def encoder(self, *, width: int, heads: int, hidden: int) -> TextEncoder:
        """What reads, in the decoder's channels and heads."""
        hidden = self.hidden or hidden
        return TextEncoder(
            self.vocabulary, self.length, self.pad, layers=self.layers, width=width, heads=heads, hidden=hidden
        )


@dataclass(frozen=True, kw_only=True)
class Config:
    """Shape of a `Parti`.

    Attributes:
        text: The encoder.
        codes: Size of the picture's vocabulary.
        grid: Rows and columns of a picture's tokens.
        reach: How many rows and columns away the decoder's self-attention sees; None = everything written so far.
        width: Channels, of both halves.
        layers: Blocks of the decoder.
        heads: Attention heads, of both halves.
        hidden: Channels inside the perceptrons, of both halves where ``text`` does not say otherwise.
    """

    text: Text = Text()
    codes: int = 8192
    grid: tuple[int, int] = (32, 32)
    reach: int | None = 5
    width: int
    layers: int
    heads: int
    hidden: int


PARTI_350M = Config(width=1024, layers=12, heads=16, hidden=4096)
PARTI_750M = Config(width=1024, layers=36, heads=16, hidden=4096)
PARTI_3B = Config(width=2048, layers=36, heads=32, hidden=8192)
PARTI_20B = Config(text=Text(layers=16), width=4096, layers=64, heads=64, hidden=16_384)

POCKET_TEXT = Text(vocabulary=1536, length=32, layers=3, pad=1535, hidden=768)
"""In the shape of clip-pocket's text tower, as which it begins to be trained."""
POCKET = Config(
    text=POCKET_TEXT,
    codes=1024,
    grid=(16, 16),
    reach=None,
    width=192,
    layers=5,
    heads=6,
    hidden=512,
)
"""Over the pocket VQGAN's 256 tokens; so few that attention sees all of them."""


@final
class Parti(nn.Module):
    """Text to a picture's tokens; satisfies `mindseye.autoregression.TokenModel`."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        sizes = {"width": config.width, "heads": config.heads, "hidden": config.hidden}
        self.reader = config.text.encoder(**sizes)
        reach = None if config.reach is None else (0, config.reach, config.reach)
        self.writer = RasterDecoder(config.codes, (1, *config.grid), reach, layers=config.layers, **sizes)

    @property
    def length(self) -> int:
        """Tokens of a picture."""
        return self.writer.length

    @property
    def codes(self) -> int:
        """Different tokens."""
        return self.config.codes

    def forward(self, text: Ids, ids: Int[Tensor, "B N"]) -> tuple[None, Float[Tensor, "B N K"]]:
        """Nothing of the text, and logits of each token from the text and the tokens before it.

        Args:
            text: Ids, padded with ``config.text.pad``.
            ids: The first N tokens of pictures, row by row.

        Raises:
            ValueError: More of either than the network has room for.
        """
        return None, self.writer(ids, *self.reader(text))

    def start(self, text: Ids) -> Writing:
        """Read the text and begin pictures."""
        return self.writer.begin(*self.reader(text))

    def next(self, ids: Int[Tensor, "B"] | None, state: Writing) -> Float[Tensor, "B K"]:
        """Logits of the next token, as `forward` has them.

        Args:
            ids: The tokens just written; None before the first.
            state: Of `start`; goes one token further.
        """
        return self.writer.step(ids, state)

    def read(self, ids: Int[Tensor, "B P"], state: Writing) -> Float[Tensor, "B K"]:
        """As `next` with each of the first P tokens in turn, in one call."""
        return self.writer.read(ids, state)
