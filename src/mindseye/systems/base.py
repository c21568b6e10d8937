"""What every system shares: its face, its options, and how it starts from somebody's picture.

A system is text -> pixels from parts. It is handed a `Request` in which nothing is left open
(`mindseye.request.resolve`), its own `Options`, and the `Noise` of the pictures to draw.
"""

import dataclasses
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Protocol, TypeVar, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from mindseye.diffusion.samplers import Estimate
from mindseye.diffusion.schedule import Knots
from mindseye.noise import Noise
from mindseye.pixels import from_image, mask_from_image, to_images
from mindseye.request import Progress, Request, Steps
from mindseye.shapes import Latents, Pixels

__all__ = ["Start", "System", "known", "option", "remaining", "watched"]

T = TypeVar("T")


@runtime_checkable
class System(Protocol):
    """Text to pictures."""

    Options: ClassVar[type]
    """Frozen dataclass of the system's own knobs, each made by `option`: the schema of `--set` and of every form."""

    def synthesize(self, request: Request, options: Any, noise: Noise) -> Steps[Pixels]:
        """Draw one picture a seed of ``noise``, in [-1, 1] or a little beyond."""
        ...

    def notices(self, request: Request) -> list[str]:
        """What will not be done to the letter, one sentence each: words beyond what the text encoder reads."""
        ...


def option(
    default: T, about: str, *, low: float | None = None, high: float | None = None, choices: Sequence[T] = ()
) -> T:
    """A field of an `Options` dataclass.

    Args:
        default: Its value unless asked otherwise.
        about: One line for help texts and forms.
        low: Least value.
        high: Greatest value.
        choices: All values there are.
    """
    metadata: dict[str, Any] = {"help": about}
    metadata |= {name: value for name, value in (("low", low), ("high", high)) if value is not None}
    if choices:
        metadata["choices"] = tuple(choices)
    return dataclasses.field(default=default, metadata=metadata)


def known(value: T | None, name: str) -> T:
    """A field of a resolved request. Raises ValueError where it was left open."""
    if value is None:
        raise ValueError(f"the request was not resolved: {name} is open")
    return value


@dataclass(frozen=True, eq=False)
class Start:
    """The picture a run starts from, and where it is repainted.

    Attributes:
        pixels: The picture, fitted to the size that is drawn.
        latents: The same, encoded.
        mask: 1 = repaint, 0 = keep, and soft between; None = there is no mask.
    """

    pixels: Float[Tensor, "1 3 H W"]
    latents: Float[Tensor, "1 C h w"]
    mask: Float[Tensor, "1 1 H W"] | None

    @classmethod
    @torch.no_grad()
    def of(cls, request: Request, encode: Callable[[Pixels], Latents], like: Tensor) -> "Start | None":
        """From the request's image and mask; None if it has no image.

        Args:
            request: Resolved.
            encode: The codec's.
            like: The codec's dtype and device.
        """
        if request.image is None:
            return None
        pixels = from_image(request.image, request.size).to(like.device)
        mask = None if request.mask is None else mask_from_image(request.mask, request.size).to(like.device)
        return cls(pixels, encode(pixels.to(like.dtype)).float(), mask)

    @property
    def latent_mask(self) -> Float[Tensor, "1 1 h w"] | None:
        """Hard: a latent is repainted if any of its pixels, at least half, is."""
        if self.mask is None:
            return None
        height, width = self.latents.shape[-2:]
        return (F.adaptive_max_pool2d(self.mask, (height, width)) >= 0.5).to(self.latents)

    def paste(self, drawn: Pixels) -> Pixels:
        """The drawn pictures, the picture's own pixels where it is kept: no codec gives those back exactly."""
        return drawn if self.mask is None else torch.lerp(self.pixels.to(drawn), drawn, self.mask.to(drawn))


def remaining(sigmas: Knots, strength: float) -> Float[Tensor, "left"]:
    """The part of a run that is left when it starts from a picture.

    Of N steps the last int(N * strength) are run, as everywhere; but 0.29 of 100 are 29, not 28.
    """
    steps = len(sigmas) - 1
    return sigmas[steps - min(int(steps * strength + 1e-6), steps) :]


def watched(
    stage: str, estimates: Generator[Estimate, None, Tensor], look: Callable[[Tensor], Pixels]
) -> Steps[Tensor]:
    """A sampler's estimates as progress with pictures in it.

    Args:
        stage: What the user is told is going on.
        estimates: The sampler at work.
        look: From what the sampler estimates to small pictures; called only when somebody peeks.
    """
    try:
        while True:
            now = next(estimates)
            yield Progress(stage, now.step, now.total, partial(_show, look, now.x0))
    except StopIteration as stop:
        return stop.value
    finally:
        estimates.close()


def _show(look: Callable[[Tensor], Pixels], x0: Tensor) -> Sequence[Any]:
    return to_images(look(x0))
