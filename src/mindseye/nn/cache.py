"""Keys and values that attention has seen already, kept where the next step reads them.

A model that writes one token at a time needs of all earlier tokens only their keys and values. They lie in memory that
is taken once, for as many places as there will ever be, and each step writes its own beside them: nothing grows,
nothing is copied. Heads come before places, so that what one head reads for one query is one stretch of memory: on a
processor a step is bound by reading, and in this order it takes 0.6 to 0.8 of the time.

Cross-attention reads the same keys and values at every step: `KeyValues.of` holds what was computed once.

In bfloat16 on a processor, what one new query sees is computed as sums of rows, each with a weight: values by what the
query gives to their places, and scores too, for keys are kept as columns, one row a channel of a head, weighted by the
query. torch has such sums for tables of embeddings (`torch.nn.functional.embedding_bag`), and where FBGEMM carries them
out they widen as they read: they go at the speed of memory, where every other way tried here (torch's kernel, its
products, either of them after widening) takes twice the time. Scores and weights are rounded to bfloat16 on the way.
"""

from functools import lru_cache
from typing import final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from mindseye.nn.attention import attend

__all__ = ["KeyValues"]

BLOCK = 32
"""Places of a row of columns: in bfloat16 as much as a processor fetches at once, 64 bytes."""


@final
class KeyValues:
    """Keys and values of one layer.

    Args:
        rows: Sequences.
        heads: Attention heads.
        places: Tokens there is room for.
        width: Channels of one head.
        like: The dtype and device of what will be kept.
    """

    def __init__(self, rows: int, heads: int, places: int, width: int, *, like: Tensor) -> None:
        self._values = torch.empty(rows, heads, places, width, dtype=like.dtype, device=like.device)
        self._columns = _sums_are_faster(like)
        if self._columns:  # zeros, for a row's places are read before all of them are taken
            self._keys = self._values.new_zeros(-(-places // BLOCK), rows, heads, width, BLOCK)
        else:
            self._keys = torch.empty_like(self._values)
        self._filled = 0

    @classmethod
    def of(cls, k: Float[Tensor, "B M HD"], v: Float[Tensor, "B M HD"], *, heads: int) -> "KeyValues":
        """A cache that is full from the beginning: what cross-attention looks at."""
        return cls(len(k), heads, k.shape[1], k.shape[2] // heads, like=k).append(k, v)

    @property
    def rows(self) -> int:
        """Sequences."""
        return len(self._values)

    @property
    def filled(self) -> int:
        """Places that are taken."""
        return self._filled

    @property
    def held(self) -> tuple[Float[Tensor, "B H M d"], Float[Tensor, "B H M d"]]:
        """What is kept so far; views, but for keys that are kept as columns."""
        keys = self._keys
        if self._columns:
            keys = keys.permute(1, 2, 0, 4, 3).flatten(2, 3)
        return keys[:, :, : self._filled], self._values[:, :, : self._filled]

    def append(self, k: Float[Tensor, "B N HD"], v: Float[Tensor, "B N HD"]) -> "KeyValues":
        """Write the next places.

        Args:
            k: Keys as the projection gives them, ``B N (heads d)``.
            v: Values.

        Returns:
            The cache itself, to be looked at.

        Raises:
            ValueError: There is no room left for them.
        """
        start, end = self._filled, self._filled + k.shape[1]
        heads, places = self._values.shape[1:3]
        if end > places:
            raise ValueError(f"there is room for {places} places, not for {end}")
        k, v = (each.unflatten(-1, (heads, -1)).transpose(1, 2) for each in (k, v))
        self._values[:, :, start:end] = v
        if self._columns:
            for first in range(start - start % BLOCK, end, BLOCK):
                low, high = max(start, first), min(end, first + BLOCK)
                block = self._keys[first // BLOCK, ..., low - first : high - first]
                block.copy_(k[:, :, low - start : high - start].transpose(-1, -2))
        else:
            self._keys[:, :, start:end] = k
        self._filled = end
        return self

    def look(
        self,
        q: Float[Tensor, "B N HD"],
        *,
        mask: Bool[Tensor, "B M"] | Bool[Tensor, "#B #H #N M"] | Float[Tensor, "#B #H #N M"] | None = None,
        causal: bool = False,
    ) -> Float[Tensor, "B N HD"]:
        """What queries see of what is kept.

        Args:
            q: As the projection gives them, ``B N (heads d)``.
            mask: As in `attend`.
            causal: The queries are those of the last places, and each sees what was kept up to its own.
        """
        if self._columns and q.shape[1] == 1 and not q.requires_grad:
            return self._summed(q, mask)
        return attend(q, *self.held, heads=self._values.shape[1], mask=mask, causal=causal)

    def select(self, rows: Int[Tensor, "R"]) -> "KeyValues":
        """A cache of these rows, each as often as it is named; what is kept is copied, what comes is theirs alone."""
        _, heads, places, width = self._values.shape
        made, rows = KeyValues(len(rows), heads, places, width, like=self._values), rows.to(self._values.device)
        made._values[:, :, : self._filled] = self._values[:, :, : self._filled].index_select(0, rows)
        if self._columns:
            blocks = -(-self._filled // BLOCK)
            made._keys[:blocks] = self._keys[:blocks].index_select(1, rows)
        else:
            made._keys[:, :, : self._filled] = self._keys[:, :, : self._filled].index_select(0, rows)
        made._filled = self._filled
        return made

    def _summed(self, q: Float[Tensor, "B 1 HD"], mask: Tensor | None) -> Float[Tensor, "B 1 HD"]:
        """`attend`, for one query a row, as two weighted sums."""
        rows, heads, places, width = self._values.shape
        each, blocks = rows * heads, -(-self._filled // BLOCK)
        index, starts = _in_order(blocks * each, width)
        shares = (q * width**-0.5).flatten().expand(blocks, -1).flatten()
        scores = _sums(self._keys.view(-1, BLOCK), index, starts, shares)
        scores = scores.view(blocks, each, BLOCK).transpose(0, 1).flatten(1)[:, : self._filled]
        if mask is not None:
            scores = scores.view(rows, heads, 1, -1)
            mask = mask[:, None, None] if mask.ndim == 2 else mask
            scores = scores.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else scores + mask
        shares = scores.softmax(-1).to(q.dtype).flatten()
        index, starts = _first(each, self._filled, places)
        return _sums(self._values.view(-1, width), index, starts, shares).view(rows, 1, -1)


def _sums(
    table: Float[Tensor, "R d"], index: Int[Tensor, "N"], starts: Int[Tensor, "T"], shares: Float[Tensor, "N"]
) -> Float[Tensor, "S d"]:
    """Sums of weighted rows of a table; ``starts`` says where each begins, and in the end where the last one ends."""
    return F.embedding_bag(index, table, starts, mode="sum", per_sample_weights=shares, include_last_offset=True)


def _sums_are_faster(like: Tensor) -> bool:
    """Whether keys are kept as columns."""
    return like.device.type == "cpu" and like.dtype == torch.bfloat16 and _has_fbgemm()


@lru_cache(maxsize=1)
def _has_fbgemm() -> bool:
    return "fbgemm" in torch.backends.quantized.supported_engines


@lru_cache(maxsize=4)
def _in_order(sums: int, count: int) -> tuple[Int[Tensor, "N"], Int[Tensor, "S"]]:
    """The rows of sums of ``count`` rows, each behind the last, and where each begins."""
    return torch.arange(sums * count, dtype=torch.int32), torch.arange(sums + 1, dtype=torch.int32) * count


@lru_cache(maxsize=4)
def _first(sums: int, count: int, apart: int) -> tuple[Int[Tensor, "N"], Int[Tensor, "S"]]:
    """The rows of sums of the first ``count`` rows out of every ``apart``, and where each begins."""
    starts = torch.arange(sums + 1, dtype=torch.int32)
    return (starts[:-1, None] * apart + torch.arange(count, dtype=torch.int32)).flatten(), starts * count
