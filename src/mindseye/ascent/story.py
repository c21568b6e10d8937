"""A judge that changes its mind: prompts one after another, on the same canvas."""

from collections.abc import Sequence
from typing import final

from mindseye.critique.judge import Judge, Opinion
from mindseye.noise import Noise
from mindseye.shapes import Pixels

__all__ = ["Story", "split"]


@final
class Story:
    """Judges who take turns.

    Args:
        judges: In their order.
        steps: Of the whole run.
        every: Steps of a turn, and around again after the last; 0 = all share the run evenly.
    """

    def __init__(self, judges: Sequence[Judge], steps: int, every: int = 0) -> None:
        if not judges:
            raise ValueError("a story has at least one scene")
        self.judges, self.steps, self.every = tuple(judges), steps, every

    def opinion(self, pixels: Pixels, noise: Noise, share: float) -> Opinion:
        """Of the judge whose turn it is."""
        return self.judges[self.turn(share)].opinion(pixels, noise, share)

    def turn(self, share: float) -> int:
        """Whose turn it is."""
        if self.every:
            # Shares are fractions of whole steps; half a step more undoes their rounding.
            return int(share * self.steps + 0.5) // self.every % len(self.judges)
        return min(int(share * len(self.judges) + 1e-9), len(self.judges) - 1)


def split(prompt: str) -> list[str]:
    """The scenes of a prompt: what `^` parts, without what is empty."""
    return [scene.strip() for scene in prompt.split("^") if scene.strip()] or [prompt]
