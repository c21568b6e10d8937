"""nuwa-pocket: NUWA-Infinity over the pocket VQGAN's tokens, taught on pictures and on strips.

Two steps of three show the corpus' pictures, four patches each; every third shows wide rows of things, four patches in
a line, painted for it. Every step draws in another direction, or goes outward from a patch anywhere, so that a canvas
may later grow to any side. Nothing says where on the canvas a patch lies, so that a strip may be longer than these.
With a data set of one's own there are no strips: those are the corpus'.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any, Final, final

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from mindseye.autoregression import NextToken
from mindseye.codec import TokenCodec
from mindseye.data.glyphs import Corpus
from mindseye.data.scenes import paint
from mindseye.networks.direction import DIRECTIONS, Plan, plan
from mindseye.networks.nuwa_infinity import POCKET, NUWAInfinity, to_patches
from mindseye.noise import Noise
from mindseye.objective import Batch, Loss, Objective
from mindseye.pictures import sheet
from mindseye.pixels import to_images
from mindseye.request import Request, Steps, drain
from mindseye.systems.nuwa import NUWAInfinity as System
from mindseye.training.encodings import distinct, encode_all, fingerprint
from mindseye.training.feeds import to_pixels
from mindseye.training.recipe import Every, Feed, Optimizer, Recipe, Workshop
from mindseye.training.recipes.parti import CODEC, read, words
from mindseye.training.recipes.stable_diffusion import PROMPTS
from mindseye.training.tokens import TokenFeed, gather_tokens, token_scores

__all__ = ["CanvasFeed", "PatchByPatch", "nuwa_pocket"]

NAME = "nuwa-pocket"
STRIPS: Final = 30_000
"""How many are painted."""
THINGS: Final = 4
"""In a strip, each in a patch of its own."""
SIDE: Final = 64
"""Pixels a side of a patch."""
STRIP_PROMPTS: Final = ("a row of red hearts", "a row of owls, glossy 3d", "a row of blue stars on a yellow background")


class CanvasFeed:
    """Pictures, and strips at every third step.

    Args:
        pictures: Of two by two patches.
        strips: Of `THINGS` patches in a row; None = there are none.
    """

    def __init__(self, pictures: TokenFeed, strips: TokenFeed | None) -> None:
        self.pictures, self.strips = pictures, strips

    def batch(self, step: int, size: int) -> Batch:
        """``{"ids": B T, "text": B L, "patches": B 2}``, the last the canvas' rows and columns of patches."""
        turn, place = divmod(step, 3)
        wide = self.strips is not None and place == 2
        if self.strips is None:
            found = self.pictures.batch(step, size)
        else:
            found = self.strips.batch(turn, size) if wide else self.pictures.batch(2 * turn + place, size)
        patches = torch.tensor((1, THINGS) if wide else (2, 2))
        return {**found, "patches": patches.expand(size, 2)}


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


def _feed(workshop: Workshop) -> Steps[Feed]:
    pictures = yield from gather_tokens(workshop, CODEC, partial(read, words(workshop)))
    if workshop.data is not None:
        return CanvasFeed(pictures, None)
    return CanvasFeed(pictures, (yield from _strips(workshop, STRIPS)))


def _strips(workshop: Workshop, count: int) -> Steps[TokenFeed]:
    """Strips of the corpus, painted and encoded when they are not yet."""
    corpus = Corpus.open(workshop.corpus)
    codec: TokenCodec = workshop.parts(CODEC)
    scenes = [corpus.strip(index, THINGS) for index in range(count)]

    def encode(start: int, stop: int) -> Tensor:
        painted = [paint(scene, corpus.icons, SIDE, THINGS * SIDE) for scene in scenes[start:stop]]
        return codec.to_ids(to_pixels(np.stack(painted)))

    seen = fingerprint(workshop.part_files(CODEC))
    path = workshop.cache / "encodings" / f"ids-{CODEC}-shifted-strips-{count}x{THINGS}-{seen}.npy"
    ids = yield from encode_all(path, count, encode, stage="encode strips", kind=np.int16)
    captions, where = distinct([scene.caption for scene in scenes])
    text = read(words(workshop), captions).numpy().astype(np.int32)
    return TokenFeed(ids, text, where, np.arange(count), seed=1)


def _objective(workshop: Workshop) -> PatchByPatch:
    return PatchByPatch(NUWAInfinity(POCKET), read(words(workshop), [""]))


def _samples(workshop: Workshop, parts: Mapping[str, Any]) -> Any:
    """A picture of every prompt, and strips twice as long as any that was trained on, cut into squares."""
    system = System(network=parts[NAME], codec=workshop.parts(CODEC), tokenizer=words(workshop))
    options = system.Options(top_k=128)
    images: list[Any] = []
    for prompt in PROMPTS:
        request = Request(prompt=prompt, size=(2 * SIDE, 2 * SIDE), seed=0, steps=1, guidance=3.0)
        images += to_images(drain(system.synthesize(request, options, Noise([0]))))
    for prompt in STRIP_PROMPTS:
        request = Request(prompt=prompt, size=(2 * THINGS * SIDE, SIDE), seed=0, steps=1, guidance=3.0)
        strip = drain(system.synthesize(request, system.Options(top_k=128, direction="left"), Noise([0])))
        images += to_images(torch.cat(strip.unflatten(3, (2 * THINGS, SIDE)).unbind(3)))
    return sheet(images)


def _scores(workshop: Workshop, parts: Mapping[str, Any]) -> dict[str, float]:
    """Held-out loss in bits a token from the top left, and what the text is worth of it."""
    return token_scores(workshop, Planned(parts[NAME]), CODEC, partial(read, words(workshop)))


def nuwa_pocket() -> Recipe:
    """Needs vqgan-pocket and bpe-pocket; held-out bits a token are in the part's provenance."""
    return Recipe(
        name=NAME,
        about="NUWA-Infinity over the tokens of vqgan-pocket: canvases of any size, in any direction",
        objective=_objective,
        feed=_feed,
        steps=8_000,
        batch=32,
        optimizer=Optimizer(kind="muon", lr=2e-3, betas=(0.9, 0.99), weight_decay=0.01, warmup=100),
        ema=0.998,
        every=Every(sample=1000, checkpoint=250),
        samples=_samples,
        scores=_scores,
    )
