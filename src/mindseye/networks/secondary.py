"""The secondary model: a small, plain U-Net that knows roughly what a noisy picture shows (Crowson 2021).

Disco Diffusion asks it for the clean picture that CLIP is shown, because a gradient through its 14 million parameters
is cheap where one through the 550 million of the ADM is not. Pairs of 3x3 convolutions with ReLU, no norms; halved by
averaging, doubled bilinearly, skip connections concatenated; the time comes in as 16 constant planes. It predicts
v = alpha noise - sigma x0 (Salimans and Ho 2022, arXiv:2202.00512) for x = alpha x0 + sigma noise, at the time
t = 2 / pi atan2(sigma, alpha).

Where we deviate: levels instead of modules nested six deep; the same sums in the same order.
"""

import math
from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from mindseye.nn.layers import Conv2d
from mindseye.shapes import Sigma

__all__ = ["IMAGENET_2", "Config", "Secondary"]


@dataclass(frozen=True, kw_only=True)
class Config:
    """Shape of a `Secondary`.

    Attributes:
        channels: Channels of each level, finest first.
        planes: How many planes tell the time: cosines and sines at half as many learned frequencies.
    """

    channels: tuple[int, ...]
    planes: int = 16


IMAGENET_2 = Config(channels=(64, 128, 128, 256, 256, 512))
"""secondary_model_imagenet_2: 13,841,547 parameters."""


@final
class Secondary(nn.Module):
    """Predicts v."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        widths, last = config.channels, len(config.channels) - 1
        self.frequencies = nn.Parameter(torch.randn(config.planes // 2, 1))
        self.down = nn.ModuleList()
        self.up = nn.ModuleList()
        for level, width in enumerate(widths):
            before = 3 + config.planes if level == 0 else widths[level - 1]
            self.down.append(_chain(before, width, width))
            # The coarsest level has no finer neighbour below it to join.
            joined = width if level == last else 2 * width
            self.up.append(_chain(joined, width, widths[level - 1]) if level else _chain(joined, width))
        self.out = Conv2d(widths[0], 3, 3, padding=1)

    def forward(self, x: Float[Tensor, "B 3 H W"], t: Sigma) -> Float[Tensor, "B 3 H W"]:
        """Predict v.

        Args:
            x: alpha x0 + sigma noise; sides multiples of 2 to the number of halvings.
            t: 0 (clean) to 1 (noise), one a picture.
        """
        angles = 2 * math.pi * t.to(x.dtype)[:, None] @ self.frequencies.to(x.dtype).T
        planes = torch.cat([angles.cos(), angles.sin()], dim=1)[:, :, None, None]
        h = torch.cat([x, planes.expand(-1, -1, *x.shape[2:])], dim=1)
        skips = []
        for level, stage in enumerate(self.down):
            h = stage(F.avg_pool2d(h, 2) if level else h)
            skips.append(h)
        for level in range(len(self.up) - 1, -1, -1):
            if level < len(self.up) - 1:
                h = F.interpolate(h, scale_factor=2, mode="bilinear", align_corners=False)
                h = torch.cat([h, skips[level]], dim=1)
            h = self.up[level](h)
        return self.out(h)


def _chain(*widths: int) -> nn.Sequential:
    """3x3 convolutions from width to width, each rectified."""
    layers: list[nn.Module] = []
    for channels, out_channels in zip(widths, widths[1:], strict=False):
        layers += [Conv2d(channels, out_channels, 3, padding=1), nn.ReLU(inplace=False)]
    return nn.Sequential(*layers)
