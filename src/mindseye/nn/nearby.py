"""Attention to what lies nearby: each place of a grid sees the earlier places around it, not all of them.

3D nearby attention of NUWA (Wu et al. 2021, arXiv:2111.12417, section 3.2), on a grid of frames, rows and columns, in
the order in which the grid is written: frame by frame, row by row. With one frame it is the convolution-shaped sparse
attention of DALL-E (arXiv:2102.12092) and Parti (arXiv:2206.10789). Cost grows with the number of places times the size
of the neighbourhood, not with the square of the places.

A sequence that is being written holds at slot n the token of place n - 1 (at slot 0 a beginning), and predicts place n.
Here "nearby" is about where tokens lie, not in which slot they are held: place n sees the beginning, its own slot,
which holds the token just written, and the slots of all earlier tokens within reach. NUWA's paper gives the
neighbourhood of a whole grid and leaves the beginning open.
"""

from typing import final

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from mindseye.nn.attention import attend
from mindseye.nn.transformer import Look

__all__ = ["Neighbourhood", "near"]

Grid = tuple[int, int, int]
"""Frames, rows, columns: of places, or how far one sees."""


def near(grid: Grid, reach: Grid) -> list[list[int]]:
    """The slots that each place sees, ascending.

    Args:
        grid: Frames, rows and columns.
        reach: How many frames, rows and columns away a token may lie; a neighbourhood is ``2 reach + 1`` wide.

    Raises:
        ValueError: A grid without places, or a negative reach.
    """
    if min(grid) < 1 or min(reach) < 0:
        raise ValueError(f"a grid of {grid} places with a reach of {reach} is none")
    places = np.stack(np.unravel_index(np.arange(int(np.prod(grid))), grid), axis=1)
    seen = []
    for n, place in enumerate(places):
        around = (np.abs(places[:n] - place) <= np.array(reach)).all(1).nonzero()[0] + 1
        seen.append(sorted({0, n, *around.tolist()}))
    return seen


@final
class Neighbourhood(nn.Module):
    """What each place of a grid sees. It has no weights.

    Args:
        grid: Frames, rows and columns.
        reach: As in `near`.
    """

    table: Tensor

    def __init__(self, grid: Grid, reach: Grid) -> None:
        super().__init__()
        seen = near(grid, reach)
        table = np.full((len(seen), max(map(len, seen))), -1)
        for row, slots in zip(table, seen, strict=True):
            row[: len(slots)] = slots
        self.register_buffer("table", torch.from_numpy(table), persistent=False)

    def sees(self, place: int) -> Int[Tensor, "M"]:
        """The slots that one place sees."""
        row = self.table[place]
        return row[row >= 0]

    def looks(self, heads: int, *, sparse: bool | None = None) -> Look:
        """Attention of a sequence that starts at the grid's first place and may end before its last.

        Args:
            heads: Attention heads.
            sparse: Whether only the neighbours' scores are computed; None = where that is less work. Otherwise all are,
                and those of strangers are masked.
        """

        def look(
            q: Float[Tensor, "B N HD"], k: Float[Tensor, "B N HD"], v: Float[Tensor, "B N HD"]
        ) -> Float[Tensor, "B N HD"]:
            batch, count, width = q.shape
            table = self.table[:count]
            # Gathering costs a copy of keys and values; a kernel over all of them is faster up to about here.
            gather = count > 8 * table.shape[1] if sparse is None else sparse
            if not gather:
                mask = torch.zeros(count, count + 1, dtype=torch.bool, device=q.device)
                mask.scatter_(1, table.to(q.device) % (count + 1), True)
                return attend(q, k, v, heads=heads, mask=mask[None, None, :, :count])
            table = table.to(q.device)
            slots = table.clamp_min(0)
            around = [each[:, slots].flatten(0, 1) for each in (k, v)]
            mask = (table >= 0).repeat(batch, 1)
            return attend(q.reshape(-1, 1, width), *around, heads=heads, mask=mask).view(q.shape)

        return look
