"""How far a figure can be trusted: 95 % intervals for shares, means and anything computed from a set.

Wilson's score interval for shares (Wilson 1927), because it stays inside [0, 1] and means something at 0 of 20, where
the usual plus or minus does not. The percentile bootstrap for means (Efron 1979). The delete-a-group jackknife (Shao
and Wu 1989) for distances between sets: resampling with repetition, as the bootstrap does, would itself move such a
distance.
"""

import math
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

import numpy as np

__all__ = ["Estimate", "jackknife", "mean", "share"]

Z: Final = 1.959963984540054
"""The normal quantile of a 95 % interval."""


class Estimate(NamedTuple):
    """A figure, the 95 % interval around it, and how many observations it rests on."""

    value: float
    low: float
    high: float
    n: int


def share(hits: Sequence[bool]) -> Estimate:
    """The share of hits in [0, 1], with Wilson's interval; nan of nothing."""
    n = len(hits)
    if n == 0:
        return Estimate(math.nan, math.nan, math.nan, 0)
    p = sum(map(bool, hits)) / n
    middle = (p + Z * Z / (2 * n)) / (1 + Z * Z / n)
    half = Z / (1 + Z * Z / n) * math.sqrt(p * (1 - p) / n + Z * Z / (4 * n * n))
    # Exactly 0 of n and n of n end where the range ends; rounding must not say otherwise.
    return Estimate(p, 0.0 if p == 0 else middle - half, 1.0 if p == 1 else middle + half, n)


def mean(values: Sequence[float], seed: int = 0, rounds: int = 2000) -> Estimate:
    """The mean, with the percentile bootstrap's interval; nan of nothing."""
    n = len(values)
    if n == 0:
        return Estimate(math.nan, math.nan, math.nan, 0)
    x = np.asarray(values, dtype=np.float64)
    drawn = x[np.random.default_rng(seed).integers(0, n, (rounds, n))].mean(1)
    low, high = np.quantile(drawn, [0.025, 0.975])
    return Estimate(float(x.mean()), float(low), float(high), n)


def jackknife(statistic: Callable[[np.ndarray], float], count: int, seed: int = 0, groups: int = 10) -> Estimate:
    """A statistic of a set, with the interval that leaving out one group of it at a time gives.

    Args:
        statistic: From the indices that are used to the figure.
        count: How many observations there are, at least one a group.
        seed: Decides the groups.
        groups: How many.

    Raises:
        ValueError: Fewer observations than groups.
    """
    if count < groups:
        raise ValueError(f"{count} observations cannot be split into {groups} groups")
    order = np.random.default_rng(seed).permutation(count)
    value = statistic(np.sort(order))
    parts = np.array_split(order, groups)
    without = np.array([statistic(np.sort(np.concatenate(parts[:g] + parts[g + 1 :]))) for g in range(groups)])
    half = Z * math.sqrt((groups - 1) / groups * ((without - without.mean()) ** 2).sum())
    return Estimate(value, value - half, value + half, count)
