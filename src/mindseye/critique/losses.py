"""How far a picture is from a prompt, and when a prompt stops pulling.

Spherical: half the squared great-circle distance on the unit sphere, ``2 arcsin(|x - y| / 2)^2`` (Crowson 2021), 0 to
pi^2 / 2. Cosine: ``-100 cos`` (Murdock 2021, Deep Daze and Big Sleep).
"""

from collections.abc import Callable, Mapping
from typing import Literal, TypeAlias, get_args

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["DISTANCES", "LOSSES", "Distance", "LossName", "cosine", "spherical", "stopped"]

LossName: TypeAlias = Literal["spherical", "cosine"]
LOSSES: tuple[LossName, ...] = get_args(LossName)
"""All there are."""

Distance: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""Unit rows `... D` and `P D` -> distances `... P`."""


def spherical(x: Float[Tensor, "*S D"], y: Float[Tensor, "P D"]) -> Float[Tensor, "*S P"]:
    """Half the squared angle between unit rows.

    Its slope is infinite only between opposite directions; a hair's breadth before that it is held.

    Args:
        x: Unit rows.
        y: Unit rows.
    """
    # Differences and not cosines: between near vectors a cosine has lost the digits that count.
    half = (x[..., None, :] - y).norm(dim=-1) / 2
    return 2 * torch.asin(half.clamp(max=1 - 1e-6)) ** 2


def cosine(x: Float[Tensor, "*S D"], y: Float[Tensor, "P D"]) -> Float[Tensor, "*S P"]:
    """-100 times the cosine of the angle between unit rows."""
    return -100 * (x @ y.T)


DISTANCES: Mapping[LossName, Distance] = {"spherical": spherical, "cosine": cosine}
"""By name."""


def stopped(
    distances: Float[Tensor, "*S P"], weights: Float[Tensor, "P"], stops: Float[Tensor, "P"]
) -> Float[Tensor, "*S P"]:
    """Distances weighted: their value in full, their gradient nowhere that the signed distance is below its stop.

    Args:
        distances: To each prompt.
        weights: Of each; negative pushes away.
        stops: Of each, on the distance times the weight's sign; minus infinity never stops.
    """
    signed = distances * weights.sign()
    # As in the notebook, whose maximum hands half of the gradient to either side of a tie; ours, all of it.
    pulled = torch.where(signed >= stops, signed, signed.detach())
    return pulled * weights.abs()
