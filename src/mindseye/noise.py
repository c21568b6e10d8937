"""Randomness that belongs to pictures, not to batches.

Every picture has a generator of its own, seeded with its seed and kept on the CPU. Seed n therefore draws the same
numbers alone or in any batch, on any device: the promise that samplers calling a global ``randn_like`` break.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["Noise"]


class Noise:
    """One CPU generator a picture.

    Row ``b`` of whatever is drawn depends only on ``seeds[b]`` and on the draws made so far.

    Args:
        seeds: One a picture, each in 0 .. 2**63 - 1.
    """

    def __init__(self, seeds: Sequence[int]) -> None:
        self.seeds = tuple(seeds)
        self._generators = [torch.Generator().manual_seed(seed) for seed in self.seeds]

    def normal(self, *shape: int) -> Float[Tensor, "B ..."]:
        """Standard normal numbers, ``len(seeds) *shape``, float32 on the CPU."""
        return torch.stack([torch.randn(shape, generator=each) for each in self._generators])

    def uniform(self, *shape: int) -> Float[Tensor, "B ..."]:
        """Numbers in [0, 1), ``len(seeds) *shape``, float32 on the CPU."""
        return torch.stack([torch.rand(shape, generator=each) for each in self._generators])

    def normal_like(self, x: Float[Tensor, "B ..."]) -> Float[Tensor, "B ..."]:
        """Standard normal numbers of the shape, dtype and device of ``x``; drawn in float32 on the CPU first.

        Raises:
            ValueError: ``x`` does not have one row a seed.
        """
        if len(x) != len(self.seeds):
            raise ValueError(f"{len(x)} rows cannot share {len(self.seeds)} seeds")
        return self.normal(*x.shape[1:]).to(device=x.device, dtype=x.dtype)
