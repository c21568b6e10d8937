"""`mindseye film`: every frame is the one before, seen by a moved camera and painted on."""

import json
import secrets
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from mindseye.cli import arguments
from mindseye.cli.grid import checked, request_of, save_free, sheet_path, woken
from mindseye.cli.terminal import say, watch
from mindseye.errors import ImageError, OptionError
from mindseye.request import Request, Result, to_json

__all__ = ["film"]


def film(
    prompts: Annotated[list[str] | None, typer.Argument(help="What to paint, one after another.")] = None,
    frames: Annotated[int, typer.Option(help="How many pictures.")] = 24,
    zoom: Annotated[
        str | None, typer.Option(metavar="KEYS", help="Growth a frame: 1.04 [default], or keyframes.")
    ] = None,
    turn: Annotated[str | None, typer.Option(metavar="KEYS", help="Degrees a frame, against the clock.")] = None,
    right: Annotated[str | None, typer.Option(metavar="KEYS", help="Shift a frame; pixels, in space 1/200.")] = None,
    down: Annotated[str | None, typer.Option(metavar="KEYS", help="The same downwards.")] = None,
    into: Annotated[
        str | None, typer.Option(metavar="KEYS", help="Fly into the picture, in 1/200: makes it 3D.")
    ] = None,
    strength: Annotated[
        float | None, typer.Option(help="How much of each frame is painted anew, 0 to 1. [default: 0.4]")
    ] = None,
    like: Annotated[
        Path | None, typer.Option("--settings", metavar="FILE", help="Settings of Disco Diffusion, in JSON.")
    ] = None,
    seconds: arguments.Seconds = None,
    model: arguments.Model = None,
    seed: Annotated[int | None, typer.Option(help="Of the first picture; the next have the next.")] = None,
    steps: Annotated[int | None, typer.Option(help="How many steps a picture would take from nothing.")] = None,
    guidance: arguments.Guidance = None,
    negative: arguments.Negative = None,
    size: arguments.Size = None,
    sampler: arguments.Sampler = None,
    image: Annotated[Path | None, typer.Option(metavar="FILE", help="The picture before the first one.")] = None,
    settings: arguments.Settings = None,
    output: arguments.Moving = None,
    device: arguments.Device = None,
    quiet: arguments.Quiet = False,
) -> None:
    """Fly into a picture: each frame is painted over the one before, moved.

    KEYS are a number for every frame, or numbers at frames: "0: (1), 10: (1.05)".
    """
    from mindseye import animation, zoo

    told = _read(like) if like is not None else {}
    if not prompts and not told:
        raise OptionError("nothing says what to paint", hint="give a prompt, or --settings FILE")
    if frames < max(1, len(prompts or ())):
        raise OptionError(f"{frames} frames are too few: there is at least one for every prompt")
    path = sheet_path(output, (prompts or ["film"])[0], animation.ENDINGS)
    if path.suffix.lower() == ".mp4":
        animation.check_ffmpeg()
    given = {
        "model": model,
        "seed": seed,
        "steps": steps,
        "guidance": guidance,
        "negative": negative,
        "sampler": sampler,
    }
    request = request_of((prompts or [""])[0], size=size, image=image, mask=None, settings=settings, **given)
    scenes = {number * frames // len(prompts): text for number, text in enumerate(prompts or ())} if prompts else {}
    if told:
        request, scenes = _settled(told, request, scenes, given, quiet=quiet)
    request = replace(request, seed=secrets.randbelow(2**32) if request.seed is None else request.seed)
    zoo.find(request.model)
    engine = watch(woken(device), quiet=quiet)
    checked(engine, request)

    from mindseye.systems import motion

    keys = {"zoom": zoom, "angle": turn, "translation_x": right, "translation_y": down, "translation_z": into}
    moves: dict[str, Any] = {
        "animation_mode": "3D" if into is not None else "2D",
        "zoom": "1.04" if into is None else "1",
    }
    if told:
        moves = {**told, "animation_mode": "3D" if into is not None or told.get("animation_mode") == "3D" else "2D"}
    if strength is not None or not told:
        moves["frames_skip_steps"] = f"{100 * (1 - (0.4 if strength is None else strength)):g}%"
    moves |= {name: text for name, text in keys.items() if text is not None}
    camera = motion.Motion.of(moves)
    done: list[Result] = []
    try:
        watch(motion.film(request, camera, frames, engine.stream, done, prompts=scenes or None), quiet=quiet)
    finally:
        if done:
            if len(done) < frames:
                say(f"stopped after {len(done)} of {frames} frames; the file has these")
            camera_told = {name: str(value) for name, value in moves.items() if name in _MOVES}
            about = {"prompts": scenes, "frames": frames, "camera": camera_told, "request": to_json(request)}
            pictures = [result.images[0] for result in done]
            long = 0.1 * len(pictures) if seconds is None else seconds

            def save(free: Path) -> bool:
                return animation.save(pictures, free, seconds=long, bounce=False, about=about, replace=False)

            print(save_free(path, save), flush=True)


_MOVES = (
    "animation_mode", "zoom", "angle", "translation_x", "translation_y", "translation_z", "rotation_3d_x",
    "rotation_3d_y", "rotation_3d_z", "frames_skip_steps", "fov",
)  # fmt: skip


def _read(path: Path) -> Mapping[str, Any]:
    """A settings file. Raises ImageError when it is none."""
    from mindseye.metadata import disco
    from mindseye.metadata.found import LONGEST_JSON, parse_object

    try:
        told = parse_object(path.read_text(encoding="utf-8")[:LONGEST_JSON])
    except (OSError, UnicodeDecodeError) as error:
        raise ImageError(f"{path} cannot be read: {error}") from None
    if told is None or not disco.prompts_of(told):
        raise ImageError(f"{path} holds no settings of Disco Diffusion: JSON with text_prompts is expected")
    return told


def _settled(
    told: Mapping[str, Any], typed: Request, scenes: dict[int, str], given: Mapping[str, Any], *, quiet: bool
) -> tuple[Request, dict[int, str]]:
    """What the file says, as far as the card can do it, under what was typed."""
    from mindseye import zoo
    from mindseye.engine.engine import system_class
    from mindseye.engine.options import knobs
    from mindseye.metadata import Drawer, Found, disco, to_request

    card, own = zoo.find(typed.model), disco.prompts_of(told)
    kind = system_class(card)
    drawer = Drawer(
        name=typed.model,
        native=card.native,
        samplers=tuple(getattr(kind, "samplers", ())) or None,
        options=tuple(knob.name for knob in knobs(kind.Options)),
    )
    # Its first frame; what it says of the others is what this command does.
    first = {**told, "text_prompts": {"0": next(iter(own.values())).split("|")}, "animation_mode": "None"}
    fields: Any = {"prompt": next(iter(own.values())), "model": str(told.get("diffusion_model") or "")}
    found = Found(tool="Disco Diffusion", fields=fields, raw=json.dumps(first))
    request, said = to_request(found, cards=[drawer], model=typed.model)
    if not quiet:
        for notice in said:
            say(notice)
    changes = {name: value for name, value in given.items() if value is not None}
    changes |= {name: getattr(typed, name) for name in ("size", "image") if getattr(typed, name) is not None}
    if scenes:
        changes["prompt"] = scenes[0]
    request = replace(request, **changes, options={**request.options, **typed.options})
    return request, scenes or own
