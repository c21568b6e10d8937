"""The noise behind a picture: searched by gradient, so that a generator can go on from what somebody else drew.

Zhu et al. 2016 (arXiv:1609.03552) and Yeh et al. 2016 (arXiv:1607.07539, filling in what is missing): only what is to
be kept is compared, and the noise is held where noise usually lies. What no noise can make, no search finds: a small
generator gives back the likeness of a picture, not the picture.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from mindseye.pixels import to_images
from mindseye.request import Progress, Steps
from mindseye.shapes import Pixels

__all__ = ["distance", "invert"]

PRIOR = 0.002
"""Weight of the noise's mean square beyond 1."""
SCALES = 3


def distance(pixels: Pixels, target: Float[Tensor, "#B 3 H W"], keep: Float[Tensor, "#B 1 H W"]) -> Float[Tensor, "B"]:
    """The mean squared difference where the picture is kept, at full, half and quarter size, summed."""
    total = pixels.new_zeros(len(pixels))
    difference, keep = (pixels - target) * keep, keep.expand(len(pixels), -1, -1, -1)
    for _ in range(SCALES):
        total = total + difference.square().mean(1).sum((1, 2)) / keep.sum((1, 2, 3)).clamp_min(1e-6)
        difference, keep = F.avg_pool2d(difference, 2), F.avg_pool2d(keep, 2)
    return total


def invert(
    paint: Callable[[Float[Tensor, "B Z"]], Pixels],
    starts: Float[Tensor, "B K Z"],
    target: Float[Tensor, "1 3 H W"],
    keep: Float[Tensor, "1 1 H W"],
    *,
    steps: int,
    lr: float = 0.05,
) -> Steps[Float[Tensor, "B Z"]]:
    """Search.

    Args:
        paint: The generator, told what it is to be told.
        starts: Noise to begin with, ``K`` tries for each of ``B`` pictures; the nearest try is followed.
        target: What is to be found again.
        keep: 1 where it matters.
        steps: Of Adam.
        lr: Its rate.

    Returns:
        Each picture's noise, the nearest on the way.
    """
    with torch.no_grad():
        tries = torch.stack([distance(paint(starts[:, k]), target, keep) for k in range(starts.shape[1])], 1)
    z = starts[torch.arange(len(starts)), tries.argmin(1)].clone()
    nearest, best = tries.min(1).values, z.clone()
    moment, square = torch.zeros_like(z), torch.zeros_like(z)
    for step in range(1, steps + 1):
        off, slope, pixels = _slope(paint, z, target, keep)
        better = off < nearest
        nearest, best = torch.where(better, off, nearest), torch.where(better[:, None], z, best)
        # Adam, by hand: each row is a search of its own, and none may hear how many others there are.
        moment, square = moment.lerp(slope, 0.1), square.lerp(slope.square(), 0.01)
        rate = lr * min(1.0, 2 * (1 - (step - 1) / steps))
        z = z - rate * (moment / (1 - 0.9**step)) / ((square / (1 - 0.99**step)).sqrt() + 1e-8)
        yield Progress("find", step, steps, lambda shown=pixels: to_images(shown))
    return best


def _slope(
    paint: Callable[[Tensor], Pixels], z: Tensor, target: Tensor, keep: Tensor
) -> tuple[Float[Tensor, "B"], Float[Tensor, "B Z"], Pixels]:
    """How far off each row is, the gradient of that, and what it paints."""
    with torch.enable_grad():
        z = z.detach().requires_grad_()
        pixels = paint(z)
        off = distance(pixels, target, keep)
        far = (z.square().mean(1) - 1).clamp_min(0)
        (slope,) = torch.autograd.grad((off + PRIOR * far).sum(), z)
    return off.detach(), slope, pixels.detach()
