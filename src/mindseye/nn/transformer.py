"""The pre-norm transformer block and the stack of it.

Attention and a two-layer perceptron, each behind a LayerNorm and added to what came in (Vaswani et al. 2017,
arXiv:1706.03762, in the order of GPT-2). Queries, keys and values come from one fused projection, as the releases that
store `in_proj_weight` do; it is one large product instead of three small ones.

The releases compute LayerNorm in float32 by hand when weights are half; torch's own kernel accumulates in float32, so
nothing special is done here.
"""

from typing import Literal, final

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from mindseye.nn.attention import attend
from mindseye.nn.layers import Linear

Activation = Literal["quick_gelu", "gelu"]
"""Which curve a perceptron bends by: OpenAI's approximation, or the exact Gaussian one."""


def quick_gelu(x: Float[Tensor, "*S"]) -> Float[Tensor, "*S"]:
    """The cheap approximation of GELU in OpenAI's CLIP: x times sigmoid of 1.702 x (Hendrycks & Gimpel 2016)."""
    return x * torch.sigmoid(1.702 * x)


ACTIVATIONS = {"quick_gelu": quick_gelu, "gelu": nn.functional.gelu}


@final
class Block(nn.Module):
    """x + attention(norm(x)), then x + perceptron(norm(x)).

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
        self.mlp_norm = nn.LayerNorm(width)
        self.up = Linear(width, hidden)
        self.down = Linear(hidden, width)

    def forward(
        self, x: Float[Tensor, "B L D"], mask: Bool[Tensor, "B L"] | None = None, causal: bool = False
    ) -> Float[Tensor, "B L D"]:
        """One step of refinement; `mask` is True where a place may be looked at, `causal` hides what comes later."""
        q, k, v = self.qkv(self.attention_norm(x)).chunk(3, dim=-1)
        x = x + self.out(attend(q, k, v, heads=self.heads, mask=mask, causal=causal))
        return x + self.down(self.activate(self.up(self.mlp_norm(x))))


@final
class Stack(nn.Module):
    """Blocks one after the other, without a final norm.

    Weights start as in GPT-2 and CLIP's text tower: normal, with a deviation that shrinks with the width and, for what
    is added to the residual stream, with the depth; biases start at zero.

    Args:
        width: channels.
        layers: how many blocks.
        heads: attention heads; divides `width`.
        hidden: channels inside the perceptrons; 4 x `width` if not given.
        activation: the perceptrons' curve.
    """

    def __init__(
        self, width: int, layers: int, heads: int, hidden: int | None = None, activation: Activation = "gelu"
    ) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(width, heads, hidden, activation) for _ in range(layers))
        deep = width**-0.5 * (2 * layers) ** -0.5
        for block in self.blocks:
            for linear, deviation in (("qkv", width**-0.5), ("out", deep), ("up", (2 * width) ** -0.5), ("down", deep)):
                nn.init.normal_(getattr(block, linear).weight, std=deviation)
                nn.init.zeros_(getattr(block, linear).bias)

    def forward(
        self,
        x: Float[Tensor, "B L D"],
        mask: Bool[Tensor, "B L"] | None = None,
        causal: bool = False,
        skip: int = 0,
    ) -> tuple[Float[Tensor, "B L D"], Float[Tensor, "B L D"]]:
        """Runs all blocks.

        Args:
            x: the sequence.
            mask: True where a place may be looked at.
            causal: hides later places from earlier ones.
            skip: blocks to leave out of the second answer, 0 to `layers`.

        Returns:
            what left the last block, and what left the last but `skip`.
        """
        if not 0 <= skip <= len(self.blocks):
            raise ValueError(f"cannot skip {skip} of {len(self.blocks)} blocks")
        early = x
        for index, block in enumerate(self.blocks, start=1):
            x = block(x, mask, causal)
            if index == len(self.blocks) - skip:
                early = x
        return x, early
