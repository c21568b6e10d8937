"""dalle-pocket: DALL-E's network over the pocket tokenizer's ids and those of the pocket VQGAN.

As DALL-E (Ramesh et al. 2021, arXiv:2102.12092), text and picture are one sentence, and losses of text and picture
count 1 : 7. A tenth of the captions are left out, so that guidance has something to leave, which DALL-E did not do.
"""

from dataclasses import replace
from typing import Final

from mindseye.networks.dalle import DALLE, POCKET
from mindseye.systems import dalle
from mindseye.training.recipe import Optimizer, Recipe
from mindseye.training.recipes.writing import Writing

__all__ = ["WRITING", "dalle_pocket"]

WRITING: Final = Writing(
    name="dalle-pocket",
    network=lambda words: DALLE(replace(POCKET, text_tokens=words.vocabulary)),
    system=dalle.DALLE,
    plain=True,
    knobs={"top_p": 0.95},
)


def dalle_pocket() -> Recipe:
    """Needs bpe-pocket and vqgan-pocket; held-out figures as recorded in the part's provenance."""
    return WRITING.recipe(
        "DALL-E's decoder of 2.7 million parameters over 32 text ids and 16x16 ids of vqgan-pocket",
        steps=30_000,
        optimizer=Optimizer(kind="muon", lr=2e-3, betas=(0.9, 0.99), weight_decay=0.01, warmup=200),
        ema=0.999,
    )
