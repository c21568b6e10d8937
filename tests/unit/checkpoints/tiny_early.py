"""Tiny networks of the systems before latent diffusion, written into files as their publishers did."""

import functools
import json
from pathlib import Path

import torch
from safetensors.torch import save_file

from mindseye.checkpoints.layout import restore
from mindseye.checkpoints.layouts import biggan as biggan_layout
from mindseye.checkpoints.layouts import dcgan, guided_diffusion, openai_clip, taming, transformers
from mindseye.networks import adm, clip, secondary, vqgan
from mindseye.networks.biggan import BigGAN
from mindseye.networks.biggan import Config as BigGANConfig
from mindseye.networks.gan import Config as GANConfig
from mindseye.networks.gan import DCGANDiscriminator, DCGANGenerator
from mindseye.networks.vae import Tower

CODES = vqgan.Config(
    encoder=Tower(channels=(32, 32), blocks=(1, 1)),
    decoder=Tower(channels=(32, 32), blocks=(2, 2)),
    codes=24,
    code_channels=8,
    z_channels=8,
    attention=(1,),
)
DEEP = BigGANConfig(
    z_dim=6,
    class_dim=4,
    num_classes=3,
    width=8,
    layers=((False, 4, 4), (True, 4, 2), (False, 2, 2), (True, 2, 1)),
    attention=2,
    rows=3,
)
DIFFUSION = adm.Config(
    width=64, channels=(64, 64), blocks=1, attention=adm.SelfAttention(levels=(False, True), head_dim=64)
)
SMALL = secondary.Config(channels=(8, 8, 8), planes=16)
WORDS = clip.Text(vocabulary=49408, length=16, width=16, layers=1, heads=1)
EYES = clip.Config(text=WORDS, image=clip.ViT(size=16, patch=8, width=16, layers=1, heads=1), embed=16)
DIGITS = GANConfig(z_dim=5, widths=(16, 8), grey=False)


def written(path: Path, tensors) -> Path:
    """A file of tensors: .safetensors, or a pickle as its ending says; Lightning wraps a .ckpt."""
    tensors = {key: value.detach().contiguous() for key, value in tensors.items()}
    if path.suffix == ".safetensors":
        save_file(tensors, path)
    elif path.suffix == ".ckpt":
        torch.save({"state_dict": tensors, "global_step": 7, "epoch": 0}, path)
    else:
        torch.save(tensors, path)
    return path


@functools.cache
def made(kind, config):
    """A network of random weights, the same every time."""
    torch.manual_seed(1)
    network = kind(config).eval().requires_grad_(False)
    for parameter in network.parameters():
        if parameter.ndim > 1:
            parameter.copy_(torch.randn(parameter.shape) * (parameter[0].numel() ** -0.5))
    return network


def vqgan_file(path: Path, prefix: str = "") -> Path:
    tensors = restore(made(vqgan.VQGAN, CODES).state_dict(), taming.vqgan_rules(CODES))
    return written(path, {f"{prefix}{key}": value for key, value in tensors.items()})


def biggan_file(path: Path, *, told: bool = False) -> Path:
    tensors, config = biggan_layout.to_release(made(BigGAN, DEEP))
    if told:
        path.with_name(path.name.replace("pytorch_model.bin", "config.json")).write_text(json.dumps(config))
    return written(path, tensors)


def dcgan_file(path: Path, *, generator: bool = True, prefix: str = "") -> Path:
    kind, rules = (
        (DCGANGenerator, dcgan.generator_rules) if generator else (DCGANDiscriminator, dcgan.discriminator_rules)
    )
    tensors = restore(made(kind, DIGITS).state_dict(), rules(DIGITS))
    return written(path, {f"{prefix}{key}": value for key, value in tensors.items()})


def adm_file(path: Path, prefix: str = "") -> Path:
    tensors = restore(made(adm.ADM, DIFFUSION).state_dict(), guided_diffusion.adm_rules(DIFFUSION))
    return written(path, {f"{prefix}{key}": value for key, value in tensors.items()})


def secondary_file(path: Path) -> Path:
    network = made(secondary.Secondary, SMALL)
    return written(path, restore(network.state_dict(), guided_diffusion.secondary_rules(SMALL)))


def clip_file(path: Path, config: clip.Config = EYES) -> Path:
    """OpenAI's names."""
    tensors = restore(made(clip.CLIP, config).state_dict(), openai_clip.clip_rules(config))
    return written(path, tensors)


def clip_folder(path: Path) -> Path:
    """As the transformers library lays it out."""
    path.mkdir()
    tensors = restore(made(clip.CLIP, EYES).state_dict(), transformers.clip_rules(EYES))
    written(path / "model.safetensors", tensors)
    heads = {"num_attention_heads": 1, "hidden_act": "quick_gelu"}
    config = {"model_type": "clip", "text_config": heads, "vision_config": heads}
    (path / "config.json").write_text(json.dumps(config))
    return path
