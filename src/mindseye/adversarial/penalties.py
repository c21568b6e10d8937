"""What keeps a discriminator smooth where it matters: penalties on its slope.

- `r1` (Mescheder et al. 2018, arXiv:1801.04406): the squared slope at real pictures.
- `gradient_penalty` (Gulrajani et al. 2017, arXiv:1704.00028, "WGAN-GP"): the slope between real and painted is 1.
- `matching_aware` (Tao et al. 2020, arXiv:2008.05865, "MA-GP"): a steep power of the slope, in picture and text at
  once, at real pictures with their own texts: there, and only there, the surface is to be flat.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["gradient_penalty", "matching_aware", "r1"]

Score = Callable[[Tensor], Tensor]
"""From pictures to their logits."""


def _slopes(score: Tensor, inputs: list[Tensor]) -> Float[Tensor, "B"]:
    """The squared length of each row's gradient in all inputs together."""
    # One row's logit is not a function of another's picture, but for norms over the batch, which penalties forbid.
    found = torch.autograd.grad(score.sum(), inputs, create_graph=True)
    return torch.stack([each.float().square().flatten(1).sum(1) for each in found]).sum(0)


def r1(score: Score, real: Float[Tensor, "B 3 H W"]) -> Float[Tensor, ""]:
    """Half the mean squared slope at real pictures."""
    real = real.detach().requires_grad_()
    return 0.5 * _slopes(score(real), [real]).mean()


def gradient_penalty(
    score: Score, real: Float[Tensor, "B 3 H W"], fake: Float[Tensor, "B 3 H W"], where: Float[Tensor, "B"]
) -> Float[Tensor, ""]:
    """The mean squared difference of the slope from 1.

    Args:
        score: The discriminator.
        real: Pictures.
        fake: Paintings.
        where: How far each row's place lies on the way from painting to picture.
    """
    share = where.to(real)[:, None, None, None]
    between = torch.lerp(fake.detach(), real, share).requires_grad_()
    return (_slopes(score(between), [between]).clamp_min(1e-12).sqrt() - 1).square().mean()


def matching_aware(
    score: Callable[[Tensor, Tensor], Tensor],
    real: Float[Tensor, "B 3 H W"],
    told: Float[Tensor, "B N"],
    power: float = 6.0,
) -> Float[Tensor, ""]:
    """The mean of a power of the slope at pairs of picture and text.

    Args:
        score: From pictures and texts to logits.
        real: Pictures.
        told: Their own texts.
        power: 6 in the paper, with a weight of 2.
    """
    real, told = real.detach().requires_grad_(), told.detach().requires_grad_()
    return _slopes(score(real, told), [real, told]).clamp_min(1e-12).pow(power / 2).mean()
