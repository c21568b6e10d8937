"""CLIP against OpenAI's own `clip/model.py` and against transformers, tiny random twins with the same weights."""

import importlib.util
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from mindseye.checkpoints.layout import convert
from mindseye.checkpoints.layouts.openai_clip import clip_rules as openai_rules
from mindseye.checkpoints.layouts.transformers import clip_rules as transformers_rules
from mindseye.networks.clip import CLIP, OPENAI_MEAN, OPENAI_STD, Config, ResNet, Text, ViT

pytestmark = pytest.mark.parity

VIT = Config(
    text=Text(vocabulary=100, length=20, width=64, layers=3, heads=1),
    image=ViT(size=32, patch=8, width=64, layers=2, heads=1),
    embed=24,
)
RESNET = replace(VIT, image=ResNet(size=64, width=8, layers=(2, 1, 2, 1), heads=4))  # width x 32 / 64 heads
IDS = torch.tensor([[98, 5, 6, 7, 99, *[0] * 15], [98, *range(1, 19), 99], [98, 99, *[99] * 18]])


def randomise(module: torch.nn.Module) -> None:
    """Weights that hide nothing: no zeros, no ones, no unit statistics."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, value in module.state_dict().items():
            if value.is_floating_point() and name != "logit_scale":
                fan = value[0].numel() if value.ndim > 1 else 25
                value.copy_(torch.randn(value.shape, generator=generator) * fan**-0.5)
                if "running_var" in name or value.ndim == 1 and name.endswith("weight"):
                    value.abs_().add_(0.5)


def pictures(size: int) -> torch.Tensor:
    return torch.rand(3, 3, size, size, generator=torch.Generator().manual_seed(1)) * 2 - 1


def preprocessed(pixels: torch.Tensor) -> torch.Tensor:
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (OPENAI_MEAN, OPENAI_STD))
    return ((pixels + 1) / 2 - mean) / std


def equal(ours: torch.Tensor, theirs: torch.Tensor) -> None:
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


@pytest.fixture(scope="module")
def openai():
    """OpenAI's model.py, by file: the package itself asks for modules that are not needed here."""
    found = importlib.util.find_spec("clip")
    path = Path(found.origin).with_name("model.py") if found is not None and found.origin else None
    if path is None or not path.is_file():
        pytest.skip("OpenAI's package clip is not installed")
    spec = importlib.util.spec_from_file_location("openai_clip_model", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("config", [VIT, RESNET], ids=["vit", "resnet"])
def test_openai(openai, config):
    image, text = config.image, config.text
    patch = image.patch if isinstance(image, ViT) else None
    peer = openai.CLIP(
        config.embed, image.size, image.layers, image.width, patch,
        text.length, text.vocabulary, text.width, text.heads, text.layers,
    ).eval()  # fmt: skip
    randomise(peer)
    ours = CLIP(config).eval()
    ours.load_state_dict(convert(peer.state_dict(), openai_rules(config)))
    pixels = pictures(image.size)
    with torch.no_grad():
        equal(ours.image(pixels), peer.encode_image(preprocessed(pixels)))
        equal(ours.text(IDS)[1], peer.encode_text(IDS))
        ours.train(), peer.train()  # batch statistics
        equal(ours.image(pixels), peer.encode_image(preprocessed(pixels)))


def test_openai_sizes_of_the_rules(openai):
    with torch.device("meta"):
        for config, patch in ((Config(), 32), (Config(image=ResNet(), embed=1024), None)):
            image = config.image
            peer = openai.CLIP(config.embed, 224, image.layers, image.width, patch, 77, 49408, 512, 8, 12)
            ours = CLIP(config).state_dict()
            theirs = convert(peer.state_dict(), openai_rules(config))
            assert {k: v.shape for k, v in theirs.items()} == {k: v.shape for k, v in ours.items()}


@pytest.fixture(scope="module", params=["quick_gelu", "gelu"])
def twins(request):
    transformers = pytest.importorskip("transformers")
    curve = request.param
    config = replace(
        VIT,
        text=replace(VIT.text, heads=4, hidden=40 if curve == "gelu" else None, activation=curve),
        image=replace(VIT.image, heads=2, hidden=96, activation=curve),
    )
    text, image = config.text, config.image
    peer = transformers.CLIPModel(
        transformers.CLIPConfig(
            projection_dim=config.embed,
            text_config={
                "vocab_size": text.vocabulary,
                "max_position_embeddings": text.length,
                "hidden_size": text.width,
                "intermediate_size": text.hidden or 4 * text.width,
                "num_hidden_layers": text.layers,
                "num_attention_heads": text.heads,
                "hidden_act": curve,
                "eos_token_id": 99,
                "bos_token_id": 98,
                "pad_token_id": 0,
            },
            vision_config={
                "image_size": image.size,
                "patch_size": image.patch,
                "hidden_size": image.width,
                "intermediate_size": image.hidden,
                "num_hidden_layers": image.layers,
                "num_attention_heads": image.heads,
                "hidden_act": curve,
            },
        )  # fmt: skip
    ).eval()
    randomise(peer)
    ours = CLIP(config).eval()
    ours.load_state_dict(convert(peer.state_dict(), transformers_rules(config)))
    return ours, peer


@torch.no_grad()
def test_transformers_both_towers(twins):
    ours, peer = twins
    pixels = pictures(32)
    out = peer(input_ids=IDS, pixel_values=preprocessed(pixels))
    image, text = ours.image(pixels), ours.text(IDS)[1]
    equal(torch.nn.functional.normalize(image), out.image_embeds)
    equal(torch.nn.functional.normalize(text), out.text_embeds)
    equal(image, peer.visual_projection(peer.vision_model(preprocessed(pixels)).pooler_output))
    equal(text, peer.text_projection(peer.text_model(IDS).pooler_output))


@torch.no_grad()
def test_transformers_hidden_states(twins):
    """The three ways in which Stable Diffusion reads the text tower."""
    ours, peer = twins
    out = peer.text_model(input_ids=IDS, output_hidden_states=True)
    equal(ours.text(IDS)[0], out.last_hidden_state)  # 1
    penultimate = out.hidden_states[-2]
    equal(ours.text(IDS, skip=1)[0], peer.text_model.final_layer_norm(penultimate))  # 2, and "clip skip 2"
    equal(ours.text(IDS, skip=1, final_norm=False)[0], penultimate)  # XL


@torch.no_grad()
def test_transformers_short_texts(twins):
    ours, peer = twins
    short = IDS[:1, :7]
    equal(ours.text(short)[0], peer.text_model(input_ids=short).last_hidden_state)
