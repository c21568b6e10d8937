"""NUWA-Infinity (Wu et al. 2022, arXiv:2207.09814): pictures of any size, patch after patch of tokens.

Autoregression over autoregression: an outer loop goes from patch to patch in an order that is planned beforehand
(`mindseye.networks.direction`), an inner one writes the patch's tokens row by row. A token sees its own patch as far as
it is written, the whole of the nearby patches that are done, and the text. Of those patches every layer's keys and
values are kept (the nearby context pool) until no later patch sees them: memory grows with the canvas' narrower side at
most. Nothing says where on the canvas a patch lies, so a canvas may be longer than any that was trained on.

No weights and no code were published. Where the paper leaves room, or we deviate:

- Where another token lies, relative to the place that is being written, is a learned number a head and layer for every
  distance in rows and columns (as in Swin Transformers, arXiv:2103.14030), across patches as within; the paper adds a
  vector for the offset of the patch. To a head, the neighbour beyond a patch's border is then as near as any other.
- A patch is told which of its sides are the canvas' edges, and nothing else about where it lies.
- Every patch has a slot for its beginning and one for each token. A slot holds a token and predicts the next; the last
  one predicts nothing, and is there to be seen by later patches.
- Pictures only: patches that follow in time are left out.
- Guidance may lead away from a patch that knows neither the text nor its neighbours (`Chain.forgets`), not only from
  one that does not know the text: the neighbours' say is made louder as the text's is. Where the text's alone is,
  patches agree with it more than with each other, and their borders show.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from mindseye.networks.direction import Plan
from mindseye.networks.parti import POCKET_TEXT, Text
from mindseye.nn.attention import attend
from mindseye.nn.cache import KeyValues
from mindseye.nn.layers import Linear
from mindseye.nn.transformer import CrossBlock, start
from mindseye.shapes import Ids

__all__ = ["POCKET", "Chain", "Config", "NUWAInfinity", "Rendering", "from_patches", "to_patches"]

Kept = tuple[Float[Tensor, "B S D"], Float[Tensor, "B S D"]]
"""Keys and values of one patch in one layer."""

_CERTAIN = -1e4
"""Logit of every other code where a code is given: nothing after a softmax, and finite under guidance."""


@dataclass(frozen=True, kw_only=True)
class Config:
    """Shape of a `NUWAInfinity`.

    Attributes:
        text: The encoder.
        codes: Size of the pictures' vocabulary.
        patch: Tokens a side of a patch.
        reach: How many rows and columns of patches away a patch sees.
        width: Channels, of both halves.
        layers: Blocks of the decoder.
        heads: Attention heads, of both halves.
        hidden: Channels inside the perceptrons, of both halves.
    """

    text: Text
    codes: int
    patch: int
    reach: tuple[int, int] = (1, 1)
    width: int
    layers: int
    heads: int
    hidden: int


POCKET = Config(
    text=POCKET_TEXT,
    codes=1024,
    patch=8,
    width=192,
    layers=5,
    heads=6,
    hidden=480,
)
"""Over the pocket VQGAN's tokens: patches of 64x64 pixels, four of them a picture of the corpus."""


@final
@dataclass(eq=False)
class Rendering:
    """How far a canvas has been drawn.

    Attributes:
        step: Which patch of the plan is being written.
        slots: How many of its slots are filled.
        written: Tokens that were read, given patches not counted.
        pool: By step, what each layer keeps of a finished patch that will be seen again.
        own: What each layer sees: nearby patches, and then the patch itself as far as it is written.
        memory: What each layer keeps of the text.
        mask: Which of that counts.
        alone: Which rows see no patch but their own.
    """

    step: int
    slots: int
    written: int
    pool: dict[int, list[Kept]]
    own: list[KeyValues]
    memory: list[KeyValues]
    mask: Bool[Tensor, "B M"]
    alone: Bool[Tensor, "B"]

    def select(self, rows: Int[Tensor, "R"]) -> "Rendering":
        """These rows, each as often as it is named."""
        own, memory = ([each.select(rows) for each in half] for half in (self.own, self.memory))
        pool = {step: [(k[rows], v[rows]) for k, v in kept] for step, kept in self.pool.items()}
        return Rendering(self.step, self.slots, self.written, pool, own, memory, self.mask[rows], self.alone[rows])


@final
class Distances(nn.Module):
    """A number for every distance between the place that is written and a token, a head.

    Args:
        patch: Tokens a side of a patch.
        reach: Patches that are seen in either direction.
        heads: Attention heads.
    """

    index: Tensor

    def __init__(self, patch: int, reach: tuple[int, int], heads: int) -> None:
        super().__init__()
        down, across = reach
        self.reach = reach
        self.slots = patch * patch + 1
        height, width = 2 * (down + 1) * patch, 2 * (across + 1) * patch
        # The last two are for the beginning of the own patch and of another.
        self.table = nn.Parameter(torch.zeros(height * width + 2, heads))
        slot = torch.arange(self.slots)
        # Behind the last place of a patch comes the first of a row that is not there.
        places, tokens = ((slot // patch, slot % patch), ((slot - 1) // patch, (slot - 1) % patch))
        shifts = [torch.arange(-side, side + 1) * patch for side in reach]
        rows = shifts[0][:, None, None, None] + tokens[0] - places[0][:, None] + (down + 1) * patch
        columns = shifts[1][:, None, None] + tokens[1] - places[1][:, None] + (across + 1) * patch
        index = rows * width + columns
        index[..., 0] = height * width + 1
        index[down, across, :, 0] = height * width
        self.register_buffer("index", index, persistent=False)

    def between(self, one: tuple[int, int], other: tuple[int, int]) -> Int[Tensor, "S S"]:
        """Rows of the table: from each slot of one patch to each of another."""
        down, across = self.reach
        return self.index[other[0] - one[0] + down, other[1] - one[1] + across]


@final
class NUWAInfinity(nn.Module):
    """Text to the tokens of a canvas, in the order of a plan."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        sizes = {"width": config.width, "heads": config.heads, "hidden": config.hidden}
        width = config.width
        self.reader = config.text.encoder(**sizes)
        self.embedding = nn.Embedding(config.codes, width)
        self.beginning = nn.Parameter(torch.empty(width))
        self.places = nn.Parameter(torch.empty(config.patch**2 + 1, width))
        self.edges = nn.Parameter(torch.empty(4, width))
        self.blocks = nn.ModuleList(CrossBlock(width, config.heads, config.hidden) for _ in range(config.layers))
        self.distances = nn.ModuleList(
            Distances(config.patch, config.reach, config.heads) for _ in range(config.layers)
        )
        self.norm = nn.LayerNorm(width)
        self.head = Linear(width, config.codes)
        start(self.blocks)
        for table in (self.embedding.weight, self.beginning, self.places, self.edges, self.head.weight):
            nn.init.normal_(table, std=0.02)
        nn.init.zeros_(self.head.bias)

    def forward(self, text: Ids, ids: Int[Tensor, "B N"], plan: Plan) -> tuple[None, Float[Tensor, "B N K"]]:
        """Nothing of the text, and logits of each token from the text and what comes before it and is near.

        Args:
            text: Ids, padded with ``config.text.pad``.
            ids: All tokens of the canvas in the plan's order, those of a patch row by row (`to_patches`).
            plan: Of the canvas; its reach is the network's.

        Raises:
            ValueError: Not as many tokens as the plan has, or another reach.
        """
        size, slots, count = self.config.patch**2, self.config.patch**2 + 1, len(plan)
        self._check(plan)
        if ids.shape[1] != count * size:
            raise ValueError(f"{ids.shape[1]} tokens are not {count} patches of {size}")
        memory, mask = self.reader(text)
        tokens = self.embedding(ids).unflatten(1, (count, size))
        x = torch.cat([self.beginning.expand(len(ids), count, 1, -1), tokens], 2) + self.places
        x = (x + torch.stack([self._sides(plan, step) for step in range(count)])[:, None]).flatten(1, 2)
        index = self._index(plan)
        for block, distances in self._layers:
            bias = torch.cat([distances.table, distances.table.new_full((1, self.config.heads), -torch.inf)])
            bias = bias[index].permute(2, 0, 1)[None]
            x = block(x, partial(attend, heads=self.config.heads, mask=bias), block.remember(memory), mask)
        x = x.unflatten(1, (count, slots))[:, :, :size].flatten(1, 2)
        return None, self.head(self.norm(x))

    def chain(self, plan: Plan, given: Int[Tensor, "1 N"] | None = None) -> "Chain":
        """The network as a writer of one canvas.

        Args:
            plan: Of the canvas; its reach is the network's.
            given: Tokens in the plan's order, -1 where there is none; those of whole patches come first.

        Raises:
            ValueError: Not as many tokens as the plan has, or another reach.
        """
        self._check(plan)
        return Chain(self, plan, given)

    def _check(self, plan: Plan) -> None:
        if plan.reach != self.config.reach:
            raise ValueError(f"the plan sees {plan.reach} patches away, the network {self.config.reach}")

    @property
    def _layers(self) -> list[tuple[CrossBlock, Distances]]:
        pairs = zip(self.blocks, self.distances, strict=True)
        return [(a, b) for a, b in pairs if isinstance(a, CrossBlock) and isinstance(b, Distances)]

    def _sides(self, plan: Plan, step: int) -> Float[Tensor, "D"]:
        """What a patch is told about where it lies."""
        return torch.tensor(plan.edges(step)).to(self.edges) @ self.edges

    def _index(self, plan: Plan) -> Int[Tensor, "T T"]:
        """Rows of the tables of distances, for all slots of a canvas; behind the last one where nothing is seen."""
        distances = self._layers[0][1]
        slots, count = distances.slots, len(plan)
        index = torch.full((count, slots, count, slots), len(distances.table), device=distances.index.device)
        past = torch.ones(slots, slots, dtype=torch.bool, device=index.device).tril()
        for step in range(count):
            own = distances.between(plan.order[step], plan.order[step])
            index[step, :, step] = torch.where(past, own, len(distances.table))
            for seen in plan.context(step):
                index[step, :, seen] = distances.between(plan.order[step], plan.order[seen])
        return index.flatten(2).flatten(0, 1)


@final
@dataclass(frozen=True, eq=False)
class Chain:
    """A writer of one canvas; satisfies `mindseye.autoregression`'s TokenModel and Forgetful.

    Patches that are given whole are not written again: ``length`` counts the others. A token that is given within a
    patch is certain, so it is what is drawn.

    Attributes:
        network: What writes.
        plan: In which order.
        given: Tokens in that order, -1 where there is none.
        keep_all: Whether nothing is dropped from the pool; it changes no number.
        forgets: Whether rows that stand for no text see no patch but their own either.
    """

    network: NUWAInfinity
    plan: Plan
    given: Int[Tensor, "1 N"] | None = None
    keep_all: bool = False
    forgets: bool = False

    def __post_init__(self) -> None:
        if self.given is not None and self.given.shape[1] != len(self.plan) * self._size:
            raise ValueError(f"{self.given.shape[1]} tokens are not {len(self.plan)} patches of {self._size}")

    @property
    def _size(self) -> int:
        return self.network.config.patch**2

    @property
    def ready(self) -> int:
        """How many patches, the first of the plan, are given whole."""
        if self.given is None:
            return 0
        whole = (self.given >= 0).view(len(self.plan), self._size).all(1)
        return int(whole.int().cumprod(0).sum())

    @property
    def length(self) -> int:
        """Tokens to write."""
        return (len(self.plan) - self.ready) * self._size

    @property
    def codes(self) -> int:
        """Different tokens."""
        return self.network.config.codes

    def start(self, text: Ids) -> Rendering:
        """Read the text and the patches that are given."""
        network = self.network
        memory, mask = network.reader(text)
        heads = network.config.heads
        read = [KeyValues.of(*block.remember(memory), heads=heads) for block, _ in network._layers]
        state = Rendering(0, 0, 0, {}, [], read, mask, alone=mask.new_zeros(len(mask), dtype=torch.bool))
        for step in range(self.ready):
            state.step = step
            self._open(state, len(text))
            ids = self.given[:, step * self._size : (step + 1) * self._size].expand(len(text), -1)  # pyright: ignore[reportOptionalSubscript]
            begun = network.beginning.expand(len(text), 1, -1)
            self._fill(torch.cat([begun, network.embedding(ids.to(begun.device))], 1), state)
            self._close(state)
        return state

    def forget(self, untold: Bool[Tensor, "B"], state: Rendering) -> None:
        """Let rows that stand for no text see no patch but their own, where the chain is made so."""
        if self.forgets:
            state.alone = untold

    def next(self, ids: Int[Tensor, "B"] | None, state: Rendering) -> Float[Tensor, "B K"]:
        """Logits of the next token.

        Args:
            ids: The tokens just written; None before the first.
            state: Of `start`; goes one token further, to the next patch where one is full.

        Raises:
            ValueError: The canvas is full, or there is no code where one is needed.
        """
        network, rows = self.network, len(state.mask)
        if (ids is None) != (not state.own):
            raise ValueError("each token but the first needs the one before it")
        if ids is None:
            state.step = self.ready
            self._open(state, rows)
            x = self._fill(network.beginning.expand(rows, 1, -1), state)
        else:
            if state.written + 1 >= self.length:
                raise ValueError(f"the canvas of {len(self.plan)} patches is full")
            x = self._fill(network.embedding(ids)[:, None], state)
            state.written += 1
            if state.slots > self._size:
                self._close(state)
                state.step += 1
                self._open(state, rows)
                x = self._fill(network.beginning.expand(rows, 1, -1), state)
        logits = network.head(network.norm(x[:, -1]))
        place = state.step * self._size + state.slots - 1
        sure = -1 if self.given is None else int(self.given[0, place])
        return (
            logits
            if sure < 0
            else torch.full_like(logits, _CERTAIN).index_fill_(1, torch.tensor([sure]).to(logits.device), 0.0)
        )

    def _open(self, state: Rendering, rows: int) -> None:
        """Begin a patch: what it sees of others is put where its own will follow."""
        network = self.network
        seen = self.plan.context(state.step)
        slots, width = self._size + 1, network.config.width // network.config.heads
        state.own = [
            KeyValues(rows, network.config.heads, (len(seen) + 1) * slots, width, like=network.beginning)
            for _ in network._layers
        ]
        for layer, own in enumerate(state.own):
            for each in seen:
                own.append(*state.pool[each][layer])
        state.slots = 0

    def _fill(self, before: Float[Tensor, "B N D"], state: Rendering) -> Float[Tensor, "B N D"]:
        """The next slots of the patch through all layers."""
        network, plan = self.network, self.plan
        first, last = state.slots, state.slots + before.shape[1]
        x = before + network.places[first:last] + network._sides(plan, state.step)
        own = plan.order[state.step]
        seen = [plan.order[each] for each in (*plan.context(state.step), state.step)]
        kept = len(seen) * (self._size + 1) - (self._size + 1 - last)
        between = network._layers[0][1].between  # the same in every layer
        index = torch.cat([between(own, other)[first:last] for other in seen], 1)[:, :kept]
        others = torch.arange(kept, device=index.device) < kept - last
        unseen = (state.alone[:, None] & others)[:, None, None] if state.alone.any() else None
        for (block, distances), cache, memory in zip(network._layers, state.own, state.memory, strict=True):
            bias = distances.table[index].permute(2, 0, 1)[None]
            if last - first > 1:
                past = torch.ones(last - first, kept, dtype=torch.bool, device=bias.device).tril(kept - last + first)
                bias = bias.masked_fill(~past, -torch.inf)
            if unseen is not None:
                bias = bias.masked_fill(unseen, -torch.inf)
            x = block(x, _over(cache, bias), memory, state.mask)
        state.slots = last
        return x

    def _close(self, state: Rendering) -> None:
        """End a patch: it goes into the pool, and what nobody will see goes out."""
        slots = self._size + 1
        kept = [tuple(each[:, :, -slots:].transpose(1, 2).flatten(2) for each in own.held) for own in state.own]
        state.pool[state.step] = kept  # pyright: ignore[reportArgumentType]
        state.own = []
        needed = range(len(self.plan)) if self.keep_all else self.plan.needed(state.step)
        state.pool = {step: each for step, each in state.pool.items() if step in needed}


def _over(cache: KeyValues, bias: Float[Tensor, "#B H N M"]) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """Attention over what is kept and what comes in."""
    return lambda q, k, v: cache.append(k, v).look(q, mask=bias)


def to_patches(ids: Int[Tensor, "B N"], plan: Plan, patch: int) -> Int[Tensor, "B N"]:
    """Tokens of a canvas, row by row, into the order of a plan.

    Args:
        ids: Of ``plan.rows * patch`` rows.
        plan: Of the canvas.
        patch: Tokens a side of a patch.

    Raises:
        ValueError: Not as many tokens as the canvas has.
    """
    if ids.shape[1] != len(plan) * patch * patch:
        raise ValueError(f"{ids.shape[1]} tokens are not {len(plan)} patches of {patch * patch}")
    grid = ids.view(len(ids), plan.rows, patch, plan.columns, patch).transpose(2, 3)
    order = torch.tensor([row * plan.columns + column for row, column in plan.order], device=ids.device)
    return grid.flatten(1, 2)[:, order].flatten(1)


def from_patches(ids: Int[Tensor, "B N"], plan: Plan, patch: int) -> Int[Tensor, "B N"]:
    """The inverse of `to_patches`."""
    if ids.shape[1] != len(plan) * patch * patch:
        raise ValueError(f"{ids.shape[1]} tokens are not {len(plan)} patches of {patch * patch}")
    order = torch.tensor([row * plan.columns + column for row, column in plan.order], device=ids.device)
    patches = ids.view(len(ids), len(plan), patch, patch)[:, order.argsort()]
    return patches.unflatten(1, (plan.rows, plan.columns)).transpose(2, 3).flatten(1)
