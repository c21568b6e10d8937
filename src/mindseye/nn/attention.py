"""Attention: the only caller of ``scaled_dot_product_attention`` in the project.

Queries, keys and values travel as ``B N (heads d)``, the way the linear layers around them make and take them; heads
are split here and nowhere else; only a cache (`mindseye.nn.cache`) keeps keys and values split. Scores are scaled by
``1 / sqrt(d)`` (Vaswani et al. 2017, arXiv:1706.03762). Which kernel runs (flash, memory-efficient, plain) is torch's
business.
"""

from contextlib import nullcontext
from functools import lru_cache
from typing import final

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from mindseye.nn.layers import Linear

__all__ = ["Attention", "attend"]


def attend(
    q: Float[Tensor, "B N HD"],
    k: Float[Tensor, "B M HD"] | Float[Tensor, "B H M d"],
    v: Float[Tensor, "B M HD"] | Float[Tensor, "B H M d"],
    *,
    heads: int,
    mask: Bool[Tensor, "B M"] | Bool[Tensor, "#B #H #N #M"] | Float[Tensor, "#B #H #N #M"] | None = None,
    causal: bool = False,
) -> Float[Tensor, "B N HD"]:
    """Multi-head attention of already projected queries over keys and values.

    Args:
        q: Queries, ``B N (heads d)``.
        k: Keys, ``B M (heads d)``, or ``B heads M d`` out of a cache.
        v: Values, of the same form.
        heads: Number of heads; must divide the last axis.
        mask: Boolean ``B M`` (True = this key counts), boolean ``B heads N M`` or a float of that shape that is added
            to the scores; axes of the four-axis forms may be 1.
        causal: Query i sees keys up to its own place. With fewer queries than keys (a cache), the queries are the last
            ``N`` of the ``M`` places.

    Returns:
        ``B N (heads d)``.
    """
    rows, columns = q.shape[1], k.shape[-2]
    if mask is not None and mask.ndim == 2:
        mask = mask[:, None, None, :]
    if causal and (mask is not None or rows != columns):
        past = torch.ones(rows, columns, dtype=torch.bool, device=q.device).tril(columns - rows)
        if mask is None:
            mask = past
        else:
            mask = mask & past if mask.dtype == torch.bool else mask.masked_fill(~past, float("-inf"))
        causal = False
    q, k, v = (t if t.ndim == 4 else t.unflatten(-1, (heads, -1)).transpose(1, 2) for t in (q, k, v))
    if mask is None and not causal and _in_blocks(q):
        return _by_blocks(q, k, v).transpose(1, 2).flatten(-2)
    dtype = q.dtype
    # On a CPU torch's kernel for bfloat16 takes two to three times as long as widening and that for float32 where there
    # is a single query, and five times as long on the way back.
    wide = dtype == torch.bfloat16 and q.device.type == "cpu" and (rows == 1 or q.requires_grad)
    if wide:
        q, k, v = q.float(), k.float(), v.float()
        mask = mask if mask is None or mask.dtype == torch.bool else mask.float()
    with torch.autocast("cpu", enabled=False) if wide else nullcontext():
        seen = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal)
    return seen.to(dtype).transpose(1, 2).flatten(-2)


_BLOCK = 1 << 21
"""Scores of a block: four megabytes. Half of it is 5 % slower, more is no faster."""


_FEW = 64
"""Queries below which heads are not worth being laid out anew."""


def _in_blocks(q: Tensor) -> bool:
    """Where torch's kernel for bfloat16 does without the processor's instructions for it, and products alone do not."""
    narrow = q.device.type == "cpu" and q.dtype == torch.bfloat16 and q.shape[-2] >= _FEW
    return narrow and not torch.is_grad_enabled() and _products_are_faster()


@lru_cache(maxsize=1)
def _products_are_faster() -> bool:
    # torch's flash attention uses AMX where there is some, and widens to float32 elsewhere.
    return torch.cpu._is_avx512_bf16_supported() and not torch.cpu._is_amx_tile_supported()


def _by_blocks(
    q: Float[Tensor, "B H N d"], k: Float[Tensor, "B H M d"], v: Float[Tensor, "B H M d"]
) -> Float[Tensor, "B H N d"]:
    """Scores, their softmax, and the values weighted by it, some heads and queries at a time.

    The three steps of attention as torch has them one by one, on blocks that stay in the cache. Scores and weights are
    rounded to bfloat16 between the steps.
    """
    batch, heads, count, width = q.shape
    q, k, v = (t.flatten(0, 1) for t in (q, k, v))
    keys, out = k.transpose(1, 2), torch.empty_like(q)
    rows = min(count, max(1, _BLOCK // k.shape[1]))
    some = max(1, _BLOCK // (rows * k.shape[1]))
    room = q.new_empty(some, rows, k.shape[1])
    for mine, theirs, values, target in zip(*(t.split(some) for t in (q, keys, v, out)), strict=True):
        for block, answer in zip(mine.split(rows, 1), target.split(rows, 1), strict=True):
            scores = room[: len(block), : block.shape[1]]
            torch.baddbmm(scores, block, theirs, beta=0, alpha=width**-0.5, out=scores)
            torch.bmm(torch.softmax(scores, -1, out=scores), values, out=answer)
    return out.unflatten(0, (batch, heads))


@final
class Attention(nn.Module):
    """Query, key, value and output projections around `attend`: self-attention, or cross-attention to a context.

    Args:
        width: Channels in and out.
        heads: Number of heads.
        context: Channels of the context; None = self-attention.
        bias: Whether the three input projections have biases. The output projection always has one.
    """

    def __init__(self, width: int, *, heads: int, context: int | None = None, bias: bool = False) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"{width} channels cannot be split into {heads} heads")
        self.heads = heads
        self.query = Linear(width, width, bias=bias)
        self.key = Linear(context or width, width, bias=bias)
        self.value = Linear(context or width, width, bias=bias)
        self.out = Linear(width, width)

    def forward(
        self,
        x: Float[Tensor, "B N C"],
        context: Float[Tensor, "B M D"] | None = None,
        mask: Bool[Tensor, "B M"] | None = None,
    ) -> Float[Tensor, "B N C"]:
        """Attend from ``x`` to ``context``, or to ``x`` itself without one; ``mask`` is True where a key counts."""
        source = x if context is None else context
        return self.out(attend(self.query(x), self.key(source), self.value(source), heads=self.heads, mask=mask))
