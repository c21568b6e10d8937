"""DALL-E mini's transformer: a text goes in, the codes of a picture come out one by one.

Dayma et al. 2021 (DALL-E mini and mega, later Craiyon; https://github.com/borisdayma/dalle-mini). It is BART (Lewis et
al. 2019, arXiv:1910.13461): an encoder reads the whole text, a decoder writes one of a VQGAN's codes at each place and
looks back at its own and at the text. What it changed since: a norm before *and* behind every attention, and one inside
the feed-forward (NormFormer: Shleifer et al. 2021, arXiv:2110.09456); a gated feed-forward (Shazeer 2020,
arXiv:2002.05202); no biases but those of norms. A norm in front of a linear layer shifts and does not scale, since the
layer's own weights would. Positions are learned and absolute; nothing is shared between text and picture.

Where we deviate:

- Keys and values of the text are computed once for each picture, and those of the picture's own places are written
  into memory that was there from the start; the release's successors recompute the former at every place.
- The release's table of codes has a few rows more than there are codes: the first is where decoding starts, the others
  are never used. They are kept, so that its weights fit; logits are computed of the real codes alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from mindseye.nn.attention import attend
from mindseye.nn.cache import KeyValues
from mindseye.nn.layers import Linear
from mindseye.shapes import Ids, TextTokens

__all__ = ["MEGA", "MINI", "POCKET", "Bart", "Config", "State"]

EPS = 1e-5
DEVIATION = 0.02
"""Of all weights at the start."""


@dataclass(frozen=True, kw_only=True)
class Config:
    """Shape of a `Bart`.

    Attributes:
        width: Channels.
        heads: Attention heads; divides ``width``.
        hidden: Channels inside the feed-forward.
        encoder: Blocks that read.
        decoder: Blocks that write.
        vocabulary: Different ids of text.
        text_length: Most ids that a text may have.
        pad: Id of text that nothing looks at.
        codes: Different codes of a picture.
        rows: Rows of the tables of codes; more than ``codes`` where there are rows that stand for no code.
        length: Codes of a picture, row by row.
        start: Row that stands before the first code; the published models have it just behind the codes.
    """

    width: int = 1024
    heads: int = 16
    hidden: int = 2730
    encoder: int = 12
    decoder: int = 12
    vocabulary: int = 50264
    text_length: int = 64
    pad: int = 1
    codes: int = 16384
    rows: int = 16385
    length: int = 256
    start: int = 16384

    def __post_init__(self) -> None:
        if self.width % self.heads:
            raise ValueError(f"{self.heads} heads do not divide a width of {self.width}")
        if self.rows < self.codes:
            raise ValueError(f"{self.codes} codes do not fit a table of {self.rows} rows")
        if not 0 <= self.start < self.rows:
            raise ValueError(f"decoding starts at a row of the table, 0 to {self.rows - 1}, not {self.start}")
        if not 0 <= self.pad < self.vocabulary:
            raise ValueError(f"the id that fills texts is one of 0 to {self.vocabulary - 1}, not {self.pad}")


MINI = Config()
"""DALL-E mini: 437,833,712 parameters."""
MEGA = Config(width=2048, heads=32, hidden=4096, encoder=24, decoder=24, vocabulary=50272, rows=16416)
"""DALL-E mega: 2,587,521,024 parameters."""
POCKET = Config(
    width=192,
    heads=6,
    hidden=384,
    encoder=2,
    decoder=4,
    vocabulary=1536,
    text_length=32,
    pad=1535,
    codes=1024,
    rows=1025,
    start=1024,
)
"""The small one for 16x16 codes of the pocket VQGAN, 32 ids of text."""


@final
class Shift(nn.Module):
    """LayerNorm that shifts and does not scale."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, x: Float[Tensor, "B L D"]) -> Float[Tensor, "B L D"]:
        """Mean 0 and deviation 1, then the shift."""
        return F.layer_norm(x, self.bias.shape, None, self.bias.to(x.dtype), EPS)


@final
class GatedFeedForward(nn.Module):
    """down(norm(gelu(gate(n)) up(n))) of n = norm(x)."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.before = Shift(width)
        self.gate = Linear(width, hidden, bias=False)
        self.up = Linear(width, hidden, bias=False)
        self.between = Shift(hidden)
        self.down = Linear(hidden, width, bias=False)

    def forward(self, x: Float[Tensor, "B L D"]) -> Float[Tensor, "B L D"]:
        """What is to be added to ``x``."""
        x = self.before(x)
        return self.down(self.between(F.gelu(self.gate(x)) * self.up(x)))


@final
class Attending(nn.Module):
    """after(attention(before(x))): what is to be added to ``x``."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.before = Shift(width)
        self.query, self.key, self.value, self.out = (Linear(width, width, bias=False) for _ in range(4))
        self.after = nn.LayerNorm(width, eps=EPS)

    def forward(
        self,
        x: Float[Tensor, "B N D"],
        context: Float[Tensor, "B M D"] | None = None,
        mask: Bool[Tensor, "B M"] | None = None,
        causal: bool = False,
    ) -> Float[Tensor, "B N D"]:
        """From ``x`` to itself, or to ``context`` where that is given."""
        x = self.before(x)
        source = x if context is None else context
        looked = attend(self.query(x), self.key(source), self.value(source), heads=self.heads, mask=mask, causal=causal)
        return self.after(self.out(looked))

    def grow(self, x: Float[Tensor, "B N D"], seen: KeyValues) -> Float[Tensor, "B N D"]:
        """From the next places to all before them and themselves, which ``seen`` keeps."""
        x = self.before(x)
        looked = seen.append(self.key(x), self.value(x)).look(self.query(x), causal=x.shape[1] > 1)
        return self.after(self.out(looked))

    def hold(self, context: Float[Tensor, "B M D"]) -> KeyValues:
        """Keys and values that every place will look at."""
        return KeyValues.of(self.key(context), self.value(context), heads=self.heads)

    def look(self, x: Float[Tensor, "B N D"], held: KeyValues, mask: Bool[Tensor, "B M"]) -> Float[Tensor, "B N D"]:
        """From the next places to what `hold` computed."""
        return self.after(self.out(held.look(self.query(self.before(x)), mask=mask)))


@final
class Reader(nn.Module):
    """A block of the encoder."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.own = Attending(config.width, config.heads)
        self.feed = GatedFeedForward(config.width, config.hidden)

    def forward(self, x: TextTokens, mask: Bool[Tensor, "B L"]) -> TextTokens:
        """One step of reading."""
        x = x + self.own(x, mask=mask)
        return x + self.feed(x)


@final
class Writer(nn.Module):
    """A block of the decoder."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.own = Attending(config.width, config.heads)
        self.text = Attending(config.width, config.heads)
        self.feed = GatedFeedForward(config.width, config.hidden)

    def forward(self, x: Float[Tensor, "B N D"], text: TextTokens, mask: Bool[Tensor, "B L"]) -> Float[Tensor, "B N D"]:
        """All places at once; each sees those before it, itself and the text."""
        x = x + self.own(x, causal=True)
        x = x + self.text(x, text, mask)
        return x + self.feed(x)

    def step(
        self, x: Float[Tensor, "B N D"], own: KeyValues, text: KeyValues, mask: Bool[Tensor, "B M"]
    ) -> Float[Tensor, "B N D"]:
        """The next places."""
        x = x + self.own.grow(x, own)
        x = x + self.text.look(x, text, mask)
        return x + self.feed(x)


@final
class Encoder(nn.Module):
    """Text to one vector an id."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.tokens = nn.Embedding(config.vocabulary, config.width)
        self.positions = nn.Embedding(config.text_length, config.width)
        self.norm_in = nn.LayerNorm(config.width, eps=EPS)
        self.blocks = nn.ModuleList(Reader(config) for _ in range(config.encoder))
        self.norm_out = Shift(config.width)

    def forward(self, ids: Ids, mask: Bool[Tensor, "B L"]) -> TextTokens:
        """Read; ``mask`` is True where an id counts."""
        x = self.norm_in(self.tokens(ids) + self.positions.weight[: ids.shape[1]])
        for block in self.blocks:
            x = block(x, mask)
        return self.norm_out(x)


@final
class Decoder(nn.Module):
    """Codes so far, and text, to logits of the next."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.codes = config.codes
        self.tokens = nn.Embedding(config.rows, config.width)
        self.positions = nn.Embedding(config.length, config.width)
        self.norm_in = nn.LayerNorm(config.width, eps=EPS)
        self.blocks = nn.ModuleList(Writer(config) for _ in range(config.decoder))
        self.norm_out = Shift(config.width)
        self.head = Linear(config.width, config.rows, bias=False)

    def embed(self, ids: Ids, place: int = 0) -> Float[Tensor, "B N D"]:
        """Rows of the table at places from ``place`` on."""
        return self.norm_in(self.tokens(ids) + self.positions.weight[place : place + ids.shape[1]])

    def logits(self, x: Float[Tensor, "B N D"]) -> Float[Tensor, "B N K"]:
        """Of the real codes."""
        return self.head(self.norm_out(x))[..., : self.codes]


@final
@dataclass(frozen=True, eq=False)
class State:
    """What a `Bart` keeps while it writes.

    Attributes:
        text: Keys and values of the text, a block of the decoder each.
        mask: True where an id of the text counts.
        own: Keys and values of the places so far, a block each; they grow.
    """

    text: Sequence[KeyValues]
    mask: Bool[Tensor, "B L"]
    own: Sequence[KeyValues]

    @property
    def written(self) -> int:
        """Places that were read."""
        return self.own[0].filled

    def select(self, rows: Int[Tensor, "R"]) -> "State":
        """A state of these rows, each as often as it is named."""
        text, own = ([each.select(rows) for each in kept] for kept in (self.text, self.own))
        return State(text, self.mask[rows.to(self.mask.device)], own)


@final
class Bart(nn.Module):
    """Text to codes; satisfies `mindseye.autoregression.TokenModel`.

    Attributes:
        config: Its shape.
        length: Codes of a picture.
        codes: Different codes.
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.length, self.codes = config.length, config.codes
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)
        for module in self.modules():
            if isinstance(module, (nn.Linear, nn.Embedding)):
                nn.init.normal_(module.weight, std=DEVIATION)

    def forward(self, text: Ids, ids: Int[Tensor, "B N"]) -> tuple[None, Float[Tensor, "B N K"]]:
        """Logits of each code given the text and the codes before it.

        Args:
            text: ``B L``, filled with ``config.pad``; L at most ``config.text_length``.
            ids: ``B N``, the codes themselves; N at most ``length``. The last is predicted and never looked at.

        Returns:
            None, for it does not predict its text, and ``B N K``.
        """
        mask = self._counts(text)
        read = self.encoder(text, mask)
        x = self.decoder.embed(self._behind_start(ids[:, :-1]))
        for block in self.decoder.blocks:
            x = block(x, read, mask)
        return None, self.decoder.logits(x)

    def start(self, text: Ids) -> State:
        """Read the text, and take the memory for what will be written.

        Args:
            text: ``B L``, filled with ``config.pad``.
        """
        mask = self._counts(text)
        read = self.encoder(text, mask)
        rows, heads, width = len(text), self.config.heads, self.config.width // self.config.heads
        own = [KeyValues(rows, heads, self.length, width, like=read) for _ in self.decoder.blocks]
        return State([block.text.hold(read) for block in self.decoder.blocks], mask, own)  # pyright: ignore

    def next(self, ids: Int[Tensor, "B"] | None, state: State) -> Float[Tensor, "B K"]:
        """Logits of the next code.

        Args:
            ids: The code that was chosen last; None at the first place.
            state: Of `start`; it is written to.

        Raises:
            ValueError: All places are written.
        """
        none = torch.zeros(len(state.mask), 0, dtype=torch.long, device=state.mask.device)
        return self._step(self._behind_start(none) if ids is None else ids[:, None], state)

    def read(self, ids: Int[Tensor, "B P"], state: State) -> Float[Tensor, "B K"]:
        """As `next` with nothing, and then with each of ``ids`` in turn; the last one's logits."""
        return self._step(self._behind_start(ids), state)

    def _step(self, rows: Int[Tensor, "B N"], state: State) -> Float[Tensor, "B K"]:
        place = state.written
        if place + rows.shape[1] > self.length:
            raise ValueError(f"a picture has {self.length} codes, not {place + rows.shape[1]}")
        x = self.decoder.embed(rows, place)
        for block, own, text in zip(self.decoder.blocks, state.own, state.text, strict=True):
            x = block.step(x, own, text, state.mask)  # pyright: ignore[reportCallIssue]
        return self.decoder.logits(x[:, -1:])[:, 0]

    def _behind_start(self, ids: Int[Tensor, "B N"]) -> Int[Tensor, "B M"]:
        """The ids, the row that decoding starts with in front."""
        return F.pad(ids, (1, 0), value=self.config.start)

    def _counts(self, text: Ids) -> Bool[Tensor, "B L"]:
        """Where the text has ids that count; its first always does."""
        counts = text != self.config.pad
        counts[:, 0] = True
        return counts
