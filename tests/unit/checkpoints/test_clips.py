"""Whole CLIPs out of files in every public form, filled to the number."""

import json
import warnings
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from mindseye.checkpoints.clips import identify_clip
from mindseye.checkpoints.layout import restore
from mindseye.checkpoints.layouts import open_clip, openai_clip, transformers
from mindseye.checkpoints.load import load_foreign
from mindseye.errors import WeightsError, WeightsMissing
from mindseye.networks.clip import CLIP, HALF, Config, ResNet, Text, ViT

TEXT = Text(vocabulary=50, length=12, width=128, layers=3, heads=2)
VIT = Config(text=TEXT, image=ViT(size=32, patch=8, width=128, layers=2, heads=2), embed=24)
RESNET = replace(VIT, text=replace(TEXT, hidden=96), image=ResNet(size=64, width=8, layers=(2, 1, 2, 1), heads=4))


def network(config):
    torch.manual_seed(0)
    clip = CLIP(config).eval()
    for value in clip.state_dict().values():
        if value.is_floating_point():
            value.copy_(torch.randn_like(value) * 0.1 + (value.ndim == 1))
    return clip


def openai(clip):
    tensors = restore(clip.state_dict(), openai_clip.clip_rules(clip.config))
    return {name: value.contiguous() for name, value in tensors.items()}


def same(path, clip, **arguments):
    """What is found at the path is that network; the notes."""
    found = identify_clip(path, **arguments)
    loaded = load_foreign(found.part)
    assert loaded.config == clip.config
    for name, value in clip.state_dict().items():
        torch.testing.assert_close(loaded.state_dict()[name].to(value.dtype), value, rtol=1e-6, atol=1e-6)
    assert found.length == clip.config.text.length
    return found.notes


class Holder(nn.Module):
    """A tensor under any dotted name, as a program's modules hold them."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


def program(tensors):
    root = Holder()
    for name, value in tensors.items():
        place = root
        *path, last = name.split(".")
        for step in path:
            if step not in place._modules:
                place.add_module(step, Holder())
            place = place._modules[step]
        place.register_buffer(last, value)
    return torch.jit.script(root)


@pytest.mark.parametrize("config", [VIT, RESNET], ids=["vit", "resnet"])
def test_openai_program(config, tmp_path):
    clip = network(config)
    extra = {name: torch.tensor(64) for name in ("input_resolution", "context_length", "vocab_size")}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(program(openai(clip) | extra), tmp_path / "any-name.pt")
    assert same(tmp_path / "any-name.pt", clip) == ()


@pytest.mark.parametrize("config", [VIT, RESNET], ids=["vit", "resnet"])
def test_open_clip_files(config, tmp_path):
    image = replace(config.image, activation="gelu") if isinstance(config.image, ViT) else config.image
    exact = network(replace(config, text=replace(config.text, activation="gelu"), image=image))
    tensors = openai(exact)
    save_file(tensors, tmp_path / "some.safetensors")
    (note,) = same(tmp_path / "some.safetensors", exact)
    assert "taken for gelu" in note
    torch.save(
        {"epoch": 3, "state_dict": {f"module.{name}": value for name, value in tensors.items()}}, tmp_path / "t.pt"
    )
    same(tmp_path / "t.pt", exact)
    texts = ("positional_embedding", "text_projection", "token_embedding", "transformer.", "ln_final")
    custom = {f"text.{name}" if name.startswith(texts) else name: value for name, value in tensors.items()}
    torch.save(custom | {"text.attn_mask": torch.zeros(12, 12)}, tmp_path / "custom.bin")
    same(tmp_path / "custom.bin", exact)
    # Its name, or the caller, says otherwise.
    quick = network(config)
    save_file(openai(quick), tmp_path / "rn50-quickgelu-cc12m.safetensors")
    same(tmp_path / "rn50-quickgelu-cc12m.safetensors", quick)
    assert same(tmp_path / "some.safetensors", quick, activation="quick_gelu") == ()


def test_open_clip_folder(tmp_path):
    clip = network(replace(VIT, image=replace(VIT.image, heads=4), mean=HALF, std=HALF))
    save_file(openai(clip), tmp_path / "open_clip_model.safetensors")
    settings = {
        "model_cfg": {"quick_gelu": True, "vision_cfg": {"head_width": 32}, "text_cfg": {"heads": 2}},
        "preprocess_cfg": {"mean": HALF, "std": HALF},
    }
    (tmp_path / "open_clip_config.json").write_text(json.dumps(settings))
    assert same(tmp_path, clip) == () and same(tmp_path / "open_clip_model.safetensors", clip) == ()


def test_transformers_folder(tmp_path):
    clip = network(
        replace(
            VIT,
            text=replace(TEXT, heads=4, hidden=80, activation="gelu"),
            image=replace(VIT.image, heads=8, hidden=96, activation="gelu"),
            mean=HALF,
        )
    )
    tensors = restore(clip.state_dict(), transformers.clip_rules(clip.config))
    tensors = {name: value.clone(memory_format=torch.contiguous_format) for name, value in tensors.items()}
    save_file(tensors | {"text_model.embeddings.position_ids": torch.arange(12)[None]}, tmp_path / "model.safetensors")
    curve = {"hidden_act": "gelu"}
    settings = {
        "model_type": "clip",
        "text_config": {"num_attention_heads": 4, **curve},
        "vision_config": {"num_attention_heads": 8, **curve},
    }
    (tmp_path / "config.json").write_text(json.dumps(settings))
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({"image_mean": HALF}))
    assert same(tmp_path, clip) == ()


def test_the_text_tower_alone_inside_another_file():
    """OpenCLIP's, as Stable Diffusion's files carry it, with perceptrons that are not four times as wide."""
    for text in (replace(TEXT, hidden=96, activation="gelu"), replace(TEXT, activation="gelu")):
        config = Config(text=text, image=None, embed=24)
        tensors = restore(CLIP(config).state_dict(), open_clip.text_rules(config))
        shapes = {name: tuple(value.shape) for name, value in tensors.items()}
        told = open_clip.text_config(shapes, early=False)
        assert Text(**told["text"]) == text and (told["image"], told["embed"]) == (None, 24)


@pytest.mark.parametrize(
    ("drop", "said"),
    [("logit_scale", "no whole CLIP"), ("visual.proj", "neither a vision"), ("text_projection", "is missing")],
)
def test_something_else(drop, said, tmp_path):
    tensors = openai(network(VIT))
    del tensors[drop]
    save_file(tensors, tmp_path / "a.safetensors")
    with pytest.raises(WeightsError, match=said):
        identify_clip(tmp_path / "a.safetensors")


def test_nothing_there(tmp_path):
    for path in (tmp_path / "none.pt", tmp_path):
        with pytest.raises(WeightsMissing):
            identify_clip(path)


def test_settings_that_cannot_be_read(tmp_path):
    save_file(openai(network(VIT)), tmp_path / "open_clip_model.safetensors")
    for text in ("[" * 100_000, '{"preprocess_cfg": {"mean": "red"}}', '{"model_cfg": {"text_cfg": {"heads": "two"}}}'):
        (tmp_path / "open_clip_config.json").write_text(text)
        with pytest.raises(WeightsError):
            identify_clip(tmp_path)
