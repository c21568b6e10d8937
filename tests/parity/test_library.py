"""Folders that diffusers itself wrote, added to the library: every tensor is understood, and told."""

import json

import pytest
import torch

from mindseye.checkpoints.describe import describe
from mindseye.checkpoints.library import Library
from mindseye.checkpoints.load import load_foreign
from mindseye.checkpoints.releases import identify
from mindseye.request import drain

pytestmark = pytest.mark.parity

UNET = {
    "block_out_channels": (32, 64),
    "layers_per_block": 1,
    "sample_size": 8,
    "cross_attention_dim": 32,
    "attention_head_dim": 4,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
}
VAE = {
    "block_out_channels": (32, 64),
    "layers_per_block": 2,
    "down_block_types": ("DownEncoderBlock2D",) * 2,
    "up_block_types": ("UpDecoderBlock2D",) * 2,
    "latent_channels": 4,
}


@pytest.fixture
def written(tmp_path):
    """U-Net and autoencoder of a tiny model, as diffusers writes them."""
    diffusers = pytest.importorskip("diffusers")
    folder = tmp_path / "tiny"
    diffusers.UNet2DConditionModel(**UNET).save_pretrained(folder / "unet")
    (folder / "scheduler").mkdir()
    settings = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(settings))
    return folder


def added(folder, tmp_path):
    library = Library(tmp_path / "home")
    (entry,) = drain(library.add(str(folder))).entries
    return entry, describe(entry, library)


def test_stable_diffusion(written, tmp_path):
    diffusers = pytest.importorskip("diffusers")
    transformers = pytest.importorskip("transformers")
    diffusers.AutoencoderKL(**VAE).save_pretrained(written / "vae")
    config = transformers.CLIPTextConfig(
        hidden_size=32,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        vocab_size=100,
        bos_token_id=98,
        eos_token_id=99,
    )
    transformers.CLIPTextModel(config).save_pretrained(written / "text_encoder")
    (written / "model_index.json").write_text('{"_class_name": "StableDiffusionPipeline"}')
    entry, told = added(written, tmp_path)
    assert (entry.kind, entry.family, told["problem"]) == ("model", "sd1", "")
    assert set(told["parts"]) == {"unet", "codec", "text"}
    for name, part in told["parts"].items():
        assert part["tensors"] == part["matched"] > 20, name
    assert told["parts"]["unet"]["dtype"] == "F32" and len(told["hashes"]) == 3
    assert told["facts"]["prediction"] == "eps" and told["size"] == [16, 16]


def test_latent_diffusion(written, tmp_path):
    diffusers = pytest.importorskip("diffusers")
    from diffusers.pipelines.latent_diffusion.pipeline_latent_diffusion import LDMBertConfig, LDMBertModel

    torch.manual_seed(0)
    diffusers.AutoencoderKL(**VAE).save_pretrained(written / "vqvae")
    config = LDMBertConfig(
        vocab_size=60, encoder_layers=2, encoder_ffn_dim=48, encoder_attention_heads=2, head_dim=8, d_model=32
    )
    theirs = LDMBertModel(config).eval()
    theirs.save_pretrained(written / "bert")
    index = {"_class_name": "LDMTextToImagePipeline", "bert": ["latent_diffusion", "LDMBertModel"]}
    (written / "model_index.json").write_text(json.dumps(index))
    entry, told = added(written, tmp_path)
    assert (entry.family, told["problem"]) == ("ldm-text2img", "")
    text = told["parts"]["text"]
    assert text["tensors"] == text["matched"] + 2  # the head that predicts words
    ours = load_foreign(identify(written).parts["text"])
    ids = torch.randint(0, 60, (2, 77))
    with torch.no_grad():
        torch.testing.assert_close(ours.text(ids)[0], theirs(ids).last_hidden_state, rtol=1e-5, atol=1e-5)


def test_an_autoencoder_on_its_own_and_a_tiny_one(tmp_path):
    diffusers = pytest.importorskip("diffusers")
    library = Library(tmp_path / "home")
    diffusers.AutoencoderKL(**VAE).save_pretrained(tmp_path / "all" / "kl")
    diffusers.AutoencoderTiny().save_pretrained(tmp_path / "all" / "tiny")
    drain(library.add(str(tmp_path / "all")))
    for entry, family in zip(library.entries("vae"), ("", "taesd"), strict=True):
        told = describe(entry, library)
        assert told["problem"] == "" and told["matched"] == told["tensors"] and told["family"] == family
