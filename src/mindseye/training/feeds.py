"""Feeds: which examples a step sees, as a function of the step alone."""

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from mindseye.objective import Batch

__all__ = ["PictureFeed", "order", "to_pixels"]


def order(step: int, size: int, count: int, seed: int = 0) -> NDArray[np.int64]:
    """The ``size`` examples of ``step``: every epoch a new permutation of ``count``, batches straddling epochs."""
    start = step * size
    picked = []
    for epoch in range(start // count, (start + size - 1) // count + 1):
        permutation = _permutation(epoch, count, seed)
        low, high = max(start - epoch * count, 0), min(start + size - epoch * count, count)
        picked.append(permutation[low:high])
    return np.concatenate(picked)


_permutations: dict[tuple[int, int, int], NDArray[np.int64]] = {}


def _permutation(epoch: int, count: int, seed: int) -> NDArray[np.int64]:
    key = (epoch, count, seed)
    if key not in _permutations:
        # Two are kept, for the batch that straddles epochs; a permutation of a million takes milliseconds to remake.
        while len(_permutations) > 1:
            _permutations.pop(next(iter(_permutations)))
        _permutations[key] = np.random.default_rng([seed, epoch]).permutation(count)
    return _permutations[key]


def to_pixels(pictures: NDArray[np.uint8]) -> Float[Tensor, "B 3 H W"]:
    """``B H W 3`` bytes to pixels in [-1, 1], channels last in memory."""
    return torch.from_numpy(np.array(pictures)).permute(0, 3, 1, 2).float().div_(127.5).sub_(1)


class PictureFeed:
    """Pictures as ``pixels``."""

    def __init__(self, pictures: NDArray[np.uint8], seed: int = 0) -> None:
        self.pictures = pictures
        self.seed = seed

    def batch(self, step: int, size: int) -> Batch:
        """``{"pixels": B 3 H W}``."""
        rows = np.sort(order(step, size, len(self.pictures), self.seed))
        return {"pixels": to_pixels(self.pictures[rows])}
