"""`mindseye evaluate`: how well a model draws what it is told."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mindseye.cli.generate import slug
from mindseye.cli.terminal import watch
from mindseye.errors import WeightsMissing
from mindseye.request import DEFAULT, Request

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from PIL.Image import Image

    from mindseye.evaluation.clip_score import ClipJudge


def evaluate(
    card: Annotated[str, typer.Argument(help="Name of a model.")] = DEFAULT,
    quick: Annotated[bool, typer.Option("--quick", help="Fewer pictures, wider intervals.")] = False,
    corpus: Annotated[Path, typer.Option(metavar="DIR", help="What `mindseye data glyphs` made.")] = Path(
        "data/glyphs"
    ),
    seed: Annotated[int, typer.Option(help="Decides captions and pictures.")] = 0,
    steps: Annotated[int | None, typer.Option(help="Steps a picture; the model's own number by default.")] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="DIR", help="Sheets of the pictures.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="The figures as one JSON object on stdout.")] = False,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="No bar.")] = False,
) -> None:
    """Measure how well a model draws what it is told."""
    from mindseye import zoo
    from mindseye.pictures import check_folder

    zoo.find(card)
    if output is not None:
        check_folder(output)
    from mindseye.data.glyphs import Corpus
    from mindseye.engine.engine import Engine
    from mindseye.evaluation import report

    captions, judge, engine = Corpus.open(corpus), _judge(), Engine()

    def generate(prompts: "Sequence[str]", seeds: "Sequence[int]") -> "list[Image]":
        asked = (
            Request(prompt=prompt, model=card, seed=one, steps=steps)
            for prompt, one in zip(prompts, seeds, strict=True)
        )
        return [engine.generate(request).images[0] for request in asked]

    facts: dict[str, str | int | float] = {"device": str(engine.device)}
    if steps is not None:
        facts["steps"] = steps
    result = watch(report.evaluate(card, generate, captions, judge, quick, seed=seed, facts=facts), quiet=quiet or json)
    if output is not None:
        _put_sheets(result.drawn, output)
    if json:
        print(result.json())
        return
    from rich.console import Console

    Console().print(result.table())


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


def _put_sheets(drawn: "Mapping[str, Sequence[tuple[str, Image, bool | None]]]", folder: Path) -> None:
    """One PNG of pictures for each part of the report."""
    from mindseye.pictures import save_png, sheet

    for stage, each in drawn.items():
        save_png(sheet([picture for _, picture, _ in each]), folder / f"{slug(stage)}.png")
