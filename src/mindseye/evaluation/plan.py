"""Which figures apply to which system, how many pictures each takes, and what they ought to reach.

A picture that is painted by ascent takes a minute where another takes a second, and a generator that is told classes
has no relations to get right: every system has a row here. What is zero is not asked.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

__all__ = ["PLANS", "Bar", "Plan", "Sizes", "plan_of"]


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """How many pictures each part takes.

    Attributes:
        pairs: Captions of unseen (concept, style) pairs.
        concepts: Captions of unseen concepts.
        repeats: Pictures of each colour and shape.
        relations: Captions of unseen relations.
        training: Training pictures in which copies are looked for.
        classes: Pictures of each class, of a generator that is told classes.
        edits: Start pictures that are changed by a phrase.
        chosen: Captions of unseen pairs for which the best of `Plan.candidates` is chosen, too.
        combinations: Pictures of each prompt that combines what was never seen together.
        strips: Wide canvases, of a system that grows them patch by patch.
        clips: Clips of a thing that moves, of a system that draws frames.
    """

    pairs: int
    concepts: int = 0
    repeats: int = 0
    relations: int = 0
    training: int = 0
    classes: int = 0
    edits: int = 0
    chosen: int = 0
    combinations: int = 0
    strips: int = 0
    clips: int = 0

    @property
    def figures(self) -> tuple[str, ...]:
        """What is asked, in words."""
        asked = {
            "R-precision of unseen pairs": self.pairs,
            "R-precision of unseen concepts": self.concepts,
            "colour and shape": self.repeats,
            "relations": self.relations,
            "copies": self.training,
            "class accuracy": self.classes,
            "edits by a phrase": self.edits,
            "choosing among candidates": self.chosen,
            "unseen combinations": self.combinations,
            "seams": self.strips,
            "motion": self.clips,
        }
        return tuple(name for name, count in asked.items() if count)


class Bar(NamedTuple):
    """What a figure ought to reach, and what is aimed for."""

    at_least: float | None = None
    aim: float | None = None
    at_most: float | None = None


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is measured of a card.

    Attributes:
        full: Pictures a part.
        quick: The same, for a first look.
        bars: By the key of a row.
        seconds: Most that a picture may take.
        batch: Pictures asked for at a time: one where each takes long, so that a bar moves.
        candidates: Of so many a critic keeps one, for the figure beside that of a single sample.
    """

    full: Sizes
    quick: Sizes
    bars: Mapping[str, Bar] = field(default_factory=dict)
    seconds: float | None = None
    batch: int = 16
    candidates: int = 16


def _ascent(words: float, *, edits: tuple[int, int] = (0, 0), bars: Mapping[str, Bar] | None = None) -> Plan:
    """A minute a picture; the canvas is made anew for each, and there is nothing that could be copied."""
    return Plan(
        full=Sizes(pairs=200, repeats=1, relations=48, edits=edits[0]),
        quick=Sizes(pairs=24, edits=edits[1]),
        bars={"r_precision_pairs": Bar(words), **(bars or {})},
        seconds=60,
        batch=1,
    )


def _guided(words: float) -> Plan:
    """Some ten seconds a picture."""
    return Plan(
        full=Sizes(pairs=200, repeats=1, relations=48, training=20_000),
        quick=Sizes(pairs=48, training=2_000),
        bars={"r_precision_pairs": Bar(words)},
        seconds=20,
        batch=1,
    )


def _adversarial(*, relations: int = 0, classes: int = 0, bars: Mapping[str, Bar] | None = None) -> Plan:
    """A second a picture."""
    return Plan(
        full=Sizes(
            pairs=200, concepts=100, repeats=1, relations=relations, training=20_000, classes=classes,
        ),
        quick=Sizes(pairs=64, relations=min(relations, 24), training=2_000, classes=classes // 4),
        bars=bars or {},
        seconds=2,
        batch=4,
    )  # fmt: skip


def _written(words: float | None, *, strips: tuple[int, int] = (0, 0), clips: tuple[int, int] = (0, 0)) -> Plan:
    """Token by token: one sample a picture, and what a critic gains who chooses among sixteen."""
    return Plan(
        full=Sizes(
            pairs=200, concepts=100, repeats=1, relations=48, training=20_000, chosen=200, combinations=4,
            strips=strips[0], clips=clips[0],
        ),
        quick=Sizes(
            pairs=64, relations=24, training=2_000, chosen=16, combinations=1, strips=strips[1], clips=clips[1],
        ),
        bars={
            "r_precision_pairs": Bar(words), "choosing": Bar(0.1),
            **({"seams": Bar(0.9, at_most=1.1)} if any(strips) else {}),
        },
        seconds=15,
        batch=4,
    )  # fmt: skip


DIFFUSION: Final = Plan(
    full=Sizes(pairs=512, concepts=256, repeats=4, relations=240, training=20_000),
    quick=Sizes(pairs=96, concepts=48, repeats=1, relations=48, training=2_000),
    bars={"r_precision_pairs": Bar(0.5, 0.85), "colour_shape": Bar(0.75, 0.95), "relations": Bar(0.4, 0.8)},
)
PLANS: Final[Mapping[str, Plan]] = {
    "StableDiffusion": DIFFUSION,
    "DeepDaze": _ascent(0.1),
    "BigSleep": _ascent(0.2),
    "VQGANCLIP": _ascent(0.25, edits=(50, 10), bars={"edits": Bar(0.8), "edits_ssim": Bar(0.3)}),
    "CLIPGuided": _guided(0.4),
    "Disco": _guided(0.4),
    "GAN": _adversarial(),
    "ClassGAN": _adversarial(classes=8, bars={"classes": Bar(0.5)}),
    "DALLE": _written(0.3),
    "DalleMini": _written(0.4),
    "Parti": _written(0.4),
    "NUWA": _written(None, clips=(240, 48)),
    "NUWAInfinity": _written(0.25, strips=(100, 20)),
    "TextGAN": _adversarial(relations=48, bars={"r_precision_pairs": Bar(0.3)}),
}
"""By the name of a system's class."""


def plan_of(system: str) -> Plan:
    """The plan of a system, "module:Class"; that of latent diffusion where there is none of its own."""
    return PLANS.get(system.rpartition(":")[2], DIFFUSION)
