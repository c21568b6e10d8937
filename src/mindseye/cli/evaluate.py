"""`mindseye evaluate`: how well a model draws what it is told."""

import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mindseye.cli.generate import slug
from mindseye.cli.terminal import watch
from mindseye.errors import WeightsMissing
from mindseye.request import DEFAULT, Request

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from PIL.Image import Image

    from mindseye.evaluation.clip_score import ClipJudge
    from mindseye.zoo import Card


def evaluate(
    card: Annotated[str, typer.Argument(help="Name of a model.")] = DEFAULT,
    quick: Annotated[bool, typer.Option("--quick", help="Fewer pictures, wider intervals.")] = False,
    corpus: Annotated[Path, typer.Option(metavar="DIR", help="What `mindseye data glyphs` made.")] = Path(
        "data/glyphs"
    ),
    seed: Annotated[int, typer.Option(help="Decides captions and pictures.")] = 0,
    steps: Annotated[int | None, typer.Option(help="Steps a picture; the model's own number by default.")] = None,
    keep: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Keep every picture there: an evaluation that was stopped goes on with it."),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="DIR", help="Sheets of the pictures.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="The figures as one JSON object on stdout.")] = False,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="No bar.")] = False,
) -> None:
    """Measure how well a model draws what it is told."""
    from mindseye import zoo
    from mindseye.pictures import check_folder

    found = zoo.find(card)
    for folder in (output, keep):
        if folder is not None:
            check_folder(folder)
    from mindseye.data.glyphs import Corpus
    from mindseye.engine.choosing import critic_for
    from mindseye.engine.engine import Engine
    from mindseye.evaluation import report
    from mindseye.evaluation.album import Album
    from mindseye.evaluation.drawing import Painter
    from mindseye.evaluation.motion import FRAMES, Clips
    from mindseye.evaluation.plan import plan_of
    from mindseye.evaluation.strips import LONG, Strips
    from mindseye.zoo import Pocket

    captions, judge, engine = Corpus.open(corpus), _judge(), Engine()
    system, plan = engine.load(card), plan_of(found.system)
    asked_for = plan.quick if quick else plan.full

    def generate(prompts: "Sequence[str]", seeds: "Sequence[int]", **more: "Any") -> "list[Image]":
        asked = (
            Request(prompt=prompt, model=card, seed=one, steps=steps, **more)
            for prompt, one in zip(prompts, seeds, strict=True)
        )
        return [engine.generate(request).images[0] for request in asked]

    def edit(phrase: str, seed: int, start: "Image") -> "Image":
        return generate([phrase], [seed], image=start)[0]

    critic, name = _critic(found, system)
    if critic is None and asked_for.chosen:
        critic, name = critic_for(system, engine.parts), "clip-pocket"
    facts: dict[str, str | int | float] = {"device": str(engine.device), "judge": "clip-rn-pocket"}
    if critic is not None:
        facts["critic"] = name
    if steps is not None:
        facts["steps"] = steps
    # Weights and options decide pictures; where they differ, none is taken for another.
    decides = {**facts, **engine.fingerprints(found.parts), "card": str([found.defaults, found.options])}

    def painter(told: "Mapping[str, str]", **more: "Any") -> Painter:
        """The card under other conditions, which decide its pictures, too."""
        others = {**decides, **told, **{name: str(value) for name, value in more.items()}}
        return Painter(partial(generate, **more), None if keep is None else Album(keep, others))

    choose = strips = clips = None
    if asked_for.chosen:
        choose = painter(engine.fingerprints({"chooser": Pocket("clip")}), candidates=plan.candidates)
    if asked_for.strips:
        side = system.multiple
        wide = painter({}, size=(LONG * side, side), options={"direction": "left"})
        strips = Strips(wide, side, system.codec.factor)
    if asked_for.clips:
        one, other = (painter({}, options={"frames": FRAMES, "frame": frame}) for frame in (0, FRAMES - 1))
        clips = Clips(one, other, found.native[1])
    measuring = report.evaluate(
        card, generate, captions, judge, quick,
        plan=plan, critic=critic, edit=edit, choose=choose, strips=strips, clips=clips,
        classes=_classes(system),
        album=None if keep is None else Album(keep, decides), seed=seed,
        facts={**facts, "figures": ", ".join(asked_for.figures)},
    )  # fmt: skip
    result = watch(measuring, quiet=quiet or json)
    if output is not None:
        _put_sheets(result.drawn, output)
    if json:
        print(result.json())
        return
    from rich.console import Console

    # In a file or a pipe nothing tells how wide lines may be, and eighty columns leave no room for what is measured.
    Console(width=None if sys.stdout.isatty() else 200).print(result.table())


def _judge() -> "ClipJudge":
    """The shipped CLIP that no shipped system was trained or guided with."""
    from mindseye.checkpoints.save import load_part
    from mindseye.evaluation.clip_score import ClipJudge
    from mindseye.networks.clip import CLIP
    from mindseye.text.tokenizer import Tokenizer
    from mindseye.zoo import Pocket

    clip = load_part(Pocket("clip-rn").path)
    if not isinstance(clip, CLIP):
        raise WeightsMissing("clip-rn-pocket.safetensors holds no CLIP, and there is no other judge")
    length = clip.config.text.length
    return ClipJudge(clip, Tokenizer.from_file(Pocket("bpe", length).path, length))


def _critic(card: "Card", system: "Any") -> "tuple[ClipJudge | None, str]":
    """The CLIP that the card has for guiding, for choosing among its tries or for reading prompts, and its name."""
    from mindseye.evaluation.clip_score import ClipJudge
    from mindseye.networks.clip import CLIP
    from mindseye.zoo import Pocket

    for part in ("clip", "text"):
        clip, source = getattr(system, part, None), card.parts.get(part)
        if isinstance(clip, CLIP) and clip.config.image is not None:
            name = f"{source.name}-pocket" if isinstance(source, Pocket) else "its own"
            return ClipJudge(clip, system.tokenizer), name
    return None, ""


def _classes(system: "Any") -> "tuple[str, ...]":
    """The classes that the card's generator is told; none where it is told something else."""
    config = getattr(getattr(system, "generator", None), "config", None)
    return tuple(getattr(config, "labels", ()))


def _put_sheets(drawn: "Mapping[str, Sequence[tuple[str, Image, bool | None]]]", folder: Path) -> None:
    """One PNG of pictures for each part of the report."""
    from mindseye.pictures import save_png, sheet

    for stage, each in drawn.items():
        save_png(sheet([picture for _, picture, _ in each]), folder / f"{slug(stage)}.png")
