"""Attention: the only caller of ``scaled_dot_product_attention`` in the project.

Queries, keys and values travel as ``B N (heads d)``, the way the linear layers around them make and take them; heads
are split here and nowhere else; only a cache (`mindseye.nn.cache`) keeps keys and values split. Scores are scaled by
``1 / sqrt(d)`` (Vaswani et al. 2017, arXiv:1706.03762). Which kernel runs (flash, memory-efficient, plain) is torch's
business.
"""

from contextlib import nullcontext
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
    dtype = q.dtype
    # torch's backward kernel for bfloat16 takes five times as long as that for float32 on a CPU.
    wide = dtype == torch.bfloat16 and q.device.type == "cpu" and q.requires_grad
    if wide:
        q, k, v = q.float(), k.float(), v.float()
        mask = mask if mask is None or mask.dtype == torch.bool else mask.float()
    with torch.autocast("cpu", enabled=False) if wide else nullcontext():
        seen = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal)
    return seen.to(dtype).transpose(1, 2).flatten(-2)


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
