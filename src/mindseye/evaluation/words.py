"""Does the card draw what it is told? R-precision and CLIP score on captions that were kept from training.

Each picture is shown to the held-out judge with its own caption among 99 others of the same split. Three questions are
asked in this manner: of unseen captions, of the same captions where a critic chose among candidates, and of prompts
that combine what was never seen together.

Choosing is measured on the same seeds as a single sample, whose picture is then the first candidate: what is gained is
gained by choosing alone. The critic that chose says its own in its column; it is the judge's figure that counts.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from jaxtyping import Float, Int
from PIL import Image
from torch import Tensor

from mindseye.evaluation import intervals
from mindseye.evaluation.clip_score import Judge, clip_score, distractors, embed_pictures, embed_texts, r_precision
from mindseye.evaluation.drawing import Example, Run
from mindseye.evaluation.figures import Row
from mindseye.request import Steps

__all__ = ["COMBINATIONS", "Held", "chosen_rows", "combination_rows", "hold", "word_rows"]

COMBINATIONS: Final = (
    "a blue strawberry",
    "an owl in a top hat, flat style",
    "a purple banana",
    "a green fox",
    "a penguin with a crown",
    "a cat on the moon",
    "a fish in a cup",
    "a heart made of leaves",
)
"""Things, colours and places that the corpus knows, and does not show together: the first two are what was asked for
of DALL-E here, the others are like them."""
DISTRACTORS: Final = 99
MOST_REAL: Final = 3_000
"""Held-out pictures of one split that are looked at."""
_LITTLE: Final = frozenset("a an the in on with of made style".split())


@dataclass(frozen=True, kw_only=True)
class Held:
    """A held-out split, and what the card drew for some of its captions. The asked ones come first everywhere.

    Attributes:
        split: Its name.
        captions: All that are looked at.
        real: Their own pictures.
        real_seen: What the judge sees in those.
        made: What was drawn for the first captions.
        made_seen: What the judge sees in it.
        seed: Of the first picture drawn.
    """

    split: str
    captions: list[str]
    real: list[Image.Image]
    real_seen: Float[Tensor, "R D"]
    made: list[Image.Image]
    made_seen: Float[Tensor, "M E"]
    seed: int

    @property
    def asked(self) -> int:
        """How many captions were asked."""
        return len(self.made)


def hold(run: Run, split: str, held: Sequence[Example], most: int) -> Steps[Held]:
    """Draw at most ``most`` captions of a split and at most half of them: the rest is what real pictures look like."""
    examples = run.shuffle(held)[:MOST_REAL]
    captions, seed = [example.caption for example in examples], run.next_seed
    made = yield from run.draw(split, captions[: min(most, len(captions) // 2)])
    real = yield from run.paint("real pictures", examples)
    made_seen, real_seen = embed_pictures(run.judge, made), embed_pictures(run.judge, real)
    return Held(
        split=split, captions=captions, real=real, real_seen=real_seen, made=made, made_seen=made_seen, seed=seed
    )


@dataclass(frozen=True)
class _Quiz:
    """Captions, each among others.

    Attributes:
        captions: The true ones.
        pool: Where the others come from.
        wrong: Which of them, a row a caption.
    """

    captions: Sequence[str]
    pool: Sequence[str]
    wrong: Int[np.ndarray, "N K"]

    @classmethod
    def of(cls, captions: Sequence[str], among: Sequence[str], seed: int) -> "_Quiz":
        """With as many others as there are, up to `DISTRACTORS`; the seed decides which."""
        pool = list(dict.fromkeys(among))
        room = len(pool) - any(caption in pool for caption in captions)
        return cls(captions, pool, distractors(captions, pool, min(DISTRACTORS, room), seed))

    @property
    def size(self) -> int:
        """Captions that a picture is shown with, its own among them."""
        return self.wrong.shape[1] + 1

    def hits(self, judge: Judge, seen: Float[Tensor, "N D"]) -> list[bool]:
        """Whether the judge finds each picture's own caption."""
        texts, others = embed_texts(judge, self.captions), embed_texts(judge, self.pool)
        return r_precision(seen, texts, others, self.wrong).tolist()

    def share(self, critic: Judge | None, pictures: Sequence[Image.Image]) -> float | None:
        """The share that a critic finds; None without one."""
        return None if critic is None else float(np.mean(self.hits(critic, embed_pictures(critic, pictures))))


def word_rows(run: Run, held: Held, label: str) -> list[Row]:
    """R-precision and CLIP score, for the pictures made and for the real ones of the same captions."""
    if not held.asked:
        return []
    captions, own = held.captions[: held.asked], held.real_seen[: held.asked]
    quiz, texts = _Quiz.of(captions, held.captions, run.seed), embed_texts(run.judge, captions)
    score = None
    if run.critic is not None:
        score = clip_score(embed_pictures(run.critic, held.made), embed_texts(run.critic, captions)).mean().item()
    return [
        Row(
            key=f"r_precision_{held.split}",
            label=f"{label}, among {quiz.size} captions",
            estimate=run.decide(held.split, quiz.hits(run.judge, held.made_seen)),
            unit="%",
            real=float(np.mean(quiz.hits(run.judge, own))),
            critic=quiz.share(run.critic, held.made),
        ),
        Row(
            key=f"clip_score_{held.split}",
            label=f"CLIP score by the judge, unseen {held.split}",
            estimate=intervals.mean(clip_score(held.made_seen, texts).tolist(), run.seed),
            real=clip_score(own, texts).mean().item(),
            critic=score,
        ),
    ]


def chosen_rows(choosing: Run, held: Held, candidates: int) -> Steps[list[Row]]:
    """R-precision where the best of several candidates is drawn, and the points that it is above a single sample.

    Args:
        choosing: Of the painter that chooses.
        held: What was drawn without choosing.
        candidates: Of how many it chooses.
    """
    run, count = choosing, min(choosing.sizes.chosen, held.asked)
    if not count:
        return []
    captions, stage = held.captions[:count], f"{held.split}, best of {candidates}"
    made = yield from run.draw(stage, captions, held.seed)
    quiz = _Quiz.of(captions, held.captions, run.seed)
    hits, before = (quiz.hits(run.judge, seen) for seen in (embed_pictures(run.judge, made), held.made_seen[:count]))
    gains = [float(after) - float(one) for after, one in zip(hits, before, strict=True)]
    fooled, easily = quiz.share(run.critic, made), quiz.share(run.critic, held.made[:count])
    return [
        Row(
            key=f"r_precision_{held.split}_chosen",
            label=f"the same where a critic chose the best of {candidates}",
            estimate=run.decide(stage, hits),
            unit="%",
            critic=fooled,
            note=f"a single sample of the same captions {np.mean(before):.1%}",
        ),
        Row(
            key="choosing",
            label="points gained by choosing",
            estimate=intervals.mean(gains, run.seed),
            unit="%",
            critic=None if fooled is None or easily is None else fooled - easily,
        ),
    ]


def combination_rows(
    run: Run, choosing: Run | None, held: Held, training: Sequence[Example], candidates: int
) -> Steps[list[Row]]:
    """R-precision of prompts that combine what was never seen together.

    Args:
        run: Draws one sample each.
        choosing: Draws the best of several candidates with the same seeds; None = nobody does.
        held: Whose captions stand beside the prompts.
        training: Examples in whose captions such combinations are looked for.
        candidates: Of how many ``choosing`` chooses.
    """
    if not held.captions:
        return []
    prompts = [prompt for prompt in COMBINATIONS for _ in range(run.sizes.combinations)]
    quiz, first = _Quiz.of(prompts, held.captions, run.seed), run.next_seed
    told = [_content(example.caption) for example in training]
    known = [prompt for prompt in COMBINATIONS if any(_content(prompt) <= words for words in told)]
    rows: list[Row] = []
    for each, ending, stage in (
        (run, "", "unseen combinations"),
        (choosing, "_chosen", f"unseen combinations, best of {candidates}"),
    ):
        if each is None:
            continue
        made = yield from each.draw(stage, prompts, first if ending else None)
        hits = quiz.hits(run.judge, embed_pictures(run.judge, made))
        shares = [
            f'"{prompt}" {np.mean([hit for hit, of in zip(hits, prompts, strict=True) if of == prompt]):.0%}'
            for prompt in COMBINATIONS
        ]
        rows.append(
            Row(
                key=f"combinations{ending}",
                label=f"R-precision, {stage}, among {quiz.size} captions",
                estimate=each.decide(stage, hits),
                unit="%",
                critic=quiz.share(run.critic, made),
                note=", ".join(shares)
                + (f"; of {len(told):,} training captions some have: {', '.join(known) or 'none'}" if told else ""),
            )
        )
    return rows


def _content(caption: str) -> set[str]:
    """The words that say what is there."""
    return set(re.findall(r"[a-z0-9]+", caption.lower())) - _LITTLE
