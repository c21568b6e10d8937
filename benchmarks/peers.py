"""Stable Diffusion 1.5's networks with random weights: diffusers' own, and ours with the very same numbers."""

import os
import platform
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mindseye.checkpoints.layout import Rule
from mindseye.checkpoints.layouts.diffusers import unet_rules, vae_rules
from mindseye.checkpoints.save import _Uninitialised
from mindseye.networks.unet import SD1, UNet
from mindseye.networks.vae import KL_F8, AutoencoderKL

CONTEXT = 768


def their_unet() -> Any:
    """diffusers' U-Net."""
    from diffusers import UNet2DConditionModel

    torch.manual_seed(0)
    kinds = ("CrossAttn", "CrossAttn", "CrossAttn", "")
    network = UNet2DConditionModel(
        sample_size=64,
        block_out_channels=SD1.channels,
        down_block_types=tuple(f"{kind}DownBlock2D" for kind in kinds),
        up_block_types=tuple(f"{kind}UpBlock2D" for kind in reversed(kinds)),
        layers_per_block=2,
        cross_attention_dim=CONTEXT,
        attention_head_dim=8,
    )
    return network.eval().requires_grad_(False)


def their_codec() -> Any:
    """diffusers' autoencoder."""
    from diffusers import AutoencoderKL

    torch.manual_seed(1)
    network = AutoencoderKL(
        block_out_channels=(128, 256, 512, 512),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=2,
        sample_size=512,
    )
    return network.eval().requires_grad_(False)


def their_text() -> Any:
    """transformers' text tower."""
    from transformers import CLIPTextConfig, CLIPTextModel

    torch.manual_seed(2)
    config = CLIPTextConfig(hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12)
    return CLIPTextModel(config).eval().requires_grad_(False)


def _filled(ours: nn.Module, theirs: nn.Module, rules: Iterable[Rule]) -> Any:
    """Ours with their numbers."""
    given, state, places = theirs.state_dict(), ours.state_dict(), list(rules)
    if {rule.theirs for rule in places} != set(given):
        raise ValueError("the layout does not name every tensor of the peer")
    for rule in places:
        rule.op.view(state[rule.ours]).copy_(given[rule.theirs])
    return ours.eval().requires_grad_(False)


def our_unet(theirs: nn.Module) -> UNet:
    """Our U-Net with the same weights."""
    with _Uninitialised():
        ours = UNet(SD1)
    return _filled(ours, theirs, unet_rules(SD1))


def our_codec(theirs: nn.Module) -> AutoencoderKL:
    """Our autoencoder with the same weights."""
    with _Uninitialised():
        ours = AutoencoderKL(KL_F8)
    return _filled(ours, theirs, vae_rules(KL_F8))


def machine() -> str:
    """The processor's name and the number of cores that this process may use."""
    name = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        lines = info.read_text(encoding="utf-8").splitlines()
        name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), name)
    return f"{name}, {len(os.sched_getaffinity(0))} cores"


def results(kind: str) -> Path:
    """Where the numbers of this machine go."""
    words = "".join(letter.lower() if letter.isalnum() else "-" for letter in machine())
    name = "-".join(part for part in words.split("-") if part)
    return Path(__file__).parent / "results" / f"{kind}-{name}.json"
