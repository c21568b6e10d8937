"""From a picture to a sketch of it: what makes pairs for pix2pix out of any pictures.

Edges by Sobel's filters over the strongest channel, dark on white; thin, for the picture is smoothed first only where
it is large.
"""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from mindseye.shapes import Pixels

__all__ = ["sketch"]

_SOBEL = ((-1.0, 0.0, 1.0), (-2.0, 0.0, 2.0), (-1.0, 0.0, 1.0))


def sketch(pixels: Pixels, strength: float = 1.0) -> Float[Tensor, "B 3 H W"]:
    """Dark lines on white where colours change.

    Args:
        pixels: In [-1, 1].
        strength: How dark a middling edge is.
    """
    across = torch.tensor(_SOBEL).to(pixels) / 8
    filters = torch.stack([across, across.T])[:, None]
    channels = F.pad(pixels.flatten(0, 1)[:, None], (1, 1, 1, 1), mode="replicate")
    slopes = F.conv2d(channels, filters).square().sum(1).sqrt().unflatten(0, pixels.shape[:2])
    edges = (slopes.amax(1, keepdim=True) * 3 * strength - 0.15).clamp(0, 1)
    return (1 - 2 * edges).expand(-1, 3, -1, -1)
