"""How much of a picture's structure is left in another: SSIM.

Wang, Bovik, Sheikh and Simoncelli 2004, "Image quality assessment: from error visibility to structural similarity"
(IEEE Transactions on Image Processing 13): brightness, contrast and pattern are compared under a small Gaussian window,
and the mean over all places of it is the figure. 1 = the same; about 0 = nothing in common; below 0 = the negative.

As published: a window of 11x11 with a deviation of 1.5, K1 = 0.01, K2 = 0.03, variances by the window's own weights,
and only places where the window lies wholly inside. Colours are compared channel by channel and averaged, where the
paper looks at brightness alone: a change of colour is a change here.
"""

from typing import Final

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from mindseye.shapes import Pixels

__all__ = ["ssim"]

SIDE: Final = 11
DEVIATION: Final = 1.5
RANGE: Final = 2.0
"""From black to white."""
K1: Final = 0.01
K2: Final = 0.03


def ssim(a: Pixels, b: Pixels) -> Float[Tensor, "B"]:
    """Structural similarity of each pair of pictures, in [-1, 1].

    Args:
        a: In [-1, 1], at least 11 pixels a side.
        b: The others, as many and of the same size.

    Raises:
        ValueError: Sizes that differ, or a side shorter than the window.
    """
    if a.shape != b.shape or min(a.shape[-2:]) < SIDE:
        raise ValueError(f"pictures of {tuple(a.shape)} and {tuple(b.shape)}: alike, and 11 pixels a side at least")
    x, y = a.double(), b.double()
    mean_x, mean_y = _smoothed(x), _smoothed(y)
    var_x, var_y = _smoothed(x * x) - mean_x**2, _smoothed(y * y) - mean_y**2
    both = _smoothed(x * y) - mean_x * mean_y
    one, two = (K1 * RANGE) ** 2, (K2 * RANGE) ** 2
    # Brightness is compared as light, whose zero is black.
    light_x, light_y = mean_x + 1, mean_y + 1
    bright = (2 * light_x * light_y + one) / (light_x**2 + light_y**2 + one)
    pattern = (2 * both + two) / (var_x + var_y + two)
    return (bright * pattern).mean((1, 2, 3)).float()


def _smoothed(x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C h w"]:
    """Under the window, everywhere that it fits."""
    along = torch.arange(SIDE, dtype=x.dtype, device=x.device) - SIDE // 2
    kernel = torch.exp(-(along**2) / (2 * DEVIATION**2))
    kernel = (kernel / kernel.sum()).expand(x.shape[1], 1, -1)
    across = F.conv2d(x, kernel[:, :, None, :], groups=x.shape[1])
    return F.conv2d(across, kernel[:, :, :, None], groups=x.shape[1])
