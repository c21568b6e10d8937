"""One request drawn in many ways, side by side: X/Y/Z plots over any field, and prompt matrices.

An axis is a name and its values. The name is a field of `Request` (`seed`, `steps`, `sampler`, `size`, `model`), one
of three words for prompts (`PROMPT_AXES`), or any option of the card's system. Values are written as AUTOMATIC1111's
X/Y/Z script has them, so what people know by heart works: `20, 30`, `1-5`, `1-5 (+2)`, `10-5 (-3)`, `0-1 (+0.25)`,
`1-10 [5]`, and quotes around what has a comma in it. Deviations: a range always ends within its bounds, and one that
goes down needs no step.

`plan` finds out everything that can be wrong before the first picture. `Plot.steps` draws through a function it is
given, the costliest axis outermost, so that each model is loaded once; what is drawn is kept when it is stopped. The
seed is the same in every cell, unless it is an axis.
"""

import csv
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from itertools import permutations, product
from typing import TYPE_CHECKING, Any, TypeAlias, final

from mindseye.errors import LimitError, OptionError, UnknownName
from mindseye.metadata import texts
from mindseye.request import Progress, Request, Result, Scalar, Steps

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["COSTS", "PROMPT_AXES", "Axis", "Grid", "Plot", "axis", "matrix", "parse_values", "plan"]

MOST_CELLS = 1000
"""Pictures of one grid."""

MOST_PIXELS = 200_000_000
"""Of the whole sheet, as AUTOMATIC1111's 200 megapixels."""

PROMPT_AXES: Mapping[str, str] = {
    "prompt": "search and replace: the first value is looked for in the prompt, each value takes its place",
    "prompt-order": "all orders in which the values, which are parts of the prompt, can stand",
    "text": "whole prompts",
}

COSTS: Mapping[str, float] = {"model": 1.0, "vae": 0.7, "codec": 0.7, "adapters": 0.5}
"""What a change costs before a picture can be drawn, in loadings of a model; all others cost nothing."""

_FIELDS: Mapping[str, type] = {
    "negative": str,
    "model": str,
    "size": str,
    "width": int,
    "height": int,
    "seed": int,
    "steps": int,
    "guidance": float,
    "sampler": str,
    "strength": float,
}

Place: TypeAlias = tuple[int, int, int]
Draw: TypeAlias = Callable[[Request], Steps[Result]]
Check: TypeAlias = Callable[[Request], Request]


@dataclass(frozen=True, kw_only=True)
class Axis:
    """One direction of a grid.

    Attributes:
        name: What changes.
        text: The values as they were written.
        labels: What stands beside each row or column.
        changes: From the request to that of each place.
        cost: Of going from one place to the next; see `COSTS`.
    """

    name: str
    text: str
    labels: tuple[str, ...]
    changes: tuple[Callable[[Request], Request], ...]
    cost: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Grid:
    """What is to be drawn.

    Attributes:
        axes: X, Y and Z; the last two may be missing.
        cells: A request of one picture for each place (x, y, z), in the order they are drawn.
        steps: How many steps each takes.
        about: How the grid is named in its metadata.
    """

    axes: tuple[Axis, ...]
    cells: Mapping[Place, Request]
    steps: Mapping[Place, int]
    about: str = "X/Y/Z plot"


def parse_values(text: str, kind: type | None, *, empty: bool = False) -> tuple[Scalar, ...]:
    """The values of an axis.

    Args:
        text: As `plan` reads it.
        kind: int and float know ranges; text and bool are lists only; None = whatever all of it can be read as.
        empty: Whether nothing between two commas is a value, too.

    Raises:
        OptionError: It cannot be read, holds no value, or more than `MOST_CELLS`.
    """
    try:
        items = [item.strip() for item in next(csv.reader([text], skipinitialspace=True), [])]
    except csv.Error as error:
        raise OptionError(f"the values {text!r:.80} cannot be read: {error}", hint=_GRAMMAR) from None
    items = [item for item in items if item or empty]
    if not any(items):
        raise OptionError("an axis has no values", hint=_GRAMMAR)
    if kind is None:
        kind = next((each for each in (int, float) if all(_reads(item, each) for item in items)), str)
    found: list[Scalar] = []
    for item in items:
        found += [item] if kind not in (int, float) else _numbers(item, kind)
        if len(found) > MOST_CELLS:
            raise LimitError(f"an axis has at most {MOST_CELLS:,} values; {item!r:.80} makes it more")
    return tuple(found)


_GRAMMAR = "values are a list like 20,30, a range like 1-5 or 1-5 (+2), or so many of a range: 1-10 [5]"
_NUMBER = r"[+-]?\d{1,18}(?:\.\d{0,18})?|[+-]?\.\d{1,18}"
_RANGE = re.compile(
    rf"({_NUMBER})\s*-\s*({_NUMBER})\s*(?:\(\s*({_NUMBER})\s*\)|\[\s*(\d{{1,9}})\s*\])?", flags=re.ASCII
)


def _reads(item: str, kind: type) -> bool:
    """Whether an item can be read as numbers of that kind."""
    try:
        _numbers(item, kind)
    except LimitError:
        return True
    except OptionError:
        return False
    return True


def _numbers(item: str, kind: type) -> list[Scalar]:
    """The numbers of one item: itself, or a range."""
    found = _RANGE.fullmatch(item)
    try:
        if found is None:
            return [kind(item)]
        first, last = kind(found[1]), kind(found[2])
        if found[4] is not None:
            count = int(found[4])
            _check_count(count, item)
            # Whole numbers are cut off, as everywhere; the small push keeps 2.9999999 a 3.
            return [
                kind(first + (last - first) * i / max(count - 1, 1) + (1e-9 if kind is int else 0))
                for i in range(count)
            ]
        step = kind(found[3]) if found[3] is not None else (1 if last >= first else -1)
    except (ValueError, OverflowError):
        raise OptionError(f"{item!r:.80} is no {_KINDS[kind]} and no range of them", hint=_GRAMMAR) from None
    if step == 0 or (last - first) * step < 0:
        raise OptionError(f"the range {item!r:.80} never gets from {first:g} to {last:g}", hint=_GRAMMAR)
    count = math.floor((last - first) / step + 1e-9) + 1
    _check_count(count, item)
    return [kind(round(first + i * step, 12)) if kind is float else first + i * step for i in range(count)]


_KINDS: Mapping[type, str] = {int: "whole number", float: "number"}


def _check_count(count: int, item: str) -> None:
    if not 1 <= count <= MOST_CELLS:
        raise LimitError(f"the range {item!r:.80} has {count:,} values; a grid has 1 to {MOST_CELLS:,}")


def axis(name: str, text: str, request: Request, *, kinds: Mapping[str, type]) -> Axis:
    """An axis from its name and its values as they are written.

    Args:
        name: A field, one of `PROMPT_AXES`, or an option.
        text: The values.
        request: Whose prompt is searched.
        kinds: The options there are, and their types.

    Raises:
        UnknownName: No such field or option.
        OptionError: Values that cannot be read; a text to replace that is not in the prompt.
    """
    name = name.strip()
    option = name.replace("-", "_")
    possible = {**_FIELDS, **dict.fromkeys(PROMPT_AXES, str), **kinds}
    if name not in possible and option not in possible:
        raise UnknownName("axis", name, possible)
    kind = possible[name] if name in possible else possible[option]
    values = parse_values(text, kind, empty=kind is str and option in kinds)
    if name == "prompt":
        changes = [_replacing(str(values[0]), str(value), request) for value in values]
    elif name == "prompt-order":
        if math.factorial(min(len(values), 20)) > MOST_CELLS:
            raise LimitError(f"{len(values)} parts have more than {MOST_CELLS:,} orders")
        orders = list(permutations(map(str, values)))
        changes = [_ordering(order, request) for order in orders]
        values = tuple(", ".join(order) for order in orders)
    elif name in _FIELDS or name == "text":
        changes = [_setting(name, value) for value in values]
    else:
        changes = [_choosing(option, value) for value in values]
    labels = tuple(_label(name, value) for value in values)
    return Axis(name=name, text=text, labels=labels, changes=tuple(changes), cost=COSTS.get(name, 0.0))


def _label(name: str, value: Scalar) -> str:
    """How a value is shown."""
    said = f"{value:g}" if isinstance(value, float) else str(value) or "-"
    return (
        said if name in ("prompt", "prompt-order", "text", "model", "sampler") else f"{name.replace('_', ' ')} {said}"
    )


def _setting(name: str, value: Scalar) -> Callable[[Request], Request]:
    """Another value of a field."""
    if name == "text":
        return lambda request: replace(request, prompt=str(value))
    if name == "size":
        return lambda request: replace(request, size=_size(str(value)))
    if name in ("width", "height"):
        return lambda request: replace(request, size=_side(request, name, int(value)))
    return lambda request: replace(request, **{name: value})


def _size(text: str) -> tuple[int, int]:
    """`640x480`; a lone number is a square."""
    sides = re.split(r"[xX×*]", text)
    if not all(side.strip().isascii() and side.strip().isdigit() and len(side) < 8 for side in sides) or len(sides) > 2:
        raise OptionError(f"{text!r:.40} is no size", hint="say WIDTHxHEIGHT, as in 128x128")
    return int(sides[0]), int(sides[-1])


def _side(request: Request, name: str, value: int) -> tuple[int, int]:
    """The size with one side changed."""
    if request.size is None:
        raise OptionError(f"the axis {name} changes a size, and there is none", hint="give --size WIDTHxHEIGHT")
    return (value, request.size[1]) if name == "width" else (request.size[0], value)


def _choosing(name: str, value: Scalar) -> Callable[[Request], Request]:
    """Another value of an option."""
    return lambda request: replace(request, options={**request.options, name: value})


def _replacing(search: str, by: str, request: Request) -> Callable[[Request], Request]:
    """The prompt and the negative prompt with one text for another."""
    if search not in request.prompt and search not in request.negative:
        raise OptionError(
            f"{search!r:.80} is in neither prompt, so there is nothing to replace",
            hint="the first value of the axis prompt is what is looked for; for whole prompts use the axis text",
        )
    return lambda now: replace(now, prompt=now.prompt.replace(search, by), negative=now.negative.replace(search, by))


def _ordering(order: Sequence[str], request: Request) -> Callable[[Request], Request]:
    """The prompt with some of its parts in another order."""
    at = 0
    for part in sorted(order, key=request.prompt.find):
        at = request.prompt.find(part, at)
        if at < 0:
            raise OptionError(f"{part!r:.80} is not in the prompt, or only within another part that is to be moved")
        at += len(part)

    def ordered(now: Request) -> Request:
        pieces, at = [], 0
        for part, other in zip(sorted(order, key=now.prompt.find), order, strict=True):
            start = now.prompt.find(part, at)
            if start < 0:
                raise OptionError(f"another axis changes {part!r:.80}, which this one moves")
            pieces += [now.prompt[at:start], other]
            at = start + len(part)
        return replace(now, prompt="".join([*pieces, now.prompt[at:]]))

    return ordered


def plan(
    request: Request,
    axes: Sequence[Axis],
    *,
    check: Check,
    seed: int,
    about: str = "X/Y/Z plot",
) -> Grid:
    """Every cell of a grid, checked.

    Args:
        request: What all cells have in common.
        axes: One to three: columns, rows, sheets below each other.
        check: Gives a request with nothing left open, or raises as the engine would; what is drawn is the original.
        seed: For all cells, where neither the request nor an axis says.
        about: Its name.

    Raises:
        OptionError: No axis, more than three, or two of one name; and whatever ``check`` raises.
        LimitError: More than `MOST_CELLS`, or a sheet over `MOST_PIXELS`.
    """
    if not 1 <= len(axes) <= 3 or len({each.name for each in axes}) < len(axes):
        raise OptionError("a grid has one to three axes, all different", hint="-x steps=10,20 -y guidance=1-9[5]")
    count = math.prod(len(each.labels) for each in axes)
    if count > MOST_CELLS:
        raise LimitError(f"this grid has {count:,} pictures; at most {MOST_CELLS:,} are drawn in one")
    base = replace(request, count=1, keep=1, seed=seed if request.seed is None else request.seed)
    # The costliest axis changes least often; of equals the later one, so that rows are finished one by one.
    outer = sorted(range(len(axes)), key=lambda index: (-axes[index].cost, -index))
    cells: dict[Place, Request] = {}
    checked: dict[Place, Request] = {}
    for places in product(*(range(len(axes[index].labels)) for index in outer)):
        place = dict(zip(outer, places, strict=True))
        cell = base
        for index, each in enumerate(axes):
            cell = each.changes[place[index]](cell)
        spot = place[0], place.get(1, 0), place.get(2, 0)
        cells[spot], checked[spot] = cell, check(cell)
    sides = [cell.size or (0, 0) for cell in checked.values()]
    pixels = count * max(width for width, _ in sides) * max(height for _, height in sides)
    if pixels > MOST_PIXELS:
        raise LimitError(
            f"the sheet would have {pixels / 1e6:,.0f} megapixels; at most {MOST_PIXELS / 1e6:.0f} are drawn",
            hint="ask for a smaller --size or fewer values",
        )
    steps = {spot: cell.steps or 1 for spot, cell in checked.items()}
    return Grid(axes=tuple(axes), cells=cells, steps=steps, about=about)


def matrix(request: Request, *, check: Check, seed: int) -> Grid:
    """All subsets of a prompt's parts: of `a house|at night|in snow`, "a house" alone, with either, and with both.

    The first part is in every prompt. A bar within brackets belongs to the brackets.

    Raises:
        OptionError: There is no bar in the prompt.
    """
    first, *rest = _parts(request.prompt)
    if not rest:
        raise OptionError(
            "a prompt matrix needs parts to combine", hint='put bars between them: "a house|at night|in snow"'
        )
    if 2 ** len(rest) > MOST_CELLS:
        raise LimitError(f"{len(rest)} parts have {2 ** len(rest):,} combinations; at most {MOST_CELLS:,} are drawn")
    half = (len(rest) + 1) // 2
    axes = [
        _subsets(f"parts {name}", parts) for name, parts in (("across", rest[:half]), ("down", rest[half:])) if parts
    ]
    return plan(replace(request, prompt=first), axes, check=check, seed=seed, about="Prompt matrix")


def _parts(prompt: str) -> list[str]:
    """The prompt at its bars, but for those in brackets."""
    parts, depth = [""], 0
    for sign in prompt:
        depth = max(depth + (sign in "([{<") - (sign in ")]}>"), 0)
        if sign == "|" and depth == 0:
            parts.append("")
        else:
            parts[-1] += sign
    return [part.strip() for part in parts if part.strip()]


def _subsets(name: str, parts: Sequence[str]) -> Axis:
    """None of the parts, each, each pair ...; counted in binary, so that halves of the sheet have a part in common."""
    chosen = [tuple(part for bit, part in enumerate(parts) if number >> bit & 1) for number in range(2 ** len(parts))]

    def adding(some: tuple[str, ...]) -> Callable[[Request], Request]:
        return lambda request: replace(request, prompt=", ".join([request.prompt, *some]))

    labels = tuple(", ".join(some) or "-" for some in chosen)
    return Axis(name=name, text="|".join(parts), labels=labels, changes=tuple(map(adding, chosen)))


@final
@dataclass(eq=False)
class Plot:
    """A grid being drawn.

    Attributes:
        grid: What is drawn.
        done: The results so far; they stay when the drawing is stopped.
    """

    grid: Grid
    done: dict[Place, Result] = field(default_factory=dict)

    def steps(self, draw: Draw) -> Steps[None]:
        """Draw all cells that are not done, as progress over all of them."""
        costs = self.grid.steps
        before, total = 0, sum(costs.values())
        for number, (place, cell) in enumerate(self.grid.cells.items(), start=1):
            if place not in self.done:
                running = draw(cell)
                try:
                    while True:
                        now = next(running)
                        step = before + costs[place] * min(now.step, now.total) // max(now.total, 1)
                        yield Progress(f"{number} of {len(costs)}", step, total, now.peek)
                except StopIteration as stop:
                    self.done[place] = stop.value
                finally:
                    running.close()
            before += costs[place]

    def sheet(self) -> "Image":
        """All that is done as one picture, labelled; what is missing stays empty."""
        from mindseye.labels import labelled

        names = [each.labels for each in self.grid.axes] + [("",)] * (3 - len(self.grid.axes))
        pictures = {place: result.images[0] for place, result in self.done.items()}
        return labelled(pictures, columns=names[0], rows=names[1], sheets=names[2])

    def texts(self) -> dict[str, str]:
        """Text chunks for the sheet: those of its first picture, and what the axes are.

        Raises:
            OptionError: Nothing is done yet.
        """
        first = next((self.done[place] for place in sorted(self.done, key=lambda p: p[::-1])), None)
        if first is None:
            raise OptionError("no picture of the grid is done")
        chunks = {key: text for key, text in texts(first, 0).items() if key == "parameters"}
        said = {"Script": self.grid.about}
        for letter, each in zip("XYZ", self.grid.axes, strict=False):
            said |= {f"{letter} Type": each.name, f"{letter} Values": each.text}
        line = ", ".join(f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in said.items())
        chunks["parameters"] = f"{chunks.get('parameters', '')}, {line}"
        chunks["mindseye-grid"] = json.dumps(self.account(), ensure_ascii=False)
        return chunks

    def account(self) -> dict[str, Any]:
        """The grid as plain values: its axes, and for every cell what sets it apart."""
        cells = list(self.grid.cells.items())
        base = _plain(cells[0][1])
        return {
            "about": self.grid.about,
            "axes": [{"name": each.name, "values": each.text, "labels": each.labels} for each in self.grid.axes],
            "request": base,
            "cells": [
                {
                    "place": place,
                    "done": place in self.done,
                    "changes": {name: value for name, value in _plain(cell).items() if value != base[name]},
                }
                for place, cell in cells
            ],
        }


def _plain(request: Request) -> dict[str, Any]:
    """A request as plain values, its pictures left out."""
    values = {each.name: getattr(request, each.name) for each in fields(request) if each.name not in ("image", "mask")}
    return {**values, "options": dict(request.options)}
