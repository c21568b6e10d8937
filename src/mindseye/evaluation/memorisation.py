"""Has a model drawn, or has it remembered? The nearest training picture to each picture it made.

Carlini et al. 2023 (arXiv:2301.13188) found training pictures in what diffusion models draw, by distance to the nearest
one. How near is too near depends on the corpus: icons of one face differ by a brush stroke. So the threshold is
calibrated: pictures that the model never saw are measured against the training pictures first, and a drawn picture is
suspect when it lies nearer than all but the nearest 1 % of those. A model that draws as freshly as the corpus itself is
suspect in 1 % of its pictures; the share above that is memory.

Two spaces, for they fail differently: pixels see copies and miss shifted ones, the judge's features see the same
drawing moved, and are blind to what the judge does not look at.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from PIL import Image
from torch import Tensor

__all__ = ["Memorisation", "Neighbours", "memorisation", "nearest", "thumbnails"]

CALIBRATION = 0.01
"""The share of unseen pictures that is allowed to count as suspect."""


class Neighbours(NamedTuple):
    """The nearest reference of each query."""

    distances: Float[Tensor, "N"]
    """Euclidean."""
    indices: Int[Tensor, "N"]
    """Which reference."""


@dataclass(frozen=True, kw_only=True)
class Memorisation:
    """What was found in one space."""

    space: str
    """``"features"`` or ``"pixels"``."""
    threshold: float
    """Nearer than this is suspect."""
    suspect: Bool[Tensor, "N"]
    """Which of the pictures made are."""
    neighbours: Neighbours
    """The nearest training picture of each picture made."""
    unseen: Float[Tensor, "H"]
    """The distance of each unseen picture to its nearest training picture."""

    def pairs(self, count: int) -> list[tuple[int, int, float]]:
        """The ``count`` nearest (picture made, training picture, distance / threshold), nearest first, for a sheet."""
        order = self.neighbours.distances.argsort(stable=True)[:count].tolist()
        floor = max(self.threshold, 1e-12)
        return [(i, int(self.neighbours.indices[i]), self.neighbours.distances[i].item() / floor) for i in order]


def memorisation(
    space: str, made: Float[Tensor, "N D"], training: Float[Tensor, "T D"], unseen: Float[Tensor, "H D"]
) -> Memorisation:
    """Which pictures lie nearer to a training picture than unseen pictures do.

    Args:
        space: What the vectors are, for the report.
        made: The pictures that a model drew, from captions like the unseen pictures' own.
        training: Pictures that it was trained on, as many as can be had: what is left out cannot be found.
        unseen: Held-out pictures, some 100 at least, for the threshold is their 1st percentile.
    """
    calibration = nearest(unseen, training).distances
    threshold = torch.quantile(calibration.double(), CALIBRATION).item()
    neighbours = nearest(made, training)
    return Memorisation(
        space=space,
        threshold=threshold,
        suspect=neighbours.distances < threshold,
        neighbours=neighbours,
        unseen=calibration,
    )


def nearest(queries: Float[Tensor, "N D"], references: Float[Tensor, "T D"], chunk: int = 4096) -> Neighbours:
    """The nearest reference of each query; memory grows with ``N * chunk``, not with ``N * T``."""
    best = torch.full((len(queries),), torch.inf, dtype=queries.dtype)
    where = torch.zeros(len(queries), dtype=torch.long)
    for start in range(0, len(references), chunk):
        # Not by inner products: they round a copy's distance of 0 to something else.
        distances, indices = torch.cdist(
            queries, references[start : start + chunk], compute_mode="donot_use_mm_for_euclid_dist"
        ).min(1)
        closer = distances < best
        best, where = torch.where(closer, distances, best), torch.where(closer, indices + start, where)
    return Neighbours(best, where)


def thumbnails(pictures: Sequence[Image.Image], side: int = 16) -> Float[Tensor, "N D"]:
    """Pictures as ``3 side side`` vectors whose Euclidean distance is the root mean square difference in [0, 1].

    So small, because what is asked is "the same drawing", not "the same bytes"; and a corpus must fit into memory.
    """
    rows = [
        np.asarray(picture.convert("RGB").resize((side, side), Image.Resampling.BOX), dtype=np.float32).ravel() / 255
        for picture in pictures
    ]
    return torch.from_numpy(np.stack(rows)) / (3 * side * side) ** 0.5
