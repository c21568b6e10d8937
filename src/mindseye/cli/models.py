"""`mindseye models`: what can draw here, what the user has added to it, and what could be fetched."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mindseye.cli.terminal import put_json, say, watch

if TYPE_CHECKING:
    from mindseye.checkpoints.index import Entry
    from mindseye.checkpoints.library import Library
    from mindseye.zoo import Card

__all__ = ["app", "models"]

app = typer.Typer(help="List the models that can draw; add, describe and remove your own.", rich_markup_mode=None)

Json = Annotated[bool, typer.Option("--json", help="One JSON object a line on stdout.")]
OfKind = Annotated[
    str | None, typer.Option("--kind", help="Only of one kind: model, lora, embedding, vae, clip or secondary.")
]
_TITLES = {
    "lora": "LoRA",
    "embedding": "embedding",
    "vae": "autoencoder",
    "clip": "CLIP",
    "secondary": "second model",
}
_TOLD = 12
"""Lines of a maker's notes that are printed; --json has all."""


@app.callback(invoke_without_command=True)
def _root(context: typer.Context, json: Json = False) -> None:
    """List the models that can draw; add, describe and remove your own."""
    if context.invoked_subcommand is None:
        models(json)


def models(json: Json = False) -> None:
    """List the models that can draw."""
    _list(json, None)


@app.command("list")
def _list(
    json: Json = False,
    kind: OfKind = None,
    available: Annotated[
        bool, typer.Option("--available", help="With --json: also the public models that were not downloaded.")
    ] = False,
) -> None:
    """List models, LoRAs, embeddings and autoencoders that are there, and public models that could be fetched."""
    from mindseye import zoo
    from mindseye.checkpoints.library import Library

    wanted = _kind(kind)
    library = Library()
    entries = library.entries(wanted)
    cards = zoo.ZOO if wanted in (None, "model") else ()
    absent = _absent(entries) if wanted in (None, "model") else ()
    for notice in library.notices:
        say(notice)
    if json:
        for card in cards:
            put_json(_card(card))
        for entry in entries:
            put_json(_entry(entry))
        for release in absent if available else ():
            put_json(
                {
                    "name": release.name,
                    "kind": "model",
                    "family": release.family,
                    "size": list(release.native),
                    "defaults": dict(release.defaults),
                    "licence": release.licence,
                    "paper": release.paper,
                    "source": release.source,
                    "gigabytes": release.gigabytes,
                    "ready": False,
                }
            )
        return
    _print_models(cards, [entry for entry in entries if entry.kind == "model"], absent)
    for each, title in _TITLES.items():
        of_kind = [entry for entry in entries if entry.kind == each]
        if of_kind:
            print()
            _table([(title, "for", "where"), *((entry.name, entry.family or "?", _where(entry)) for entry in of_kind)])
    for folder in library.folders():
        print(f"\nwatched: {_short(folder)}" if folder.is_dir() else f"\nwatched, but gone: {_short(folder)}")
    if wanted and not cards and not entries:
        say(f"there is no {wanted} yet", hint="mindseye models add PATH")


@app.command("add")
def _add(
    what: Annotated[
        str,
        typer.Argument(
            help="A file, a folder (of one model or of many files), hub:org/repo[/file], an https address, "
            "or the name of a public model."
        ),
    ],
    name: Annotated[str | None, typer.Option("--name", "-n", help="What to call it; else after its file.")] = None,
    full: Annotated[
        bool, typer.Option("--full", help="Download float32 weights where half precision is published too.")
    ] = False,
    json: Json = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress bar.")] = False,
) -> None:
    """Make a model, LoRA, embedding or autoencoder known by a name, or watch a folder of them. Nothing is copied."""
    from mindseye import zoo
    from mindseye.checkpoints import public
    from mindseye.checkpoints.library import Library

    library = Library()
    release = None if Path(what).expanduser().exists() else public.find(what)
    if release is not None:
        say(f"{release.name}: {release.source}, about {release.gigabytes:g} GB, licence {release.licence}")
    if json or quiet:
        _silence()
    taken = [card.name for card in zoo.ZOO]
    added = watch(library.add(what, name=name, precision="full" if full else "half", taken=taken), quiet=quiet or json)
    for notice in library.notices:
        say(notice)
    for entry in added.entries:
        if json:
            put_json(_entry(entry))
        else:
            print(f"{entry.name}  ({_describe(entry)})")
    for problem in added.problems[:5]:
        say(problem)
    if len(added.problems) > 5:
        say(f"and {len(added.problems) - 5} more files that cannot be used")
    if added.folder is not None:
        say(f"watching {added.folder}: what appears there appears here")
    elif added.entries[0].kind == "model":
        licence = added.entries[0].licence
        said = f"; its licence is {licence}" if licence and release is None else ""
        say(f"ready{said}", hint=f'mindseye "a red apple" -m "{added.entries[0].name}"')


@app.command("info")
def _info(
    name: Annotated[str, typer.Argument(help="A name, or the path of a file or folder.")],
    kind: OfKind = None,
    hashes: Annotated[
        bool, typer.Option("--hashes/--no-hashes", help="Take fingerprints; seconds for a large file, once.")
    ] = True,
    json: Json = False,
) -> None:
    """Say what something is: family, keys understood, size, fingerprints, trigger words, how it was trained."""
    from mindseye import zoo
    from mindseye.checkpoints.describe import describe
    from mindseye.checkpoints.library import Library

    library = Library()
    card = next((card for card in zoo.ZOO if card.name == name), None)
    if card is not None and kind in (None, "model"):
        told: dict[str, Any] = _card(card)
    else:
        told = describe(_meant(library, name, kind), library, hashes=hashes)
    if json:
        put_json(told)
        return
    for line in _lines(told):
        print(line)


@app.command("remove")
def _remove(
    name: Annotated[str, typer.Argument(help="A name, or the path of a watched folder.")],
    kind: OfKind = None,
    json: Json = False,
) -> None:
    """Forget something. Files of your own stay where they are; what was downloaded for it is deleted."""
    from mindseye import zoo
    from mindseye.checkpoints.library import Library
    from mindseye.errors import UsageError

    if kind in (None, "model") and any(card.name == name for card in zoo.ZOO):
        raise UsageError(f"{name} comes with mindseye and cannot be removed")
    removed = Library().remove(name, _kind(kind))
    what = str(removed.what) if isinstance(removed.what, Path) else removed.what.name
    if json:
        put_json({"removed": what, "freed": removed.freed, "kept": removed.kept})
        return
    if removed.freed:
        say(f"{what} is forgotten, {_bytes(removed.freed)} of downloads deleted")
    else:
        say(f"{what} is forgotten{'; its files are untouched' if removed.kept else ''}")


def _kind(kind: str | None) -> Any:
    """A kind as the library knows it. Raises UnknownName."""
    from mindseye.checkpoints.kinds import KINDS
    from mindseye.errors import UnknownName

    if kind is not None and kind not in KINDS:
        raise UnknownName("kind", kind, KINDS)
    return kind


def _meant(library: "Library", name: str, kind: str | None) -> "Entry":
    """The entry of that name, or one made up for a path."""
    from mindseye.checkpoints.index import Entry
    from mindseye.checkpoints.kinds import look
    from mindseye.errors import MindseyeError, UnknownName, WeightsError

    wanted = _kind(kind)
    path = Path(name).expanduser()
    try:
        return library.find(name, wanted)
    except UnknownName as error:
        if not path.exists():
            raise error if "/" not in name else UnknownName("file or name", name, ()) from None
    except MindseyeError:
        if not path.exists():
            raise
    path = path.resolve()
    seen = look(path)
    found = wanted or seen.kind
    if found is None:
        raise WeightsError(seen.problem or f"{path} is no model, LoRA, embedding or autoencoder")
    return Entry(
        name=path.stem if path.is_file() else path.name, kind=found, path=path, family=seen.family, problem=seen.problem
    )


def _absent(entries: "tuple[Entry, ...]") -> Any:
    """The public releases that were not added."""
    from mindseye.checkpoints.public import RELEASES

    names = {entry.name for entry in entries if entry.kind == "model"}
    places = tuple(entry.source for entry in entries if entry.source)
    return tuple(
        release
        for release in RELEASES
        if release.name not in names and not any(place.startswith(release.source) for place in places)
    )


def _print_models(cards: "tuple[Card, ...]", entries: "list[Entry]", absent: Any) -> None:
    """The table of what can draw, and below it what could."""
    from mindseye import zoo
    from mindseye.checkpoints.releases import FAMILIES

    rows, below = [("model", "size", "steps", "ready", "licence", "paper")], [""]
    for card in cards:
        name = f"{card.name} (default)" if card.name == zoo.DEFAULT else card.name
        size = f"{card.native[0]}x{card.native[1]}"
        steps, ready = str(card.defaults.get("steps", "")), "yes" if card.ready else "no weights"
        rows.append((name, size, steps, ready, card.licence, card.paper))
        below.append(_training(card))
    for entry in entries:
        family = FAMILIES.get(entry.family)
        # Half of the second generation was trained at 512, half at 768: only `info` looks closely enough to say.
        size = f"{family.native}x{family.native}" if family and entry.family != "sd2" else ""
        rows.append((entry.name, size, "", "no" if entry.problem else "yes", entry.licence or "?", ""))
        below.append(entry.problem or f"{entry.family or 'unknown'}, {_where(entry)}")
    for release in absent:
        size, ready = f"{release.native[0]}x{release.native[1]}", f"not downloaded ({release.gigabytes:g} GB)"
        rows.append((release.name, size, str(release.defaults["steps"]), ready, release.licence, release.paper))
        below.append("")
    if len(rows) > 1:
        _table(rows, below)
    if absent:
        print(f"\nto download one: mindseye models add {absent[0].name}")


def _table(rows: list[tuple[str, ...]], below: list[str] | None = None) -> None:
    """Columns, each row with a line below it where there is one."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row, line in zip(rows, below or [""] * len(rows), strict=True):
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
        if line:
            print(f"    {line}")


def _card(card: "Card") -> dict[str, Any]:
    """A card that comes with mindseye, as JSON."""
    from mindseye import zoo

    return {
        "name": card.name,
        "kind": "model",
        "size": list(card.native),
        "defaults": dict(card.defaults),
        "licence": card.licence,
        "paper": card.paper,
        "training": card.training,
        "parts": zoo.trained(card),
        "ready": card.ready,
    }


def _entry(entry: "Entry") -> dict[str, Any]:
    """Something the user added, as JSON."""
    return {
        "name": entry.name,
        "kind": entry.kind,
        "family": entry.family,
        "path": str(entry.path),
        "source": entry.source,
        "licence": entry.licence,
        "added": entry.added,
        "ready": not entry.problem,
        "problem": entry.problem,
    }


def _training(card: "Card") -> str:
    """What it was trained on, and for how long."""
    from mindseye import zoo

    parts = [
        f"{name} {made['hours']:.1f} h, {made['step']:,} steps"
        for name, made in zoo.trained(card).items()
        if "hours" in made
    ]
    return card.training + (f" ({'; '.join(parts)})" if parts else "")


def _describe(entry: "Entry") -> str:
    """Kind and base in a few words."""
    return f"{_TITLES.get(entry.kind, entry.kind)}{f', {entry.family}' if entry.family else ''}"


def _where(entry: "Entry") -> str:
    """Its path, and what is wrong with it."""
    return entry.problem or (entry.source or _short(entry.path))


def _short(path: Path) -> str:
    """A path with ~ for the user's home."""
    home = Path.home()
    return f"~/{path.relative_to(home).as_posix()}" if path.is_relative_to(home) and path != home else str(path)


def _bytes(size: int) -> str:
    """A size as people say it."""
    return f"{size / 1e9:.2f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB" if size >= 1e6 else f"{size / 1e3:.1f} kB"


def _silence() -> None:
    """No bars of the hub's own."""
    import os

    os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"


def _lines(told: dict[str, Any]) -> list[str]:
    """What `describe` told, for people."""
    lines = []
    for key, value in told.items():
        if key in ("hashes", "parts", "metadata", "facts") or value in ("", [], {}, None):
            continue
        shown = _bytes(value) if key == "bytes" else "x".join(map(str, value)) if key == "size" else value
        shown = f"{shown:,}" if isinstance(shown, int) and not isinstance(shown, bool) else shown
        shown = ", ".join(map(str, shown)) if isinstance(shown, list) else shown
        if isinstance(shown, dict):
            shown = ", ".join(f"{name} {each}" for name, each in shown.items())
        lines.append(f"{key}: {shown}")
    if facts := told.get("facts"):
        lines.append("facts: " + ", ".join(f"{name} {value}" for name, value in facts.items()))
    for name, part in told.get("parts", {}).items():
        if "tensors" in part:
            lines.append(
                f"{name}: {part['matched']} of {part['tensors']} tensors, {part['parameters']:,} parameters, "
                f"{part['dtype']}, {part['layout']} ({', '.join(part['files'][:3])})"
            )
        else:
            lines.append(f"{name}: {part.get('hours', 0):.1f} h, {part.get('step', 0):,} steps")
    metadata = told.get("metadata", {})
    for name, value in list(metadata.items())[:_TOLD]:
        lines.append(f"{name}: {value if len(value) <= 100 else value[:97] + '...'}")
    if len(metadata) > _TOLD:
        lines.append(f"and {len(metadata) - _TOLD} more notes of its maker: --json has them")
    for file, digits in told.get("hashes", {}).items():
        lines += [f"{file}:", *(f"    {name} {value}" for name, value in digits.items())]
    return lines
