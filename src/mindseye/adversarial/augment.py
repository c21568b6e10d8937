"""Differentiable augmentation: what the judge sees is changed, pictures and paintings alike, and the painter feels it.

Zhao et al. 2020 (arXiv:2006.10738). With few pictures a discriminator learns them by heart; changing pictures alone
would teach the generator the changes. Three policies: ``colour``, ``translation`` (up to an eighth of the side) and
``cutout`` (a box of half the side); what comes in or is cut out is grey, 0.

What is drawn is plain data (`Changes`), so that a test, or a second look at the same picture, can use it again.
A judge that is told colours ("a red circle") must not have them changed under its eyes: leave ``colour`` out there.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mindseye.shapes import Pixels

__all__ = ["POLICIES", "Changes", "Policy", "augment", "draw"]

Policy = Literal["colour", "translation", "cutout"]
POLICIES: tuple[Policy, ...] = ("colour", "translation", "cutout")
"""All of them, in the order in which they are applied."""
REACH = 1 / 8
HOLE = 1 / 2


@dataclass(frozen=True, eq=False)
class Changes:
    """What is done to each picture of a batch.

    Attributes:
        colour: Added brightness, factor of saturation, factor of contrast; None = colours stay.
        shift: Pixels down and right; None = nothing moves.
        hole: Middle of the hole, row and column; None = nothing is cut out.
    """

    colour: Float[Tensor, "B 3"] | None = None
    shift: Int[Tensor, "B 2"] | None = None
    hole: Int[Tensor, "B 2"] | None = None

    def __call__(self, pixels: Pixels) -> Pixels:
        """Apply them."""
        if self.colour is not None:
            pixels = _coloured(pixels, self.colour.to(pixels))
        if self.shift is not None:
            pixels = _moved(pixels, self.shift.to(pixels.device))
        if self.hole is not None:
            pixels = pixels * _kept(pixels, self.hole.to(pixels.device))
        return pixels


def draw(policies: Sequence[Policy], shape: Sequence[int], generator: torch.Generator) -> Changes:
    """Draw changes for a batch of shape ``B 3 H W``.

    Args:
        policies: Which kinds.
        shape: Of the batch.
        generator: A CPU generator.
    """
    count, _, height, width = shape
    sides = torch.tensor([height, width])
    # Drawn whether used or not, so that one policy more or less leaves the others' numbers.
    colour, shift, hole = (torch.rand(count, number, generator=generator) for number in (3, 2, 2))
    reach = (sides * REACH + 0.5).long()
    return Changes(
        torch.stack([colour[:, 0] - 0.5, colour[:, 1] * 2, colour[:, 2] + 0.5], 1) if "colour" in policies else None,
        (shift * (2 * reach + 1)).long() - reach if "translation" in policies else None,
        (hole * (sides + 1)).long() if "cutout" in policies else None,
    )


def augment(pixels: Pixels, policies: Sequence[Policy], generator: torch.Generator) -> Pixels:
    """Draw and apply; without policies, the pictures as they are."""
    return draw(policies, pixels.shape, generator)(pixels) if policies else pixels


def _coloured(pixels: Pixels, colour: Float[Tensor, "B 3"]) -> Pixels:
    brightness, saturation, contrast = colour[:, :, None, None, None].unbind(1)
    pixels = pixels + brightness
    grey = pixels.mean(1, keepdim=True)
    pixels = grey + (pixels - grey) * saturation
    mean = pixels.mean((1, 2, 3), keepdim=True)
    return mean + (pixels - mean) * contrast


def _moved(pixels: Pixels, shift: Int[Tensor, "B 2"]) -> Pixels:
    """Rows and columns from elsewhere, grey where there is none."""
    count, _, height, width = pixels.shape
    rows = torch.arange(height, device=pixels.device)[None] - shift[:, :1]
    columns = torch.arange(width, device=pixels.device)[None] - shift[:, 1:]
    inside = ((rows >= 0) & (rows < height))[:, :, None] & ((columns >= 0) & (columns < width))[:, None, :]
    which = torch.arange(count, device=pixels.device)[:, None, None]
    taken = pixels.permute(0, 2, 3, 1)[
        which, rows.clamp(0, height - 1)[:, :, None], columns.clamp(0, width - 1)[:, None]
    ]
    return (taken * inside[..., None]).permute(0, 3, 1, 2)


def _kept(pixels: Pixels, hole: Int[Tensor, "B 2"]) -> Float[Tensor, "B 1 H W"]:
    """0 in the hole, 1 elsewhere; the hole may lie half outside."""
    outside = []
    for axis, side in enumerate(pixels.shape[2:]):
        size = int(side * HOLE + 0.5)
        place = torch.arange(side, device=pixels.device)[None] - hole[:, axis : axis + 1] + size // 2
        outside.append((place < 0) | (place >= size))
    return (outside[0][:, :, None] | outside[1][:, None, :])[:, None].to(pixels.dtype)
