"""Publishers' layouts: one file each, functions from a network's Config to rules; here, all that are read, by name."""

from mindseye.checkpoints.layout import Layout
from mindseye.checkpoints.layouts import (
    compvis,
    dalle_mini,
    diffusers,
    guided_diffusion,
    ldm_bert,
    open_clip,
    openai_clip,
    taesd,
    taming,
    transformers,
)
from mindseye.errors import UnknownName

__all__ = ["LAYOUTS", "READERS", "find"]

UNET = "mindseye.networks.unet:UNet"
VAE = "mindseye.networks.vae:AutoencoderKL"
CLIP = "mindseye.networks.clip:CLIP"
BERT = "mindseye.networks.bert:Bert"
TINY = "mindseye.networks.taesd:TinyAutoencoder"
VQGAN = "mindseye.networks.vqgan:VQGAN"
BART = "mindseye.networks.bart:Bart"
ADM = "mindseye.networks.adm:ADM"
SECONDARY = "mindseye.networks.secondary:Secondary"
READERS = {
    "biggan-deep": "mindseye.checkpoints.layouts.biggan:load_biggan",
    **dict.fromkeys(("dcgan", "dcgan-zoo", "mlp-gan"), "mindseye.checkpoints.layouts.dcgan:load_gan"),
}
"""Layouts of small files that are no matter of renaming (a BigGAN's spectral norms are folded): who reads them."""
LATENTS = ("latents_mean", "latents_std")

LAYOUTS: tuple[Layout, ...] = (
    Layout("diffusers-unet", UNET, diffusers.unet_rules),
    Layout("diffusers-vae", VAE, diffusers.vae_rules, given=LATENTS),
    Layout(
        "transformers-clip-text", CLIP, transformers.clip_text_rules, lambda _: transformers.IGNORE, ("logit_scale",)
    ),
    Layout("transformers-clip", CLIP, transformers.clip_rules, lambda _: transformers.IGNORE),
    Layout("compvis-unet", UNET, compvis.unet_rules),
    Layout("compvis-vae", VAE, compvis.vae_rules, lambda _: compvis.VAE_IGNORE, LATENTS),
    Layout("open-clip-text", CLIP, open_clip.text_rules, open_clip.ignored, ("logit_scale",)),
    Layout("ldm-bert", BERT, ldm_bert.original_rules, lambda _: ldm_bert.IGNORE),
    Layout("ldm-bert-diffusers", BERT, ldm_bert.bert_rules, lambda _: ldm_bert.IGNORE),
    Layout("taesd", TINY, taesd.rules),
    Layout("taesd-diffusers", TINY, taesd.diffusers_rules),
    Layout("openai-clip", CLIP, openai_clip.clip_rules, lambda _: openai_clip.IGNORE),
    Layout("taming-vqgan", VQGAN, taming.vqgan_rules, lambda _: taming.IGNORE),
    Layout("vqgan-jax", VQGAN, dalle_mini.flax_vqgan_rules),
    Layout("min-dalle-detoker", VQGAN, dalle_mini.detoker_rules),
    Layout("min-dalle", BART, dalle_mini.min_dalle_rules, lambda _: dalle_mini.IGNORE),
    Layout("dalle-mini-flax", BART, dalle_mini.flax_rules),
    Layout("guided-diffusion", ADM, guided_diffusion.adm_rules),
    Layout("secondary", SECONDARY, guided_diffusion.secondary_rules),
)


def find(name: str) -> Layout:
    """The layout of that name.

    Raises:
        UnknownName: With the nearest one that exists.
    """
    for layout in LAYOUTS:
        if layout.name == name:
            return layout
    raise UnknownName("layout", name, [layout.name for layout in LAYOUTS])
