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
    critic: float | None = None
    """What the critic that guided the card says of the same pictures; it is easily fooled by what it guided."""
    at_least: float | None = None
    at_most: float | None = None
    aim: float | None = None
    note: str = ""

    @property
    def reached(self) -> bool:
        """Whether it is where it ought to be; also where nothing says so."""
        value = self.estimate.value
        low = self.at_least is None or not value < self.at_least
        return low and (self.at_most is None or not value > self.at_most)


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
                "critic": _finite(row.critic),
                "at_least": row.at_least,
                "at_most": row.at_most,
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
        guided = any(row.critic is not None for row in self.rows)
        for column in ("measured", "95 %", "n", *(["by its critic"] if guided else []), "real pictures", "bar", "aim"):
            table.add_column(column, justify="right", no_wrap=True)
        for row in self.rows:
            value, low, high, count = row.estimate
            low_bar, high_bar = _shown(row.at_least, row.unit), _shown(row.at_most, row.unit)
            bar = (
                f"{low_bar} to {high_bar}" if low_bar and high_bar else low_bar or (high_bar and f"at most {high_bar}")
            )
            style = "dim" if math.isnan(value) else "red" if not row.reached else "green" if bar else ""
            table.add_row(
                escape(row.label) + (f"\n[dim]{escape(row.note)}[/dim]" if row.note else ""),
                _shown(value, row.unit),
                "" if math.isnan(low) else f"{_shown(low, row.unit)} to {_shown(high, row.unit)}",
                f"{count:,}",
                *([_shown(row.critic, row.unit)] if guided else []),
                _shown(row.real, row.unit),
                bar,
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
