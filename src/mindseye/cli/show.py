"""`mindseye show`: how pictures were made, whichever program made them."""

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from mindseye.cli.terminal import put_json, say
from mindseye.errors import ImageError, MindseyeError, UsageError

_PICTURES = (".png", ".jpg", ".jpeg", ".jfif", ".webp", ".avif", ".gif", ".bmp")


def show(
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILE...", help="Pictures, of whichever program; folders of them; - for text.", show_default=False
        ),
    ],
    json: Annotated[bool, typer.Option("--json", help="One JSON object a picture on stdout.")] = False,
    disco: Annotated[
        bool, typer.Option("--disco", help="As a settings file of Disco Diffusion, for a picture of ours.")
    ] = False,
) -> None:
    """Say how a picture was made."""
    if disco:
        put_json(_settings(files))
        return
    several = len(files) > 1 or any(file.is_dir() for file in files)
    worst: MindseyeError | None = None
    for number, file in enumerate(_each(files)):
        try:
            about = _about(file)
        except MindseyeError as error:
            if not several:
                raise
            say(error.message, hint=error.hint)
            worst = error
            continue
        if json:
            put_json({"path": str(file), **about} if several else about)
            continue
        if several:
            print(("\n" if number else "") + f"{_shown(str(file))}")
        _print(file, about)
    if worst is not None:
        raise typer.Exit(worst.exit_code)


def _each(files: list[Path]) -> Iterator[Path]:
    """The files, and the pictures in the folders, by name."""
    for file in files:
        if file.is_dir():
            yield from sorted(one for one in file.iterdir() if one.suffix.lower() in _PICTURES and one.is_file())
        else:
            yield file


def _settings(files: list[Path]) -> dict[str, Any]:
    """What Disco Diffusion would have written beside a picture of ours."""
    from PIL import Image

    from mindseye.metadata import read
    from mindseye.metadata.disco import to_settings
    from mindseye.request import from_json

    if len(files) != 1:
        raise UsageError(f"settings are of one picture, not of {len(files)}")
    found = read(files[0])
    if found is None or found.account is None:
        raise ImageError(f"{files[0]} was not drawn by mindseye, or does not say how")

    def named(path: str, sha256: str) -> Image.Image:
        image = Image.new("RGB", (1, 1))
        image.info["path"] = path
        return image

    request = from_json(found.account.request, named)
    return to_settings(replace(request, seed=found.fields.get("seed", request.seed)))


def _about(file: Path) -> dict[str, Any]:
    """What one picture says, as JSON values."""
    from mindseye.metadata import LONGEST_TEXT, read, read_text

    found = read_text(sys.stdin.read(LONGEST_TEXT)) if str(file) == "-" else read(file)
    if found is None:
        raise ImageError(f"{file} does not say how it was made")
    if (account := found.account) is not None:
        request = {**account.request, "count": 1, "seed": found.fields.get("seed")}
        about = {"version": account.version, "weights": account.weights, "seconds": account.seconds}
        return {"tool": found.tool, "request": request, **about}
    return {"tool": found.tool, "fields": dict(found.fields), "notices": list(found.notices)}


def _print(file: Path, about: dict[str, Any]) -> None:
    """The same for people."""
    if "request" in about:
        weights = {f"weights {part}": str(digest)[:12] for part, digest in about["weights"].items()}
        _put(about["request"] | weights)
        _put({"drawn by": f"mindseye {about['version']}", "draw again": f"mindseye --like {file}"})
        return
    fields = dict(about["fields"])
    extra = fields.pop("extra", {})
    loras = [" ".join(str(value) for value in lora.values()) for lora in fields.pop("loras", ())]
    _put({name.replace("_", " "): value for name, value in fields.items()})
    _put({"loras": ", ".join(loras), **extra, "made by": about["tool"]})
    for notice in about["notices"]:
        say(notice)


def _put(values: dict[str, Any]) -> None:
    """Names and values, one a line; what is empty is left out, nested values are spread, control codes are shown."""
    for name, value in values.items():
        if isinstance(value, dict) and "sha256" in value:
            _put({name: value.get("path") or f"sha256 {value['sha256']}"})
        elif isinstance(value, dict):
            _put(value)
        elif value not in (None, "", []):
            text = "x".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
            print(f"{_shown(name) + ':':<20}{_shown(text)}")


def _shown(text: str) -> str:
    """Text out of a stranger's file must not steer the terminal."""
    return "".join(mark if mark.isprintable() or mark == "\n" else repr(mark)[1:-1] for mark in text)
