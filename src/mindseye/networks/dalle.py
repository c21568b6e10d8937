"""DALL-E's network (Ramesh et al. 2021, arXiv:2102.12092): text and image tokens in one stream, each after the last.

As DALLE-pytorch (lucidrains, MIT) has it, whose checkpoints are the public ones; OpenAI released no transformer. A
sequence is a beginning, L text tokens, and N = grid x grid image tokens row by row. What its options are about:

- Padding: text tokens of id 0 are replaced by one of L ids of their own, one for each place, so that the network knows
  where a text has ended. They are part of the text vocabulary.
- Places: learned ones for text and learned rows and columns for the picture, summed; or rotations of pairs of channels
  in thirds of a head: by the place in the text (image tokens stand far behind it, at 8192), by row and by column (text
  stands far before them, at -10). Rotated are queries, keys *and* values.
- Sparse attention is dense attention under a mask that never changes: image tokens see all of the text, and of the
  picture their own row, their own column, or the five by five whose last corner they are, as far as it is written. The
  weights are those of the sparse layers of DALLE-pytorch, and so is what they give.
- Token shift: behind each norm, half of a text token's channels are those of the token before it; of an image token's,
  a quarter is from the token above and a quarter from the one to its left.

Writing step by step, a state holds keys and values of all layers (`mindseye.nn.cache`) and, for the shift, one row of
the picture for each norm, used in a ring. The head computes image logits alone.

Where we deviate: logits of the other vocabulary are not masked but left out, which is the same distribution. What
DALLE-pytorch calls ``reversible`` trades memory against time in training by another residual stream; it is not built.
"""

import math
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import cycle, islice
from typing import Literal, final

import torch
from jaxtyping import Bool, Complex, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from mindseye.nn.attention import attend
from mindseye.nn.cache import KeyValues
from mindseye.nn.layers import Linear

__all__ = ["DALLE", "POCKET", "Config", "Extras", "Kind", "Written", "mask"]

Kind = Literal["full", "axial_row", "axial_col", "conv_like"]
"""What an image token sees of the picture."""
WINDOW = 5
"""Rows and columns that "conv_like" sees: its own and those above and to the left, itself in the corner."""
FAR, BEFORE, PIXELS = 8192, -10.0, 5.0
"""Where image tokens stand in the text and text stands in the picture; the fastest rotation of a row or column is so
many half turns from edge to middle."""


@dataclass(frozen=True, kw_only=True)
class Extras:
    """Options that most checkpoints leave alone.

    Attributes:
        expansion: How many times wider a feed-forward is inside.
        sandwich: A second norm behind each attention and feed-forward.
        tied: Tokens are embedded by the head's own weights.
        stable: What leaves the last layer is divided by its largest channel.
        attention_ids: Layers of the same number share an attention, repeated over the depth; empty = none share.
        feed_ids: The same for feed-forwards.
    """

    expansion: int = 4
    sandwich: bool = False
    tied: bool = False
    stable: bool = False
    attention_ids: tuple[int, ...] = ()
    feed_ids: tuple[int, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Config:
    """Shape of a `DALLE`.

    Attributes:
        width: Channels.
        layers: Attentions, each with a feed-forward.
        heads: Attention heads.
        head_width: Channels of one.
        text_tokens: Text vocabulary, without the ids that stand for padding.
        text_length: Text tokens, the beginning not counted.
        image_tokens: Image vocabulary.
        grid: Image tokens a side.
        attention: What image tokens see in each layer, repeated over the depth.
        rotary: Places are rotations; otherwise they are learned.
        shift: Tokens take channels from their neighbours.
        extras: The rest.
    """

    width: int
    layers: int
    heads: int
    head_width: int = 64
    text_tokens: int
    text_length: int
    image_tokens: int
    grid: int
    attention: tuple[Kind, ...] = ("full",)
    rotary: bool = True
    shift: bool = True
    extras: Extras = field(default_factory=Extras)

    def __post_init__(self) -> None:
        if unknown := [kind for kind in self.attention if kind not in ("full", "axial_row", "axial_col", "conv_like")]:
            raise ValueError(f"there is no attention {unknown[0]!r}")
        if self.rotary and (self.head_width % 2 or self.head_width < 6):
            raise ValueError(f"heads of {self.head_width} channels cannot be rotated in thirds of pairs")
        for ids in (self.extras.attention_ids, self.extras.feed_ids):
            if ids and set(ids) != set(range(len(set(ids)))):
                raise ValueError(f"layers that share are numbered from 0 on, not as {ids}")

    @property
    def text_vocabulary(self) -> int:
        """Text ids with those that stand for padding."""
        return self.text_tokens + self.text_length

    @property
    def begun(self) -> int:
        """Places before the picture: the beginning and the text."""
        return self.text_length + 1


POCKET = Config(
    width=192,
    layers=6,
    heads=4,
    head_width=48,
    text_tokens=1536,
    text_length=32,
    image_tokens=1024,
    grid=16,
    attention=("full", "axial_row", "axial_col"),
    extras=Extras(expansion=2, tied=True),
)
"""The pocket DALL-E: 2.7 million parameters over the pocket tokenizer's ids and those of the pocket VQGAN."""


@lru_cache(maxsize=32)
def mask(kind: Kind, begun: int, grid: int, device: torch.device | None = None) -> Bool[Tensor, "S S"]:
    """Which places (columns) each place (row) sees: those before it and itself, as far as the kind allows.

    Args:
        kind: What an image token sees of the picture; text tokens see all text before them.
        begun: Places before the picture.
        grid: Image tokens a side.
        device: Where it is wanted.
    """
    places = begun + grid * grid
    allowed = torch.ones(places, places, dtype=torch.bool, device=device).tril()
    number = torch.arange(grid * grid, device=device)
    down, across = (part[:, None] - part for part in (number // grid, number % grid))
    if kind == "axial_row":
        allowed[begun:, begun:] &= down == 0
    elif kind == "axial_col":
        allowed[begun:, begun:] &= across == 0
    elif kind == "conv_like":
        allowed[begun:, begun:] &= (down < WINDOW) & (across >= 0) & (across < WINDOW)
    return allowed


@lru_cache(maxsize=8)
def turns(head_width: int, begun: int, grid: int, device: torch.device | None = None) -> Complex[Tensor, "S 1 p"]:
    """By what each pair of channels is turned at each place: complex numbers of length 1.

    Channels that are left over are not turned.
    """
    pairs = head_width // 3 // 2
    words = 10_000 ** -(torch.arange(pairs, dtype=torch.float32) * 2 / (head_width // 3))
    pixels = torch.linspace(1.0, PIXELS, pairs) * math.pi
    text = torch.cat([torch.arange(begun), torch.full((grid * grid,), FAR)]).float()
    line = torch.linspace(-1, 1, grid)
    before = torch.full((begun,), BEFORE)
    rows = torch.cat([before, line.repeat_interleave(grid)])
    columns = torch.cat([before, line.repeat(grid)])
    angles = torch.cat([text[:, None] * words, rows[:, None] * pixels, columns[:, None] * pixels], 1)
    angles = F.pad(angles, (0, head_width // 2 - angles.shape[1]))
    return torch.polar(torch.ones_like(angles), angles)[:, None].to(device)


def shift_text(x: Float[Tensor, "B L D"]) -> Float[Tensor, "B L D"]:
    """The first half of each token's channels from the token before it; the first token has none before it."""
    half = -(-x.shape[2] // 2)
    return torch.cat([F.pad(x[:, :-1, :half], (0, 0, 1, 0)), x[:, :, half:]], 2)


def shift_image(x: Float[Tensor, "B N D"], grid: int) -> Float[Tensor, "B N D"]:
    """A quarter of each token's channels from the token above, a quarter from the one to its left, if there is one.

    Args:
        x: The first N tokens of a picture.
        grid: Tokens a row.
    """
    quarter, count = -(-x.shape[2] // 4), x.shape[1]
    above = F.pad(x[:, :, :quarter], (0, 0, grid, 0))[:, :count]
    left = F.pad(x[:, :, quarter : 2 * quarter], (0, 0, 1, 0))[:, :count]
    first = (torch.arange(count, device=x.device) % grid == 0)[:, None]
    return torch.cat([above, left.masked_fill(first, 0), x[:, :, 2 * quarter :]], 2)


@final
class Attention(nn.Module):
    """Projections around `mindseye.nn.attention.attend`; inside, heads may be wider or narrower than the stream."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        inner = config.heads * config.head_width
        self.heads, self.head_width = config.heads, config.head_width
        self.qkv = Linear(config.width, 3 * inner, bias=False)
        self.out = Linear(inner, config.width)

    def forward(
        self,
        x: Float[Tensor, "B N D"],
        turned: Complex[Tensor, "N 1 p"] | None,
        seen: Bool[Tensor, "N M"] | None,
        cache: KeyValues | None,
    ) -> Float[Tensor, "B N D"]:
        """Attend from ``x`` to what the cache holds and to itself.

        Args:
            x: The next places.
            turned: By what their channels are turned.
            seen: What each of them sees; None = all before it.
            cache: Keys and values of places before; theirs are added.
        """
        qkv = self.qkv(x)
        if turned is not None:
            pairs = qkv.float().unflatten(-1, (-1, self.head_width // 2, 2))
            qkv = torch.view_as_real(torch.view_as_complex(pairs) * turned).flatten(-3).to(x.dtype)
        q, k, v = qkv.chunk(3, -1)
        shown = None if seen is None else seen[None, None]
        causal = seen is None and x.shape[1] > 1
        if cache is None:
            return self.out(attend(q, k, v, heads=self.heads, mask=shown, causal=causal))
        return self.out(cache.append(k, v).look(q, mask=shown, causal=causal))


@final
class Feed(nn.Module):
    """A gated feed-forward: half of what goes up opens and closes the other half (GEGLU, Shazeer 2020)."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        hidden = config.width * config.extras.expansion
        self.up = Linear(config.width, 2 * hidden)
        self.down = Linear(hidden, config.width)

    def forward(self, x: Float[Tensor, "B N D"]) -> Float[Tensor, "B N D"]:
        """Each token by itself."""
        values, gates = self.up(x).chunk(2, -1)
        return self.down(values * F.gelu(gates))


@final
class Wrapped(nn.Module):
    """What stands around an attention or a feed-forward of one layer: norms, and the scale of what is added."""

    def __init__(self, config: Config, layer: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(config.width)
        self.after = nn.LayerNorm(config.width) if config.extras.sandwich else nn.Identity()
        # LayerScale (Touvron et al. 2021, arXiv:2103.17239): the deeper a layer, the less it adds at first.
        self.scale = nn.Parameter(torch.full((1, 1, config.width), 0.1 if layer < 18 else 1e-5 if layer < 24 else 1e-6))

    def added(self, x: Float[Tensor, "B N D"], new: Float[Tensor, "B N D"]) -> Float[Tensor, "B N D"]:
        """The stream with what a layer adds to it."""
        return torch.addcmul(x, self.after(new), self.scale)


@final
class Written:
    """What was read so far: caches of every layer, and what the next token is predicted from.

    Attributes:
        caches: Keys and values, one a layer.
        rings: For each norm, half the channels of the last ``grid`` image tokens behind it; empty without a shift.
        last: What left the last layer for the last place.
        written: Image tokens that were read.
    """

    def __init__(self, caches: list[KeyValues], rings: list[Tensor], last: Tensor, written: int) -> None:
        self.caches, self.rings, self.last, self.written = caches, rings, last, written

    def select(self, rows: Int[Tensor, "R"]) -> "Written":
        """A state of these rows, each as often as it is named."""
        caches = [cache.select(rows) for cache in self.caches]
        return Written(caches, [ring[rows] for ring in self.rings], self.last[rows], self.written)


@final
class DALLE(nn.Module):
    """Text and image tokens to what comes next; satisfies `mindseye.autoregression`'s TokenModel, Reader and Predictor.

    Text is ids in 0 .. ``text_tokens`` - 1, 0 for padding; image tokens are ids of a codec's codes.
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.length, self.codes = config.grid**2, config.image_tokens
        depth, extras = config.layers, config.extras
        self.kinds: tuple[Kind, ...] = tuple(config.attention[layer % len(config.attention)] for layer in range(depth))
        self.attention_ids = list(islice(cycle(extras.attention_ids or range(depth)), depth))
        self.feed_ids = list(islice(cycle(extras.feed_ids or range(depth)), depth))
        for layer, shared in enumerate(self.attention_ids):
            if self.kinds[layer] != self.kinds[self.attention_ids.index(shared)]:
                raise ValueError(f"layer {layer} shares an attention of another kind")
        self.attentions = nn.ModuleList(Attention(config) for _ in range(max(self.attention_ids) + 1))
        self.feeds = nn.ModuleList(Feed(config) for _ in range(max(self.feed_ids) + 1))
        self.around_attention = nn.ModuleList(Wrapped(config, layer) for layer in range(depth))
        self.around_feed = nn.ModuleList(Wrapped(config, layer) for layer in range(depth))
        self.norm = nn.LayerNorm(config.width)
        self.head = Linear(config.width, config.text_vocabulary + config.image_tokens)
        if not extras.tied:
            self.text_embedding = nn.Embedding(config.text_vocabulary, config.width)
            self.image_embedding = nn.Embedding(config.image_tokens, config.width)
        if not config.rotary:
            self.text_places = nn.Embedding(config.begun, config.width)
            self.rows = nn.Parameter(torch.randn(1, config.grid, 1, config.width))
            self.columns = nn.Parameter(torch.randn(1, 1, config.grid, config.width))

    def targets(self, text: Int[Tensor, "B L"]) -> Int[Tensor, "B L"]:
        """The text with padding as ids of its own: what the text logits of `forward` are about."""
        own = torch.arange(self.config.text_tokens, self.config.text_vocabulary, device=text.device)
        return torch.where(text == 0, own, text)

    def forward(
        self, text: Int[Tensor, "B L"], ids: Int[Tensor, "B N"]
    ) -> tuple[Float[Tensor, "B L V"], Float[Tensor, "B N K"]]:
        """Logits of every token from those before it.

        Args:
            text: Ids, L = ``config.text_length``.
            ids: The picture, or the beginning of one; what is predicted from its last token is not computed.

        Returns:
            Of the text tokens (see `targets`), and of the image tokens.
        """
        config, begun = self.config, self.config.begun
        x = torch.cat([self._text(text), self._image(ids[:, :-1], 0)], 1)
        places, turned = x.shape[1], self._turns(x)
        turned = None if turned is None else turned[:places]
        for layer, kind in enumerate(self.kinds):
            around, after = self._around(layer)
            attention, feed = self._parts(layer)
            seen = None if kind == "full" else mask(kind, begun, config.grid, x.device)[:places, :places]
            x = around.added(x, attention(self._shifted(around.norm(x)), turned, seen, None))
            x = after.added(x, feed(self._shifted(after.norm(x))))
        x = self._finished(x)
        weight, bias, words = self.head.weight, self.head.bias, config.text_vocabulary
        said = F.linear(x[:, : begun - 1], weight[:words].to(x.dtype), bias[:words].to(x.dtype))
        return said, self._logits(x[:, begun - 1 :])

    @torch.no_grad()
    def start(self, text: Int[Tensor, "B L"]) -> Written:
        """Read texts."""
        config = self.config
        x = self._text(text)
        places = config.begun + self.length - 1  # nothing comes after the last token, which is never read
        caches = [KeyValues(len(x), config.heads, places, config.head_width, like=x) for _ in self.kinds]
        half = 2 * -(-config.width // 4)
        count = 2 * config.layers if config.shift else 0
        rings = [x.new_zeros(len(x), config.grid, half) for _ in range(count)]
        state = Written(caches, rings, x[:, -1], 0)
        self._advance(x, state, text=True)
        return state

    @torch.no_grad()
    def next(self, ids: Int[Tensor, "B"] | None, state: Written) -> Float[Tensor, "B K"]:
        """Logits of the next image token, after one more was read."""
        if ids is not None:
            self._advance(self._image(ids[:, None], state.written), state)
        return self._logits(self._finished(state.last))

    @torch.no_grad()
    def read(self, ids: Int[Tensor, "B P"], state: Written) -> Float[Tensor, "B K"]:
        """Logits after the first P image tokens of a picture of which none was read before.

        Raises:
            ValueError: Some were.
        """
        if state.written:
            raise ValueError(f"{state.written} tokens of this picture were read already")
        self._advance(self._image(ids, 0), state)
        return self._logits(self._finished(state.last))

    def _advance(self, x: Float[Tensor, "B N D"], state: Written, *, text: bool = False) -> None:
        """Run the next places through all layers: the text, or image tokens."""
        config, count = self.config, x.shape[1]
        start = 0 if text else config.begun + state.written
        turned = self._turns(x)
        if turned is not None:
            turned = turned[start : start + count]
        for layer, kind in enumerate(self.kinds):
            around, after = self._around(layer)
            attention, feed = self._parts(layer)
            seen = None
            if kind != "full" and not text:
                seen = mask(kind, config.begun, config.grid, x.device)[start : start + count, : start + count]
            normed = self._turned_in(around.norm(x), state, 2 * layer, text=text)
            x = around.added(x, attention(normed, turned, seen, state.caches[layer]))
            x = after.added(x, feed(self._turned_in(after.norm(x), state, 2 * layer + 1, text=text)))
        state.last = x[:, -1]
        state.written += 0 if text else count

    def _turned_in(self, x: Float[Tensor, "B N D"], state: Written, norm: int, *, text: bool) -> Tensor:
        """The shift of tokens whose neighbours were read earlier; ``x`` itself may be written over."""
        if not self.config.shift:
            return x
        if text:
            return shift_text(x)
        ring, grid, count = state.rings[norm], self.config.grid, x.shape[1]
        half = ring.shape[2]
        if count > 1:  # from the first token on
            kept = torch.arange(max(0, count - grid), count, device=x.device)
            ring[:, kept % grid] = x[:, kept, :half]
            return shift_image(x, grid)
        place, quarter = state.written % grid, half // 2
        mine = x[:, 0, :half].clone()
        x[:, 0, :quarter] = ring[:, place, :quarter]  # zeros, while there is no row above
        x[:, 0, quarter:half] = ring[:, place - 1, quarter:] if place else 0
        ring[:, place] = mine
        return x

    def _shifted(self, x: Float[Tensor, "B S D"]) -> Float[Tensor, "B S D"]:
        """The shift of a whole sequence."""
        if not self.config.shift:
            return x
        begun = self.config.begun
        return torch.cat([shift_text(x[:, :begun]), shift_image(x[:, begun:], self.config.grid)], 1)

    def _text(self, text: Int[Tensor, "B L"]) -> Float[Tensor, "B S D"]:
        """The beginning and the text, embedded."""
        ids = F.pad(self.targets(text), (1, 0))  # it begins with id 0
        if self.config.extras.tied:
            x = F.embedding(ids, self.head.weight[: self.config.text_vocabulary])
        else:
            x = self.text_embedding(ids)
        return x if self.config.rotary else x + self.text_places.weight

    def _image(self, ids: Int[Tensor, "B N"], place: int) -> Float[Tensor, "B N D"]:
        """Image tokens from a place on, embedded."""
        if self.config.extras.tied:
            x = F.embedding(ids, self.head.weight[self.config.text_vocabulary :])
        else:
            x = self.image_embedding(ids)
        if self.config.rotary:
            return x
        return x + (self.rows + self.columns).flatten(1, 2)[:, place : place + ids.shape[1]]

    def _turns(self, x: Tensor) -> Complex[Tensor, "S 1 p"] | None:
        """Of all places."""
        config = self.config
        return turns(config.head_width, config.begun, config.grid, x.device) if config.rotary else None

    def _around(self, layer: int) -> tuple[Wrapped, Wrapped]:
        return self.around_attention[layer], self.around_feed[layer]  # pyright: ignore[reportReturnType]

    def _parts(self, layer: int) -> tuple[nn.Module, nn.Module]:
        return self.attentions[self.attention_ids[layer]], self.feeds[self.feed_ids[layer]]

    def _finished(self, x: Float[Tensor, "*B D"]) -> Float[Tensor, "*B D"]:
        """What the head reads."""
        return self.norm(x / x.amax(-1, keepdim=True) if self.config.extras.stable else x)

    def _logits(self, x: Float[Tensor, "*B D"]) -> Float[Tensor, "*B K"]:
        """Of image tokens."""
        words = self.config.text_vocabulary
        return F.linear(x, self.head.weight[words:].to(x.dtype), self.head.bias[words:].to(x.dtype))
