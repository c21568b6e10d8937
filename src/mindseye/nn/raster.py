"""The half of an encoder-decoder that writes: a grid of codes, frame by frame and row by row, while it reads a memory.

Each slot holds the code just written and the place of the one that comes next, so that a place is known before
anything stands there. Places are the sum of a learned vector for the frame, the row and the column.
"""

from dataclasses import dataclass
from functools import partial
from typing import final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from mindseye.nn.attention import attend
from mindseye.nn.cache import KeyValues
from mindseye.nn.layers import Linear
from mindseye.nn.nearby import Grid, Neighbourhood
from mindseye.nn.transformer import CrossBlock, Look, start

__all__ = ["RasterDecoder", "Writing"]


@final
@dataclass(eq=False)
class Writing:
    """How far a grid has been written.

    Attributes:
        slots: How many are filled: the beginning and the codes that were read.
        own: What each layer keeps of them.
        memory: What each layer keeps of what it reads.
        mask: Which of that counts.
    """

    slots: int
    own: list[KeyValues]
    memory: list[KeyValues]
    mask: Bool[Tensor, "B M"] | None

    @property
    def written(self) -> int:
        """Codes that were read."""
        return max(self.slots - 1, 0)

    def select(self, rows: Int[Tensor, "R"]) -> "Writing":
        """These rows, each as often as it is named."""
        own, memory = ([each.select(rows) for each in half] for half in (self.own, self.memory))
        return Writing(self.slots, own, memory, None if self.mask is None else self.mask[rows])


@final
class RasterDecoder(nn.Module):
    """Codes of a grid, each from those before it and a memory.

    Args:
        codes: different codes.
        grid: frames, rows and columns.
        reach: how far a place sees in each direction (`mindseye.nn.nearby`); None = all that is written.
        width: channels.
        layers: blocks.
        heads: attention heads; divides `width`.
        hidden: channels inside the perceptrons.
    """

    def __init__(
        self, codes: int, grid: Grid, reach: Grid | None, *, width: int, layers: int, heads: int, hidden: int
    ) -> None:
        super().__init__()
        self.grid, self.heads, self.codes = grid, heads, codes
        self.embedding = nn.Embedding(codes, width)
        self.beginning = nn.Parameter(torch.empty(width))
        self.frames, self.rows, self.columns = (nn.Parameter(torch.empty(side, width)) for side in grid)
        self.blocks = nn.ModuleList(CrossBlock(width, heads, hidden) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.head = Linear(width, codes)
        self.nearby = None if reach is None else Neighbourhood(grid, reach)
        start(self.blocks)
        for table in (self.embedding.weight, self.beginning, self.frames, self.rows, self.columns):
            nn.init.normal_(table, std=0.02)
        nn.init.normal_(self.head.weight, std=0.02)
        nn.init.zeros_(self.head.bias)

    @property
    def length(self) -> int:
        """Places of the grid."""
        return self.grid[0] * self.grid[1] * self.grid[2]

    @property
    def _layers(self) -> list[CrossBlock]:
        return [block for block in self.blocks if isinstance(block, CrossBlock)]

    def forward(
        self,
        ids: Int[Tensor, "B N"],
        memory: Float[Tensor, "B M D"],
        mask: Bool[Tensor, "B M"] | None = None,
    ) -> Float[Tensor, "B N K"]:
        """What each code was expected to be, before it was seen.

        Args:
            ids: the first N codes of the grid.
            memory: what is read.
            mask: True where it counts.

        Raises:
            ValueError: more codes than the grid has places.
        """
        count = ids.shape[1]
        if count > self.length:
            raise ValueError(f"{count} codes do not fit a grid of {self.length}")
        x = self._begun(ids[:, : count - 1]) + self._places(0, count)
        look = self._look()
        for block in self._layers:
            x = block(x, look, block.remember(memory), mask)
        return self.head(self.norm(x))

    def begin(
        self, memory: Float[Tensor, "B M D"], mask: Bool[Tensor, "B M"] | None = None, length: int | None = None
    ) -> Writing:
        """An empty grid.

        Args:
            memory: what is read.
            mask: True where it counts.
            length: places that will be drawn; all when None.
        """
        rows, width = len(memory), memory.shape[2] // self.heads
        own = [KeyValues(rows, self.heads, length or self.length, width, like=memory) for _ in self.blocks]
        read = [KeyValues.of(*block.remember(memory), heads=self.heads) for block in self._layers]
        return Writing(0, own, read, mask)

    def read(self, ids: Int[Tensor, "B P"], state: Writing) -> Float[Tensor, "B K"]:
        """What comes after the first codes of an empty grid, all of them read at once.

        Args:
            ids: the codes, fewer than the grid has places.
            state: of `begin`; goes to behind them.

        Raises:
            ValueError: too many codes, or the grid is not empty.
        """
        count = ids.shape[1] + 1
        if state.slots or count > self.length:
            raise ValueError(
                f"{count - 1} codes cannot begin a grid of {self.length} places, {state.slots} of them drawn"
            )
        return self._advance(self._begun(ids), state)

    def step(self, ids: Int[Tensor, "B"] | None, state: Writing) -> Float[Tensor, "B K"]:
        """What comes next, as `forward` would say.

        Args:
            ids: the codes just written; None before the first.
            state: goes one place further.

        Raises:
            ValueError: the grid is full, or there is no code where one is needed.
        """
        if state.slots >= self.length or (ids is None) != (state.slots == 0):
            raise ValueError(
                f"{state.slots} of {self.length} places are drawn; each but the first needs the code before it"
            )
        rows = state.memory[0].rows
        before = self.beginning.expand(rows, 1, -1) if ids is None else self.embedding(ids)[:, None]
        return self._advance(before, state)

    def _advance(self, before: Float[Tensor, "B N D"], state: Writing) -> Float[Tensor, "B K"]:
        """Write N slots into the caches; what the last of them predicts."""
        start, stop = state.slots, state.slots + before.shape[1]
        x = before + self._places(start, stop)
        for block, own, memory in zip(self.blocks, state.own, state.memory, strict=True):
            x = block(x, partial(self._recall, own, start), memory, state.mask)
        state.slots = stop
        return self.head(self.norm(x[:, -1]))

    def _recall(
        self,
        own: KeyValues,
        start: int,
        q: Float[Tensor, "B N D"],
        k: Float[Tensor, "B N D"],
        v: Float[Tensor, "B N D"],
    ) -> Float[Tensor, "B N D"]:
        """What new places see of what is kept and of each other."""
        own.append(k, v)
        if q.shape[1] > 1:
            return self._look()(q, k, v)
        if self.nearby is not None:
            seen = self.nearby.sees(start).to(q.device)
            if len(seen) < start + 1:
                return attend(q, *(each.index_select(2, seen) for each in own.held), heads=self.heads)
        return own.look(q)

    def _begun(self, ids: Int[Tensor, "B N"]) -> Float[Tensor, "B M D"]:
        """The beginning, and then codes."""
        return torch.cat([self.beginning.expand(len(ids), 1, -1), self.embedding(ids)], 1)

    def _look(self) -> Look:
        """How a sequence from the beginning sees itself."""
        if self.nearby is not None:
            return self.nearby.looks(self.heads)
        return partial(attend, heads=self.heads, causal=True)

    def _places(self, start: int, stop: int) -> Float[Tensor, "N D"]:
        """The vectors of places in the order they are written."""
        place = torch.arange(start, stop, device=self.rows.device)
        _, height, width = self.grid
        row, column = place // width % height, place % width
        return self.frames[place // (height * width)] + self.rows[row] + self.columns[column]
