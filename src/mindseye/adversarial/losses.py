"""What each side of the contest wants, from logits; above 0 is taken for real.

- ``minimax`` (Goodfellow et al. 2014, arXiv:1406.2661, equation 1): cross-entropy, the generator minimises what the
  discriminator maximises. Its gradient vanishes where the discriminator wins.
- ``non-saturating`` (the same paper, section 3): the generator maximises log D instead, as everybody does.
- ``hinge`` (Lim and Ye 2017, arXiv:1705.02894; SAGAN, BigGAN): logits beyond the margin are left alone.
- ``wasserstein`` (Arjovsky et al. 2017, arXiv:1701.07875): differences of means, for judges of bounded slope.
- ``least-squares`` (Mao et al. 2016, arXiv:1611.04076; CycleGAN): distance to 1 and 0.
"""

from collections.abc import Callable
from typing import Final, Literal, NamedTuple

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

__all__ = ["CONTESTS", "Contest", "Kind"]

Kind = Literal["minimax", "non-saturating", "hinge", "wasserstein", "least-squares"]
Logits = Float[Tensor, "*B"]
"""One a picture, or one a patch."""


class Contest(NamedTuple):
    """Both sides of one contest; each function gives one number for the whole batch."""

    real: Callable[[Logits], Float[Tensor, ""]]
    """What the discriminator minimises of real pictures' logits."""
    fake: Callable[[Logits], Float[Tensor, ""]]
    """What it minimises of painted pictures' logits."""
    generator: Callable[[Logits], Float[Tensor, ""]]
    """What the generator minimises of its pictures' logits."""


CONTESTS: Final[dict[Kind, Contest]] = {
    "minimax": Contest(
        lambda real: F.softplus(-real).mean(),
        lambda fake: F.softplus(fake).mean(),
        lambda fake: -F.softplus(fake).mean(),
    ),
    "non-saturating": Contest(
        lambda real: F.softplus(-real).mean(),
        lambda fake: F.softplus(fake).mean(),
        lambda fake: F.softplus(-fake).mean(),
    ),
    "hinge": Contest(
        lambda real: F.relu(1 - real).mean(),
        lambda fake: F.relu(1 + fake).mean(),
        lambda fake: -fake.mean(),
    ),
    "wasserstein": Contest(
        lambda real: -real.mean(),
        lambda fake: fake.mean(),
        lambda fake: -fake.mean(),
    ),
    "least-squares": Contest(
        lambda real: (real - 1).square().mean(),
        lambda fake: fake.square().mean(),
        lambda fake: (fake - 1).square().mean(),
    ),
}
"""All contests, by name."""
