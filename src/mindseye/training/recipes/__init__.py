"""Every recipe by name: a literal table of functions, so that listing them costs nothing."""

from collections.abc import Callable
from typing import Final

from mindseye.training.recipe import Craft, Recipe
from mindseye.training.recipes.clip import bpe_pocket, clip_pocket, clip_rn_pocket
from mindseye.training.recipes.stable_diffusion import unet_pocket
from mindseye.training.recipes.vae import vae_pocket

__all__ = ["RECIPES"]

RECIPES: Final[dict[str, Callable[[], Recipe | Craft]]] = {
    "bpe-pocket": bpe_pocket,
    "vae-pocket": vae_pocket,
    "clip-pocket": clip_pocket,
    "clip-rn-pocket": clip_rn_pocket,
    "unet-pocket": unet_pocket,
}
