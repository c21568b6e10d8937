"""Residual, downsampling and upsampling blocks shared by the U-Nets and the autoencoders.

GroupNorm, SiLU, 3x3 convolution, twice (the pre-activation order of Ho et al. 2020, arXiv:2006.11239). Nothing here
reshapes, so a ``channels_last`` picture stays ``channels_last`` all the way, which is the fast layout on CPUs.
"""

from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from mindseye.nn.layers import Conv2d, Linear, added, normed_silu

__all__ = ["Downsample", "ResBlock", "Upsample"]


@final
class ResBlock(nn.Module):
    """``shortcut(x) + conv(silu(norm(conv(silu(norm(x))) + embedding)))``.

    Args:
        channels: Channels in.
        out_channels: Channels out; the shortcut is a 1x1 convolution where they differ, else the identity.
        groups: Groups of both GroupNorms; must divide both channel counts.
        eps: Of both GroupNorms; 1e-5 in the U-Nets, 1e-6 in the autoencoders.
        embedding: Width of the conditioning vector (time, text) added between the convolutions; None = no vector.
    """

    def __init__(
        self, channels: int, out_channels: int, *, groups: int = 32, eps: float = 1e-6, embedding: int | None = None
    ) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(groups, channels, eps=eps)
        self.conv1 = Conv2d(channels, out_channels, 3, padding=1)
        self.embedding = None if embedding is None else Linear(embedding, out_channels)
        self.norm2 = nn.GroupNorm(groups, out_channels, eps=eps)
        self.conv2 = Conv2d(out_channels, out_channels, 3, padding=1)
        self.shortcut = nn.Identity() if channels == out_channels else Conv2d(channels, out_channels, 1)

    def forward(
        self, x: Float[Tensor, "B C H W"], embedding: Float[Tensor, "B E"] | None = None
    ) -> Float[Tensor, "B C2 H W"]:
        """Run the block.

        Args:
            x: Feature map.
            embedding: The conditioning vector, **already through its SiLU**: a U-Net computes that once for all blocks.
        """
        h = self.conv1(normed_silu(self.norm1, x))
        if self.embedding is not None:
            if embedding is None:
                raise ValueError("this block was built with an embedding and needs one")
            h = added(h, self.embedding(embedding)[:, :, None, None])
        return added(self.conv2(normed_silu(self.norm2, h)), self.shortcut(x))


@final
class Downsample(nn.Module):
    """Half the size by a 3x3 convolution of stride 2.

    Args:
        channels: Channels in.
        out_channels: Channels out; as many as in when None.
        asymmetric: Pad right and bottom only, as the autoencoders of latent diffusion do; the U-Nets pad all sides.
    """

    def __init__(self, channels: int, out_channels: int | None = None, *, asymmetric: bool = False) -> None:
        super().__init__()
        self.asymmetric = asymmetric
        self.conv = Conv2d(channels, out_channels or channels, 3, stride=2, padding=0 if asymmetric else 1)

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C2 h w"]:
        """Sizes are rounded down by the asymmetric kind and up by the other."""
        return self.conv(F.pad(x, (0, 1, 0, 1)) if self.asymmetric else x)


@final
class Upsample(nn.Module):
    """Nearest-neighbour to twice the size (or to ``size``), then a 3x3 convolution to ``out_channels``."""

    def __init__(self, channels: int, out_channels: int | None = None) -> None:
        super().__init__()
        self.conv = Conv2d(channels, out_channels or channels, 3, padding=1)

    def forward(self, x: Float[Tensor, "B C h w"], size: torch.Size | None = None) -> Float[Tensor, "B C2 H W"]:
        """``size`` is the wanted height and width where twice the size would miss an odd skip connection."""
        if size is None or size == torch.Size([2 * side for side in x.shape[2:]]):
            return self.conv.doubled(x)
        return self.conv(F.interpolate(x, size=size, mode="nearest"))
