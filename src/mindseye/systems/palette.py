"""A few colours, and pictures that keep to them.

The expected picture of every step is moved towards its nearest allowed colours, more so as the run goes on, so that
the network and the critics make the best of them instead of having them forced on a finished picture.
"""

from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float
from PIL import ImageColor
from torch import Tensor

from mindseye.diffusion.critic_guidance import progress
from mindseye.diffusion.denoiser import Denoiser
from mindseye.diffusion.learned_variance import Belief, believed
from mindseye.diffusion.schedule import Schedule
from mindseye.errors import LimitError, OptionError, nearest
from mindseye.shapes import Pixels, Sigma

__all__ = ["Palette", "Paletted", "read_palette"]

MOST = 64
"""Colours."""


@final
@dataclass(frozen=True, eq=False)
class Palette:
    """Colours that are allowed.

    Attributes:
        colours: In [-1, 1].
    """

    colours: Float[Tensor, "K 3"]

    def move(self, pixels: Pixels, amount: float) -> Pixels:
        """Every pixel so much of the way (0 to 1) to the colour nearest to it."""
        colours = self.colours.to(pixels)
        places = pixels.permute(0, 2, 3, 1)
        far = torch.cdist(places.flatten(0, 2), colours)
        allowed = colours[far.argmin(1)].view_as(places).permute(0, 3, 1, 2)
        return torch.lerp(pixels, allowed, amount)


@final
@dataclass(frozen=True, eq=False)
class Paletted:
    """A denoiser that expects pictures of these colours only, ever more firmly.

    Attributes:
        denoise: What is wrapped.
        palette: The colours.
        schedule: Tells how far the run is.
        amount: How firmly at its end.
    """

    denoise: Denoiser
    palette: Palette
    schedule: Schedule
    amount: float

    def __call__(self, x: Pixels, sigma: Sigma) -> Pixels:
        """Estimate x0."""
        return self._moved(self.denoise(x, sigma), sigma)

    def believe(self, x: Pixels, sigma: Sigma) -> Belief:
        """The same, with what the network says beside it."""
        belief = believed(self.denoise, x, sigma)
        return belief._replace(x0=self._moved(belief.x0, sigma))

    def _moved(self, x0: Tensor, sigma: Sigma) -> Tensor:
        return self.palette.move(x0, self.amount * progress(self.schedule, float(sigma[0])))


def read_palette(text: str) -> Palette:
    """Colours by their names in HTML or as ``#rgb`` and ``#rrggbb``, separated by commas.

    Raises:
        OptionError: No such colour, or none at all.
        LimitError: More than `MOST`.
    """
    named = [each.strip() for each in text[:10_000].split(",") if each.strip()]
    if not named:
        raise OptionError("a palette has at least one colour", hint="--set 'palette=navy,#ffcc00,white'")
    if len(named) > MOST:
        raise LimitError(f"a palette of {len(named)} colours; at most {MOST} are kept to")
    rows = []
    for each in named:
        try:
            rows.append(ImageColor.getrgb(each[:40])[:3])
        except ValueError:
            like = nearest(each[:40], ImageColor.colormap)
            hint = f"did you mean {like!r}?" if like else "colours have names, or are written #ffcc00"
            raise OptionError(f"{each!r:.60} is no colour", hint=hint) from None
    return Palette(torch.tensor(rows, dtype=torch.float32) / 127.5 - 1)
