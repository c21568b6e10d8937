"""`mindseye data`: data sets that are made here."""

from pathlib import Path
from typing import Annotated

import typer

from mindseye.cli.terminal import watch

app = typer.Typer(help="Prepare data sets.")


@app.callback()
def _group() -> None:
    """Prepare data sets."""


@app.command()
def glyphs(
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Where to.")] = Path("data/glyphs"),
    workers: Annotated[int, typer.Option(min=1, help="Processes that render.")] = 2,
) -> None:
    """Fetch, render and index the pocket corpus: openly licensed icons in scenes with exact captions."""
    from mindseye.data.glyphs import prepare

    print(watch(prepare(out, workers)))
