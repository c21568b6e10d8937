"""A judge that looks through networks which already see: small heads on frozen features.

Projected GAN (Sauer et al. 2021, arXiv:2111.01007) and StyleGAN-T (Sauer et al. 2023, arXiv:2301.09515): a judge that
learns to see from nothing wins by whatever it notices first, and a painter that hears only that learns little. Features
of trained networks tell edges, parts and things from the first step on; a head on each map of them gives a logit a
place, and what the picture should show enters by projection, as in `mindseye.networks.discriminator`.

Deviations: features are normalised over the channels of each place instead of being mixed at random; which networks
they come from is the caller's choice; and the batch's deviation is a channel of each head, by which a painter that
always paints the same is found out.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

from mindseye.networks.discriminator import SLOPE, deviation
from mindseye.nn.layers import Conv2d, Linear
from mindseye.shapes import Pixels

__all__ = ["Config", "Projected"]

Maps = Sequence[Float[Tensor, "B _ _ _"]]
See = Callable[[Pixels], Maps]
"""From pictures to feature maps, through networks that are not trained here."""


@dataclass(frozen=True, kw_only=True)
class Config:
    """A judge on features.

    Attributes:
        channels: Of each map that is seen.
        width: Channels of a head.
        told: Numbers that say what a picture should show; 0 = nothing is said.
        group: Pictures whose deviation from each other is a channel; 1 = none.
    """

    channels: tuple[int, ...]
    width: int = 64
    told: int = 0
    group: int = 4


@final
class Head(nn.Module):
    """A 1x1 convolution, a residual 3x3, and a logit a place.

    Args:
        channels: Of the map.
        config: Of the judge.
    """

    def __init__(self, channels: int, config: Config) -> None:
        super().__init__()
        width, self.group = config.width, config.group
        self.first = Conv2d(channels, width, 1)
        self.second = Conv2d(width + (config.group > 1), width, 3, padding=1)
        self.judge = Conv2d(width, 1, 1)
        for layer in (self.first, self.second, self.judge):
            parametrizations.spectral_norm(layer)
        self.projection = None
        if config.told:
            # As loud as what is seen, for a class's row with a single 1 as for a text's vector.
            self.projection = Linear(config.told, width, bias=False)
            nn.init.normal_(self.projection.weight)

    def look(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B D H W"]:
        """What is seen, before anything is said."""
        x = F.layer_norm(x.permute(0, 2, 3, 1), (x.shape[1],)).permute(0, 3, 1, 2)
        x = F.leaky_relu(self.first(x), SLOPE)
        more = x if self.group == 1 else torch.cat([x, deviation(x, self.group)], 1)
        return F.leaky_relu(x + self.second(more), SLOPE)

    def compare(self, seen: Float[Tensor, "B D H W"], told: Float[Tensor, "B N"] | None) -> Float[Tensor, "B L"]:
        """A logit a place."""
        logits = self.judge(seen)[:, 0]
        if told is not None and self.projection is not None:
            wanted = self.projection(told) / seen.shape[1] ** 0.5
            logits = logits + torch.einsum("bchw,bc->bhw", seen, wanted.to(seen.dtype))
        return logits.flatten(1)


@final
class Projected(nn.Module):
    """A judge of pictures by features.

    Args:
        config: What to build.
        see: The features; neither trained nor saved with it.

    Attributes:
        config: As given.
    """

    def __init__(self, config: Config, see: See) -> None:
        super().__init__()
        self.config, self.see = config, see
        self.heads = nn.ModuleList(Head(channels, config) for channels in config.channels)

    def forward(self, pixels: Pixels, told: Float[Tensor, "B N"] | None = None) -> Float[Tensor, "B L"]:
        """A logit for each place of each map; above 0 is taken for real, and for what it should show.

        Raises:
            ValueError: Something is said to a judge that is told nothing, or the other way round.
        """
        return self.compare(self.look(pixels), told)

    def look(self, pixels: Pixels) -> list[Float[Tensor, "B D _ _"]]:
        """What the heads see, before anything is said."""
        return [head.look(x) for head, x in zip(self._heads, self.see(pixels), strict=True)]

    def compare(self, seen: Sequence[Float[Tensor, "B D _ _"]], told: Float[Tensor, "B N"] | None) -> Tensor:
        """The logits of what was seen, with what it should have been: many texts for one look."""
        if (told is None) != (self.config.told == 0):
            raise ValueError("this judge is told nothing" if self.config.told == 0 else "this judge must be told")
        return torch.cat([head.compare(x, told) for head, x in zip(self._heads, seen, strict=True)], 1)

    @property
    def _heads(self) -> list[Head]:
        return [head for head in self.heads if isinstance(head, Head)]
