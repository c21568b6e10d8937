"""Candidates: what a generator paints several of, and who chooses.

A generator answers in one pass, so it may answer often: every picture has several tries, CLIP says which goes best with
the prompt, and the others are forgotten. DALL-E's authors made that a habit (32 of 512); it began with GANs.

A start picture is looked for in the noise first: `mindseye.adversarial.inversion`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, final, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from mindseye.adversarial.inversion import invert
from mindseye.critique.critic import ClipCritic
from mindseye.networks.clip import CLIP
from mindseye.noise import Noise, slerp
from mindseye.pixels import from_image, mask_from_image, to_images
from mindseye.request import Progress, Request, Steps
from mindseye.shapes import Pixels
from mindseye.systems.base import known
from mindseye.text.tokenizer import Tokenizer

__all__ = ["Paint", "Ranking", "candidates", "draw", "resized"]

Paint = Callable[[Float[Tensor, "B Z"]], Pixels]
"""A generator that has been told what to paint."""


@runtime_checkable
class Choice(Protocol):
    """The options that say which noise is tried."""

    @property
    def candidates(self) -> int:
        """How many."""
        ...

    @property
    def variation_seed(self) -> int:
        """The seed to go towards."""
        ...

    @property
    def variation_strength(self) -> float:
        """How far, 0 to 1; on the way there is one candidate, or every frame would have a winner of its own."""
        ...


def candidates(noise: Noise, options: Choice, generator: Any) -> Float[Tensor, "B K Z"]:
    """Each picture's noise: the first candidate's is its first draw, whatever their number."""
    size, count = generator.config.z_dim, options.candidates
    if options.variation_strength:
        noise = noise.varied([options.variation_seed] * len(noise.seeds), options.variation_strength)
        count = 1
    first = noise.normal(size)[:, None]
    drawn = first if count == 1 else torch.cat([first, noise.normal(count - 1, size)], 1)
    return drawn.to(next(generator.parameters()))


def resized(request: Request, size: int) -> list[str]:
    """A sentence where another size is wanted than the generator's own."""
    if request.size in (None, (size, size)):
        return []
    width, height = known(request.size, "size")
    return [f"this generator draws {size}x{size}: the picture is scaled to {width}x{height}"]


@final
@dataclass(frozen=True, eq=False)
class Ranking:
    """Who says how well a painting goes with the prompt."""

    critic: ClipCritic
    texts: Float[Tensor, "T D"]

    @classmethod
    def of(cls, request: Request, clip: CLIP | None, tokenizer: Tokenizer | None) -> "Ranking | None":
        """None where nobody can say."""
        if clip is None or tokenizer is None:
            return None
        critic = ClipCritic(clip, tokenizer)
        return cls(critic, critic.embed_text([request.prompt, *filter(str.strip, [request.negative])]))

    @torch.no_grad()
    def scores(self, pixels: Pixels) -> Float[Tensor, "B"]:
        """Nearness to the prompt, less nearness to the negative prompt."""
        size = (self.critic.size, self.critic.size)
        seen = self.critic.embed_image(F.interpolate(pixels.float(), size, mode="bilinear", antialias=True))
        near = seen @ self.texts.T
        return near[:, 0] - (near[:, 1] if near.shape[1] > 1 else 0)


def draw(request: Request, paint: Paint, z: Float[Tensor, "B K Z"], ranking: Ranking | None) -> Steps[Pixels]:
    """Paint every candidate and keep the best of each picture, at the size that is wanted.

    Args:
        request: Resolved. With a picture, its noise is found in ``steps`` steps; ``strength`` says how far to go from
            there to what the seeds would have drawn, or the mask, what is to be new.
        paint: The generator.
        z: Noise of each picture's candidates.
        ranking: Who chooses; None = the first.
    """
    width, height = known(request.size, "size")
    target = mask = None
    if request.image is not None:
        with torch.no_grad():
            side = paint(z[:1, 0]).shape[-1]
        target = from_image(request.image, (side, side)).to(z)
        mask = None if request.mask is None else mask_from_image(request.mask, (side, side)).to(z)
        keep = torch.ones_like(target[:, :1]) if mask is None else 1 - mask
        found = yield from invert(paint, z, target, keep, steps=known(request.steps, "steps"))
        if mask is None:  # from there towards what the seeds would have drawn
            rows = [torch.stack([slerp(a, b, request.strength) for b in row]) for a, row in zip(found, z, strict=True)]
            z = torch.stack(rows)
        else:
            z = found[:, None]
    best, score = None, None
    for number in range(z.shape[1] if ranking is not None else 1):
        with torch.no_grad():
            pixels = paint(z[:, number]).float()
        if target is not None and mask is not None:
            pixels = torch.lerp(target, pixels, mask)
        scores = ranking.scores(pixels) if ranking is not None else pixels.new_zeros(len(pixels))
        if best is None or score is None:
            best, score = pixels, scores
        better = scores > score
        best, score = torch.where(better[:, None, None, None], pixels, best), torch.maximum(scores, score)
        yield Progress("draw", number + 1, z.shape[1], partial(to_images, best))
    best = torch.empty(0) if best is None else best
    if (width, height) == (best.shape[-1], best.shape[-2]):
        return best
    return F.interpolate(best, (height, width), mode="bicubic", antialias=True).clamp(-1, 1)
