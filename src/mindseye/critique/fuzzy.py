"""Fuzzy prompts: every aim as a cloud of aims around it, another cloud for each picture (Disco Diffusion's option).

A critic then pulls towards a neighbourhood of what was asked for. Disco adds noise to CLIP's vectors as they come, so
that the same amount is little beside long vectors and much beside short ones; only then are they made of unit length.

Repaired: Disco holds the noisy vectors within 0 and 1, as if they were colours. That takes away every number below
zero, half of what a direction is, and brings any two prompts nearer to each other.
"""

from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from mindseye.noise import Noise

__all__ = ["COPIES", "Fuzz"]

COPIES = 25
"""Aims in a cloud."""


@final
@dataclass(frozen=True, eq=False)
class Fuzz:
    """Scatters aims.

    Attributes:
        amount: Standard deviation of what is added to each number of a vector.
        noise: Of the pictures.
        compat: Hold what comes of it within 0 and 1, as Disco Diffusion does.
    """

    amount: float
    noise: Noise
    compat: bool = False

    @torch.no_grad()
    def __call__(self, rows: Float[Tensor, "K D"]) -> Float[Tensor, "B P D"]:
        """Unit rows around ``rows``, which have the length that the critic gave them: `COPIES` of all, one by one."""
        near = rows.repeat(COPIES, 1)
        near = near + self.amount * self.noise.normal(*near.shape).to(near)
        return F.normalize(near.clamp(0, 1) if self.compat else near, dim=-1)
