"""Candidates: of every picture several are drawn, a critic keeps the best (`mindseye.critique.ranking`).

Candidates are ordinary pictures with ordinary seeds, so every system has them and none knows of it. Only the best so
far are held, however many are drawn.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple, final

from torch import Tensor

from mindseye.critique.critic import ClipCritic, Critic
from mindseye.critique.ranking import Ranking
from mindseye.engine.parts import Parts
from mindseye.pixels import to_images
from mindseye.request import Request, candidate_seed
from mindseye.zoo import Pocket

__all__ = ["Best", "Drawn", "critic_for"]


class Drawn(NamedTuple):
    """A picture, the seed that draws it, and how much it was liked."""

    image: Any
    seed: int
    score: float


@final
class Best:
    """The best candidates of every picture.

    Args:
        request: Resolved.
        ranking: Who chooses; None = there is nothing to choose.
    """

    def __init__(self, request: Request, ranking: Ranking | None) -> None:
        self._each, self._keep = request.candidates or 1, request.keep
        self._ranking = ranking
        first = request.seed or 0
        seeds = range(first, first + request.count)
        self.seeds = tuple(candidate_seed(seed, number) for seed in seeds for number in range(self._each))
        self._kept: list[list[Drawn]] = [[] for _ in seeds]
        self.done = 0

    def add(self, pixels: Tensor) -> None:
        """The next of `seeds`, drawn."""
        scores: Sequence[float] = [0.0] * len(pixels)
        if self._ranking is not None:
            scores = self._ranking.scores(pixels).tolist()
        for image, score in zip(to_images(pixels), scores, strict=True):
            kept = self._kept[self.done // self._each]
            kept.append(Drawn(image, self.seeds[self.done], score))
            kept.sort(key=lambda drawn: -drawn.score)  # stable: of equals the first
            del kept[self._keep :]
            self.done += 1

    def ordered(self) -> list[Drawn]:
        """Those that are kept: picture by picture, the best first."""
        return [drawn for kept in self._kept for drawn in kept]


def critic_for(system: Any, parts: Parts) -> Critic:
    """Who chooses among a system's pictures: its own CLIP if it has one that sees, or the packaged one."""
    clip, tokenizer = getattr(system, "clip", None), getattr(system, "tokenizer", None)
    if clip is None or tokenizer is None or getattr(clip.config, "image", None) is None:
        clip, tokenizer = parts.get(Pocket("clip")), parts.get(Pocket("bpe", length=48))
    return ClipCritic(clip, tokenizer)
