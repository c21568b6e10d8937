"""nuwa-clip-pocket: NUWA over the pocket VQGAN's tokens, taught on pictures and on short clips.

As NUWA (Wu et al. 2021, arXiv:2111.12417): one network for both, for a picture is a clip of one frame; its loss is the
sum of text to picture and text to clip, here in turns. Frames are of 64x64, so that a clip has as many tokens as a
picture of the other writers. Every second step shows clips, painted for it: one thing that moves across the picture,
grows or shrinks. With a data set of one's own there are none, and it learns pictures alone.

Left out of the paper: to go on from given frames is not taught apart (a clip whose beginning is given is just begun),
and sketches are not read.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from mindseye.data.glyphs import SIDE, Corpus
from mindseye.data.scenes import paint
from mindseye.networks.nuwa import NUWA, POCKET
from mindseye.pictures import sheet
from mindseye.request import Steps
from mindseye.systems.nuwa import NUWA as System
from mindseye.training.recipe import Feed, Optimizer, Recipe, Workshop
from mindseye.training.recipes.stable_diffusion import PROMPTS
from mindseye.training.recipes.writing import CODEC, Writing
from mindseye.training.tokens import TakingTurns, TokenFeed, scene_tokens

__all__ = ["WRITING", "nuwa_clip_pocket"]

CLIPS: Final = 20_000
"""How many are painted."""
FRAME: Final = 64
"""Pixels a side of a frame."""
CLIP_PROMPTS: Final = ("a red circle moving to the right", "a blue star growing", "an owl moving up, flat")

WRITING: Final = Writing(
    name="nuwa-clip-pocket",
    network=lambda words: NUWA(POCKET),
    system=System,
    shrink=SIDE // FRAME,
    knobs={"top_k": 128},
    warm=True,
)


def _feed(workshop: Workshop) -> Steps[Feed]:
    pictures = yield from WRITING.feed(workshop)
    if workshop.data is not None:
        return pictures
    return TakingTurns(pictures, (yield from _clips(workshop, CLIPS)), every=2)


def _clips(workshop: Workshop, count: int) -> Steps[TokenFeed]:
    """Clips of the corpus, frame after frame."""
    corpus, frames = Corpus.open(workshop.corpus), POCKET.grid[0]
    clips = [corpus.clip(index, frames) for index in range(count)]

    def painted(start: int, stop: int) -> NDArray[np.uint8]:
        return np.stack([[paint(frame, corpus.icons, FRAME) for frame in clip] for clip in clips[start:stop]])

    captions, name = [clip[0].caption for clip in clips], f"clips-{count}x{frames}"
    return (yield from scene_tokens(workshop, CODEC, WRITING.read(workshop), name, captions, painted, seed=1))


def _samples(workshop: Workshop, parts: Mapping[str, Any]) -> Any:
    """A picture of every prompt, and clips, a frame after the other."""
    system, frames = WRITING.drawer(workshop, parts), POCKET.grid[0]
    images = [image for prompt in PROMPTS for image in WRITING.drawn(system, prompt)]
    for prompt in CLIP_PROMPTS:
        for frame in range(frames):
            images += WRITING.drawn(system, prompt, frames=frames, frame=frame)
    return sheet(images)


def nuwa_clip_pocket() -> Recipe:
    """Needs vqgan-pocket and bpe-pocket; held-out bits a token of pictures are in the part's provenance."""
    return replace(
        WRITING.recipe(
            "NUWA over the tokens of vqgan-pocket: pictures of 64x64, and clips of four frames",
            steps=8_000,
            optimizer=Optimizer(kind="muon", lr=2e-3, betas=(0.9, 0.99), weight_decay=0.01, warmup=100),
        ),
        feed=_feed,
        samples=_samples,
    )
