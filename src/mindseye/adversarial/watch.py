"""What goes wrong in a contest, in numbers: does the painter paint everything, always something else, and of its own?

A generator that has found one picture the judge accepts paints nothing else (mode collapse), and its loss does not
say so. Looked at through the features of a network that took no part:

- `recall` and `precision` (Kynkaanniemi et al. 2019, arXiv:1904.06991): which share of unseen pictures lies among the
  paintings, and of paintings among the pictures.
- `diversity`: how far paintings of the same prompt lie from each other.
- `copied`: which share of paintings lies nearer to a training picture than all but 1 % of unseen pictures do.
- `Probe`: a classifier of features, fitted in closed form on real pictures, for how often a class is recognised.
"""

from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

__all__ = ["Probe", "accuracy", "copied", "diversity", "nearest", "precision", "recall"]

Features = Float[Tensor, "N D"]


def nearest(queries: Features, references: Float[Tensor, "M D"], k: int = 1, chunk: int = 2048) -> Float[Tensor, "N"]:
    """The distance to the ``k``-th nearest reference; memory grows with the chunk."""
    found = queries.new_full((len(queries), k), torch.inf)
    for part in references.split(chunk):
        found = torch.cat([found, torch.cdist(queries, part)], 1).topk(k, largest=False).values
    return found[:, -1]


def recall(real: Features, made: Float[Tensor, "M D"], k: int = 3) -> float:
    """The share of real rows within the reach of some painting: its distance to its ``k``-th neighbour among them."""
    # Itself is its nearest: hence one more.
    reach = nearest(made, made, k + 1)
    return float((torch.cdist(real, made) <= reach[None]).any(1).float().mean())


def precision(real: Features, made: Float[Tensor, "M D"], k: int = 3) -> float:
    """The share of paintings within the reach of some real row."""
    return recall(made, real, k)


def diversity(made: Float[Tensor, "P K D"]) -> float:
    """The mean distance between two of the ``K`` paintings of a prompt, over ``P`` prompts; 0 = all alike."""
    count = made.shape[1]
    if count < 2:
        raise ValueError("one painting a prompt has nothing to differ from")
    return float(torch.cdist(made, made).sum((1, 2)).mean() / (count * (count - 1)))


def copied(made: Features, training: Float[Tensor, "T D"], unseen: Float[Tensor, "U D"], share: float = 0.01) -> float:
    """The share of paintings that lie suspiciously near to a training picture; ``share`` is what chance gives."""
    threshold = nearest(unseen, training).double().quantile(share)
    return float((nearest(made, training) < threshold).float().mean())


@final
@dataclass(frozen=True, eq=False)
class Probe:
    """A classifier of features: ridge regression to one-hot rows with a Gaussian kernel, fitted in closed form.

    Attributes:
        rows: Features that it was fitted on.
        weights: Of each row, for each class.
        width: Squared distance at which two rows hardly know each other.
    """

    rows: Float[Tensor, "N D"]
    weights: Float[Tensor, "N C"]
    width: float

    @classmethod
    def fit(
        cls, rows: Features, labels: Int[Tensor, "N"], classes: int, width: float = 0.8, ridge: float = 0.1
    ) -> "Probe":
        """Fit; classes with as many rows each count alike. The defaults are for unit rows."""
        kernel = _kernel(rows, rows, width)
        kernel.diagonal().add_(ridge)
        return cls(rows, torch.linalg.solve(kernel, F.one_hot(labels, classes).double()), width)

    def __call__(self, features: Float[Tensor, "M D"]) -> Int[Tensor, "M"]:
        """The class of each row."""
        return self.scores(features).argmax(1)

    def scores(self, features: Float[Tensor, "M D"]) -> Float[Tensor, "M C"]:
        """How much each row is of each class: about 1 where it is, about 0 where it is not. Has a gradient."""
        return _kernel(features, self.rows, self.width) @ self.weights


def accuracy(probe: Probe, features: Features, labels: Int[Tensor, "N"]) -> float:
    """The share of rows whose class is recognised."""
    return float((probe(features) == labels).float().mean())


def _kernel(a: Features, b: Float[Tensor, "M D"], width: float) -> Float[Tensor, "N M"]:
    return torch.exp(-torch.cdist(a.double(), b.double()).square() / width)
