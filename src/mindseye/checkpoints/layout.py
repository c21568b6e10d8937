"""Rules between somebody's names for weights and ours, one tensor of theirs a rule, each readable in both directions.

A rule says which tensor of theirs lies where in which tensor of ours. The operation is always **a view of our tensor
that has the shape of theirs**: loading copies theirs into the view, exporting copies the view out, so a rule cannot be
invertible in one direction only. Three projections of theirs that are one fused projection here are three rules, each
with a third of our tensor.

Nothing is left over in silence: a key of theirs that no rule names must be ignorable for a stated reason, and a key of
ours that no rule fills must be given a value (`convert`), or `KeysMismatch` names five from each side.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, final

from mindseye.errors import WeightsError

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "KERNEL",
    "POINT",
    "SAME",
    "SQUEEZE",
    "TRANSPOSE",
    "UNSQUEEZE",
    "Ignore",
    "KeysMismatch",
    "Layout",
    "Op",
    "Rule",
    "convert",
    "fuse",
    "match",
    "restore",
]

Shape = tuple[int, ...]


@final
@dataclass(frozen=True)
class Op:
    """What is done to their tensor to become (a part of) ours.

    Attributes:
        kind: ``transpose`` swaps the two axes; ``squeeze`` drops the last two axes, both 1 (a 1x1 convolution becomes
            a linear layer); ``unsqueeze`` adds them; ``kernel`` and ``point`` are Flax's, whose convolutions have
            their channels last (``h w in out``), ``point`` being a 1x1 one that is a linear layer here.
        part: Which of ``of`` equal slices of our first axis it is.
        of: In how many tensors of theirs our tensor lies.
    """

    kind: Literal["same", "transpose", "squeeze", "unsqueeze", "kernel", "point"] = "same"
    part: int = 0
    of: int = 1

    def shape(self, ours: Shape) -> Shape | None:
        """The shape that theirs has when ours has this one; None when ours cannot be taken apart like that."""
        if self.of > 1:
            if not ours or ours[0] % self.of:
                return None
            ours = (ours[0] // self.of, *ours[1:])
        if self.kind == "transpose":
            return ours[::-1] if len(ours) == 2 else None
        if self.kind == "squeeze":
            return (*ours, 1, 1) if len(ours) == 2 else None
        if self.kind == "unsqueeze":
            return ours[:2] if len(ours) == 4 and ours[2:] == (1, 1) else None
        if self.kind == "kernel":
            return (*ours[2:], *ours[1::-1]) if len(ours) == 4 else None
        if self.kind == "point":
            return (1, 1, *ours[::-1]) if len(ours) == 2 else None
        return ours

    @property
    def turns(self) -> bool:
        """Whether numbers lie in another order in theirs than in ours."""
        return self.kind in ("transpose", "kernel", "point")

    def ours(self, theirs: "Tensor") -> "Tensor":
        """Their tensor as (a part of) ours: the way back of `view`."""
        if self.kind == "transpose":
            return theirs.t()
        if self.kind == "squeeze":
            return theirs.squeeze(-1).squeeze(-1)
        if self.kind == "unsqueeze":
            return theirs[:, :, None, None]
        if self.kind == "kernel":
            return theirs.permute(3, 2, 0, 1)
        if self.kind == "point":
            return theirs[0, 0].t()
        return theirs

    def view(self, ours: "Tensor") -> "Tensor":
        """The part of our tensor that is theirs, in their shape; what is written to it is written to ours."""
        if self.of > 1:
            ours = ours.chunk(self.of)[self.part]
        if self.kind == "transpose":
            return ours.t()
        if self.kind == "squeeze":
            return ours[:, :, None, None]
        if self.kind == "unsqueeze":
            return ours[:, :, 0, 0]
        if self.kind == "kernel":
            return ours.permute(2, 3, 1, 0)
        if self.kind == "point":
            return ours.t()[None, None]
        return ours


SAME = Op()
TRANSPOSE = Op("transpose")
SQUEEZE = Op("squeeze")
UNSQUEEZE = Op("unsqueeze")
KERNEL = Op("kernel")
POINT = Op("point")


def fuse(count: int) -> tuple[Op, ...]:
    """The operations of ``count`` tensors of theirs that are, one after the other, a single one of ours."""
    return tuple(Op(part=part, of=count) for part in range(count))


@final
@dataclass(frozen=True)
class Rule:
    """One tensor of theirs.

    Attributes:
        theirs: Its full name, ``.weight`` or ``.bias`` included: the name that is exported.
        ours: The full name of our tensor.
        op: How theirs lies in ours.
        also: Other names that files have for it, read but never written.
    """

    theirs: str
    ours: str
    op: Op = SAME
    also: tuple[str, ...] = ()


@final
@dataclass(frozen=True)
class Ignore:
    """Keys of theirs that hold nothing we need.

    Attributes:
        pattern: Regular expression that the whole key must match.
        reason: Why they may be left out, as an explanation to the reader of a report.
    """

    pattern: str
    reason: str


@final
@dataclass(frozen=True)
class Layout:
    """A publisher's naming of one network's weights.

    Attributes:
        name: What a `PartFile` calls it.
        network: "module:Class" of ours that the weights are for.
        rules: From a Config of that network to the rules.
        ignore: From the Config to what may be left out of such files.
        given: Keys of ours that such files do not, or need not, hold; the loader gives them their values.
    """

    name: str
    network: str
    rules: Callable[[Any], Iterable[Rule]]
    ignore: Callable[[Any], tuple[Ignore, ...]] = lambda config: ()
    given: tuple[str, ...] = ()


class KeysMismatch(WeightsError):
    """Keys or shapes that do not fit; names at most five of each kind.

    Args:
        what: What did not fit, as the subject of the sentence.
        missing: Keys of theirs that the rules want and the file lacks.
        unknown: Keys in the file that nothing explains.
        shapes: Keys whose shapes differ, with both shapes.
        hint: What to do next.
    """

    def __init__(
        self,
        what: str,
        *,
        missing: Sequence[str] = (),
        unknown: Sequence[str] = (),
        shapes: Sequence[str] = (),
        hint: str = "",
    ) -> None:
        self.missing, self.unknown, self.shapes = tuple(missing), tuple(unknown), tuple(shapes)
        kinds = ((self.missing, "missing"), (self.unknown, "not known"), (self.shapes, "of another shape"))
        told = "; ".join(
            f"{len(keys)} {kind} ({', '.join(keys[:5])}{', ...' if len(keys) > 5 else ''})"
            for keys, kind in kinds
            if keys
        )
        super().__init__(f"{what}: {told}", hint=hint)


def match(
    theirs: Mapping[str, Shape],
    ours: Mapping[str, Shape],
    rules: Iterable[Rule],
    *,
    ignore: Iterable[Ignore] = (),
    given: Iterable[str] = (),
    what: str = "the file does not fit the network",
) -> dict[str, Rule]:
    """Which rule each key of a file falls under, names and shapes checked on both sides.

    Args:
        theirs: Shapes of the file's tensors by key, without a prefix.
        ours: Shapes of our network's tensors by key.
        rules: From theirs to ours.
        ignore: Keys of theirs that may be left out.
        given: Keys of ours that no file holds, or that it need not hold.
        what: Subject of the error's sentence.

    Returns:
        Key in the file -> its rule, in the order of the rules.

    Raises:
        KeysMismatch: Something is left on either side, or a shape differs.
    """
    found: dict[str, Rule] = {}
    filled: set[str] = set()
    missing, shapes = [], []
    for rule in rules:
        key = next((name for name in (rule.theirs, *rule.also) if name in theirs), None)
        if key is None:
            missing += [] if rule.ours in given else [rule.theirs]
            continue
        found[key] = rule
        filled.add(rule.ours)
        wanted = rule.op.shape(ours[rule.ours]) if rule.ours in ours else None
        if wanted != theirs[key]:
            shapes.append(f"{key} {list(theirs[key])} instead of {'none' if wanted is None else list(wanted)}")
    ignored = ignorable(ignore)
    unknown = sorted(key for key in theirs if key not in found and not ignored(key))
    missing += sorted(set(ours) - filled - set(given) - {rule.ours for rule in found.values()}) if not missing else []
    if missing or unknown or shapes:
        raise KeysMismatch(what, missing=missing, unknown=unknown, shapes=shapes)
    return found


class ignorable:  # noqa: N801  used as a function
    """Whether a key may be left out, for any of some reasons."""

    def __init__(self, ignore: Iterable[Ignore]) -> None:
        self._all = [(re.compile(item.pattern), item.reason) for item in ignore]

    def __call__(self, key: str) -> str:
        """The reason; empty when there is none."""
        return next((reason for pattern, reason in self._all if pattern.fullmatch(key)), "")


def convert(
    theirs: Mapping[str, "Tensor"], rules: Iterable[Rule], *, ignore: Iterable[Ignore] = ()
) -> dict[str, "Tensor"]:
    """Their weights under our names, dtypes kept; tensors are shared where nothing but the name changes.

    For weights that are in memory already; `mindseye.checkpoints.load` streams files.

    Raises:
        KeysMismatch: A key is missing or not known, or the slices of one of our tensors do not fit together.
    """
    import torch

    rules = list(rules)
    left = dict(theirs)
    slices: dict[str, list[Tensor | None]] = {}
    missing = []
    for rule in rules:
        key = next((name for name in (rule.theirs, *rule.also) if name in left), None)
        if key is None:
            missing.append(rule.theirs)
            continue
        tensor = rule.op.ours(left.pop(key))
        slices.setdefault(rule.ours, [None] * rule.op.of)[rule.op.part] = tensor
    ignored = ignorable(ignore)
    unknown = sorted(key for key in left if not ignored(key))
    if missing or unknown:
        raise KeysMismatch("the weights do not fit the network", missing=missing, unknown=unknown)
    return {
        name: parts[0] if len(parts) == 1 and parts[0] is not None else torch.cat([p for p in parts if p is not None])
        for name, parts in slices.items()
    }


def restore(ours: Mapping[str, "Tensor"], rules: Iterable[Rule], *, given: Iterable[str] = ()) -> dict[str, "Tensor"]:
    """Our weights under their names and in their shapes: views of ours, which a writer has to make contiguous.

    Args:
        ours: A network's state.
        rules: From theirs to ours.
        given: Keys of ours that have no place with them.

    Raises:
        KeysMismatch: A key of ours is missing, or has no rule and is not in ``given``.
    """
    rules = list(rules)
    missing = sorted({rule.ours for rule in rules} - set(ours))
    unknown = sorted(set(ours) - {rule.ours for rule in rules} - set(given))
    if missing or unknown:
        raise KeysMismatch("the network does not fit that layout", missing=missing, unknown=unknown)
    return {rule.theirs: rule.op.view(ours[rule.ours]) for rule in rules}
