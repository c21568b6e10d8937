"""`mindseye models`: what can draw here."""

from typing import TYPE_CHECKING, Annotated

import typer

from mindseye.cli.terminal import put_json

if TYPE_CHECKING:
    from mindseye.zoo import Card


def models(json: Annotated[bool, typer.Option("--json", help="One JSON object a model on stdout.")] = False) -> None:
    """List the models that can draw."""
    from mindseye import zoo

    if json:
        for card in zoo.ZOO:
            put_json(
                {
                    "name": card.name,
                    "size": list(card.native),
                    "defaults": dict(card.defaults),
                    "licence": card.licence,
                    "paper": card.paper,
                    "training": card.training,
                    "parts": zoo.trained(card),
                    "ready": _ready(card),
                }
            )
        return
    rows = [("model", "size", "steps", "ready", "licence", "paper")]
    for card in zoo.ZOO:
        name = f"{card.name} (default)" if card.name == zoo.DEFAULT else card.name
        size = f"{card.native[0]}x{card.native[1]}"
        steps, ready = str(card.defaults.get("steps", "")), "yes" if _ready(card) else "no weights"
        rows.append((name, size, steps, ready, card.licence, card.paper))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row, training in zip(rows, ["", *(_training(card) for card in zoo.ZOO)], strict=True):
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
        if training:
            print(f"    {training}")


def _ready(card: "Card") -> bool:
    """Whether every file of the card is there."""
    return all(source.path.is_file() for source in card.parts.values())


def _training(card: "Card") -> str:
    """What it was trained on, and for how long."""
    from mindseye import zoo

    parts = [
        f"{name} {made['hours']:.1f} h, {made['step']:,} steps"
        for name, made in zoo.trained(card).items()
        if "hours" in made
    ]
    return card.training + (f" ({'; '.join(parts)})" if parts else "")
