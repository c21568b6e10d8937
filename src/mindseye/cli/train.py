"""`mindseye train`: a recipe, a folder for the run, and as many hours as there are."""

import shlex
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from mindseye.cli.terminal import pairs, say, watch
from mindseye.errors import OptionError, UnknownName, UsageError
from mindseye.zoo import POCKET, drawn_with


def train(
    recipe: Annotated[str, typer.Argument(help="Name of a recipe, such as vae-pocket; none = list them.")] = "",
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="Change a field: batch=64, optimizer.lr=1e-4."),
    ] = None,
    hours: Annotated[float | None, typer.Option(help="Stop after so long; --resume goes on.")] = None,
    run: Annotated[Path | None, typer.Option(metavar="DIR", help="[default: runs/RECIPE]")] = None,
    corpus: Annotated[Path, typer.Option(metavar="DIR", help="What `mindseye data glyphs` made.")] = Path(
        "data/glyphs"
    ),
    data: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH", help="Your own captioned pictures instead: a folder, .jsonl, .tar or folder of them."
        ),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in that folder.")] = False,
    start: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Begin with the weights of a finished part.")
    ] = None,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="No bar, no notices.")] = False,
) -> None:
    """Train a model by a recipe."""
    if not recipe:
        _list_recipes()
        return
    if hours is not None and not hours > 0:
        raise OptionError(f"--hours {hours} leaves no time to train")
    changes = pairs(settings or [])
    folder = run or Path("runs") / recipe
    begun = folder.is_dir() and any(folder.iterdir())
    if begun and not resume:
        raise UsageError(f"{folder} holds a run already", hint="--resume goes on with it, --run DIR begins another")
    if resume and not begun:
        raise UsageError(f"there is no run in {folder} to resume", hint="leave --resume out to begin one")

    if start is not None and resume:
        raise UsageError("--start begins a run, --resume goes on with one", hint="leave one of them out")
    if start is not None and not start.is_file():
        raise UsageError(f"{start} is no file", hint="--start takes a .safetensors that mindseye train wrote")

    from mindseye.checkpoints.save import load_part
    from mindseye.training.recipe import Craft, Workshop, override
    from mindseye.training.recipes import RECIPES
    from mindseye.training.trainer import train as follow

    if recipe not in RECIPES:
        raise UnknownName("recipe", recipe, RECIPES)
    finished = partial(_part_file, folder.parent)
    workshop = Workshop(
        corpus=corpus,
        data=data,
        cache=corpus if data is None else folder / "cache",
        parts=lambda name: load_part(finished(name)),
        part_files=finished,
    )
    chosen = RECIPES[recipe]()
    if isinstance(chosen, Craft):
        if changes or hours is not None or resume or start is not None:
            raise UsageError(f"{recipe} is made in one go: --set, --hours, --resume and --start do not apply")
        folder.mkdir(parents=True, exist_ok=True)
        steps = chosen.make(workshop, folder)
    else:
        steps = follow(override(chosen, changes.items()), folder, workshop, hours=hours, resume=resume, start=start)
    if not quiet:
        say(f"training {recipe} in {folder}; Ctrl-C stops it and --resume goes on")
    for file in watch(steps, quiet=quiet, finish_step=True).values():
        print(file)
    if not quiet and (card := drawn_with(recipe)) is not None:
        say(f'draw with it: mindseye "a red apple" -m {shlex.quote(f"{card}:{folder}")}')


def _list_recipes() -> None:
    """Every recipe, and what it is of."""
    from mindseye.training.recipes import RECIPES

    width = max(map(len, RECIPES))
    for name, made in RECIPES.items():
        print(f"{name:{width}}  {made().about}")
    print("\nto follow one: mindseye train vae-pocket --hours 1")


def _part_file(runs: Path, name: str) -> Path:
    """A finished part: of a run beside this one, else the one that is shipped."""
    made = [runs / name / f"{name}{suffix}" for suffix in (".safetensors", ".json")]
    shipped = [POCKET / path.name for path in made]
    return next((path for path in (*made, *shipped) if path.is_file()), made[0])
