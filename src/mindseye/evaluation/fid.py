"""Do sets of pictures look alike as sets? Fréchet distance, and precision and recall, in any critic's features.

Heusel et al. 2017 (arXiv:1706.08500) fit a Gaussian to the features of each set and measure the Fréchet distance
between the two, in the features of an Inception network. Here the features are an argument: the pocket systems are
measured with their held-out judge, because photographs' features say little about icons. The figure depends on the
features and shrinks with the number of pictures, so it only compares with figures of the same judge and the same
number; `report` therefore gives the distance of as many real pictures beside it.

Kynkäänniemi et al. 2019 (arXiv:1904.06991) split the question: how many made pictures lie among the real ones
(precision), how many real ones lie among the made (recall), where a set is the union of balls that reach to each
point's k-th neighbour.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["PrecisionRecall", "frechet", "frechet_gaussians", "precision_recall"]


class PrecisionRecall(NamedTuple):
    """Both in [0, 1]."""

    precision: float
    recall: float


def frechet(a: Float[Tensor, "N D"], b: Float[Tensor, "M D"]) -> float:
    """Squared Fréchet distance between the Gaussians fitted to two sets of features.

    Args:
        a: At least 2 rows.
        b: At least 2 rows.

    Raises:
        ValueError: A set too small to have a covariance.
    """
    if min(len(a), len(b)) < 2:
        raise ValueError(f"a covariance needs at least 2 pictures in each set, not {len(a)} and {len(b)}")
    a, b = a.detach().cpu().double(), b.detach().cpu().double()
    return frechet_gaussians(
        a.mean(0), torch.cov(a.T).reshape(a.shape[1], -1), b.mean(0), torch.cov(b.T).reshape(b.shape[1], -1)
    )


def frechet_gaussians(
    mean_a: Float[Tensor, "D"],
    covariance_a: Float[Tensor, "D D"],
    mean_b: Float[Tensor, "D"],
    covariance_b: Float[Tensor, "D D"],
) -> float:
    """``|m_a - m_b|² + tr(C_a + C_b - 2 (C_a C_b)^½)``, in float64.

    The product of two covariances is not symmetric, and its square root by the usual routes is unstable when there are
    fewer pictures than features. Its trace equals that of the symmetric ``(C_a^½ C_b C_a^½)^½``, which two symmetric
    eigendecompositions give, with rounding's negative eigenvalues cut off.
    """
    mean_a, covariance_a, mean_b, covariance_b = (
        each.detach().cpu().double() for each in (mean_a, covariance_a, mean_b, covariance_b)
    )
    values, vectors = torch.linalg.eigh(covariance_a)
    root = (vectors * values.clamp(min=0).sqrt()) @ vectors.T
    inner = root @ covariance_b @ root
    shared = torch.linalg.eigvalsh((inner + inner.T) / 2).clamp(min=0).sqrt().sum()
    distance = ((mean_a - mean_b) ** 2).sum() + covariance_a.trace() + covariance_b.trace() - 2 * shared
    return max(0.0, distance.item())


def precision_recall(real: Float[Tensor, "N D"], made: Float[Tensor, "M D"], k: int = 3) -> PrecisionRecall:
    """The share of ``made`` inside the manifold of ``real``, and the other way round.

    Compare only figures of the same ``k`` and the same numbers of pictures.

    Raises:
        ValueError: Not more than ``k`` pictures in a set.
    """
    if min(len(real), len(made)) <= k:
        raise ValueError(
            f"the {k}-th neighbour needs more than {k} pictures in each set, not {len(real)} and {len(made)}"
        )
    real, made = real.detach().cpu().double(), made.detach().cpu().double()
    return PrecisionRecall(_inside(made, real, k), _inside(real, made, k))


def _inside(points: Float[Tensor, "N D"], of: Float[Tensor, "M D"], k: int) -> float:
    """The share of ``points`` that lie in the ball of one of ``of``."""
    # The nearest neighbour of each is itself, at distance 0.
    radii = torch.cat([torch.cdist(chunk, of).kthvalue(k + 1).values for chunk in of.split(1024)])
    inside = torch.cat([(torch.cdist(chunk, of) <= radii).any(1) for chunk in points.split(1024)])
    return inside.double().mean().item()
