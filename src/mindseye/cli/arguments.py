"""What may be said of a picture on a command line: the options that `grid`, `morph`, `film` and the default command
share, each written once.
"""

from pathlib import Path
from typing import Annotated, TypeAlias

import typer

from mindseye.request import DEFAULT

__all__ = [
    "Device", "Guidance", "Mask", "Model", "Moving", "Negative", "Quiet", "Sampler", "Seconds", "Settings", "Size",
    "Start", "Steps", "Strength",
]  # fmt: skip

Model: TypeAlias = Annotated[
    str | None, typer.Option("-m", "--model", metavar="CARD", help=f"[default: {DEFAULT}]")
]  # fmt: skip
Steps: TypeAlias = Annotated[int | None, typer.Option(help="How many steps to take.")]
Guidance: TypeAlias = Annotated[float | None, typer.Option(help="How strongly the words pull; 1 is not at all.")]
Negative: TypeAlias = Annotated[str | None, typer.Option(help="What to keep away from.")]
Size: TypeAlias = Annotated[str | None, typer.Option(metavar="WxH", help="Width and height in pixels.")]
Sampler: TypeAlias = Annotated[str | None, typer.Option(help="How to walk from noise to picture.")]
Start: TypeAlias = Annotated[Path | None, typer.Option(metavar="FILE", help="A picture to start from.")]
Mask: TypeAlias = Annotated[Path | None, typer.Option(metavar="FILE", help="What of it to repaint: white.")]
Strength: TypeAlias = Annotated[float | None, typer.Option(help="How far to go from it, 0 to 1.")]
Settings: TypeAlias = Annotated[
    list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="One of the model's own options.")
]
Device: TypeAlias = Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, mps. [default: the best]")]
Quiet: TypeAlias = Annotated[bool, typer.Option("-q", "--quiet", help="No bar, no notices.")]
Seconds: TypeAlias = Annotated[float | None, typer.Option(help="How long it takes. [default: a tenth a frame]")]
Moving: TypeAlias = Annotated[
    Path | None,
    typer.Option("-o", "--output", metavar="FILE", help=".gif .webp .apng .mp4, or .png for a strip. [default: gif]"),
]
"""Where something that moves goes."""
