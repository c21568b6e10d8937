"""dalle-mini-pocket: captions translated into the 16x16 codes of vqgan-pocket.

As DALL-E mini: next-code cross-entropy, and a tenth of the captions left out, so that super-conditioning has something
to leave. Where we deviate: the vocabulary is the corpus' own, Muon takes the place of distributed Shampoo, and pictures
of plain shapes are seen more often, because which word goes with which thing is learned from them.
"""

from typing import Final

from mindseye.networks.bart import POCKET, Bart
from mindseye.systems.dalle_mini import DalleMini
from mindseye.training.recipe import Optimizer, Recipe
from mindseye.training.recipes.writing import Writing

__all__ = ["WRITING", "dalle_mini_pocket"]

WRITING: Final = Writing(
    name="dalle-mini-pocket",
    network=lambda words: Bart(POCKET),
    system=DalleMini,
    guidance=4.0,
    knobs={"top_k": 64},
)


def dalle_mini_pocket() -> Recipe:
    """Needs bpe-pocket and vqgan-pocket; held-out figures as recorded in the part's provenance."""
    return WRITING.recipe(
        "DALL-E mini's encoder-decoder, 32 ids of text to 16x16 codes of vqgan-pocket, 3.6 million parameters",
        steps=6_000,
        optimizer=Optimizer(kind="muon", lr=2e-3, betas=(0.9, 0.98), weight_decay=0.05, warmup=150),
    )
