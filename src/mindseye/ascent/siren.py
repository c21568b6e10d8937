"""A canvas that is a network: Deep Daze's SIREN, whose weights are what is painted with.

Murdock and Wang 2021 (lucidrains/deep-daze). The network knows the picture at every place, so a picture of any size is
the same painting; and since every weight touches every pixel, what comes out is smooth, whole and strange.

Where we deviate: of a large picture the activations are not kept but computed again when gradients are wanted, a band
of pixels at a time, so a picture's size costs time and not memory (the original's most frequent complaint). Values
beyond the range keep a gradient that leads back (`mindseye.nn.quantize.clamp_with_gradient`), not none as there.
"""

from collections.abc import Iterable
from typing import final

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from mindseye.networks.siren import Siren, grid
from mindseye.nn.quantize import clamp_with_gradient
from mindseye.noise import Noise
from mindseye.shapes import Pixels

__all__ = ["SirenCanvas"]

_KEPT = 2**27
"""Numbers of activations that are kept; beyond, they are computed again: half a gigabyte."""


@final
class SirenCanvas:
    """Pictures by networks of their own.

    Args:
        siren: One network a picture; it is painted on, not copied.
        size: Height and width.
        hard: Whether values beyond the range get no gradient at all, as in the original.
    """

    def __init__(self, siren: Siren, size: tuple[int, int], *, hard: bool = False) -> None:
        self.siren = siren.requires_grad_()
        self.size, self.hard = size, hard
        self.places = grid(*size).to(next(siren.parameters()).device)

    @classmethod
    def of_noise(cls, siren: Siren, noise: Noise, size: tuple[int, int], *, hard: bool = False) -> "SirenCanvas":
        """A canvas whose weights are drawn as published, from the pictures' own noise."""
        siren.fill(noise)
        return cls(siren, size, hard=hard)

    def parameters(self) -> Iterable[Tensor]:
        """All weights."""
        return list(self.siren.parameters())

    def render(self) -> Pixels:
        """Every pixel asked for its colour."""
        config = self.siren.config
        per_place = config.pictures * config.layers * config.hidden * 2
        band = max(1, _KEPT // per_place)
        if len(self.places) <= band or not torch.is_grad_enabled():
            colours = torch.cat([self.siren(places) for places in self.places.split(band)], dim=1)
        else:
            # The share of activations that is alive at once: one band's.
            again = (self._again(places) for places in self.places.split(band))
            colours = torch.cat(list(again), dim=1)
        colours = colours.mT.unflatten(2, self.size)
        return colours.clamp(-1, 1) if self.hard else clamp_with_gradient(colours, -1.0, 1.0)

    def _again(self, places: Tensor) -> Tensor:
        drawn = checkpoint(self.siren, places, use_reentrant=False, preserve_rng_state=False)
        if not isinstance(drawn, Tensor):
            raise TypeError("a SIREN gives colours")
        return drawn

    def settle(self) -> None:
        """Nothing to do."""

    def terms(self) -> None:
        """No wish."""
        return None

    @torch.no_grad()
    def final(self) -> Pixels:
        """As it is."""
        return self.render()
