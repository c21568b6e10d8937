"""Randomness that belongs to pictures, not to batches.

Every picture has a generator of its own, seeded with its seed and kept on the CPU. Seed n therefore draws the same
numbers alone or in any batch, on any device: the promise that samplers calling a global ``randn_like`` break.

A picture may also be a variation: its first draw lies on the way from its seed's noise to another seed's, all later
ones are its own seed's. This is AUTOMATIC1111's "variation seed" to the number, and so is the older size that noise
may be cut from, so that a stored picture can be drawn again.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["Noise", "slerp"]

_PARALLEL = 0.9995
"""Cosine beyond which an arc is as good as straight, and the formula of the arc divides by nearly nothing."""


class Noise:
    """One CPU generator a picture.

    Row ``b`` of whatever is drawn depends only on ``seeds[b]`` (and ``variations[b]``) and on the draws made so far.

    Args:
        seeds: One a picture, each in 0 .. 2**63 - 1.
        variations: A second seed for each picture; None = no picture is a variation.
        strength: How far the first normal draw goes from the first seed's noise (0) to the second's (1).
        drawn_at: Height and width of the noise that the first normal draw shows in its middle, with fresh noise around
            it or its edges cut off; None = the size that is asked for. What is drawn must then end in height and width.

    Raises:
        ValueError: Not one variation seed a seed, or a strength outside 0 to 1.
    """

    def __init__(
        self,
        seeds: Sequence[int],
        *,
        variations: Sequence[int] | None = None,
        strength: float = 0.0,
        drawn_at: tuple[int, int] | None = None,
    ) -> None:
        self.seeds = tuple(seeds)
        self.variations = None if variations is None else tuple(variations)
        if self.variations is not None and len(self.variations) != len(self.seeds):
            raise ValueError(f"{len(self.variations)} variation seeds for {len(self.seeds)} seeds")
        if not 0 <= strength <= 1:
            raise ValueError(f"a variation's strength lies within 0 and 1, not {strength}")
        self.strength, self.drawn_at = strength, drawn_at
        self._generators = [torch.Generator().manual_seed(seed) for seed in self.seeds]
        self._first = True

    def again(self) -> "Noise":
        """The same pictures from their beginning."""
        return Noise(self.seeds, variations=self.variations, strength=self.strength, drawn_at=self.drawn_at)

    def varied(self, seeds: Sequence[int], strength: float, *, drawn_at: tuple[int, int] | None = None) -> "Noise":
        """The same pictures from their beginning, as variations; arguments as of the class."""
        return Noise(self.seeds, variations=seeds, strength=strength, drawn_at=drawn_at)

    def normal(self, *shape: int) -> Float[Tensor, "B ..."]:
        """Standard normal numbers, ``len(seeds) *shape``, float32 on the CPU."""
        own = [torch.randn(shape, generator=each) for each in self._generators]
        if self._first:
            self._first = False
            own = [self._opening(row, *each) for row, each in enumerate(zip(own, self.seeds, strict=True))]
        return torch.stack(own)

    def uniform(self, *shape: int) -> Float[Tensor, "B ..."]:
        """Numbers in [0, 1), ``len(seeds) *shape``, float32 on the CPU."""
        return torch.stack([torch.rand(shape, generator=each) for each in self._generators])

    def normal_like(self, x: Float[Tensor, "B ..."]) -> Float[Tensor, "B ..."]:
        """Standard normal numbers of the shape, dtype and device of ``x``; drawn in float32 on the CPU first.

        Raises:
            ValueError: ``x`` does not have one row a seed.
        """
        if len(x) != len(self.seeds):
            raise ValueError(f"{len(x)} rows cannot share {len(self.seeds)} seeds")
        return self.normal(*x.shape[1:]).to(device=x.device, dtype=x.dtype)

    def _opening(self, row: int, own: Tensor, seed: int) -> Tensor:
        """The first draw of one picture: varied, then cut from or set into the size it was drawn at."""
        shape = own.shape if self.drawn_at is None else (*own.shape[:-2], *self.drawn_at)
        noise = own if shape == own.shape else _fresh(seed, shape)
        if self.variations is not None and self.strength:
            # An arc for every column, as AUTOMATIC1111 has it; columns are nearly at right angles, like whole pictures.
            noise = slerp(noise, _fresh(self.variations[row], shape), self.strength, axis=-2 if own.ndim > 1 else None)
        return noise if shape == own.shape else _pasted(noise, own)


def slerp(a: Float[Tensor, "*S"], b: Float[Tensor, "*S"], t: float, *, axis: int | None = None) -> Float[Tensor, "*S"]:
    """From ``a`` (t = 0) to ``b`` (t = 1) along the arc between them (Shoemake 1985), a straight line if that is short.

    The way between two draws of noise: halfway along a straight line, noise is too faint by the root of two.

    Args:
        a: One picture's tensor.
        b: Another, of the same shape.
        t: How far to go.
        axis: Along which the vectors lie that are turned, one by one; None = the whole tensor is one vector.
    """
    axes = tuple(range(a.ndim)) if axis is None else (axis,)
    lengths = [torch.linalg.vector_norm(each, dim=axes, keepdim=True) for each in (a, b)]
    cosine = (a / lengths[0] * (b / lengths[1])).sum(axes, keepdim=True)
    # Also where a vector is zero, and no angle is defined.
    straight = ~(cosine.abs() <= _PARALLEL)
    angle = torch.acos(cosine.masked_fill(straight, 0.0))
    sine = torch.sin(angle)
    first = torch.where(straight, 1 - t, torch.sin((1 - t) * angle) / sine)
    second = torch.where(straight, t, torch.sin(t * angle) / sine)
    return first * a + second * b


def _fresh(seed: int, shape: Sequence[int]) -> Tensor:
    """What a seed draws first."""
    return torch.randn(tuple(shape), generator=torch.Generator().manual_seed(seed))


def _pasted(noise: Tensor, onto: Tensor) -> Tensor:
    """``noise`` in the middle of ``onto``, what does not fit cut off evenly."""
    result = onto.clone()
    to: list[slice] = []
    of: list[slice] = []
    for have, want in zip(noise.shape[-2:], onto.shape[-2:], strict=True):
        # AUTOMATIC1111 rounds the difference down on either sign.
        shift = (want - have) // 2
        shown = min(have, have + 2 * shift)
        to.append(slice(max(shift, 0), max(shift, 0) + shown))
        of.append(slice(max(-shift, 0), max(-shift, 0) + shown))
    result[..., to[0], to[1]] = noise[..., of[0], of[1]]
    return result
