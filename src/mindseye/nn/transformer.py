"""The pre-norm transformer block, the stack of it, and the block that also reads another sequence.

Attention and a two-layer perceptron, each behind a LayerNorm and added to what came in (Vaswani et al. 2017,
arXiv:1706.03762, in the order of GPT-2). Queries, keys and values come from one fused projection, as the releases that
store `in_proj_weight` do; it is one large product instead of three small ones.

The releases compute LayerNorm in float32 by hand when weights are half; torch's own kernel accumulates in float32, so
nothing special is done here.
"""

from collections.abc import Callable, Iterable
from typing import Any, Literal, TypeAlias, cast, final

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from mindseye.nn.attention import attend
from mindseye.nn.cache import KeyValues
from mindseye.nn.layers import Linear

Activation = Literal["quick_gelu", "gelu", "tanh"]
"""Which curve a perceptron bends by: OpenAI's approximation, the exact Gaussian one, or the hyperbolic tangent."""


_QUICK = 1.702


def quick_gelu(x: Float[Tensor, "*S"]) -> Float[Tensor, "*S"]:
    """The cheap approximation of GELU in OpenAI's CLIP: x times sigmoid of 1.702 x (Hendrycks & Gimpel 2016).

    As ``silu(1.702 x) / 1.702``, for which torch has kernels; written out, it is nine passes over memory there and back
    and keeps two maps for the way back, where this is four and one.
    """
    if torch.is_grad_enabled() and x.requires_grad:
        return cast(Tensor, _QuickGelu.apply(x))
    return F.silu(x * _QUICK, inplace=True).mul_(1 / _QUICK)


@final
class _QuickGelu(torch.autograd.Function):
    """`quick_gelu` with a gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        faster = x * _QUICK
        ctx.save_for_backward(faster)
        return F.silu(faster).mul_(1 / _QUICK)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *grads: Any) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        (faster,) = ctx.saved_tensors
        return torch.ops.aten.silu_backward(grads[0], faster)


Look: TypeAlias = Callable[
    [Float[Tensor, "B N HD"], Float[Tensor, "B N HD"], Float[Tensor, "B N HD"]], Float[Tensor, "B N HD"]
]
"""What a sequence sees of itself: from queries, keys and values to what was attended to. Causal, over a cache, in a
neighbourhood: the block does not care."""

ACTIVATIONS = {"quick_gelu": quick_gelu, "gelu": nn.functional.gelu, "tanh": torch.tanh}


@final
class Block(nn.Module):
    """x + attention(norm(x)), then x + perceptron(norm(x)).

    Args:
        width: channels.
        heads: attention heads; divides `width`.
        hidden: channels inside the perceptron; 4 x `width` if not given.
        activation: the perceptron's curve.
        bias: whether queries, keys and values have biases.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        hidden: int | None = None,
        activation: Activation = "gelu",
        *,
        bias: bool = True,
    ) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"{heads} heads do not divide a width of {width}")
        hidden = hidden or 4 * width
        self.heads, self.activate = heads, ACTIVATIONS[activation]
        self.attention_norm = nn.LayerNorm(width)
        self.qkv = Linear(width, 3 * width, bias=bias)
        self.out = Linear(width, width)
        self.mlp_norm = nn.LayerNorm(width)
        self.up = Linear(width, hidden)
        self.down = Linear(hidden, width)

    def forward(
        self,
        x: Float[Tensor, "B L D"],
        mask: Bool[Tensor, "B L"] | None = None,
        causal: bool = False,
        cache: KeyValues | None = None,
        most: int | None = None,
    ) -> Float[Tensor, "B M D"]:
        """One step of refinement.

        Args:
            x: the sequence, or its next places where there is a `cache`.
            mask: True where a place may be looked at.
            causal: hides what comes later.
            cache: keys and values of the places before; those of `x` are added to it.
            most: answer for the first so many places alone, which look at all; not with `causal` or a `cache`.
        """
        seen = self.attention_norm(x)
        if most is None:
            q, k, v = self.qkv(seen).chunk(3, dim=-1)
        else:
            width, weight = x.shape[-1], self.qkv.weight.to(x.dtype)
            bias = None if self.qkv.bias is None else self.qkv.bias.to(x.dtype)
            q = F.linear(seen[:, :most], weight[:width], None if bias is None else bias[:width])
            k, v = F.linear(seen, weight[width:], None if bias is None else bias[width:]).chunk(2, dim=-1)
            x = x[:, :most]
        if cache is None:
            looked = attend(q, k, v, heads=self.heads, mask=mask, causal=causal)
        else:
            looked = cache.append(k, v).look(q, mask=mask, causal=causal)
        x = self.out.onto(x, looked)
        return self.down.onto(x, self.up.activated(self.mlp_norm(x), self.activate))


@final
class CrossBlock(nn.Module):
    """x + self-attention, + attention to a memory, + perceptron, each of them behind a norm.

    The decoder's block of Vaswani et al. 2017 in the order of GPT-2. How the sequence sees itself is an argument
    (`Look`), and the memory's keys and values are made once for all steps by `remember`.

    Args:
        width: channels.
        heads: attention heads; divides `width`.
        hidden: channels inside the perceptron; 4 x `width` if not given.
        activation: the perceptron's curve.
    """

    def __init__(self, width: int, heads: int, hidden: int | None = None, activation: Activation = "gelu") -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"{heads} heads do not divide a width of {width}")
        hidden = hidden or 4 * width
        self.heads, self.activate = heads, ACTIVATIONS[activation]
        self.attention_norm = nn.LayerNorm(width)
        self.qkv = Linear(width, 3 * width)
        self.out = Linear(width, width)
        self.memory_norm = nn.LayerNorm(width)
        self.query = Linear(width, width)
        self.memory = Linear(width, 2 * width)
        self.read = Linear(width, width)
        self.mlp_norm = nn.LayerNorm(width)
        self.up = Linear(width, hidden)
        self.down = Linear(hidden, width)

    def remember(self, memory: Float[Tensor, "B M D"]) -> tuple[Float[Tensor, "B M D"], Float[Tensor, "B M D"]]:
        """The memory's keys and values."""
        keys, values = self.memory(memory).chunk(2, dim=-1)
        return keys, values

    def forward(
        self,
        x: Float[Tensor, "B N D"],
        look: Look,
        memory: tuple[Float[Tensor, "B M D"], Float[Tensor, "B M D"]] | KeyValues,
        mask: Bool[Tensor, "B M"] | None = None,
    ) -> Float[Tensor, "B N D"]:
        """One step of refinement.

        Args:
            x: the sequence, or the part of it that is new.
            look: what it sees of itself.
            memory: what `remember` made, or a cache of it.
            mask: True where a place of the memory counts.
        """
        q, k, v = self.qkv(self.attention_norm(x)).chunk(3, dim=-1)
        x = self.out.onto(x, look(q, k, v))
        q = self.query(self.memory_norm(x))
        if isinstance(memory, KeyValues):
            looked = memory.look(q, mask=mask)
        else:
            looked = attend(q, *memory, heads=self.heads, mask=mask)
        x = self.read.onto(x, looked)
        return self.down.onto(x, self.up.activated(self.mlp_norm(x), self.activate))


@torch.no_grad()
def start(blocks: Iterable[nn.Module]) -> None:
    """Starting weights of all blocks of a stack, as in GPT-2 and CLIP's text tower.

    Normal, with a deviation that shrinks with the width and, for what is added to the residual stream, with the depth;
    biases start at zero.
    """
    blocks = list(blocks)
    for block in blocks:
        (width,) = block.get_parameter("out.bias").shape
        deep = width**-0.5 * (2 * len(blocks)) ** -0.5
        scales = {"out": deep, "read": deep, "down": deep, "up": (2 * width) ** -0.5}
        for name, linear in block.named_children():
            if isinstance(linear, nn.Linear):
                nn.init.normal_(linear.weight, std=scales.get(name, width**-0.5))
                if linear.bias is not None:
                    nn.init.zeros_(linear.bias)


@final
class Stack(nn.Module):
    """Blocks one after the other, without a final norm.

    Args:
        width: channels.
        layers: how many blocks.
        heads: attention heads; divides `width`.
        hidden: channels inside the perceptrons; 4 x `width` if not given.
        activation: the perceptrons' curve.
        bias: whether queries, keys and values have biases.
    """

    def __init__(
        self,
        width: int,
        layers: int,
        heads: int,
        hidden: int | None = None,
        activation: Activation = "gelu",
        *,
        bias: bool = True,
    ) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(width, heads, hidden, activation, bias=bias) for _ in range(layers))
        start(self.blocks)

    def forward(
        self,
        x: Float[Tensor, "B L D"],
        mask: Bool[Tensor, "B L"] | None = None,
        causal: bool = False,
        skip: int = 0,
        last: int | None = None,
    ) -> tuple[Float[Tensor, "B M D"], Float[Tensor, "B N D"]]:
        """Runs all blocks.

        Args:
            x: the sequence.
            mask: True where a place may be looked at.
            causal: hides later places from earlier ones.
            skip: blocks to leave out of the second answer, 0 to `layers`.
            last: how many places the last block answers for, from the first on; all when None.

        Returns:
            what left the last block, and what left the last but `skip`.
        """
        if not 0 <= skip <= len(self.blocks):
            raise ValueError(f"cannot skip {skip} of {len(self.blocks)} blocks")
        early = x
        for index, block in enumerate(self.blocks, start=1):
            x = block(x, mask, causal, most=last if index == len(self.blocks) else None)
            if index == len(self.blocks) - skip:
                early = x
        return x, early
