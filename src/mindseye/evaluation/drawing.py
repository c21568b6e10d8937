"""Drawing for an evaluation: with a clock, with seeds that are never used twice, from an album what is there already.

Nothing here knows engines or trainers: the card comes as a function from prompts and seeds to pictures.
"""

import math
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol, TypeVar, final, runtime_checkable

import numpy as np
from PIL import Image

from mindseye.evaluation import intervals
from mindseye.evaluation.album import Album
from mindseye.evaluation.clip_score import Judge
from mindseye.evaluation.intervals import Estimate
from mindseye.evaluation.plan import Sizes
from mindseye.request import Progress, Steps

__all__ = ["Edit", "Example", "Generate", "Painter", "Run", "article"]

Generate = Callable[[Sequence[str], Sequence[int]], Sequence[Image.Image]]
"""Prompts and as many seeds to as many pictures."""
Edit = Callable[[str, int, Image.Image], Image.Image]
"""A phrase, a seed and a start picture to the picture changed."""
T = TypeVar("T")


class Painter(NamedTuple):
    """The card, drawing under other conditions than its own, and where what it draws so is kept.

    Attributes:
        generate: Draws.
        album: Of these conditions; None = nothing is kept.
    """

    generate: Generate
    album: Album | None = None


@runtime_checkable
class Example(Protocol):
    """A captioned picture that need not be painted yet."""

    @property
    def caption(self) -> str:
        """Exactly what the picture shows."""
        ...

    def picture(self) -> Image.Image:
        """Paints it."""
        ...


@final
class Run:
    """What the parts of an evaluation share.

    Args:
        generate: Draws.
        judge: Looks.
        critic: Looks, too: the one that guided; None = nobody did.
        seed: Of the order of captions and of the first picture.
        batch: Pictures asked for at a time.
        sizes: How many pictures each part takes.
        album: Keeps pictures from one run to the next; None = nothing is kept.

    Attributes:
        seconds: A picture, by the clock, those of the first batch left out: it pays for loading.
        drawn: By part: prompt, picture, and whether it was right where that was decided.
        suspects: Pairs of a made and a training picture that lie near each other, and how near.
    """

    def __init__(
        self,
        generate: Generate,
        judge: Judge,
        critic: Judge | None,
        *,
        seed: int,
        batch: int,
        sizes: Sizes,
        album: Album | None = None,
    ) -> None:
        self.generate, self.judge, self.critic = generate, judge, critic
        self.seed, self.batch, self.sizes, self.album = seed, batch, sizes, album
        self.next_seed = seed
        self.warm = False
        self.seconds: list[float] = []
        self.drawn: dict[str, list[tuple[str, Image.Image, bool | None]]] = {}
        self.suspects: list[tuple[Image.Image, Image.Image, float]] = []

    def beside(self, painter: Painter) -> "Run":
        """A run of the same judges by another painter; its clock is its own, what was drawn is held in common.

        Args:
            painter: Draws one picture at a time, so that a long one that is stopped loses one.
        """
        other = Run(
            painter.generate, self.judge, self.critic, seed=self.seed, batch=1, sizes=self.sizes, album=painter.album
        )
        other.drawn = self.drawn
        return other

    def shuffle(self, items: Sequence[T]) -> list[T]:
        """The items in an order that the seed decides."""
        return [items[i] for i in np.random.default_rng(self.seed).permutation(len(items))]

    def draw(self, stage: str, prompts: Sequence[str], first: int | None = None) -> Steps[list[Image.Image]]:
        """One picture a prompt.

        Args:
            stage: What is drawn.
            prompts: Of the pictures.
            first: Seed of the first picture, where they are to have the seeds of others; None = as none had before.
        """
        made: list[Image.Image] = []
        if first is None:
            first, self.next_seed = self.next_seed, self.next_seed + len(prompts)
        for start in range(0, len(prompts), self.batch):
            part = prompts[start : start + self.batch]
            seeds = range(first + start, first + start + len(part))
            pictures = self._batch(part, seeds)
            made += pictures
            yield Progress(stage, len(made), len(prompts), lambda shown=tuple(pictures): shown)
        self.drawn[stage] = [(prompt, picture, None) for prompt, picture in zip(prompts, made, strict=True)]
        return made

    def change(
        self, stage: str, edit: Edit, prompts: Sequence[str], starts: Sequence[Image.Image]
    ) -> Steps[list[Image.Image]]:
        """Each start picture, changed by its phrase."""
        made: list[Image.Image] = []
        for prompt, start in zip(prompts, starts, strict=True):
            seed, self.next_seed = self.next_seed, self.next_seed + 1
            kept = None if self.album is None else self.album.get(prompt, seed, start)
            picture = edit(prompt, seed, start) if kept is None else kept[0]
            if self.album is not None and kept is None:
                self.album.put(picture, prompt, seed, start)
            made.append(picture)
            yield Progress(stage, len(made), len(prompts), lambda shown=(picture,): shown)
        self.drawn[stage] = [(prompt, picture, None) for prompt, picture in zip(prompts, made, strict=True)]
        return made

    def paint(self, stage: str, examples: Sequence[Example]) -> Steps[list[Image.Image]]:
        """The examples' own pictures."""
        painted: list[Image.Image] = []
        for example in examples:
            painted.append(example.picture())
            if len(painted) % 64 == 0:
                yield Progress(stage, len(painted), len(examples), lambda shown=tuple(painted[-8:]): shown)
        return painted

    def decide(self, stage: str, right: Sequence[bool]) -> Estimate:
        """Note which of a stage's pictures are right."""
        self.drawn[stage] = [(prompt, made, ok) for (prompt, made, _), ok in zip(self.drawn[stage], right, strict=True)]
        return intervals.share(right)

    def _batch(self, prompts: Sequence[str], seeds: Sequence[int]) -> list[Image.Image]:
        """Those that are kept, and the others drawn in one call."""
        found: dict[int, tuple[Image.Image, float]] = {}
        for prompt, seed in zip(prompts, seeds, strict=True):
            if self.album is not None and (kept := self.album.get(prompt, seed)) is not None:
                found[seed] = kept
        todo = [(prompt, seed) for prompt, seed in zip(prompts, seeds, strict=True) if seed not in found]
        if todo:
            began = time.perf_counter()
            pictures = list(self.generate([prompt for prompt, _ in todo], [seed for _, seed in todo]))
            spent = (time.perf_counter() - began) / len(todo)
            if len(pictures) != len(todo):
                raise ValueError(f"{len(todo)} pictures were asked for and {len(pictures)} drawn")
            # The first call pays for loading, and a short batch is no fair share of a full one.
            spent = spent if self.warm and len(todo) == self.batch else math.nan
            self.warm = True
            for (prompt, seed), picture in zip(todo, pictures, strict=True):
                found[seed] = picture, spent
                if self.album is not None:
                    self.album.put(picture, prompt, seed, seconds=spent)
        self.seconds += [seconds for _, seconds in found.values() if math.isfinite(seconds)]
        return [found[seed][0] for seed in seeds]


def article(words: str) -> str:
    """The words with "a" or "an" before them."""
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"
