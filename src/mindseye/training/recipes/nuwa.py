"""nuwa-pocket: NUWA-Infinity over the pocket VQGAN's tokens, taught on pictures and on strips.

Every other step shows the corpus' pictures, four patches each; the others show wide rows of things, four patches in
a line, painted for it. Every step draws in another direction, or goes outward from a patch anywhere, so that a canvas
may later grow to any side. Nothing says where on the canvas a patch lies, so that a strip may be longer than these.
With a data set of one's own there are no strips: those are the corpus'.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, final

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import Parameter

from mindseye.autoregression import NextToken
from mindseye.data.glyphs import Corpus
from mindseye.data.scenes import paint
from mindseye.networks.direction import DIRECTIONS, Plan, plan
from mindseye.networks.nuwa_infinity import POCKET, NUWAInfinity, to_patches
from mindseye.objective import Batch, Loss, Objective
from mindseye.pictures import sheet
from mindseye.request import Steps
from mindseye.systems.nuwa import NUWAInfinity as System
from mindseye.training.recipe import Feed, Optimizer, Recipe, Workshop
from mindseye.training.recipes.stable_diffusion import PROMPTS
from mindseye.training.recipes.writing import CODEC, Writing
from mindseye.training.tokens import TakingTurns, TokenFeed, scene_tokens

__all__ = ["Canvases", "PatchByPatch", "nuwa_pocket"]

NAME: Final = "nuwa-pocket"
STRIPS: Final = 30_000
"""How many are painted."""
THINGS: Final = 4
"""In a strip, each in a patch of its own."""
SIDE: Final = 64
"""Pixels a side of a patch."""
STRIP_PROMPTS: Final = ("a row of red hearts", "a row of owls, glossy 3d", "a row of blue stars on a yellow background")


@final
@dataclass(frozen=True)
class Canvases:
    """A feed that says what canvas its tokens are of.

    Attributes:
        feed: Of tokens row by row.
        patches: Rows and columns of patches.
    """

    feed: Feed
    patches: tuple[int, int]

    def batch(self, step: int, size: int) -> Batch:
        """``{"ids": B T, "text": B L, "patches": B 2}``."""
        return {**self.feed.batch(step, size), "patches": torch.tensor(self.patches).expand(size, 2)}


@final
class Planned(nn.Module):
    """A network that was told the plan of the canvas, and so a `mindseye.autoregression.Predictor`."""

    def __init__(self, network: NUWAInfinity) -> None:
        super().__init__()
        self.network = network
        self.plan = plan(2, 2, reach=network.config.reach)

    def forward(self, text: Int[Tensor, "B L"], ids: Int[Tensor, "B N"]) -> tuple[None, Float[Tensor, "B N K"]]:
        """The network's answer about tokens that come row by row."""
        every = torch.arange(ids.shape[1], device=ids.device)[None]
        order = to_patches(every, self.plan, self.network.config.patch)[0]
        _, logits = self.network(text, ids[:, order], self.plan)
        return None, logits[:, order.argsort()]


@final
class PatchByPatch(Objective):
    """Next-token loss over canvases whose patches come in an order that is drawn for every batch.

    Args:
        network: What is trained.
        null_text: What stands for no text.
    """

    def __init__(self, network: NUWAInfinity, null_text: Int[Tensor, "1 L"]) -> None:
        super().__init__()
        self.planned = Planned(network)
        self.told = NextToken(self.planned, name=NAME, null_text=null_text)
        self.told.generator = self.generator

    def parts(self) -> Mapping[str, nn.Module]:
        """The network."""
        return {NAME: self.planned.network}

    def tables(self) -> Iterable[Parameter]:
        """As `NextToken`."""
        return self.told.tables()

    def draw_plan(self, rows: int, columns: int) -> Plan:
        """A direction, or outward from any patch: each half of the time."""
        reach = self.planned.network.config.reach
        number = int(torch.randint(2 * (len(DIRECTIONS) - 1), (1,), generator=self.generator))
        if number < len(DIRECTIONS) - 1:
            return plan(rows, columns, DIRECTIONS[number], reach=reach)
        place = int(torch.randint(rows * columns, (1,), generator=self.generator))
        return plan(rows, columns, "outward", reach=reach, given=[divmod(place, columns)])

    def forward(self, batch: Batch, turn: str = "main") -> Loss:
        """As `NextToken`; ``batch["patches"]`` is the same for all rows."""
        rows, columns = batch["patches"][0].tolist()
        self.planned.plan = self.draw_plan(rows, columns)
        return self.told(batch, turn)


WRITING: Final = Writing(
    name=NAME, network=lambda words: NUWAInfinity(POCKET), system=System, knobs={"top_k": 128}, warm=True
)


def _feed(workshop: Workshop) -> Steps[Feed]:
    pictures = Canvases((yield from WRITING.feed(workshop)), (2, 2))
    if workshop.data is not None:
        return pictures
    return TakingTurns(pictures, Canvases((yield from _strips(workshop, STRIPS)), (1, THINGS)), every=2)


def _strips(workshop: Workshop, count: int) -> Steps[TokenFeed]:
    """Strips of the corpus."""
    corpus = Corpus.open(workshop.corpus)
    scenes = [corpus.strip(index, THINGS) for index in range(count)]

    def painted(start: int, stop: int) -> NDArray[np.uint8]:
        return np.stack([paint(scene, corpus.icons, SIDE, THINGS * SIDE)[None] for scene in scenes[start:stop]])

    captions = [scene.caption for scene in scenes]
    name = f"shifted-strips-{count}x{THINGS}"
    return (yield from scene_tokens(workshop, CODEC, WRITING.read(workshop), name, captions, painted, seed=1))


def _objective(workshop: Workshop) -> PatchByPatch:
    return PatchByPatch(WRITING.untrained(workshop), WRITING.read(workshop)([""]))


def _samples(workshop: Workshop, parts: Mapping[str, Any]) -> Any:
    """A picture of every prompt, and strips twice as long as any that was trained on, cut into squares."""
    system = WRITING.drawer(workshop, parts)
    images = [image for prompt in PROMPTS for image in WRITING.drawn(system, prompt, size=(2 * SIDE, 2 * SIDE))]
    for prompt in STRIP_PROMPTS:
        (strip,) = WRITING.drawn(system, prompt, size=(2 * THINGS * SIDE, SIDE), direction="left")
        images += [strip.crop((left, 0, left + SIDE, SIDE)) for left in range(0, strip.width, SIDE)]
    return sheet(images)


def _scores(workshop: Workshop, parts: Mapping[str, Any]) -> dict[str, float]:
    """Held-out loss in bits a token from the top left, and what the text is worth of it."""
    return WRITING.scores(workshop, {NAME: Planned(parts[NAME])})


def nuwa_pocket() -> Recipe:
    """Needs vqgan-pocket and bpe-pocket; held-out bits a token are in the part's provenance."""
    return replace(
        WRITING.recipe(
            "NUWA-Infinity over the tokens of vqgan-pocket: canvases of any size, in any direction",
            steps=8_000,
            optimizer=Optimizer(kind="muon", lr=2e-3, betas=(0.9, 0.99), weight_decay=0.01, warmup=100),
        ),
        objective=_objective,
        feed=_feed,
        samples=_samples,
        scores=_scores,
    )
