"""In which order the patches of a canvas are drawn, and what is still needed of those that are done.

NUWA-Infinity's arbitrary direction controller and the book-keeping of its nearby context pool (Wu et al. 2022,
arXiv:2207.09814). A `Plan` knows patches only, no tokens and no network: a patch is its row and column on the canvas,
and it sees the patches around it that come before it. Whatever no later patch sees is dropped from the pool, so what is
kept does not grow with the canvas' length.

Directions: from one of the four corners, row by row; column by column from the left or the right, as a panorama grows;
outward from what is there already, or from the middle. Patches that are given always come first.
"""

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Final, TypeAlias, final

from mindseye.errors import UnknownName

__all__ = ["DIRECTIONS", "Patch", "Plan", "plan"]

Patch: TypeAlias = tuple[int, int]
"""Row and column on the canvas."""

DIRECTIONS: Final = ("top-left", "top-right", "bottom-left", "bottom-right", "left", "right", "outward")
"""Where drawing begins."""


@final
@dataclass(frozen=True)
class Plan:
    """A canvas and the order of its patches.

    Attributes:
        rows: Of patches.
        columns: Of patches.
        order: Every patch once.
        reach: How many rows and columns of patches away a patch sees.

    Raises:
        ValueError: The order is not one of all patches.
    """

    rows: int
    columns: int
    order: tuple[Patch, ...]
    reach: tuple[int, int] = (1, 1)
    _last: tuple[int, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        every = {(row, column) for row in range(self.rows) for column in range(self.columns)}
        if not every or set(self.order) != every or len(self.order) != len(every) or min(self.reach) < 0:
            raise ValueError(f"{self.order} is no order of {self.rows} x {self.columns} patches")
        last = list(range(len(self.order)))
        for step in last[:]:
            for seen in self.context(step):
                last[seen] = step
        object.__setattr__(self, "_last", tuple(last))

    def __len__(self) -> int:
        return len(self.order)

    def context(self, step: int) -> tuple[int, ...]:
        """The earlier steps whose patches the patch of this step sees, in their order."""
        row, column = self.order[step]
        down, across = self.reach
        earlier = enumerate(self.order[:step])
        return tuple(at for at, (r, c) in earlier if abs(r - row) <= down and abs(c - column) <= across)

    def needed(self, step: int) -> tuple[int, ...]:
        """The steps, up to this one, that a later step still sees: what is kept when this one is done."""
        return tuple(at for at in range(step + 1) if self._last[at] > step)

    def edges(self, step: int) -> tuple[bool, bool, bool, bool]:
        """Whether the patch lies at the top, the bottom, the left, the right of the canvas."""
        row, column = self.order[step]
        return row == 0, row == self.rows - 1, column == 0, column == self.columns - 1


def plan(
    rows: int,
    columns: int,
    direction: str = "top-left",
    *,
    reach: tuple[int, int] = (1, 1),
    given: Collection[Patch] = (),
) -> Plan:
    """The plan of a canvas.

    Args:
        rows: Of patches.
        columns: Of patches.
        direction: One of `DIRECTIONS`.
        reach: As of `Plan`.
        given: Patches that are there already; they come first, row by row.

    Raises:
        UnknownName: No such direction.
        ValueError: A given patch that is not on the canvas.
    """
    if direction not in DIRECTIONS:
        raise UnknownName("direction", direction, DIRECTIONS)
    every = [(row, column) for row in range(rows) for column in range(columns)]
    known = sorted(set(given))
    if not set(known) <= set(every):
        raise ValueError(f"not all of {known} lie on a canvas of {rows} x {columns} patches")
    middle = [((rows - 1) // 2, (columns - 1) // 2)]

    def distance(patch: Patch) -> tuple[int, int]:
        """To the nearest patch that is there: as kings walk, then as rooks do."""
        steps = [(abs(patch[0] - row), abs(patch[1] - column)) for row, column in known or middle]
        return min((max(step), sum(step)) for step in steps)

    def place(patch: Patch) -> tuple[int, ...]:
        row, column = patch
        across = columns - column if direction.endswith("right") else column
        if direction in ("left", "right"):
            return across, row
        if direction == "outward":
            return *distance(patch), row, column
        return rows - row if direction.startswith("bottom") else row, across

    rest = sorted((patch for patch in every if patch not in set(known)), key=place)
    return Plan(rows, columns, (*known, *rest), reach)
