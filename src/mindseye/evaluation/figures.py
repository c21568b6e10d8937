"""The figures of one card as a table for people and JSON for programs, with the pictures behind them."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, final

from PIL import Image

from mindseye.evaluation.intervals import Estimate

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["Report", "Row"]


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of the table."""

    key: str
    """The name in JSON."""
    label: str
    estimate: Estimate
    unit: Literal["%", "s", ""] = ""
    """``%``: the estimate is a share in [0, 1], shown in percent."""
    real: float | None = None
    """What real pictures score in place of the card's."""
    at_least: float | None = None
    aim: float | None = None
    note: str = ""


@final
@dataclass(frozen=True, kw_only=True)
class Report:
    """All figures of one card, and the pictures behind them."""

    card: str
    seed: int
    quick: bool
    rows: tuple[Row, ...]
    facts: Mapping[str, str | int | float]
    """Whatever the caller knows of the conditions: steps, sampler, machine, commit."""
    drawn: Mapping[str, Sequence[tuple[str, Image.Image, bool | None]]] = field(repr=False)
    """By part: prompt, picture, and whether it was right where that was decided."""
    suspects: Sequence[tuple[Image.Image, Image.Image, float]] = field(repr=False)
    """The pictures nearest to a training picture, that picture, and the distance; below 1 is suspect."""

    def json(self) -> str:
        """The figures as one JSON object; what could not be measured is null."""
        rows = {
            row.key: {
                "label": row.label,
                **{name: _finite(getattr(row.estimate, name)) for name in ("value", "low", "high")},
                "n": row.estimate.n,
                "unit": "share" if row.unit == "%" else row.unit,
                "real": _finite(row.real),
                "at_least": row.at_least,
                "aim": row.aim,
                "note": row.note,
            }
            for row in self.rows
        }
        report = {"card": self.card, "seed": self.seed, "quick": self.quick, "facts": dict(self.facts), "figures": rows}
        return json.dumps(report, indent=2, ensure_ascii=False)

    def table(self) -> "Table":
        """The figures for a terminal."""
        from rich.markup import escape
        from rich.table import Table

        table = Table(
            title=f"{self.card}, seed {self.seed}" + (", quick: few pictures, wide intervals" if self.quick else "")
        )
        table.add_column("what", overflow="fold")
        for column in ("measured", "95 %", "n", "real pictures", "at least", "aim"):
            table.add_column(column, justify="right", no_wrap=True)
        for row in self.rows:
            value, low, high, count = row.estimate
            reached = row.at_least is None or not value < row.at_least
            style = "dim" if math.isnan(value) else "green" if reached and row.at_least else "" if reached else "red"
            table.add_row(
                escape(row.label) + (f"\n[dim]{escape(row.note)}[/dim]" if row.note else ""),
                _shown(value, row.unit),
                "" if math.isnan(low) else f"{_shown(low, row.unit)} to {_shown(high, row.unit)}",
                f"{count:,}",
                _shown(row.real, row.unit),
                _shown(row.at_least, row.unit),
                _shown(row.aim, row.unit),
                style=style,
            )
        return table


def _finite(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else value


def _shown(value: float | None, unit: str) -> str:
    if value is None or math.isnan(value):
        return ""
    return f"{100 * value:.1f} %" if unit == "%" else f"{value:.2f} s" if unit == "s" else f"{value:.4g}"
