"""One table that says how well a card draws what it is told, on captions it never saw.

What can be measured without a judge is measured without one (colour, shape, place: `checker`); for the rest the judge
is a critic that neither trained nor guided the card. Beside each figure stands what real pictures score in its place,
measured the same way, for a judge that errs on real pictures bounds every score below 100 %; and where a critic guided
the card, what that critic says: it is fooled by what it guided, and how far is the interesting figure. Every figure has
its 95 % interval and the number of pictures behind it. Which figures apply to which system: `plan`.
"""

import math
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final, Literal, Protocol, cast, runtime_checkable

import numpy as np
import torch

from mindseye.evaluation import checker, intervals
from mindseye.evaluation.album import Album
from mindseye.evaluation.clip_score import Judge, embed_pictures, embed_texts, retrieval
from mindseye.evaluation.drawing import Edit, Example, Generate, Painter, Run, article
from mindseye.evaluation.edits import edit_rows
from mindseye.evaluation.fid import frechet, precision_recall
from mindseye.evaluation.figures import Report, Row
from mindseye.evaluation.intervals import Estimate
from mindseye.evaluation.memorisation import memorisation, thumbnails
from mindseye.evaluation.motion import Clips, motion_rows
from mindseye.evaluation.plan import DIFFUSION, Bar, Plan
from mindseye.evaluation.recognition import class_rows
from mindseye.evaluation.strips import Strips, strip_rows
from mindseye.evaluation.words import Held, chosen_rows, combination_rows, hold, word_rows
from mindseye.request import Progress, Steps

__all__ = ["ASKED_COLOURS", "ASKED_SHAPES", "Corpus", "Example", "Generate", "evaluate"]

ASKED_COLOURS: Final = ("red", "orange", "yellow", "green", "cyan", "blue", "purple", "pink", "brown", "black")
"""Ten of the corpus's colours: white and gray are left out, being what backgrounds and shadows are."""
ASKED_SHAPES: Final = ("circle", "square", "triangle", "star", "heart", "diamond")
Split = Literal["pairs", "concepts", "relations"]


@runtime_checkable
class Corpus(Protocol):
    """What a card was trained on, and what was kept from it."""

    def held_out(self, split: Split, /) -> Sequence[Example]:
        """Everything that the split kept from training."""
        ...

    def train_examples(self, count: int, seed: int, /) -> Sequence[Example]:
        """``count`` pictures that were trained on."""
        ...


def evaluate(
    card: str,
    generate: Generate,
    corpus: Corpus,
    judge: Judge,
    quick: bool = False,
    *,
    plan: Plan = DIFFUSION,
    critic: Judge | None = None,
    edit: Edit | None = None,
    choose: Painter | None = None,
    strips: Strips | None = None,
    clips: Clips | None = None,
    classes: Sequence[str] = (),
    album: Album | None = None,
    seed: int = 0,
    batch: int | None = None,
    facts: Mapping[str, str | int | float] | None = None,
) -> Steps[Report]:
    """Measure a card.

    Args:
        card: Its name, for the report.
        generate: Draws; picture i must depend on prompt i and seed i alone.
        corpus: What it was trained on and what was kept from it.
        judge: A critic that had no part in the card.
        quick: Fewer pictures, as the plan says.
        plan: Which figures apply, and how many pictures each takes.
        critic: The one that had: what it says stands beside what the judge says.
        edit: Changes a picture by a phrase; None = it cannot.
        choose: Draws the best of ``plan.candidates`` in the place of one sample, of which the first is that sample.
        strips: Draws wide canvases; None = it cannot.
        clips: Draws frames of clips; None = it cannot.
        classes: Names of the classes that the card's generator is told, where it is told classes.
        album: Pictures that were drawn before, by an evaluation that was stopped.
        seed: Decides which captions are asked, the distractors, and the pictures' seeds.
        batch: Pictures in one call of ``generate``; as the plan says when None.
        facts: Conditions to write into the report.

    Returns:
        The report, after a `Progress` for each batch.
    """
    sizes = plan.quick if quick else plan.full
    batch = batch or plan.batch
    run = Run(generate, judge, critic, seed=seed, batch=batch, sizes=sizes, album=album)
    pairs = yield from hold(run, "pairs", corpus.held_out("pairs"), sizes.pairs)
    rows = word_rows(run, pairs, "R-precision, unseen (concept, style) pairs")
    if sizes.concepts:
        concepts = yield from hold(run, "concepts", corpus.held_out("concepts"), sizes.concepts)
        rows += word_rows(run, concepts, "R-precision, unseen concepts")
    rows += _set_rows(run, pairs)
    choosing = None if choose is None else run.beside(choose)
    if choosing is not None:
        rows += yield from chosen_rows(choosing, pairs, plan.candidates)
    if sizes.combinations:
        training = corpus.train_examples(sizes.training, 0)
        rows += yield from combination_rows(run, choosing, pairs, training, plan.candidates)
    if sizes.repeats:
        rows += yield from _colour_shape_row(run)
    if sizes.relations:
        rows += yield from _relation_row(run, corpus)
    if sizes.classes and classes:
        held = run.shuffle(corpus.held_out("pairs"))
        rows += yield from class_rows(run, classes, corpus.train_examples, held)
    if sizes.edits and edit is not None:
        rows += yield from edit_rows(run, edit, pairs.captions[pairs.asked :], pairs.real[pairs.asked :])
    if sizes.strips and strips is not None:
        rows += yield from strip_rows(run, strips)
    if sizes.clips and clips is not None:
        rows += yield from motion_rows(run, clips)
    if sizes.training:
        rows += yield from _copies_rows(run, corpus, pairs)
    rows += [
        *_judge_rows(run, pairs),
        Row(
            key="seconds",
            label="seconds a picture",
            estimate=intervals.mean(run.seconds, seed),
            unit="s",
            note=f"asked for {batch} at a time, the first {batch} not counted",
        ),
    ]
    bars = {"seconds": Bar(at_most=plan.seconds), **plan.bars}
    return Report(
        card=card,
        seed=seed,
        quick=quick,
        rows=tuple(replace(row, **bars.get(row.key, Bar())._asdict()) for row in rows),
        facts=dict(facts or {}),
        drawn=run.drawn,
        suspects=run.suspects,
    )


def _set_rows(run: Run, held: Held) -> list[Row]:
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


def _copies_rows(run: Run, corpus: Corpus, held: Held) -> Steps[list[Row]]:
    """Whether pictures made lie nearer to training pictures than unseen real pictures do."""
    training = corpus.train_examples(run.sizes.training, 0)  # the stream that recipes train on
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


def _judge_rows(run: Run, held: Held) -> list[Row]:
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


def _colour_shape_row(run: Run) -> Steps[list[Row]]:
    """One plain shape in one colour, both named."""
    asked = [(colour, shape) for colour in ASKED_COLOURS for shape in ASKED_SHAPES for _ in range(run.sizes.repeats)]
    made = yield from run.draw("colour and shape", [f"{article(colour)} {shape}" for colour, shape in asked])
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
            note=f"by the checker; the colour {colour_right:.0%}, the shape {shape_right:.0%}",
        )
    ]


_RELATION: Final = re.compile(
    r"an? (?P<colour1>\w+) (?P<shape1>\w+) (?:to the )?(?P<where>left of|right of|above|below) "
    r"an? (?P<colour2>\w+) (?P<shape2>\w+)\b"
)


def _relation_row(run: Run, corpus: Corpus) -> Steps[list[Row]]:
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
            note="by the checker; " + ", ".join(f"{where} {np.mean(hits):.0%}" for where, hits in by_relation.items()),
        )
    ]
