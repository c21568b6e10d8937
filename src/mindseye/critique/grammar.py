"""What to aim for, as the field writes it: ``a castle:2|fog:-0.5:0.7``.

Prompts are divided by ``|``. Each may end in ``:weight`` or ``:weight:stop`` (Crowson's VQGAN+CLIP notebook): a
negative weight pushes away, and where the distance has fallen below the stop the prompt no longer pulls.

Deviations, each where the published splitters fail: only what is a number is a weight, so ``cat:dog`` is a prompt; the
port and the scheme of an address are part of it; so is a time of day (``12:30``; say ``12:30.0`` for a weight).

This module imports no torch.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

from mindseye.errors import LimitError, OptionError, PromptError

__all__ = ["Kind", "Wish", "parse", "wishes"]

Kind = Literal["text", "image", "noise"]
LARGEST = 1e6
"""Of weights and stops."""
MOST = 100
"""Prompts in one text."""

_NUMBER = re.compile(r"[+-]?(\d{1,20}(\.\d{0,20})?|\.\d{1,20})(e[+-]?\d{1,3})?", re.ASCII | re.IGNORECASE)
_INFINITE = re.compile(r"[+-]?inf(inity)?", re.IGNORECASE)
_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]{0,20}://", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class Wish:
    """One thing to aim for.

    Attributes:
        text: The words; the path of a picture; the seed of a direction of noise.
        weight: How much; negative pushes away.
        stop: Signed distance below which it no longer pulls.
        kind: What `text` is.
    """

    text: str
    weight: float = 1.0
    stop: float = -math.inf
    kind: Kind = "text"


def parse(text: str, kind: Kind = "text") -> tuple[Wish, ...]:
    """The prompts in a text; none if it is blank.

    Args:
        text: ``prompt:weight:stop`` and more such after ``|``.
        kind: What the prompts are.

    Raises:
        PromptError: A weight without a prompt, or a seed of noise that is no whole number.
        OptionError: A weight beyond all reason.
        LimitError: More prompts than `MOST`.
    """
    if kind not in get_args(Kind):
        raise ValueError(f"{kind!r} is no kind of prompt")
    parts = [part.strip() for part in text.split("|")]
    parts = [part for part in parts if part]
    if len(parts) > MOST:
        raise LimitError(f"{len(parts)} prompts in one; at most {MOST} are aimed for")
    return tuple(_one(part, kind) for part in parts)


def wishes(prompt: str, negative: str = "", *, images: str = "", noises: str = "", least: int = 1) -> tuple[Wish, ...]:
    """All that a request aims for: prompts, what to keep away from with its weights turned round, pictures, noise.

    Args:
        prompt: See `parse`.
        negative: The same.
        images: Paths of pictures in the same grammar.
        noises: Seeds in the same grammar: directions at random, which some like for the accident.
        least: Fewer than so many is an error.

    Raises:
        PromptError: Nothing to aim for; else as of `parse`.
    """
    away = (replace(each, weight=-each.weight) for each in parse(negative))
    found = (*parse(prompt), *away, *parse(images, "image"), *parse(noises, "noise"))
    if len(found) < least:
        raise PromptError("there is nothing to aim for", hint='give a prompt: mindseye "a castle in the clouds"')
    return found


def _one(part: str, kind: Kind) -> Wish:
    """A prompt with its numbers taken off its end."""
    words, numbers = part, []
    while len(numbers) < 2 and ":" in words:
        rest, _, last = words.rpartition(":")
        if not _is_number(last.strip()) or _is_whole(rest, last):
            break
        words, numbers = rest, [last.strip(), *numbers]
    words = words.strip()
    if not words:
        raise PromptError(f"{part!r:.80} has a weight and no prompt", hint="the weight comes last: castle:0.5")
    weight, stop = (_value(part, number) for number in (*numbers, *("1", "-inf")[len(numbers) :]))
    if math.isinf(weight):
        raise OptionError(f"the weight of {words!r:.80} is infinite; give a number up to {LARGEST:,.0f}")
    if kind == "noise" and not re.fullmatch(r"\d{1,18}", words, re.ASCII):
        raise PromptError(f"{words!r:.80} is no seed of noise: a whole number is", hint="as in 42:0.5")
    return Wish(text=words, weight=weight, stop=stop, kind=kind)


def _is_number(text: str) -> bool:
    return bool(_NUMBER.fullmatch(text) or _INFINITE.fullmatch(text))


def _is_whole(rest: str, last: str) -> bool:
    """Whether the colon belongs to the prompt: an address's port, a time of day."""
    word = rest.split()[-1] if rest.split() else ""
    found = _ADDRESS.match(word)
    if found:
        host = word[found.end() :]
        return "/" not in host and "?" not in host and last.isdecimal() and ":" not in host
    hour = re.fullmatch(r"([01]?\d|2[0-3])", word, re.ASCII)
    return bool(hour and rest[-1:].isdecimal() and re.fullmatch(r"[0-5]\d", last, re.ASCII))


def _value(part: str, text: str) -> float:
    value = float(text)
    if math.isfinite(value) and abs(value) > LARGEST:
        raise OptionError(f"{text} in {part!r:.80} is out of range: {-LARGEST:,.0f} to {LARGEST:,.0f}")
    return value


def scaled(found: Sequence[Wish], how: "Normal") -> tuple[Wish, ...]:
    """The weights made comparable from prompt to prompt.

    Args:
        found: What to aim for.
        how: "none" leaves them; "absolute" makes their absolute values sum to one; "sum" divides by the absolute value
            of their sum, as CLIP-guided diffusion and Disco Diffusion do; "square" by the root of the sum of their
            squares, as discoart does.

    Raises:
        OptionError: There is next to nothing to divide by.
    """
    weights = [each.weight for each in found]
    totals = {
        "none": float(any(weights)),
        "absolute": sum(map(abs, weights)),
        "sum": abs(sum(weights)),
        "square": math.hypot(*weights),
    }
    total = totals[how]
    if total < 1e-3:
        told = ", ".join(f"{weight:g}" for weight in weights[:8])
        raise OptionError(
            f"the weights of the prompts ({told}) sum to about zero: they would pull nowhere",
            hint="change one of them: castle:1|people:-0.5",
        )
    return tuple(found) if how == "none" else tuple(replace(each, weight=each.weight / total) for each in found)


Normal = Literal["none", "absolute", "sum", "square"]
"""Ways to make weights comparable."""
