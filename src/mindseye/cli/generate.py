"""`mindseye generate`: words in, picture files out."""

import itertools
import re
import sys
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mindseye.cli import arguments
from mindseye.cli.spreading import spread, styled
from mindseye.cli.terminal import pairs, put_json, say, watch
from mindseye.errors import ImageError, OptionError, OutputError, SizeError
from mindseye.request import (
    SEEDS,
    Progress,
    Request,
    Result,
    Scalar,
    Steps,
    fingerprint,
    from_json,
    resolve,
    to_json,
)

if TYPE_CHECKING:
    from PIL.Image import Image

    from mindseye.engine.engine import Engine

BATCH = 8
"""Pictures that are drawn together and then saved, so that a long order interrupted keeps what is done."""

_ENDINGS = (".png", ".jpg", ".jpeg", ".webp")

_SIZE = re.compile(r"\s*(\d{1,6})\s*[xX×*]\s*(\d{1,6})\s*")


def generate(
    prompt: Annotated[str | None, typer.Argument(help="What to draw.", show_default=False)] = None,
    model: arguments.Model = None,
    count: Annotated[int | None, typer.Option("-n", "--count", help="How many pictures.", show_default=False)] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the first picture; the next have the next.")] = None,
    steps: arguments.Steps = None,
    guidance: arguments.Guidance = None,
    negative: arguments.Negative = None,
    size: arguments.Size = None,
    sampler: arguments.Sampler = None,
    image: arguments.Start = None,
    mask: arguments.Mask = None,
    strength: arguments.Strength = None,
    candidates: Annotated[
        int | None, typer.Option(help="Draw so many of each picture, and let CLIP choose.", show_default=False)
    ] = None,
    keep: Annotated[int | None, typer.Option(help="Keep so many of them, the best first. [default: 1]")] = None,
    sheet: Annotated[bool, typer.Option("--sheet", help="Save what is kept on one sheet, too.")] = False,
    style: Annotated[list[str] | None, typer.Option("--style", metavar="NAME", help="A style of styles.csv.")] = None,
    styles: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Where styles are. [default: yours]"),
    ] = None,
    dynamic: Annotated[bool, typer.Option("--dynamic", help="Read {a|b} and __list__ in the prompts.")] = False,
    every: Annotated[bool, typer.Option("--every", help="Draw all combinations of a dynamic prompt.")] = False,
    wildcards: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Where the lists of a dynamic prompt are.")
    ] = None,
    settings: arguments.Settings = None,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="PATH", help="A .png, .jpg, .webp or folder. [default: here]"),
    ] = None,
    like: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Draw as this picture was drawn, by whichever program, or as pasted text says (-)."
        ),
    ] = None,
    device: arguments.Device = None,
    json: Annotated[bool, typer.Option("--json", help="One JSON object a picture on stdout.")] = False,
    quiet: arguments.Quiet = False,
) -> None:
    """Draw pictures from words."""
    given: dict[str, Any] = {
        "prompt": prompt,
        "negative": negative,
        "model": model,
        "count": count,
        "seed": seed,
        "steps": steps,
        "guidance": guidance,
        "sampler": sampler,
        "strength": strength,
        "candidates": candidates,
        "keep": keep,
    }
    changes = {name: value for name, value in given.items() if value is not None}
    if size is not None:
        changes["size"] = parse_size(size)
    if image is not None or mask is not None:
        from mindseye.pictures import open_image

        changes |= {name: open_image(path) for name, path in (("image", image), ("mask", mask)) if path is not None}
    options: dict[str, Scalar] = dict(pairs(settings or []))
    row: int | None = None
    if like is not None:
        request, row, weights = _as_drawn(like, changes, options, quiet=quiet)
    else:
        request, weights = Request(**{"prompt": "", **changes}, options=options), {}
    request = styled(request, style or [], styles)
    files = _Files(output, request.prompt)
    orders = spread(request, wildcards, every=every) if dynamic or every or wildcards else [request]
    from mindseye import zoo

    # Whatever can be wrong with the request is found before torch is woken.
    card = zoo.find(request.model)
    for order in orders:
        resolve(order, card, seed=0)
    files.check()
    engine = watch(_wake(device), quiet=quiet or json)
    for order in orders:
        drawn = _draw(engine, order, files, row=row, weights=weights, json=json, quiet=quiet, alone=len(orders) == 1)
        if sheet and drawn:
            path = files.save_sheet(drawn)
            if not json:
                print(path, flush=True)


def _draw(
    engine: "Engine",
    request: Request,
    files: "_Files",
    *,
    row: int | None,
    weights: dict[str, str],
    json: bool,
    quiet: bool,
    alone: bool,
) -> list[Result]:
    """Draw and save in batches, and give back what was drawn unless it is one picture of the past.

    Args:
        engine: What draws.
        request: What to draw.
        files: Where to.
        row: Save only this picture of the one batch.
        weights: sha256 of the weights it was drawn with before, or its first digits; a difference is said.
        json: Whether stdout speaks JSON.
        quiet: Whether to keep still.
        alone: Whether no other order goes to the same place.
    """
    said: set[str] = set()
    done, many = 0, not alone or (request.count * request.keep > 1 and row is None)
    drawn: list[Result] = []
    while done < request.count:
        now = request.count if row is not None else min(BATCH, request.count - done)
        result = watch(engine.stream(replace(request, count=now)), quiet=quiet or json)
        request = replace(request, seed=((result.request.seed or 0) + now) % SEEDS)
        changed = sorted(
            part for part in weights if not result.weights.get(part, weights[part]).startswith(weights[part])
        )
        notices = list(result.notices)
        if changed:
            notices.append(f"the weights of {', '.join(changed)} are not those it was drawn with: it will differ")
        for notice in notices:
            if notice not in said and not quiet:
                say(notice)
            said.add(notice)
        drawn += [result] if row is None else []
        for index in range(len(result.images)) if row is None else (row,):
            path = files.save(result, index, numbered=many)
            if json:
                one = replace(result.request, count=1, seed=result.seeds[index], candidates=1, keep=1)
                scores = {"score": round(result.scores[index], 6)} if result.scores else {}
                put_json({"path": str(path), "seed": one.seed, **scores, "seconds": round(result.seconds / now, 3),
                          "notices": notices, "request": to_json(one)})  # fmt: skip
            else:
                print(path, flush=True)
        done += now
    return drawn


def _wake(device: str | None) -> "Steps[Engine]":
    """The engine, with a word to those who wait for it: importing torch takes longer than many a picture."""
    yield Progress("wake", 0, 1, tuple)
    from mindseye.engine.engine import Engine

    return Engine(device=device)


def parse_size(text: str) -> tuple[int, int]:
    """`"640x480"` as (640, 480); a lone number is a square. Raises SizeError."""
    if found := _SIZE.fullmatch(text):
        return int(found[1]), int(found[2])
    if text.strip().isascii() and text.strip().isdigit() and len(text) <= 6:
        return int(text), int(text)
    raise SizeError(f"--size {text!r} is no size", hint="say WIDTHxHEIGHT, as in --size 128x128")


def _as_drawn(
    like: Path, changes: dict[str, Any], options: dict[str, Scalar], *, quiet: bool = False
) -> tuple[Request, int | None, Any]:
    """The request a picture was drawn by, which of its pictures it was, and the weights it was drawn with.

    A picture of ours is drawn again in the batch it came from, because sums over another batch differ in the last
    bits; once something is changed, only that one picture is drawn. What another program says is translated as far as
    that goes, and what cannot be the same is said.
    """
    from mindseye.metadata import LONGEST_TEXT, read, read_text, to_request

    found = read_text(sys.stdin.read(LONGEST_TEXT)) if str(like) == "-" else read(like)
    if found is None:
        raise ImageError(f"{like} does not say how it was made", hint="only pictures that were saved with it do")
    account = found.account
    if account is not None:
        named = {name: changes[name] for name in ("image", "mask") if name in changes}

        def find(path: str, sha256: str) -> "Image":
            return _find_image(path, sha256, beside=like.parent)

        stored = {name: value for name, value in account.request.items() if name not in named}
        request = replace(from_json(stored, find), **named)
        if not 0 <= account.index < request.count * request.keep <= 1000:
            raise ImageError(f"{like} holds a damaged account of how it was made")
        rest = {name: value for name, value in changes.items() if name not in named}
        if not rest and not options:
            return request, account.index, dict(account.weights)
        # Of candidates the one that was kept: an ordinary picture with a seed of its own.
        drawn_by = (request.seed or 0) + account.index if account.seed is None else account.seed
        seed = drawn_by if "candidates" not in rest else (request.seed or 0) + account.index // request.keep
        merged = {**request.options, **options}
        alone = {"seed": seed, "count": 1, "candidates": 1, "keep": 1}
        return replace(request, **{**alone, **rest}, options=merged), None, {}
    if "prompt" in changes:
        found = replace(found, fields={**found.fields, "prompt": changes["prompt"]})
    from mindseye.checkpoints.library import Library
    from mindseye.cli import owned

    library = Library()
    request, notices = to_request(
        found, cards=owned.drawers(library), model=changes.get("model"), vaes=owned.vaes(library)
    )
    request, more = owned.named_as_here(request, found, library)
    if not quiet:
        say(f"{like} was made by another program, {found.tool}")
        for notice in (*notices, *more):
            say(notice)
    request = replace(request, **changes, options={**request.options, **options})
    return request, None, owned.weights(request, found, library)


def _find_image(path: str, sha256: str, *, beside: Path) -> "Image":
    """The start picture or mask of an earlier run, if it is still the same one."""
    from mindseye.pictures import open_image

    for place in (Path(path), beside / Path(path).name):
        if path and place.is_file():
            image = open_image(place)
            if fingerprint(image) == sha256:
                return image
    raise ImageError(
        f"it was drawn from the picture {path or 'of no name'}, which is not there or has changed",
        hint="name it again with --image (and --mask)",
    )


class _Files:
    """Where pictures go: the file or folder asked for, or a name made of the prompt. Never over another file."""

    def __init__(self, output: Path | None, prompt: str) -> None:
        named = output is not None and not output.is_dir() and output.suffix != ""
        if output is not None and named:
            if output.suffix.lower() not in _ENDINGS:
                raise OptionError(
                    f"pictures are written as {', '.join(_ENDINGS)}, not as {output.suffix}",
                    hint=f"-o {output.with_suffix('.png')}",
                )
            self._folder, self._stem, self._ending = output.parent, output.stem, output.suffix
        else:
            self._folder, self._stem, self._ending = output or Path(), slug(prompt), ".png"

    def check(self) -> None:
        """Raise OutputError now if nothing could be written there once it is drawn."""
        from mindseye.pictures import check_folder

        existing = self._folder
        while not existing.exists() and existing != existing.parent:
            existing = existing.parent
        check_folder(existing)

    def save(self, result: Result, index: int, *, numbered: bool) -> Path:
        """Write one picture under the first free name and give back where."""
        from mindseye.metadata import exif, texts
        from mindseye.pictures import save_lossy, save_png

        image = result.images[index]
        if self._ending.lower() == ".png":
            write = partial(save_png, image, texts=texts(result, index), replace=False)
        else:
            write = partial(save_lossy, image, exif=exif(result, index), replace=False)
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(
                f"cannot make the folder {self._folder}: {(error.strerror or str(error)).lower()}",
                hint="choose another place with -o",
            ) from None
        for path in self._names(numbered):
            if path.exists() or not write(path):
                continue
            return path
        raise OutputError(f"there is no free name like {self._stem}{self._ending} in {self._folder}")

    def save_sheet(self, drawn: list[Result]) -> Path:
        """Everything that was kept on one sheet: a row a picture, a column a rank, the best first."""
        from mindseye.labels import labelled
        from mindseye.metadata import texts
        from mindseye.pictures import save_png

        keep = drawn[0].request.keep
        images = [image for result in drawn for image in result.images]
        scores = [score for result in drawn for score in result.scores]
        ranks = [str(rank + 1) if keep > 1 else "" for rank in range(keep)]
        if scores and len(images) == keep:
            ranks = [f"{rank} ({score:.3f})".strip() for rank, score in zip(ranks, scores, strict=True)]
        firsts = [(result.request.seed or 0) + place for result in drawn for place in range(result.request.count)]
        rows = [f"seed {seed}" if len(firsts) > 1 else "" for seed in firsts]
        cells = {(place % keep, place // keep, 0): image for place, image in enumerate(images)}
        made = labelled(cells, columns=ranks, rows=rows)
        path = self._folder / f"{self._stem}-sheet.png"
        return save_free(path, lambda free: save_png(made, free, texts(drawn[0], 0), replace=False))

    def _names(self, numbered: bool) -> Iterator[Path]:
        """fox.png, fox-1.png, fox-2.png ...; of several pictures fox-0.png, fox-1.png ..."""
        if not numbered:
            yield self._folder / f"{self._stem}{self._ending}"
        for number in itertools.islice(itertools.count(0 if numbered else 1), 100_000):
            yield self._folder / f"{self._stem}-{number}{self._ending}"


def slug(prompt: str) -> str:
    """A file name made of the prompt's first words: letters and digits of any script, dashes between."""
    text = unicodedata.normalize("NFKC", prompt).lower()
    words = re.findall(r"\w+", text)
    name = ""
    for word in words:
        # File systems count bytes: 255 of them, and we want to add a number and an ending.
        if len(f"{name}-{word}".encode()) > 60:
            break
        name = f"{name}-{word}" if name else word
    return name or (words[0].encode()[:60].decode(errors="ignore") if words else "picture")


def save_free(path: Path, save: Callable[[Path], bool]) -> Path:
    """Save under the name, or name-1, name-2 ... where that is taken."""
    for free in itertools.chain([path], (path.with_stem(f"{path.stem}-{number}") for number in range(1, 10_000))):
        if not free.exists() and save(free):
            return free
    raise OutputError(f"there is no free name like {path}")
