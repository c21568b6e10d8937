"""Small networks of a Stable Diffusion, and LoRAs for them under kohya's names."""

import pytest
import torch
from safetensors.torch import save_file

from mindseye.networks.clip import CLIP, Text
from mindseye.networks.clip import Config as ClipConfig
from mindseye.networks.unet import Config, Transformers, UNet

UNET = Config(
    in_channels=4,
    out_channels=4,
    channels=(8, 16),
    blocks=1,
    transformers=Transformers(depth=(1, 1), middle=1, context=12, heads=2, linear=False),
    embedding=32,
    groups=4,
)
TEXT = ClipConfig(text=Text(vocabulary=64, length=10, width=12, layers=2, heads=2), image=None, embed=None)
QUERY = "down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q"
CONV = "down_blocks_0_resnets_0_conv1"
KEY = "text_model_encoder_layers_1_self_attn_k_proj"


@pytest.fixture
def parts():
    """A U-Net and a text encoder with random weights; queries are ``down.0.stages.0.transformer...``."""
    torch.manual_seed(0)
    networks = {"unet": UNet(UNET), "text": CLIP(TEXT)}
    for network in networks.values():
        for parameter in network.parameters():
            parameter.data.normal_(std=0.1)
        network.requires_grad_(False)
    return networks


@pytest.fixture
def kohya(tmp_path):
    """A function that writes a LoRA: module -> factor -> tensor; a LoRA of three modules when none are given."""

    def pair(out: int, inside: int, rank: int = 2, kernel: tuple[int, ...] = ()) -> dict[str, torch.Tensor]:
        ones = (1,) * len(kernel)
        return {
            "lora_up.weight": torch.randn(out, rank, *ones),
            "lora_down.weight": torch.randn(rank, inside, *kernel),
            "alpha": torch.tensor(1.0),
        }

    def write(modules=None, name="style", metadata=None, seed=1, dtype=torch.float32):
        torch.manual_seed(seed)
        modules = modules or {
            f"lora_unet_{QUERY}": pair(8, 8),
            f"lora_unet_{CONV}": pair(8, 8, kernel=(3, 3)),
            f"lora_te_{KEY}": pair(12, 12),
        }
        state = {f"{module}.{end}": t.to(dtype) for module, factors in modules.items() for end, t in factors.items()}
        path = tmp_path / f"{name}.safetensors"
        save_file(state, path, metadata or {})
        return path

    write.pair = pair
    return write
