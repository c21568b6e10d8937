"""A canvas of codes: the latents of a VQGAN, each shown as the code it is nearest to.

Crowson 2021, VQGAN-CLIP (arXiv:2204.08583), "z+quantize": what changes is a grid of latents in between codes, what is
decoded are codes, and gradients go straight through. The decoder paints; the latents only say what.

Where we deviate: a grid may be held where a picture is to be kept. Nearest codes are looked up here and not by the
codec, so a Gumbel codec, which has another way to them, serves alike.
"""

from collections.abc import Iterable
from typing import Protocol, final, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from mindseye.nn.quantize import clamp_with_gradient, look_up, snap
from mindseye.noise import Noise
from mindseye.shapes import Latents, Pixels

__all__ = ["CodebookCanvas", "Painter", "random_codes"]


@runtime_checkable
class Painter(Protocol):
    """Codes to pictures: a VQGAN, or a seamless one."""

    def decode(self, latents: Latents, /) -> Pixels:
        """Pictures in about [-1, 1]."""
        ...


@final
class CodebookCanvas:
    """Pictures by grids of codes.

    Args:
        codec: What decodes.
        codebook: The codec's codes.
        start: Where the latents start; copied.
        pull: Half of what mean squared distance from the start costs.
        free: Where the grid may change, 1 or 0; None = everywhere.
    """

    def __init__(
        self,
        codec: Painter,
        codebook: Float[Tensor, "K C"],
        start: Latents,
        *,
        pull: float = 0.0,
        free: Float[Tensor, "1 1 h w"] | None = None,
    ) -> None:
        self.codec = codec
        self.dtype = codebook.dtype
        self.codebook = codebook.detach().float()
        self.low = self.codebook.amin(0)[:, None, None]
        self.high = self.codebook.amax(0)[:, None, None]
        self.start = start.detach().float().clone()
        self.z = self.start.clone().requires_grad_()
        self.pull = pull
        self.fixed = None if free is None else free == 0

    def parameters(self) -> Iterable[Tensor]:
        """The latents."""
        return [self.z]

    def render(self) -> Pixels:
        """Latents to codes to pixels."""
        codes = snap(self.z, self.codebook)
        return clamp_with_gradient(self.codec.decode(codes.to(self.dtype)).float(), -1.0, 1.0)

    @torch.no_grad()
    def settle(self) -> None:
        """Into the box that the codes span, and back where the grid is held."""
        self.z.clamp_(self.low, self.high)
        if self.fixed is not None:
            self.z.copy_(torch.where(self.fixed, self.start, self.z))

    def terms(self) -> Float[Tensor, "B"] | None:
        """Distance from the start."""
        if not self.pull:
            return None
        return (self.z - self.start).square().mean((1, 2, 3)) * (self.pull / 2)

    @torch.no_grad()
    def final(self) -> Pixels:
        """As it is."""
        return self.render()


def random_codes(codebook: Float[Tensor, "K C"], noise: Noise, size: tuple[int, int]) -> Latents:
    """A grid of codes drawn evenly.

    Args:
        codebook: All codes.
        noise: One seed a picture.
        size: Height and width of the grid.
    """
    ids = (noise.uniform(*size) * len(codebook)).long().clamp_(max=len(codebook) - 1)
    return look_up(ids.to(codebook.device), codebook.detach().float())
