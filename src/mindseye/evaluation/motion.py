"""Does a thing in a clip do what it was told? By the first frame and the last: where the thing lies, how large it is.

A clip is of a plain shape that moves, grows or shrinks, told as the corpus tells it ("a red star moving up"). A thing
is whatever differs from the border of its frame. Chance is no half: a thing may stay where it is, which is wrong, too,
so what does the opposite is counted beside it. The same of painted clips is what the measure itself can reach.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
from PIL import Image

from mindseye.data.colours import COLOURS
from mindseye.data.scenes import MOTIONS, Thing, clip_scene, paint
from mindseye.data.shapes import SHAPES
from mindseye.evaluation import intervals
from mindseye.evaluation.drawing import Painter, Run
from mindseye.evaluation.figures import Row
from mindseye.request import Steps

__all__ = ["FRAMES", "Clips", "motion", "motion_rows"]

FRAMES: Final = 4
"""How long the clips are."""
STEP: Final = 1 / 16
"""Of the picture's side: what is less is no movement."""
GROWN: Final = 1.2
"""Times as large an area: what is less is no growth."""
DIFFERENT: Final = 90
"""Of three bytes together: what is less is still the ground."""


class Clips(NamedTuple):
    """A card that draws clips of `FRAMES`.

    Attributes:
        first: Draws the first frame.
        last: Draws the last frame of the same clip, for the same prompt and seed.
        side: Pixels a side.
    """

    first: Painter
    last: Painter
    side: int


def motion_rows(run: Run, clips: Clips) -> Steps[list[Row]]:
    """The share of clips whose thing does as it is told."""
    rng = np.random.default_rng([run.seed, 1_000_081])
    scenes = [clip_scene(rng, _thing(rng), 2) for _ in range(run.sizes.clips)]
    prompts, first = [scene[0].caption for scene in scenes], run.next_seed
    run.next_seed += len(prompts)
    frames = []
    for stage, painter in (("first frames", clips.first), ("last frames", clips.last)):
        frames.append((yield from run.beside(painter).draw(stage, prompts, first)))
    icons = np.zeros((0, 1, 1, 4), np.uint8)  # of which none is asked for
    painted = [[Image.fromarray(paint(scene, icons, clips.side)) for scene in each] for each in scenes]
    done = [motion(*pair) for pair in zip(*frames, strict=True)]
    told = [next(phrase for phrase in MOTIONS if phrase in prompt) for prompt in prompts]
    right = [phrase in did for phrase, did in zip(told, done, strict=True)]
    opposite = [OPPOSITES[phrase] in did for phrase, did in zip(told, done, strict=True)]
    real = [phrase in motion(*pair) for phrase, pair in zip(told, painted, strict=True)]
    run.drawn["last frames"] = [
        (prompt, picture, hit) for prompt, picture, hit in zip(prompts, frames[1], right, strict=True)
    ]
    by_phrase = (f"{phrase} {_of(right, told, phrase)}" for phrase in MOTIONS)
    return [
        Row(
            key="motion",
            label=f"clips of {FRAMES} frames whose thing moves, grows or shrinks as it is told",
            estimate=intervals.share(right),
            unit="%",
            real=float(np.mean(real)),
            note=f"{', '.join(by_phrase)}; {np.mean(opposite):.0%} do the opposite",
        )
    ]


OPPOSITES: Final = {
    phrase: next(other for other, theirs in MOTIONS.items() if theirs == tuple(-number for number in mine))
    for phrase, mine in MOTIONS.items()
}


def motion(first: Image.Image, last: Image.Image) -> set[str]:
    """Which of the corpus' motions a thing makes between two frames: none, one, or some at a time."""
    before, after = _seen(first), _seen(last)
    if before is None or after is None:
        return set()
    way, grown = after[:2] - before[:2], float(np.log(after[2] / before[2]))
    made = set()
    for phrase, (dx, dy, growth) in MOTIONS.items():
        far = way @ (dx, dy) > STEP if dx or dy else grown * np.sign(growth) > np.log(GROWN)
        made |= {phrase} if far else set()
    return made


def _seen(picture: Image.Image) -> np.ndarray | None:
    """Where a thing lies, to the right and down, and its area, in shares of the picture; None where there is none."""
    pixels = np.asarray(picture.convert("RGB"), dtype=np.float64)
    border = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    mask = np.abs(pixels - np.median(border, 0)).sum(-1) > DIFFERENT
    if mask.mean() < 0.005:
        return None
    down, right = np.nonzero(mask)
    return np.array([right.mean() / mask.shape[1], down.mean() / mask.shape[0], mask.mean()])


def _thing(rng: np.random.Generator) -> Thing:
    return Thing(shape=str(rng.choice(list(SHAPES))), colour=str(rng.choice(list(COLOURS))))


def _of(right: Sequence[bool], told: Sequence[str], phrase: str) -> str:
    hits = [hit for hit, mine in zip(right, told, strict=True) if mine == phrase]
    return f"{sum(hits)} of {len(hits)}"
