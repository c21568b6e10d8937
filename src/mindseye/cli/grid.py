"""`mindseye grid`: one prompt in many ways, on one labelled sheet."""

import secrets
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mindseye.cli import arguments
from mindseye.cli.generate import parse_size, save_free, slug
from mindseye.cli.terminal import pairs, say, watch
from mindseye.errors import OptionError
from mindseye.request import Progress, Request, Scalar, Steps, resolve

if TYPE_CHECKING:
    from mindseye.engine.engine import Engine
    from mindseye.grids import Grid

__all__ = ["grid"]


def grid(
    prompt: Annotated[str, typer.Argument(help="What to draw.", show_default=False)],
    x: Annotated[str | None, typer.Option("-x", metavar="NAME=VALUES", help="What changes from left to right.")] = None,
    y: Annotated[str | None, typer.Option("-y", metavar="NAME=VALUES", help="What changes from top to bottom.")] = None,
    z: Annotated[
        str | None, typer.Option("-z", metavar="NAME=VALUES", help="What changes from sheet to sheet.")
    ] = None,
    matrix: Annotated[
        bool, typer.Option("--matrix", help='All combinations of a prompt\'s parts: "a house|at night|in snow".')
    ] = False,
    model: arguments.Model = None,
    seed: Annotated[int | None, typer.Option(help="Of every picture.")] = None,
    steps: arguments.Steps = None,
    guidance: arguments.Guidance = None,
    negative: arguments.Negative = None,
    size: arguments.Size = None,
    sampler: arguments.Sampler = None,
    image: arguments.Start = None,
    mask: arguments.Mask = None,
    strength: arguments.Strength = None,
    settings: arguments.Settings = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="FILE", help="A .png file. [default: named by the prompt]")
    ] = None,
    device: arguments.Device = None,
    quiet: arguments.Quiet = False,
) -> None:
    """Draw one prompt in many ways, on one sheet.

    \b
    Values are lists and ranges:  20,30   1-5   1-5 (+2)   0-1 (+0.25)   1-10 [5]
    Names are fields and options: seed steps guidance sampler size model strength ...
    prompt=apple,pear             replaces the first by each
    prompt-order=red,round        parts of the prompt in all orders
    """
    from mindseye import grids, zoo

    path = sheet_path(output, prompt, (".png",))
    request = request_of(
        prompt, model=model, seed=seed, steps=steps, guidance=guidance, negative=negative, size=size, sampler=sampler,
        image=image, mask=mask, strength=strength, settings=settings,
    )  # fmt: skip
    given = [each for each in (x, y, z) if each is not None]
    if matrix == bool(given):
        raise OptionError("a grid needs either axes or --matrix", hint='-x steps=10,20 -y "guidance=1-9 [5]"')
    named = [_split(each) for each in given]
    zoo.find(request.model)
    engine = watch(woken(device), quiet=quiet)
    seed = secrets.randbelow(2**32)

    def check(cell: Request) -> Request:
        return checked(engine, cell)

    if matrix:
        planned = grids.matrix(request, check=check, seed=seed)
    else:
        kinds = _kinds(engine, request, named)
        size_known = request if request.size else replace(request, size=engine.card(request.model).native)
        axes = [grids.axis(name, values, size_known, kinds=kinds) for name, values in named]
        planned = grids.plan(size_known, axes, check=check, seed=seed)
    _draw(engine, planned, path, quiet=quiet)


def _draw(engine: "Engine", planned: "Grid", path: Path, *, quiet: bool) -> None:
    """Draw and save, also what there is when it is stopped."""
    from mindseye.grids import Plot
    from mindseye.pictures import save_png

    plot = Plot(planned)
    try:
        watch(plot.steps(engine.stream), quiet=quiet)
    finally:
        if plot.done:
            if len(plot.done) < len(planned.cells):
                say(f"stopped after {len(plot.done)} of {len(planned.cells)} pictures; the sheet has these")
            chunks = plot.texts()
            sheet = plot.sheet()
            print(save_free(path, lambda free: save_png(sheet, free, chunks, replace=False)), flush=True)


def request_of(
    prompt: str, *, settings: list[str] | None, size: str | None, image: Path | None, mask: Path | None, **given: Any
) -> Request:
    """A request from what was typed; what was not is left open."""
    changes = {name: value for name, value in given.items() if value is not None}
    if size is not None:
        changes["size"] = parse_size(size)
    if image is not None or mask is not None:
        from mindseye.pictures import open_image

        changes |= {name: open_image(path) for name, path in (("image", image), ("mask", mask)) if path is not None}
    options: dict[str, Scalar] = dict(pairs(settings or []))
    return Request(prompt=prompt, **changes, options=options)


def woken(device: str | None) -> "Steps[Engine]":
    """The engine, with a word to those who wait for it."""
    yield Progress("wake", 0, 1, tuple)
    from mindseye.engine.engine import Engine

    return Engine(device=device)


def checked(engine: "Engine", request: Request) -> Request:
    """The request with nothing left open; raises what `Engine.stream` would raise before it loads anything."""
    steps = engine.stream(request)
    try:
        next(steps)
    finally:
        steps.close()
    return resolve(request, engine.card(request.model), seed=0)[0]


def _kinds(engine: "Engine", request: Request, named: list[tuple[str, str]]) -> dict[str, type]:
    """The options there are, of the card that is asked for or of the first one on an axis."""
    from mindseye.engine import options
    from mindseye.engine.engine import system_class

    models = [values.split(",")[0].strip().strip('"') for name, values in named if name == "model"]
    card = engine.card(models[0] if models else request.model)
    return {knob.name: knob.type for knob in options.knobs(system_class(card).Options)}


def _split(text: str) -> tuple[str, str]:
    """`name=values`."""
    name, equals, values = text.partition("=")
    if not equals or not name.strip():
        raise OptionError(f"the axis {text!r} is not of the form name=values", hint="say -x steps=10,20,30")
    return name.strip(), values


def sheet_path(output: Path | None, prompt: str, endings: tuple[str, ...]) -> Path:
    """Where a file goes, with one of the endings; raises now what would be raised once all is drawn."""
    from mindseye.pictures import check_folder

    path = Path(f"{slug(prompt)}{endings[0]}") if output is None else output
    if path.is_dir():
        path = path / f"{slug(prompt)}{endings[0]}"
    if path.suffix.lower() not in endings:
        raise OptionError(f"{path} has none of the endings {', '.join(endings)}", hint=f"-o {path.stem}{endings[0]}")
    check_folder(path.parent)
    return path
