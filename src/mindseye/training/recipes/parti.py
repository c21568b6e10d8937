"""parti-pocket: an encoder-decoder from captions to the pocket VQGAN's tokens.

Its encoder begins as clip-pocket's text tower, where the paper's was warmed up on texts and on pairs with pictures.
"""

from typing import Final

from mindseye.networks.parti import POCKET, Parti
from mindseye.systems.parti import Parti as System
from mindseye.training.recipe import Optimizer, Recipe
from mindseye.training.recipes.writing import Writing

__all__ = ["WRITING", "parti_pocket"]

WRITING: Final = Writing(
    name="parti-pocket", network=lambda words: Parti(POCKET), system=System, knobs={"top_k": 128}, warm=True
)


def parti_pocket() -> Recipe:
    """Needs vqgan-pocket and bpe-pocket; held-out bits a token are in the part's provenance."""
    return WRITING.recipe(
        "encoder-decoder from captions to the 16x16 tokens of vqgan-pocket",
        steps=8_000,
        optimizer=Optimizer(kind="muon", lr=2e-3, betas=(0.9, 0.99), weight_decay=0.01, warmup=100),
    )
