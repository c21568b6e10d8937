"""`mindseye show`: how a picture was made."""

from pathlib import Path
from typing import Annotated, Any

import typer

from mindseye.cli.terminal import put_json
from mindseye.errors import ImageError


def show(
    file: Annotated[Path, typer.Argument(help="A PNG, JPEG or WebP, ours or one with A1111's text.")],
    json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
) -> None:
    """Say how a picture was made."""
    from mindseye.metadata import read

    account, plain = read(file)
    if account is not None:
        seed = account.request.get("seed")
        shown: dict[str, Any] = {**account.request, "count": 1}
        shown["seed"] = seed + account.index if isinstance(seed, int) else seed
        about = {"version": account.version, "weights": account.weights, "seconds": account.seconds}
        if json:
            put_json({"request": shown, **about})
            return
        _put(shown | {f"weights {part}": str(digest)[:12] for part, digest in account.weights.items()})
        _put({"drawn by": f"mindseye {account.version}", "draw again": f"mindseye --like {file}"})
    elif plain is not None:
        if json:
            put_json({"prompt": plain.prompt, "negative": plain.negative, "fields": dict(plain.fields)})
            return
        _put({"prompt": plain.prompt, "negative": plain.negative, **plain.fields})
    else:
        raise ImageError(f"{file} does not say how it was made")


def _put(values: dict[str, Any]) -> None:
    """Names and values, one a line; what is empty is left out, nested values are spread, control codes are shown."""
    for name, value in values.items():
        if isinstance(value, dict) and "sha256" in value:
            _put({name: value.get("path") or f"sha256 {value['sha256']}"})
        elif isinstance(value, dict):
            _put(value)
        elif value not in (None, "", []):
            text = "x".join(map(str, value)) if isinstance(value, list) else str(value)
            # Text out of a stranger's file must not steer the terminal.
            text = "".join(mark if mark.isprintable() or mark == "\n" else repr(mark)[1:-1] for mark in text)
            print(f"{name + ':':<20}{text}")
