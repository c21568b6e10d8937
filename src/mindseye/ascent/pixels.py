"""The plainest canvas: the pixels themselves.

Nothing holds neighbouring pixels together, so an opinion of a few cuts turns into grain; this is the canvas to compare
the others with, and the one to nudge a finished picture on.
"""

from collections.abc import Iterable
from typing import final

import torch
from torch import Tensor

from mindseye.shapes import Pixels

__all__ = ["PixelCanvas"]


@final
class PixelCanvas:
    """Pictures that are their own parameters.

    Args:
        start: What is there at first; copied, and clamped to [-1, 1].
    """

    def __init__(self, start: Pixels) -> None:
        self.pixels = start.detach().float().clamp(-1, 1).clone().requires_grad_()

    def parameters(self) -> Iterable[Tensor]:
        """The pixels."""
        return [self.pixels]

    def render(self) -> Pixels:
        """The pixels, which `settle` keeps in their range."""
        return self.pixels.view_as(self.pixels)

    @torch.no_grad()
    def settle(self) -> None:
        """Back into [-1, 1]."""
        self.pixels.clamp_(-1, 1)

    def terms(self) -> None:
        """No wish."""
        return None

    def final(self) -> Pixels:
        """A copy."""
        return self.pixels.detach().clone()
