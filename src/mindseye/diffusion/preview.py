"""A look at a picture while it is being made, at a price that does not slow the making.

The channels of an autoencoder's latents are nearly a linear function of colour, so an affine map from C channels to
RGB, fitted once by least squares to pairs of latents and small pictures, shows what is going on for a few thousand
multiplications. (The trick of latent previews in the Stable Diffusion web interfaces, which ship fitted numbers; we
fit: whatever codec there is, to what it makes of the picture itself, made small, and of a field of soft noise.)
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from mindseye.shapes import Latents, Pixels

__all__ = ["LinearPreview", "Sketch", "fit", "preview"]

_SMALL = 1024
"""Latents of a picture up to which decoding it is cheap."""

_SIDE = 16
"""Side of the latents that a map is fitted to: a sixteenth of the work of decoding 512x512 pixels, each."""


@dataclass(frozen=True, eq=False)
class LinearPreview:
    """Colour as an affine function of a latent.

    Attributes:
        weight: RGB from channels.
        bias: RGB of a latent of zeros.
    """

    weight: Float[Tensor, "3 C"]
    bias: Float[Tensor, "3"]

    def __call__(self, latents: Latents) -> Float[Tensor, "B 3 h w"]:
        """Small pictures in about [-1, 1], one pixel a latent."""
        weight, bias = self.weight.to(latents), self.bias.to(latents)
        return torch.einsum("rc,bchw->brhw", weight, latents) + bias[:, None, None]


def fit(latents: Latents, pixels: Pixels) -> LinearPreview:
    """The least-squares map from latents to their pictures, the pictures averaged down to the latents' size.

    Args:
        latents: ``B C h w``, best of a few hundred pictures.
        pixels: ``B 3 H W`` in [-1, 1], the same pictures; sides multiples of ``h`` and ``w``.
    """
    height, width = latents.shape[-2:]
    small = F.adaptive_avg_pool2d(pixels, (height, width))
    known = latents.double().movedim(1, -1).flatten(0, 2).cpu()
    known = torch.cat([known, torch.ones(len(known), 1, dtype=torch.float64)], dim=1)
    wanted = small.double().movedim(1, -1).flatten(0, 2).cpu()
    # gelsd: a codec may have channels it never uses.
    solution = torch.linalg.lstsq(known, wanted, driver="gelsd").solution.float()
    return LinearPreview(solution[:-1].T.contiguous(), solution[-1])


@torch.no_grad()
def preview(
    latents: Latents, decode: Callable[[Latents], Pixels], linear: LinearPreview | None = None, *, small: int = _SMALL
) -> Float[Tensor, "B 3 H W"]:
    """Pictures of half-made latents.

    Args:
        latents: What a sampler expects the clean latents to be.
        decode: The codec's, used where it is cheap: up to ``small`` latents a picture, or when there is no ``linear``.
        linear: The cheap map; its pictures have one pixel a latent.
        small: Latents a picture.
    """
    if linear is None or latents.shape[-2] * latents.shape[-1] <= small:
        return decode(latents)
    return linear(latents)


class Sketch:
    """Previews of large pictures by a map that is fitted when the first is asked for.

    Args:
        decode: The codec's.
        linear: The map, where there is one already.
    """

    def __init__(self, decode: Callable[[Latents], Pixels], linear: LinearPreview | None = None) -> None:
        self._decode, self._linear = decode, linear

    def __call__(self, latents: Latents) -> Float[Tensor, "B 3 H W"]:
        """Pictures of half-made latents: small ones whole, large ones with a pixel a latent; arguments of `preview`."""
        if self._linear is None and latents.shape[-2] * latents.shape[-1] > _SMALL:
            self._linear = self._fitted(latents)
        return preview(latents, self._decode, self._linear)

    @torch.no_grad()
    def _fitted(self, latents: Latents) -> LinearPreview:
        """From the first picture, made small, and from as many latents of soft noise: half-made pictures are flat."""
        picture = F.adaptive_avg_pool2d(latents[:1].float(), (_SIDE, _SIDE))
        noise = torch.randn(1, latents.shape[1], 5, 5, generator=torch.Generator().manual_seed(0)).to(picture)
        shown = torch.cat([picture, F.interpolate(noise, (_SIDE, _SIDE), mode="bicubic", align_corners=True)])
        return fit(shown, self._decode(shown.to(latents.dtype)).float())
