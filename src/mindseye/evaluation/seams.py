"""Whether a picture that was grown patch by patch shows where its patches meet.

The mean absolute step across the lines where patches meet, over that across comparable lines within patches. 1 means
that nobody can tell; far above 1 is an edge, far below is a smear. Pictures of tokens have faint lines of their own at
every token, so lines are compared with lines between tokens, not between any two pixels.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from mindseye.shapes import Pixels

__all__ = ["seam_ratio"]


@torch.no_grad()
def seam_ratio(pixels: Pixels, patch: int, token: int = 1) -> Float[Tensor, "B"]:
    """How much larger steps across patch borders are than across borders of tokens within patches.

    Args:
        pixels: Pictures whose sides are multiples of ``patch``.
        patch: Pixels a side of a patch.
        token: Pixels a side of a token; 1 compares with all lines.

    Returns:
        1 = no seam; infinite where there are steps at seams alone, 1 where there are none at all.

    Raises:
        ValueError: Sides that are no multiples, or a single patch, which has no seam.
    """
    height, width = pixels.shape[2:]
    if height % patch or width % patch or patch % token or patch == token:
        raise ValueError(f"{width}x{height} is no canvas of patches of {patch} with tokens of {token}")
    if (height, width) == (patch, patch):
        raise ValueError("a single patch meets no other")
    sums = pixels.new_zeros(2, len(pixels), dtype=torch.float64)
    counts = [0, 0]
    for axis in (2, 3):
        steps = pixels.double().diff(dim=axis).abs().movedim(axis, -1).flatten(1, 2).sum(1)
        lines = torch.arange(1, pixels.shape[axis])
        for place, chosen in enumerate((lines % patch == 0, (lines % token == 0) & (lines % patch != 0))):
            sums[place] += steps[:, chosen].sum(1)
            counts[place] += int(chosen.sum()) * pixels.shape[5 - axis] * 3
    seams, others = sums[0] / counts[0], sums[1] / counts[1]
    return torch.where((seams == 0) & (others == 0), 1.0, seams / others).float()
