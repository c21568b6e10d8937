"""`mindseye convert`: a model in another layout."""

from pathlib import Path
from typing import Annotated

import typer

from mindseye.cli.terminal import say, watch
from mindseye.errors import OptionError

_DTYPES = ("float32", "float16", "bfloat16")


def convert(
    source: Annotated[Path, typer.Argument(metavar="IN", help="A diffusers folder, a single file, or our own folder.")],
    target: Annotated[Path, typer.Argument(metavar="OUT", help="A new folder; for original, a new .safetensors file.")],
    to: Annotated[str, typer.Option(help="mindseye, diffusers or original.")] = "mindseye",
    dtype: Annotated[
        str, typer.Option(help="float32, float16 or bfloat16; as they are if not given.", show_default=False)
    ] = "",
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="No bar, no notices.")] = False,
) -> None:
    """Write a model in another layout; nothing is lost that anybody reads, and what is left out is said."""
    if dtype and dtype not in _DTYPES:
        raise OptionError(f"there is no dtype {dtype!r} to write; {', '.join(_DTYPES)} are possible")
    if to == "original" and target.suffix != ".safetensors":
        raise OptionError(f"{target} should end in .safetensors", hint=f"{target}.safetensors")
    import torch

    from mindseye.checkpoints import convert as conversion

    if to not in conversion.TARGETS:
        raise OptionError(f"there is no layout {to!r} to write; {', '.join(conversion.TARGETS)} are possible")
    steps = conversion.convert(source, target, to, dtype=getattr(torch, dtype) if dtype else None)
    for sentence in watch(steps, quiet=quiet):
        if not quiet:
            say(sentence)
    print(target)
