"""A canvas of which a part only may be painted on; it stands wherever the canvas stands."""

from collections.abc import Iterable
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from mindseye.ascent.canvas import Canvas
from mindseye.shapes import Pixels

__all__ = ["Held"]


@final
class Held:
    """A canvas behind a mask: elsewhere a picture shows, its own pixels to the last bit.

    The judge sees both, so what is painted is painted to fit; gradients reach the canvas where the mask lets them.

    Args:
        canvas: What is painted on.
        picture: What shows elsewhere.
        mask: 1 = painted, 0 = kept, soft between.
    """

    def __init__(self, canvas: Canvas, picture: Float[Tensor, "1 3 H W"], mask: Float[Tensor, "1 1 H W"]) -> None:
        self.canvas, self.picture, self.mask = canvas, picture, mask

    def parameters(self) -> Iterable[Tensor]:
        """The canvas's."""
        return self.canvas.parameters()

    def render(self) -> Pixels:
        """The canvas where it is painted, the picture elsewhere."""
        return torch.lerp(self.picture, self.canvas.render(), self.mask)

    def settle(self) -> None:
        """The canvas's."""
        self.canvas.settle()

    def terms(self) -> Float[Tensor, "B"] | None:
        """The canvas's."""
        return self.canvas.terms()

    @torch.no_grad()
    def final(self) -> Pixels:
        """The canvas where it is painted, the picture elsewhere."""
        return torch.lerp(self.picture, self.canvas.final(), self.mask)
