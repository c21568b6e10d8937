"""Whether a picture that was grown patch by patch shows where its patches meet.

The mean absolute step across the lines where patches meet, over that across comparable lines within patches. 1 means
that nobody can tell; far above 1 is an edge, far below is a smear. Pictures of tokens have faint lines of their own at
every token, so lines are compared with lines between tokens, not between any two pixels.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from mindseye.shapes import Pixels

__all__ = ["ratio", "seam_ratio", "seam_steps"]


@torch.no_grad()
def seam_steps(pixels: Pixels, patch: int, token: int = 1) -> Float[Tensor, "B 2"]:
    """The mean absolute step across patch borders, and across borders of tokens within patches.

    Args:
        pixels: Pictures whose sides are multiples of ``patch``.
        patch: Pixels a side of a patch.
        token: Pixels a side of a token; 1 compares with all lines.

    Raises:
        ValueError: Sides that are no multiples, or a single patch, which has no seam.
    """
    height, width = pixels.shape[2:]
    if height % patch or width % patch or patch % token or patch == token:
        raise ValueError(f"{width}x{height} is no canvas of patches of {patch} with tokens of {token}")
    if (height, width) == (patch, patch):
        raise ValueError("a single patch meets no other")
    sums = pixels.new_zeros(len(pixels), 2, dtype=torch.float64)
    counts = [0, 0]
    for axis in (2, 3):
        steps = pixels.double().diff(dim=axis).abs().movedim(axis, -1).flatten(1, 2).sum(1)
        lines = torch.arange(1, pixels.shape[axis])
        for place, chosen in enumerate((lines % patch == 0, (lines % token == 0) & (lines % patch != 0))):
            sums[:, place] += steps[:, chosen].sum(1)
            counts[place] += int(chosen.sum()) * pixels.shape[5 - axis] * 3
    return sums / sums.new_tensor(counts)


def ratio(steps: Float[Tensor, "B 2"]) -> float:
    """How much larger steps across seams are than the others, of all pictures together.

    Args:
        steps: Of `seam_steps`.

    Returns:
        1 = no seam; infinite where there are steps at seams alone, 1 where there are none at all.
    """
    seams, others = steps.double().mean(0).tolist()
    return seams / others if others else math.inf if seams else 1.0


def seam_ratio(pixels: Pixels, patch: int, token: int = 1) -> Float[Tensor, "B"]:
    """`ratio` of each picture; arguments and errors are those of `seam_steps`."""
    return torch.tensor([ratio(each) for each in seam_steps(pixels, patch, token).split(1)])
