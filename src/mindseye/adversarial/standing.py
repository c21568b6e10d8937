"""Standing statistics: what a generator's norms meet, measured once it is trained, for every degree of truncation.

Brock et al. 2018 (arXiv:1809.11096, appendix C.3): running means follow weights that were, and averaged weights make
maps that no weights in training made. So at the end a few hundred pictures are drawn, and their statistics kept; noise
that is drawn nearer to zero makes other maps, so each row of the table has its own.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn

__all__ = ["measure"]

Draw = Callable[[float, int], object]
"""Runs the generator on some batch: truncation, number of the batch."""


@torch.no_grad()
def measure(network: nn.Module, rows: int, draw: Draw, batches: int = 8) -> None:
    """Fill every table of statistics in a network, which is left in eval mode.

    Args:
        network: With norms that have ``means``, ``variances`` (``rows C``) and ``momentum``, or torch's batch norms.
        rows: Truncations, evenly from 0 to 1; 1 = only 1.
        draw: Runs it; noise is multiplied by the truncation.
        batches: How many batches a row.
    """
    tables = [each for each in network.modules() if hasattr(each, "means") and hasattr(each, "momentum")]
    plain = [each for each in network.modules() if isinstance(each, nn.BatchNorm2d)]
    kept: list[list[tuple[Float[Tensor, "C"], Float[Tensor, "C"]]]] = [[] for _ in tables]
    before = [(each, each.momentum) for each in (*tables, *plain)]
    network.train()
    for row in range(rows):
        truncation = row / (rows - 1) if rows > 1 else 1.0
        for number in range(batches):
            for each, _ in before:
                each.momentum = 1 / (number + 1)  # type: ignore[assignment]  # the mean over all batches so far
            draw(truncation, number)
        for place, each in enumerate(tables):
            kept[place].append((each.means[0].clone(), each.variances[0].clone()))  # type: ignore[index]
    for place, each in enumerate(tables):
        for row, (means, variances) in enumerate(kept[place]):
            each.means[row], each.variances[row] = means, variances  # type: ignore[index, operator]
    for each, momentum in before:
        each.momentum = momentum  # type: ignore[assignment]
    network.eval()
