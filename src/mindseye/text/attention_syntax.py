r"""How strongly each part of a prompt counts: `(more)`, `[less]`, `(so much:1.3)`.

AUTOMATIC1111's brackets: round ones multiply by 1.1, square ones divide by 1.1, a number before the closing round one
multiplies by that number, and nesting multiplies. `\(`, `\)`, `\[`, `\]` and `\\` are the characters themselves, and
`BREAK` ends a chunk of the text encoder. Brackets left open are closed at the end; closing ones without an opening one
are text.

Where we deviate: the reference touches every part again for each bracket around it, which is quadratic; here every
bracket knows the product of those around it. Round and square ones need not nest in one another (`(a [b) c]`), so there
are two such forests. The product of three or more different factors can differ from the reference's in its last bit.
`BREAK` breaks inside brackets, too (there it is drawn as a word), a number that is none (`1.2.3`) is text, and a weight
beyond a million is a million.
"""

import enum
import math
import re
from typing import Final, NamedTuple, TypeAlias, final

__all__ = ["BREAK", "MORE", "Break", "Span", "Spans", "attention"]

MORE: Final = 1.1
"""What one pair of round brackets multiplies by, and a square one divides by."""

_MOST = 1e6
_TOKENS = re.compile(
    r"(?:[^\\()\[\]:]+|:(?!\s*[+-]?[.0-9]+\s*\)))+"  # text
    r"|\(+|\[+|\)+|\]+"
    r"|:[^)]+\)"  # a weight: whatever else a colon begins is text
    r"|\\[\\()\[\]]?"
)
_SYNTAX = re.compile(r"[\\()\[\]]|\bBREAK\b")
_BREAK = re.compile(r"\bBREAK\b")


class Break(enum.Enum):
    """The end of a chunk."""

    BREAK = "BREAK"


BREAK: Final = Break.BREAK
"""Stands between spans; what follows begins a new chunk of the text encoder."""


class Span(NamedTuple):
    """A piece of a prompt that counts the same throughout.

    Attributes:
        text: As it goes to the tokenizer, escapes undone.
        weight: 1 is plain.
    """

    text: str
    weight: float = 1.0


Spans: TypeAlias = tuple[Span | Break, ...]


def attention(text: str) -> Spans:
    """Cuts a prompt where its weight changes.

    Args:
        text: One prompt, after its schedule is decided. A text without brackets, colons, backslashes and `BREAK` comes
            back as one span, identical.

    Returns:
        Spans in order, neighbours of equal weight in one; never empty, for "" is a span, too.
    """
    if not _SYNTAX.search(text):
        return (Span(text),)
    rounds, squares = _Brackets(MORE), _Brackets(1 / MORE)
    # Piece by piece: the text, and the innermost brackets around it. None is a break.
    texts: list[str | None] = []
    in_round: list[int] = []
    in_square: list[int] = []
    round_open, square_open = rounds.open, squares.open
    for token in _TOKENS.findall(text):
        kind = token[0]
        if kind == "(":
            rounds.push(len(token))
            continue
        if kind == "[":
            squares.push(len(token))
            continue
        if kind == "]":
            token = token[squares.pop(len(token)) :]
        elif kind == ")":
            token = token[rounds.pop(len(token)) :]
        elif kind == "\\":
            token = token[1:]
        elif kind == ":" and token[-1] == ")" and len(round_open) > 1:
            factor = _number(token[1:-1])
            if factor is None:  # "1.2.3"
                texts.append(token[:-1])
                in_round.append(round_open[-1])
                in_square.append(square_open[-1])
                factor = MORE
            rounds.factors[round_open.pop()] = factor
            continue
        elif "BREAK" in token:
            *before, token = _BREAK.split(token)
            for index, part in enumerate(before):
                texts += (part.strip() if index else part.rstrip(), None)
                in_round += (round_open[-1], 0)
                in_square += (square_open[-1], 0)
            token = token.lstrip() if before else token
        if token:
            texts.append(token)
            in_round.append(round_open[-1])
            in_square.append(square_open[-1])
    return _spans(texts, in_round, in_square, rounds.products(), squares.products())


@final
class _Brackets:
    """All brackets of one shape, numbered in order of opening; number 0 is no bracket and is never closed.

    Attributes:
        factors: What each multiplies by.
        open: Those now open, the innermost last.
    """

    def __init__(self, factor: float) -> None:
        self.factors = [1.0]
        self.open = [0]
        self._factor = factor
        self._parents = [0]

    def push(self, count: int) -> None:
        """Opens so many."""
        first = len(self.factors)
        if count == 1:
            self._parents.append(self.open[-1])
            self.open.append(first)
            self.factors.append(self._factor)
        else:
            self._parents += (self.open[-1], *range(first, first + count - 1))
            self.open += range(first, first + count)
            self.factors += [self._factor] * count

    def pop(self, count: int) -> int:
        """Closes so many, or all; how many those were."""
        count = min(count, len(self.open) - 1)
        if count:
            del self.open[-count:]
        return count

    def products(self) -> list[float]:
        """Each one's factor times those of all around it."""
        products = [1.0]
        for factor, parent in zip(self.factors[1:], self._parents[1:], strict=True):  # parents come first
            product = products[parent] * factor
            products.append(product if -_MOST < product < _MOST else math.copysign(_MOST, product))
        return products


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _spans(
    texts: list[str | None], in_round: list[int], in_square: list[int], rounds: list[float], squares: list[float]
) -> Spans:
    spans: list[Span | Break] = []
    run: list[str] = []
    weight, last_round, last_square = 1.0, 0, 0
    for text, inner_round, inner_square in zip(texts, in_round, in_square, strict=True):
        if text is None:
            if run:
                spans.append(Span("".join(run), weight))
                run.clear()
            spans.append(BREAK)
            continue
        if inner_round != last_round or inner_square != last_square:
            last_round, last_square = inner_round, inner_square
            product = rounds[inner_round] * squares[inner_square]
            own = product if -_MOST < product < _MOST else math.copysign(_MOST, product)
            if run and own != weight:
                spans.append(Span("".join(run), weight))
                run.clear()
            weight = own
        if text:
            run.append(text)
    if run or not spans:
        spans.append(Span("".join(run), weight if run else 1.0))
    return tuple(spans)
