"""What makes a picture well behaved whatever it shows: smooth, within range, near where it began.

Formulas are those of CLIP-guided diffusion and Disco Diffusion, each a mean over a picture's own numbers.

Deviations: saturation is a mean a picture and not over the batch, or a picture would change with its neighbours.
Nearness to a start is measured in pixels or by a critic's own vectors, where upstream asks LPIPS, a VGG network trained
on ImageNet that nothing else here needs.
"""

from dataclasses import dataclass
from typing import Protocol, final, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from mindseye.critique.critic import Critic
from mindseye.critique.losses import spherical
from mindseye.critique.resample import take
from mindseye.shapes import Pixels

__all__ = [
    "Likeness", "Nearness", "Range", "Saturation", "Smoothness", "Term", "excess", "saturation", "total_variation",
]  # fmt: skip


@runtime_checkable
class Term(Protocol):
    """Something to keep small, besides what the critics say."""

    @property
    def name(self) -> str:
        """What a progress line calls it."""
        ...

    def __call__(self, pixels: Pixels) -> Float[Tensor, "B"]:
        """One number a picture, differentiable, its scale applied."""
        ...


def total_variation(pixels: Pixels) -> Float[Tensor, "B"]:
    """Mean square of the steps to the right and down, none at the far edges."""
    padded = F.pad(pixels, (0, 1, 0, 1), mode="replicate")
    right = padded[..., :-1, 1:] - padded[..., :-1, :-1]
    down = padded[..., 1:, :-1] - padded[..., :-1, :-1]
    return (right**2 + down**2).mean((1, 2, 3))


def excess(pixels: Pixels) -> Float[Tensor, "B"]:
    """Mean square of what lies outside [-1, 1]."""
    return ((pixels - pixels.clamp(-1, 1)) ** 2).mean((1, 2, 3))


def saturation(pixels: Pixels) -> Float[Tensor, "B"]:
    """Mean of how far values lie outside [-1, 1]."""
    return (pixels - pixels.clamp(-1, 1)).abs().mean((1, 2, 3))


@final
@dataclass(frozen=True)
class Smoothness:
    """`total_variation`, scaled."""

    scale: float
    name: str = "smoothness"

    def __call__(self, pixels: Pixels) -> Float[Tensor, "B"]:
        """See `Term`."""
        return total_variation(pixels) * self.scale


@final
@dataclass(frozen=True)
class Range:
    """`excess`, scaled."""

    scale: float
    name: str = "range"

    def __call__(self, pixels: Pixels) -> Float[Tensor, "B"]:
        """See `Term`."""
        return excess(pixels) * self.scale


@final
@dataclass(frozen=True)
class Saturation:
    """`saturation`, scaled."""

    scale: float
    name: str = "saturation"

    def __call__(self, pixels: Pixels) -> Float[Tensor, "B"]:
        """See `Term`."""
        return saturation(pixels) * self.scale


@final
@dataclass(frozen=True, eq=False)
class Nearness:
    """Mean squared distance to a picture, which may be one for all.

    Attributes:
        start: `1 3 H W` or `B 3 H W`.
        scale: How much it counts.
        name: What a progress line calls it.
    """

    start: Tensor
    scale: float
    name: str = "start"

    def __call__(self, pixels: Pixels) -> Float[Tensor, "B"]:
        """See `Term`."""
        return ((pixels - self.start.to(pixels)) ** 2).mean((1, 2, 3)) * self.scale


@final
class Likeness:
    """Spherical distance to a picture in a critic's eyes, whole and in four quarters: shape and place, not pixels.

    Args:
        critic: Whose eyes; better not the one that guides.
        start: `1 3 H W` or `B 3 H W`.
        scale: How much it counts.
    """

    name = "likeness"

    def __init__(self, critic: Critic, start: Pixels, scale: float) -> None:
        self.critic, self.scale = critic, scale
        with torch.no_grad():
            self._seen = self._views(start)

    def _views(self, pixels: Pixels) -> Float[Tensor, "B 5 D"]:
        height, width = pixels.shape[-2:]
        half, side = (height // 2, width // 2), (height - height // 2, width - width // 2)
        corners = [(0, 0), (half[1], 0), (0, half[0]), (half[1], half[0])]
        boxes = [[0, 0, width, height], *([left, top, side[1], side[0]] for left, top in corners)]
        every = torch.tensor(boxes).float().expand(len(pixels), 5, 4)
        views = take(pixels, every, self.critic.size, "average")
        return self.critic.embed_image(views.flatten(0, 1)).unflatten(0, (len(pixels), 5))

    def __call__(self, pixels: Pixels) -> Float[Tensor, "B"]:
        """See `Term`."""
        views = self._views(pixels)
        seen = self._seen.to(views.device).expand(len(views), -1, -1)
        pairs = [spherical(views[:, place], seen[:, place]) for place in range(5)]
        return torch.stack([each.diagonal() for each in pairs]).mean(0).to(pixels.device) * self.scale
