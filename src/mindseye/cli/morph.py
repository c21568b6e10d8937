"""`mindseye morph`: from one prompt or seed to another, as an animation or a strip."""

import secrets
from pathlib import Path
from typing import Annotated

import typer

from mindseye.cli import arguments
from mindseye.cli.grid import checked, request_of, save_free, sheet_path, woken
from mindseye.cli.terminal import say, watch
from mindseye.request import Result, to_json

__all__ = ["morph"]


def morph(
    prompts: Annotated[list[str], typer.Argument(help="Where to start, and where to go.", show_default=False)],
    frames: Annotated[int, typer.Option(help="How many pictures.")] = 12,
    to_seed: Annotated[int | None, typer.Option(help="Go to the noise of this seed, too.", show_default=False)] = None,
    seconds: arguments.Seconds = None,
    bounce: Annotated[bool, typer.Option("--bounce", help="And back again, for a loop without a jump.")] = False,
    smooth: Annotated[bool, typer.Option("--smooth", help="Start and stop gently.")] = False,
    model: arguments.Model = None,
    seed: Annotated[int | None, typer.Option(help="Of the first picture.")] = None,
    steps: arguments.Steps = None,
    guidance: arguments.Guidance = None,
    negative: arguments.Negative = None,
    size: arguments.Size = None,
    sampler: arguments.Sampler = None,
    settings: arguments.Settings = None,
    output: arguments.Moving = None,
    device: arguments.Device = None,
    quiet: arguments.Quiet = False,
) -> None:
    """Go from one prompt to the next, or from one seed to another."""
    from mindseye import animation, zoo

    path = sheet_path(output, " to ".join(prompts[:2]), animation.ENDINGS)
    if path.suffix.lower() == ".mp4":
        animation.check_ffmpeg()
    request = request_of(
        prompts[0], model=model, seed=secrets.randbelow(2**32) if seed is None else seed, steps=steps,
        guidance=guidance, negative=negative, size=size, sampler=sampler, image=None, mask=None, settings=settings,
    )  # fmt: skip
    requests = animation.frames(request, prompts, frames, to_seed=to_seed, smooth=smooth)
    zoo.find(request.model)
    engine = watch(woken(device), quiet=quiet)
    # The ends and what is between them; all others are like these.
    for each in {id(one): one for one in (requests[0], requests[1], requests[-1])}.values():
        checked(engine, each)
    done: list[Result] = []
    try:
        watch(animation.play(requests, engine.stream, done), quiet=quiet)
    finally:
        if len(done) > 1 or len(done) == len(requests):
            if len(done) < len(requests):
                say(f"stopped after {len(done)} of {len(requests)} frames; the file has these")
            about = {"prompts": list(prompts), "to_seed": to_seed, "frames": len(requests), "smooth": smooth,
                     "request": to_json(requests[0])}  # fmt: skip
            pictures = [result.images[0] for result in done]
            long = 0.1 * len(pictures) if seconds is None else seconds

            def save(free: Path) -> bool:
                return animation.save(pictures, free, seconds=long, bounce=bounce, about=about, replace=False)

            print(save_free(path, save), flush=True)
