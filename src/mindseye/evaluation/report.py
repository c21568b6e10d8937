"""One table that says how well a card draws what it is told, on captions it never saw.

What can be measured without a judge is measured without one (colour, shape, place: `checker`); for the rest the judge
is a critic that neither trained nor guided the card. Beside each figure stands what real pictures score in its place,
measured the same way, for a judge that errs on real pictures bounds every score below 100 %. Every figure has its 95 %
interval and the number of pictures behind it.

Nothing here knows engines or trainers: the card comes as a function from prompts and seeds to pictures.
"""

import math
import re
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal, Protocol, TypeVar, cast, final, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from mindseye.evaluation import checker, intervals
from mindseye.evaluation.clip_score import (
    Judge,
    clip_score,
    distractors,
    embed_pictures,
    embed_texts,
    r_precision,
    retrieval,
)
from mindseye.evaluation.fid import frechet, precision_recall
from mindseye.evaluation.figures import Report, Row
from mindseye.evaluation.intervals import Estimate
from mindseye.evaluation.memorisation import memorisation, thumbnails
from mindseye.request import Progress, Steps

__all__ = ["ASKED_COLOURS", "ASKED_SHAPES", "Corpus", "Example", "Generate", "evaluate"]

ASKED_COLOURS: Final = ("red", "orange", "yellow", "green", "cyan", "blue", "purple", "pink", "brown", "black")
"""Ten of the corpus's colours: white and gray are left out, being what backgrounds and shadows are."""
ASKED_SHAPES: Final = ("circle", "square", "triangle", "star", "heart", "diamond")
DISTRACTORS: Final = 99
MOST_REAL: Final = 3_000
"""Held-out pictures of one split that are looked at."""
Split = Literal["pairs", "concepts", "relations"]
Generate = Callable[[Sequence[str], Sequence[int]], Sequence[Image.Image]]
"""Prompts and as many seeds to as many pictures."""
T = TypeVar("T")


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


@runtime_checkable
class Corpus(Protocol):
    """What a card was trained on, and what was kept from it."""

    def held_out(self, split: Split, /) -> Sequence[Example]:
        """Everything that the split kept from training."""
        ...

    def train_examples(self, count: int, seed: int, /) -> Sequence[Example]:
        """``count`` pictures that were trained on."""
        ...


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """How many pictures each part takes."""

    pairs: int
    concepts: int
    repeats: int
    """Pictures of each colour and shape."""
    relations: int
    training: int
    """Training pictures in which copies are looked for."""


FULL: Final = Sizes(pairs=512, concepts=256, repeats=4, relations=240, training=20_000)
QUICK: Final = Sizes(pairs=96, concepts=48, repeats=1, relations=48, training=2_000)


def evaluate(
    card: str,
    generate: Generate,
    corpus: Corpus,
    judge: Judge,
    quick: bool = False,
    *,
    seed: int = 0,
    batch: int = 16,
    facts: Mapping[str, str | int | float] | None = None,
) -> Steps[Report]:
    """Measure a card.

    Args:
        card: Its name, for the report.
        generate: Draws; picture i must depend on prompt i and seed i alone.
        corpus: What it was trained on and what was kept from it.
        judge: A critic that had no part in the card.
        quick: Some 250 pictures instead of 1,250.
        seed: Decides which captions are asked, the distractors, and the pictures' seeds.
        batch: Pictures in one call of ``generate``.
        facts: Conditions to write into the report.

    Returns:
        The report, after a `Progress` for each batch.
    """
    run = _Run(generate, judge, seed, batch, QUICK if quick else FULL)
    pairs = yield from _hold(run, corpus, "pairs", run.sizes.pairs)
    concepts = yield from _hold(run, corpus, "concepts", run.sizes.concepts)
    rows = [
        *_words_rows(run, pairs, "R-precision, unseen (concept, style) pairs", at_least=0.5, aim=0.85),
        *_words_rows(run, concepts, "R-precision, unseen concepts"),
        *_set_rows(run, pairs),
        *(yield from _colour_shape_row(run)),
        *(yield from _relation_row(run, corpus)),
        *(yield from _copies_rows(run, corpus, pairs)),
        *_judge_rows(run, pairs),
        Row(
            key="seconds",
            label="seconds a picture",
            estimate=intervals.mean(run.seconds, seed),
            unit="s",
            note=f"asked for {batch} at a time, the first {batch} not counted",
        ),
    ]
    return Report(
        card=card,
        seed=seed,
        quick=quick,
        rows=tuple(rows),
        facts=dict(facts or {}),
        drawn=run.drawn,
        suspects=run.suspects,
    )


@final
class _Run:
    """What the parts share: drawing with a clock, painting with progress, seeds that are never used twice."""

    def __init__(self, generate: Generate, judge: Judge, seed: int, batch: int, sizes: Sizes) -> None:
        self.generate, self.judge, self.seed, self.batch, self.sizes = generate, judge, seed, batch, sizes
        self.next_seed = seed
        self.warm = False
        self.seconds: list[float] = []
        self.drawn: dict[str, list[tuple[str, Image.Image, bool | None]]] = {}
        self.suspects: list[tuple[Image.Image, Image.Image, float]] = []

    def shuffle(self, items: Sequence[T]) -> list[T]:
        """The items in an order that the seed decides."""
        return [items[i] for i in np.random.default_rng(self.seed).permutation(len(items))]

    def draw(self, stage: str, prompts: Sequence[str]) -> Steps[list[Image.Image]]:
        """One picture a prompt."""
        made: list[Image.Image] = []
        for start in range(0, len(prompts), self.batch):
            part = prompts[start : start + self.batch]
            seeds = range(self.next_seed, self.next_seed + len(part))
            self.next_seed += len(part)
            began = time.perf_counter()
            pictures = list(self.generate(part, seeds))
            spent = (time.perf_counter() - began) / len(part)
            if len(pictures) != len(part):
                raise ValueError(f"{len(part)} pictures were asked for and {len(pictures)} drawn")
            # The first call pays for loading, and a short batch is no fair share of a full one.
            if self.warm and len(part) == self.batch:
                self.seconds.append(spent)
            self.warm = True
            made += pictures
            yield Progress(stage, len(made), len(prompts), lambda shown=tuple(pictures): shown)
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


@dataclass(frozen=True, kw_only=True)
class _Held:
    """A held-out split, and what the card drew for some of its captions. The asked ones come first everywhere."""

    split: Split
    captions: list[str]
    real: list[Image.Image]
    real_seen: Float[Tensor, "R D"]
    made: list[Image.Image]
    made_seen: Float[Tensor, "M E"]

    @property
    def asked(self) -> int:
        """How many captions were asked."""
        return len(self.made)


def _hold(run: _Run, corpus: Corpus, split: Split, most: int) -> Steps[_Held]:
    """Draw at most ``most`` captions of a split and at most half of them: the rest is what real pictures look like."""
    examples = run.shuffle(corpus.held_out(split))[:MOST_REAL]
    captions = [example.caption for example in examples]
    made = yield from run.draw(split, captions[: min(most, len(captions) // 2)])
    real = yield from run.paint("real pictures", examples)
    made_seen, real_seen = embed_pictures(run.judge, made), embed_pictures(run.judge, real)
    return _Held(split=split, captions=captions, real=real, real_seen=real_seen, made=made, made_seen=made_seen)


def _words_rows(
    run: _Run, held: _Held, label: str, *, at_least: float | None = None, aim: float | None = None
) -> list[Row]:
    """R-precision and CLIP score, for the pictures made and for the real ones of the same captions."""
    if not held.asked:
        return []
    captions, pool = held.captions[: held.asked], list(dict.fromkeys(held.captions))
    count = min(DISTRACTORS, len(pool) - 1)
    wrong = distractors(captions, pool, count, run.seed)
    texts, others, own = embed_texts(run.judge, captions), embed_texts(run.judge, pool), held.real_seen[: held.asked]
    hits, real_hits = r_precision(held.made_seen, texts, others, wrong), r_precision(own, texts, others, wrong)
    return [
        Row(
            key=f"r_precision_{held.split}",
            label=f"{label}, {count + 1} candidates",
            estimate=run.decide(held.split, hits.tolist()),
            unit="%",
            real=real_hits.double().mean().item(),
            at_least=at_least,
            aim=aim,
        ),
        Row(
            key=f"clip_score_{held.split}",
            label=f"CLIP score by the judge, unseen {held.split}",
            estimate=intervals.mean(clip_score(held.made_seen, texts).tolist(), run.seed),
            real=clip_score(own, texts).mean().item(),
        ),
    ]


def _set_rows(run: _Run, held: _Held) -> list[Row]:
    """How the set of pictures made compares with real ones, and as many other real ones with the same."""
    made, own, rest = held.made_seen, held.real_seen[: held.asked], held.real_seen[held.asked :]
    if len(made) < 20:
        return []
    distance = intervals.jackknife(lambda kept: frechet(made[torch.from_numpy(kept)], rest), len(made), run.seed)
    both, real = precision_recall(rest, made), precision_recall(rest, own)
    note = f"against {len(rest):,} real pictures; compares only at these numbers and with this judge"
    rows = [
        Row(
            key="frechet",
            label="Fréchet distance in the judge's features",
            estimate=distance,
            real=frechet(own, rest),
            note=note,
        )
    ]
    for key, label, value, floor in (
        ("precision", "precision: made ones among real ones", both.precision, real.precision),
        ("recall", "recall: real ones among made ones", both.recall, real.recall),
    ):
        estimate = Estimate(value, math.nan, math.nan, len(made))
        rows.append(Row(key=key, label=label, estimate=estimate, unit="%", real=floor))
    return rows


def _copies_rows(run: _Run, corpus: Corpus, held: _Held) -> Steps[list[Row]]:
    """Whether pictures made lie nearer to training pictures than unseen real pictures do."""
    training = corpus.train_examples(run.sizes.training, run.seed + 1)
    if not held.asked or not training:
        return []
    features, small = [], []
    for start in range(0, len(training), 256):
        part = [example.picture() for example in training[start : start + 256]]
        features.append(embed_pictures(run.judge, part))
        small.append(thumbnails(part))
        yield Progress("training pictures", start + len(part), len(training), lambda shown=tuple(part[:8]): shown)
    rows = []
    for space, by, made, trained, unseen in (
        ("features", "the judge", held.made_seen, torch.cat(features), held.real_seen),
        ("pixels", "pixels", thumbnails(held.made), torch.cat(small), thumbnails(held.real)),
    ):
        found = memorisation(space, made, trained, unseen)
        rows.append(
            Row(
                key=f"copies_{space}",
                label=f"suspected copies of training pictures, by {by}",
                estimate=intervals.share(found.suspect.tolist()),
                unit="%",
                real=(found.unseen < found.threshold).double().mean().item(),
                note=f"nearer than 99 % of {len(held.real):,} unseen pictures; looked for in {len(training):,}",
            )
        )
        run.suspects += [(held.made[i], training[j].picture(), ratio) for i, j, ratio in found.pairs(8)]
    return rows


def _judge_rows(run: _Run, held: _Held) -> list[Row]:
    """How good the judge is."""
    if not held.captions:
        return []
    ranks = retrieval(held.real_seen, embed_texts(run.judge, held.captions), held.captions)
    among = f"the judge itself: a real picture finds its caption among {len(set(held.captions)):,}"
    return [
        Row(
            key=f"judge_top{top}",
            label=f"{among}, top-{top}",
            estimate=intervals.share((ranks < top).tolist()),
            unit="%",
        )
        for top in (1, 5)
    ]


def _colour_shape_row(run: _Run) -> Steps[list[Row]]:
    """One plain shape in one colour, both named."""
    asked = [(colour, shape) for colour in ASKED_COLOURS for shape in ASKED_SHAPES for _ in range(run.sizes.repeats)]
    made = yield from run.draw("colour and shape", [f"{_article(colour)} {shape}" for colour, shape in asked])
    things = [checker.found(picture) for picture in made]
    right = [checker.shows(seen, thing) for seen, thing in zip(things, asked, strict=True)]
    main = [seen[0] if seen else None for seen in things]
    colour_right = np.mean([thing is not None and thing.colour == c for thing, (c, _) in zip(main, asked, strict=True)])
    shape_right = np.mean([thing is not None and thing.shape == s for thing, (_, s) in zip(main, asked, strict=True)])
    return [
        Row(
            key="colour_shape",
            label=f'"a {{colour}} {{shape}}", {len(ASKED_COLOURS)} colours x {len(ASKED_SHAPES)} shapes, both right',
            estimate=run.decide("colour and shape", right),
            unit="%",
            at_least=0.75,
            aim=0.95,
            note=f"by the checker; the colour {colour_right:.0%}, the shape {shape_right:.0%}",
        )
    ]


_RELATION: Final = re.compile(
    r"an? (?P<colour1>\w+) (?P<shape1>\w+) (?:to the )?(?P<where>left of|right of|above|below) "
    r"an? (?P<colour2>\w+) (?P<shape2>\w+)\b"
)


def _relation_row(run: _Run, corpus: Corpus) -> Steps[list[Row]]:
    """Held-out relations between shapes; "next to" is left out, for chance alone often gets it right."""
    asked: list[tuple[Example, checker.Thing, checker.Relation, checker.Thing]] = []
    for example in run.shuffle(corpus.held_out("relations")):
        if match := _RELATION.match(example.caption):
            one, other = (match["colour1"], match["shape1"]), (match["colour2"], match["shape2"])
            asked.append((example, one, cast(checker.Relation, match["where"]), other))
    asked = asked[: run.sizes.relations]
    if not asked:
        return []
    made = yield from run.draw("relations", [example.caption for example, *_ in asked])
    real = yield from run.paint("real pictures", [example for example, *_ in asked])
    right = [checker.relation(picture, a, where, b) for picture, (_, a, where, b) in zip(made, asked, strict=True)]
    real_right = [checker.relation(picture, a, where, b) for picture, (_, a, where, b) in zip(real, asked, strict=True)]
    by_relation = defaultdict(list)
    for hit, (_, _, where, _) in zip(right, asked, strict=True):
        by_relation[where].append(hit)
    return [
        Row(
            key="relations",
            label='"a {A} left of / right of / above / below a {B}", unseen, both there and placed right',
            estimate=run.decide("relations", right),
            unit="%",
            real=float(np.mean(real_right)),
            at_least=0.4,
            aim=0.8,
            note="by the checker; " + ", ".join(f"{where} {np.mean(hits):.0%}" for where, hits in by_relation.items()),
        )
    ]


def _article(words: str) -> str:
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"
