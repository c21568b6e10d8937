"""A canvas of likelihoods: for every place of a discrete VAE's grid, how much each code is wanted.

Murdock 2021, Aleph2Image: DALL-E's dVAE painted with by CLIP, Big Sleep's sibling. What changes are logits; what is
decoded is one code a place, with the gradient of the softmax, or the softmax itself. Between codes there is no way to
go, as there is between a VQGAN's, whose codes lie in a space; so a gradient tells every code what more of it would do.

Where we deviate: nothing is drawn at random in a step, where Aleph2Image draws Gumbel noise; and a picture to start
from speaks no louder than chance does, or it could hardly be changed.
"""

from collections.abc import Iterable
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from mindseye.ascent.codebook import Painter
from mindseye.nn.quantize import clamp_with_gradient, relaxed
from mindseye.shapes import Pixels

__all__ = ["LogitCanvas", "evened"]


@final
class LogitCanvas:
    """Pictures by the logits of codes.

    Args:
        codec: What decodes shares of codes.
        start: Where the logits start, ``B K h w``; copied.
        dtype: What the codec computes in.
        temperature: The lower, the more of a share the likeliest code has.
        hard: Whether one code is decoded at every place and only the gradient is the shares'.
        pull: Half of what mean squared distance from the start costs.
        free: Where the grid may change, 1 or 0; None = everywhere.
    """

    def __init__(
        self,
        codec: Painter,
        start: Float[Tensor, "B K h w"],
        *,
        dtype: torch.dtype = torch.float32,
        temperature: float = 1.0,
        hard: bool = True,
        pull: float = 0.0,
        free: Float[Tensor, "1 1 h w"] | None = None,
    ) -> None:
        self.codec, self.dtype = codec, dtype
        self.start = start.detach().float().clone()
        self.logits = self.start.clone().requires_grad_()
        self.temperature, self.hard, self.pull = temperature, hard, pull
        self.fixed = None if free is None else free == 0

    def parameters(self) -> Iterable[Tensor]:
        """The logits."""
        return [self.logits]

    def render(self) -> Pixels:
        """Logits to shares to pixels."""
        shares = relaxed(self.logits, temperature=self.temperature, hard=self.hard)
        return clamp_with_gradient(self.codec.decode(shares.to(self.dtype)).float(), -1.0, 1.0)

    @torch.no_grad()
    def settle(self) -> None:
        """Back where the grid is held."""
        if self.fixed is not None:
            self.logits.copy_(torch.where(self.fixed, self.start, self.logits))

    def terms(self) -> Float[Tensor, "B"] | None:
        """Distance from the start."""
        if not self.pull:
            return None
        return (self.logits - self.start).square().mean((1, 2, 3)) * (self.pull / 2)

    @torch.no_grad()
    def final(self) -> Pixels:
        """As it is."""
        return self.render()


def evened(logits: Float[Tensor, "B K h w"]) -> Float[Tensor, "B K h w"]:
    """Logits with mean 0 and deviation 1 at every place, as normal noise has them; their order stays."""
    centred = logits.float() - logits.float().mean(1, keepdim=True)
    return centred / centred.square().mean(1, keepdim=True).sqrt().clamp_min(1e-6)
