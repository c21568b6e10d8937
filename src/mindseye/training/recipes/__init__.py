"""Every recipe by name: a literal table of functions, so that listing them costs nothing."""

from collections.abc import Callable
from typing import Final

from mindseye.training.recipe import Craft, Recipe
from mindseye.training.recipes.adm import adm_pocket
from mindseye.training.recipes.clip import bpe_pocket, clip_pocket, clip_rn_pocket
from mindseye.training.recipes.dalle import dalle_pocket
from mindseye.training.recipes.dalle_mini import dalle_mini_pocket
from mindseye.training.recipes.discrete_vae import discrete_vae_pocket
from mindseye.training.recipes.dvae import dvae_pocket
from mindseye.training.recipes.gan import biggan_pocket, dcgan_pocket, textgan_pocket
from mindseye.training.recipes.nuwa import nuwa_pocket
from mindseye.training.recipes.nuwa_clip import nuwa_clip_pocket
from mindseye.training.recipes.parti import parti_pocket
from mindseye.training.recipes.stable_diffusion import unet_pocket
from mindseye.training.recipes.translator import cyclegan_pocket, pix2pix_pocket
from mindseye.training.recipes.vae import vae_pocket
from mindseye.training.recipes.vqgan import vit_vqgan_pocket, vqgan_pocket
from mindseye.training.recipes.wdsr import wdsr_pocket

__all__ = ["RECIPES"]

RECIPES: Final[dict[str, Callable[[], Recipe | Craft]]] = {
    "bpe-pocket": bpe_pocket,
    "vae-pocket": vae_pocket,
    "clip-pocket": clip_pocket,
    "clip-rn-pocket": clip_rn_pocket,
    "unet-pocket": unet_pocket,
    "dcgan-pocket": dcgan_pocket,
    "biggan-pocket": biggan_pocket,
    "textgan-pocket": textgan_pocket,
    "vqgan-pocket": vqgan_pocket,
    "vit-vqgan-pocket": vit_vqgan_pocket,
    "dvae-pocket": dvae_pocket,
    "discrete-vae-pocket": discrete_vae_pocket,
    "adm-pocket": adm_pocket,
    "dalle-pocket": dalle_pocket,
    "dalle-mini-pocket": dalle_mini_pocket,
    "pix2pix-pocket": pix2pix_pocket,
    "cyclegan-pocket": cyclegan_pocket,
    "parti-pocket": parti_pocket,
    "nuwa-pocket": nuwa_pocket,
    "nuwa-clip-pocket": nuwa_clip_pocket,
    "wdsr-pocket": wdsr_pocket,
}
