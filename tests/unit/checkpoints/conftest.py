"""Tiny models of every family, written as the original releases and diffusers' folders lay them out."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from mindseye.checkpoints import layouts
from mindseye.checkpoints.layout import restore
from mindseye.checkpoints.layouts import diffusers_json, transformers
from mindseye.networks import bert, clip, unet, vae

LINEAR = ("sd2", "sdxl", "sdxl-refiner")
PREFIXES = {
    "sd1": {"text": ("cond_stage_model.transformer.", "transformers-clip-text")},
    "sd2": {"text": ("cond_stage_model.model.", "open-clip-text")},
    "sdxl": {
        "text": ("conditioner.embedders.0.transformer.", "transformers-clip-text"),
        "text_2": ("conditioner.embedders.1.model.", "open-clip-text"),
    },
    "sdxl-refiner": {"text_2": ("conditioner.embedders.0.model.", "open-clip-text")},
    "ldm-text2img": {"text": ("cond_stage_model.transformer.", "ldm-bert")},
}
FAMILIES = ("sd1", "sd1-inpaint", "sd2", "sd2-inpaint", "sdxl", "sdxl-inpaint", "sdxl-refiner", "ldm-text2img")


def text_config(layers: int = 2, embed: int | None = None, activation: str = "quick_gelu") -> clip.Config:
    text = clip.Text(vocabulary=100, length=16, width=64, layers=layers, heads=1, activation=activation)
    return clip.Config(text=text, image=None, embed=embed)


class Tiny:
    """One model with random weights.

    Args:
        family: Which.
        dtype: Of all its weights.
    """

    def __init__(self, family: str, dtype: torch.dtype = torch.float32) -> None:
        torch.manual_seed(len(family))
        self.family, self.base = family, family.removesuffix("-inpaint")
        linear = self.base in LINEAR
        attends = unet.Transformers(
            depth=(0, 1) if linear else (1, 0),
            middle=1,
            context=64,
            heads=None if linear else 8,
            head_dim=64 if linear else None,
            linear=linear,
        )
        config = unet.Config(
            in_channels=9 if family != self.base else 4,
            out_channels=4,
            channels=(32, 64),
            blocks=1,
            transformers=attends,
            embedding=128,
            vector=40 if "xl" in family else None,
        )
        towers = {
            part: vae.Tower(channels=(32, 32), blocks=(count, count))
            for part, count in (("encoder", 1), ("decoder", 2))
        }
        self.networks = {
            "unet": unet.UNet(config),
            "codec": vae.AutoencoderKL(vae.Config(**towers, latent_channels=4)),
        }
        if self.base == "ldm-text2img":
            shape = bert.Config(vocabulary=90, length=16, width=64, layers=2, heads=2, head=64, hidden=128)
            self.networks["text"] = bert.Bert(shape)
        elif self.base == "sd2":
            self.networks["text"] = clip.CLIP(text_config(2, activation="gelu"))
        elif self.base != "sdxl-refiner":
            self.networks["text"] = clip.CLIP(text_config())
        if "xl" in family:
            self.networks["text_2"] = clip.CLIP(text_config(2, 32, "gelu"))
        for network in self.networks.values():
            network.requires_grad_(False)
            for parameter in network.parameters():
                parameter.copy_(torch.randn(parameter.shape) * 0.1)
        factor = 0.13025 if "xl" in family else 0.18215
        self.networks["codec"].latents_std.fill_(1 / factor)
        self.dtype = dtype

    def tensors(self, part: str, layout: str, prefix: str = "") -> dict[str, torch.Tensor]:
        """One part under a layout's names."""
        network = self.networks[part]
        found = layouts.find(layout)
        state = restore(network.state_dict(), found.rules(network.config), given=found.given)
        return {prefix + key: value.to(self.dtype).contiguous() for key, value in state.items()}

    def single(self) -> dict[str, torch.Tensor]:
        """The tensors of an original single file, with some of what real ones have beside."""
        tensors = self.tensors("unet", "compvis-unet", "model.diffusion_model.")
        tensors |= self.tensors("codec", "compvis-vae", "first_stage_model.")
        for part, (prefix, layout) in PREFIXES[self.base].items():
            tensors |= self.tensors(part, layout, prefix)
        if self.base == "sd2":  # the block and the projection that nothing reads
            last = clip.CLIP(text_config(3, 64, "gelu")).requires_grad_(False)
            whole = restore(last.state_dict(), layouts.find("open-clip-text").rules(last.config))
            prefix = "cond_stage_model.model."
            tensors = {prefix + key: value.to(self.dtype) for key, value in whole.items()} | tensors
        tensors["betas"] = torch.linspace(0, 1, 10)
        tensors["model_ema.decay"] = torch.tensor(0.99)
        return {key: value.contiguous() for key, value in tensors.items()}

    def file(self, path: Path, metadata: dict[str, str] | None = None, **more: torch.Tensor) -> Path:
        """As one .safetensors or .ckpt."""
        tensors = self.single() | more
        if path.suffix == ".safetensors":
            save_file(tensors, path, metadata)
        else:
            torch.save({"state_dict": tensors, "global_step": 470000}, path)
        return path

    def folder(self, path: Path, prediction: str = "epsilon", **scheduler: object) -> Path:
        """As diffusers writes it."""
        put(path / "model_index.json", {"_class_name": "StableDiffusionXL" if "xl" in self.family else "Stable"})
        for part, name in (("unet", "unet"), ("codec", "vae"), ("text", "text_encoder"), ("text_2", "text_encoder_2")):
            if part not in self.networks:
                continue
            config = self.networks[part].config
            if part == "unet":
                settings, layout = diffusers_json.unet_json(config, 8), "diffusers-unet"
            elif part == "codec":
                settings = diffusers_json.vae_json(config, 0.13025 if "xl" in self.family else 0.18215, 16)
                layout = "diffusers-vae"
            else:
                settings, layout = transformers.text_json(config), "transformers-clip-text"
            put(path / name / "config.json", settings)
            stem = "diffusion_pytorch_model" if part in ("unet", "codec") else "model"
            save_file(self.tensors(part, layout), path / name / f"{stem}.safetensors")
        table = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
        put(path / "scheduler" / "scheduler_config.json", {**table, "prediction_type": prediction, **scheduler})
        return path


def put(path: Path, values: dict[str, object]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(values))


@pytest.fixture
def tiny() -> type[Tiny]:
    """A maker of tiny models."""
    return Tiny
