"""Numbers that change: over a run (``[12]*400+[4]*600``) and from frame to frame (``0: (1), 10: (1.05)``).

Both notations are Disco Diffusion's, where they are Python and pandas expressions that are evaluated. Here each has a
small grammar, read from left to right in time linear in its length, and nothing is ever executed::

    schedule   term { "+" term }                 term    list { "*" whole } | whole "*" list
    list       "[" number { "," number } "]"     also a number alone, which holds for the whole run
    keyframes  frame ":" value { "," frame ":" value }     value   number | "(" number ")"

A schedule of 1000 entries is indexed by thousandths of the denoising, as there; one of another length, which fails
there, is stretched over the run. Keyframes are joined by straight lines, and the first and last hold beyond their ends.

This module imports no torch.
"""

import math
import re
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import NoReturn, TypeVar, final

from mindseye.errors import LimitError, OptionError

__all__ = ["Keyframes", "Schedule", "forward_filled", "read_keyframes", "read_schedule"]

LONGEST = 10_000
"""Characters of either."""
MOST = 1_000_000
"""Entries of a schedule, frames of an animation, and the size of any number."""

V = TypeVar("V")
_TOKEN = re.compile(r"\s*(?:([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d{1,3})?)|([\[\]()+*,:]))")


@final
@dataclass(frozen=True)
class Schedule:
    """A number for every part of a run.

    Attributes:
        runs: Values, and how often the row of them is repeated.
    """

    runs: tuple[tuple[tuple[float, ...], int], ...]

    @cached_property
    def ends(self) -> tuple[int, ...]:
        """How many entries there are up to the end of each run."""
        return tuple(accumulate(len(values) * times for values, times in self.runs))

    def __len__(self) -> int:
        return self.ends[-1]

    def __call__(self, share: float) -> float:
        """The value when that share (0 to 1) of the run is done."""
        # A share of 0.399 is the entry 399 of 1000, whatever the last digit of a product says.
        place = min(max(int(share * len(self) + 1e-6), 0), len(self) - 1)
        run = bisect_right(self.ends, place)
        values, _ = self.runs[run]
        return values[(place - (self.ends[run - 1] if run else 0)) % len(values)]

    def __str__(self) -> str:
        return "+".join(f"[{', '.join(f'{value:g}' for value in values)}]*{times}" for values, times in self.runs)


@final
@dataclass(frozen=True)
class Keyframes:
    """A number for every frame.

    Attributes:
        frames: Those that are given, rising.
        values: Theirs.
    """

    frames: tuple[int, ...]
    values: tuple[float, ...]

    def __call__(self, frame: float) -> float:
        """The value at a frame, on a straight line between the neighbours that are given."""
        right = bisect_right(self.frames, frame)
        if right == 0 or right == len(self.frames):
            return self.values[max(right - 1, 0)]
        low, high = self.frames[right - 1], self.frames[right]
        way = (frame - low) / (high - low)
        return self.values[right - 1] * (1 - way) + self.values[right] * way

    def __str__(self) -> str:
        return ", ".join(f"{frame}: ({value:g})" for frame, value in zip(self.frames, self.values, strict=True))


def read_schedule(text: str, *, low: float = -MOST, high: float = MOST) -> Schedule:
    """A schedule.

    Args:
        text: As in ``[12]*400+[4]*600`` or ``8``.
        low: Least value.
        high: Greatest value.

    Raises:
        OptionError: Anything that is no such list; nothing of it is evaluated.
        LimitError: Too long.
    """
    reader = _Reader(text, "a schedule", 'a schedule is a list as in "[12]*400+[4]*600", or one number')
    runs: list[tuple[tuple[float, ...], int]] = []
    if len(reader.tokens) == 1 and reader.tokens[0] not in "[]()+*,:":
        runs.append(((reader.number(),), 1))
    else:
        runs.append(_run(reader))
        while reader.more:
            reader.sign("+")
            runs.append(_run(reader))
    runs = [run for run in runs if run[1]]
    if not runs:
        raise OptionError(f"the schedule {text!r:.60} has no entries")
    if sum(len(values) * times for values, times in runs) > MOST:
        raise LimitError(f"the schedule {text!r:.60} has more than {MOST:,} entries")
    for values, _ in runs:
        for value in values:
            if not low <= value <= high:
                raise OptionError(f"{value:g} in the schedule {text!r:.60} is out of range: {low:g} to {high:g}")
    return Schedule(tuple(runs))


def _run(reader: "_Reader") -> tuple[tuple[float, ...], int]:
    """``[a, b]*n`` or ``n*[a, b]``."""
    times = 1
    if reader.tokens[reader.at : reader.at + 1] != ["["]:
        times = reader.whole()
        reader.sign("*")
    reader.sign("[")
    values = [reader.number()]
    while reader.take(","):
        values.append(reader.number())
    reader.sign("]")
    while reader.take("*"):
        times = min(times * reader.whole(), MOST + 1)
    return tuple(values), times


def read_keyframes(text: str, *, low: float = -MOST, high: float = MOST) -> Keyframes:
    """Keyframes.

    Args:
        text: As in ``0: (1), 10: (1.05)``; a number alone is that of every frame.
        low: Least value.
        high: Greatest value.

    Raises:
        OptionError: Anything that is none; a frame named twice; formulas, which are not evaluated.
        LimitError: Too long.
    """
    reader = _Reader(text, "keyframes", 'keyframes are numbers at frames, as in "0: (1), 10: (1.05)"')
    found: dict[int, float] = {}
    if len(reader.tokens) == 1:
        found[0] = reader.number()
    while reader.more:
        frame = reader.whole()
        reader.sign(":")
        bracket = reader.take("(")
        value = reader.number()
        if bracket:
            reader.sign(")")
        if frame in found:
            raise OptionError(f"the keyframes {text!r:.60} name frame {frame} twice")
        found[frame] = value
        if reader.more:
            reader.sign(",")
    if not found:
        raise OptionError("there are no keyframes in an empty text", hint=reader.hint)
    for frame, value in found.items():
        if not low <= value <= high:
            raise OptionError(f"{value:g} at frame {frame} is out of range: {low:g} to {high:g}")
    frames = tuple(sorted(found))
    return Keyframes(frames, tuple(found[frame] for frame in frames))


def forward_filled(given: Mapping[int, Sequence[V]], frame: int) -> Sequence[V]:
    """What holds at a frame: what was given last, or first where nothing has been given yet.

    Args:
        given: By frame, as Disco Diffusion's prompts are: ``{0: ["a castle"], 100: ["a ruin"]}``.
        frame: From 0.
    """
    frames = sorted(given)
    if not frames:
        return ()
    return given[frames[max(bisect_right(frames, frame) - 1, 0)]]


class _Reader:
    """Tokens of a text, taken one by one.

    Args:
        text: Untrusted.
        what: It should be.
        hint: What it looks like.
    """

    def __init__(self, text: str, what: str, hint: str) -> None:
        if len(text) > LONGEST:
            raise LimitError(f"{what} of {len(text):,} characters; at most {LONGEST:,} are read")
        self.text, self.what, self.hint = text, what, hint
        self.tokens: list[str] = []
        self.at = 0
        place, end = 0, len(text.rstrip())
        while place < end:
            found = _TOKEN.match(text, place)
            # "400+[4]" is a sum, and so is "]*4+5": a sign belongs to a number only where one may begin.
            if found and found[1] and found[1][0] in "+-" and self.tokens and self.tokens[-1] not in "[(,:*+":
                if found[1][0] == "-":
                    self._fail(place)
                found = re.compile(r"\s*()(\+)").match(text, place)
            if found is None:
                self._fail(place)
            self.tokens.append(found[1] or found[2])
            place = found.end()

    def _fail(self, place: int) -> NoReturn:
        raise OptionError(
            f"{self.text!r:.80} is not {self.what}: {self.text[place : place + 20].strip()!r} cannot be read there",
            hint=self.hint,
        )

    @property
    def more(self) -> bool:
        """Whether there is anything left."""
        return self.at < len(self.tokens)

    def take(self, sign: str) -> bool:
        """Take a sign if it is next."""
        if self.more and self.tokens[self.at] == sign:
            self.at += 1
            return True
        return False

    def sign(self, sign: str) -> None:
        """Take a sign that must be next."""
        if not self.take(sign):
            self._wanted(repr(sign))

    def number(self) -> float:
        """Take a number."""
        if not self.more or self.tokens[self.at] in "[]()+*,:":
            self._wanted("a number")
        value = float(self.tokens[self.at])
        if not math.isfinite(value):
            self._wanted("a finite number")
        self.at += 1
        return value

    def whole(self) -> int:
        """Take a whole number that counts something."""
        if not self.more or not (self.tokens[self.at].isdecimal() and len(self.tokens[self.at]) < 10):
            self._wanted("a whole number")
        value = int(self.tokens[self.at])
        if value > MOST:
            self._wanted(f"a whole number up to {MOST:,}")
        self.at += 1
        return value

    def _wanted(self, what: str) -> NoReturn:
        found = repr(self.tokens[self.at]) if self.more else "the end"
        raise OptionError(f"{self.text!r:.80} is not {self.what}: {what} was expected where {found} is", hint=self.hint)
