"""Recipes: how a part is trained, as a frozen value. Functions return them; the command line overrides typed fields.

A recipe's ``objective`` and ``feed`` are functions, called by the trainer when the run starts, so that listing recipes
costs nothing. A `Feed` is a pure function of the step: batch 1,234 is the same after a crash as before it.
"""

import dataclasses
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

from mindseye.errors import OptionError, UnknownName
from mindseye.objective import Batch, Objective
from mindseye.request import Steps

__all__ = ["Craft", "Every", "Feed", "Optimizer", "Recipe", "override"]


@runtime_checkable
class Feed(Protocol):
    """Training data as a function of the step."""

    def batch(self, step: int, size: int) -> Batch:
        """``size`` examples for ``step``, the same whenever it is asked."""
        ...


@dataclass(frozen=True, kw_only=True)
class Optimizer:
    """How weights move: warm-up, then a schedule; decay on matrices and filters only."""

    kind: Literal["adamw", "muon"] = "adamw"
    lr: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.99)
    weight_decay: float = 0.01
    warmup: int = 200
    schedule: Literal["cosine", "constant"] = "cosine"
    floor: float = 0.02
    """The share of ``lr`` at which a cosine ends."""
    clip: float = 1.0
    """Largest norm of the gradient."""


@dataclass(frozen=True, kw_only=True)
class Every:
    """How often, in steps; 0 is never."""

    log: int = 20
    sample: int = 1000
    checkpoint: int = 500


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How one or several parts are trained."""

    name: str
    about: str
    """What comes out, and what it takes: one sentence with hours and figures."""
    objective: Callable[["Workshop"], Objective]
    feed: Callable[["Workshop"], Steps[Feed]]
    steps: int
    batch: int
    optimizer: Optimizer = field(default_factory=Optimizer)
    ema: float = 0.999
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    every: Every = field(default_factory=Every)
    seed: int = 0
    samples: Callable[["Workshop", Mapping[str, Any]], Any] | None = None
    """Averaged parts to a PIL sheet to look at."""
    scores: Callable[["Workshop", Mapping[str, Any]], dict[str, float]] | None = None
    """Averaged parts to held-out figures."""
    finish: Callable[["Workshop", Mapping[str, Any]], None] | None = None
    """What is done to the averaged parts before they are saved for good."""


@dataclass(frozen=True, kw_only=True)
class Craft:
    """A part that is made in one go, without gradients."""

    name: str
    about: str
    make: Callable[["Workshop", Path], Steps[dict[str, Path]]]
    """From the workshop and the run's folder to the files written."""


@dataclass(frozen=True, kw_only=True)
class Workshop:
    """Where a run finds things: the corpus' folder, and trained parts that it builds on."""

    corpus: Path
    data: Path | None = None
    """A user's own captioned pictures, in place of the corpus."""
    cache: Path = Path("cache")
    """Where pictures and encodings are kept."""
    parts: Callable[[str], Any]
    """Name of a part ("vae-pocket") to the loaded network."""
    part_files: Callable[[str], Path]


def override(recipe: Recipe, settings: Iterable[tuple[str, str]]) -> Recipe:
    """A recipe with fields replaced by dotted path: ``optimizer.lr=1e-4``.

    Raises:
        UnknownName: no such field; the nearest is named.
        OptionError: the value is not of the field's type.
    """
    for path, text in settings:
        recipe = _override(recipe, path.split("."), text, path)
    return recipe


def _override(node: Any, path: list[str], text: str, whole: str) -> Any:
    hints = {item.name: item.type for item in dataclasses.fields(node)}
    name = path[0]
    simple = [key for key, kind in hints.items() if dataclasses.is_dataclass(kind) or parse_type(kind) is not None]
    if name not in simple:
        raise UnknownName("recipe setting", whole, simple)
    if len(path) > 1:
        return replace(node, **{name: _override(getattr(node, name), path[1:], text, whole)})
    kind = parse_type(hints[name])
    if kind is None:
        inner = dataclasses.fields(getattr(node, name))[0].name
        raise OptionError(f"{whole} has fields of its own: set one of them, as {whole}.{inner}")
    try:
        return replace(node, **{name: kind(text)})
    except ValueError as error:
        raise OptionError(f"{whole}={text} cannot be read: {error}") from error


def parse_type(kind: Any) -> Callable[[str], Any] | None:
    """How text becomes a value of a field's type; None for types that text cannot say."""
    if kind in (int, float, str):
        return kind
    if typing.get_origin(kind) is Literal:
        choices = typing.get_args(kind)

        def choose(text: str) -> str:
            if text not in choices:
                raise ValueError(f"possible are {', '.join(choices)}")
            return text

        return choose
    if typing.get_origin(kind) is tuple:
        return lambda text: tuple(float(piece) for piece in text.split(","))
    if isinstance(kind, types.UnionType):
        return None
    return None
