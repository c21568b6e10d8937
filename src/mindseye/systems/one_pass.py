"""What generators that answer in one pass share: a picture's noise, a start picture looked for in it, a size.

A start picture is searched for in the noise, from several places at once: `mindseye.adversarial.inversion`.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from mindseye.adversarial.inversion import invert
from mindseye.noise import Noise, slerp
from mindseye.pixels import from_image, mask_from_image, to_images
from mindseye.request import Progress, Request, Steps
from mindseye.shapes import Pixels
from mindseye.systems.base import known

__all__ = ["Paint", "beginnings", "draw", "resized"]

Paint = Callable[[Float[Tensor, "B Z"]], Pixels]
"""A generator that has been told what to paint."""
STARTS = 8
"""From how many places a start picture is looked for."""


@runtime_checkable
class Variation(Protocol):
    """The options that say which noise is painted from."""

    @property
    def variation_seed(self) -> int:
        """The seed to go towards."""
        ...

    @property
    def variation_strength(self) -> float:
        """How far, 0 to 1."""
        ...


def beginnings(request: Request, noise: Noise, options: Variation, generator: Any) -> Float[Tensor, "B K Z"]:
    """Each picture's noise first, and with a start picture the places from which it is looked for, too."""
    size = generator.config.z_dim
    if options.variation_strength:
        noise = noise.varied([options.variation_seed] * len(noise.seeds), options.variation_strength)
    first = noise.normal(size)[:, None]
    drawn = first if request.image is None else torch.cat([first, noise.normal(STARTS - 1, size)], 1)
    return drawn.to(next(generator.parameters()))


def resized(request: Request, size: int) -> list[str]:
    """A sentence where another size is wanted than the generator's own."""
    if request.size in (None, (size, size)):
        return []
    width, height = known(request.size, "size")
    return [f"this generator draws {size}x{size}: the picture is scaled to {width}x{height}"]


def draw(request: Request, paint: Paint, z: Float[Tensor, "B K Z"]) -> Steps[Pixels]:
    """Paint each picture, at the size that is wanted.

    Args:
        request: Resolved. With a picture, its noise is found in ``steps`` steps; ``strength`` says how far to go from
            there to what the seeds would have drawn, or the mask, what is to be new.
        paint: The generator.
        z: From `beginnings`.
    """
    width, height = known(request.size, "size")
    own, target, mask = z[:, 0], None, None
    if request.image is not None:
        with torch.no_grad():
            side = paint(own[:1]).shape[-1]
        target = from_image(request.image, (side, side)).to(z)
        mask = None if request.mask is None else mask_from_image(request.mask, (side, side)).to(z)
        keep = torch.ones_like(target[:, :1]) if mask is None else 1 - mask
        found = yield from invert(paint, z, target, keep, steps=known(request.steps, "steps"))
        # From there towards what the seeds would have drawn; under a mask what is new follows from what is kept.
        there = [slerp(a, b, request.strength) for a, b in zip(found, own, strict=True)] if mask is None else found
        own = torch.stack(list(there))
    with torch.no_grad():
        pixels = paint(own).float()
    if target is not None and mask is not None:
        pixels = torch.lerp(target, pixels, mask)
    yield Progress("draw", 1, 1, partial(to_images, pixels))
    if (width, height) == (pixels.shape[-1], pixels.shape[-2]):
        return pixels
    return F.interpolate(pixels, (height, width), mode="bicubic", antialias=True).clamp(-1, 1)
