"""A folder that diffusers wrote, drawn by diffusers and by us: the same prompt, noise and sampler, the same picture.

The whole way counts here: files, layouts, tokenizer, text encoders, U-Net, guidance, sampler, autoencoder.
"""

import json
from functools import lru_cache
from pathlib import Path

import pytest
import torch

from mindseye import zoo
from mindseye.engine.engine import Engine, system_class
from mindseye.engine.options import build
from mindseye.noise import Noise
from mindseye.request import Request, drain, resolve
from mindseye.text.tokenizer import Tokenizer

diffusers = pytest.importorskip("diffusers")
transformers = pytest.importorskip("transformers")
pytestmark = [pytest.mark.parity, pytest.mark.filterwarnings("ignore")]

PROMPT, NEGATIVE = "a red apple on a wooden table, oil painting", "blurry"
STEPS, SIDE = 20, 64
NOISE = {"num_train_timesteps": 1000, "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


def tokenizer(folder: Path):
    """CLIP's, from the vocabulary we ship, as files of the published form."""
    stored = json.loads(Tokenizer.packaged()._backend.to_str())["model"]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps(stored["vocab"]), encoding="utf-8")
    merges = "\n".join(" ".join(merge) for merge in stored["merges"])
    (folder / "merges.txt").write_text(f"#version: 0.2\n{merges}\n", encoding="utf-8")
    return transformers.CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"), model_max_length=77)


def text_encoder(width: int, projected: bool, act: str):
    config = transformers.CLIPTextConfig(
        vocab_size=49408, hidden_size=width, intermediate_size=4 * width, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=77, hidden_act=act, bos_token_id=49406, eos_token_id=49407, pad_token_id=49407,
        projection_dim=width,
    )  # fmt: skip
    kind = transformers.CLIPTextModelWithProjection if projected else transformers.CLIPTextModel
    return kind(config).eval()


def vae():
    return diffusers.AutoencoderKL(
        block_out_channels=(8, 8, 8, 8), norm_num_groups=4, latent_channels=4, sample_size=SIDE,
        down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
    ).eval()  # fmt: skip


def unet(context: int, **more):
    return diffusers.UNet2DConditionModel(
        sample_size=SIDE // 8, block_out_channels=(8, 16, 16, 16), norm_num_groups=4, layers_per_block=2,
        down_block_types=("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
        up_block_types=("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
        cross_attention_dim=context, **{"attention_head_dim": 2, **more},
    ).eval()  # fmt: skip


@pytest.fixture(scope="module")
def sd1(tmp_path_factory: pytest.TempPathFactory):
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("sd1")
    pipeline = diffusers.StableDiffusionPipeline(
        vae=vae(), text_encoder=text_encoder(768, False, "quick_gelu"), tokenizer=tokenizer(folder / "words"),
        unet=unet(768), scheduler=diffusers.DDIMScheduler(**NOISE, clip_sample=False), safety_checker=None,
        feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip
    pipeline.save_pretrained(folder / "model")
    pipeline.set_progress_bar_config(disable=True)
    return pipeline, folder / "model"


@pytest.fixture(scope="module")
def sdxl(tmp_path_factory: pytest.TempPathFactory):
    torch.manual_seed(1)
    folder = tmp_path_factory.mktemp("sdxl")
    words = tokenizer(folder / "words")
    second = transformers.CLIPTokenizer(
        str(folder / "words" / "vocab.json"), str(folder / "words" / "merges.txt"), pad_token="!", model_max_length=77
    )
    network = diffusers.UNet2DConditionModel(
        sample_size=SIDE // 8, block_out_channels=(8, 16, 16), norm_num_groups=4, layers_per_block=2,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"), cross_attention_dim=768 + 1280,
        attention_head_dim=(1, 2, 2), transformer_layers_per_block=(1, 1, 2), use_linear_projection=True,
        addition_embed_type="text_time", addition_time_embed_dim=256, projection_class_embeddings_input_dim=1280 + 1536,
    ).eval()  # fmt: skip
    pipeline = diffusers.StableDiffusionXLPipeline(
        vae=vae(), text_encoder=text_encoder(768, False, "quick_gelu"), tokenizer=words,
        text_encoder_2=text_encoder(1280, True, "gelu"), tokenizer_2=second, unet=network,
        scheduler=diffusers.EulerDiscreteScheduler(**NOISE), force_zeros_for_empty_prompt=True, add_watermarker=False,
    )  # fmt: skip
    pipeline.save_pretrained(folder / "model")
    pipeline.set_progress_bar_config(disable=True)
    return pipeline, folder / "model"


LEADING = {"steps_offset": 1}
SAMPLERS = {
    "ddim": ("DDIMScheduler", {"clip_sample": False, "set_alpha_to_one": False, **LEADING},
             {"spacing": "leading", "offset": 1, "final": "minimum"}),
    "plms": ("PNDMScheduler", {"skip_prk_steps": True, "set_alpha_to_one": False, **LEADING},
             {"spacing": "leading", "offset": 1, "final": "minimum"}),
    "euler": ("EulerDiscreteScheduler", {"timestep_spacing": "linspace"},
              {"spacing": "linspace", "noise_scale": "sigma"}),
    "heun": ("HeunDiscreteScheduler", {"timestep_spacing": "linspace"},
             {"spacing": "linspace", "noise_scale": "sigma"}),
    "lms": ("LMSDiscreteScheduler", {"timestep_spacing": "linspace"},
            {"spacing": "linspace", "noise_scale": "sigma"}),
    "dpm2": ("KDPM2DiscreteScheduler", {"timestep_spacing": "linspace"},
             {"spacing": "linspace", "noise_scale": "sigma"}),
    "dpm++-2m": ("DPMSolverMultistepScheduler", {}, {"spacing": "linspace-open"}),
    "unipc": ("UniPCMultistepScheduler", {}, {"spacing": "linspace-open"}),
}  # fmt: skip
STOCHASTIC = {
    "euler-ancestral": ("EulerAncestralDiscreteScheduler", {"timestep_spacing": "linspace"},
                        {"spacing": "linspace", "noise_scale": "sigma"}),
    "dpm2-ancestral": ("KDPM2AncestralDiscreteScheduler", {"timestep_spacing": "linspace"},
                       {"spacing": "linspace", "noise_scale": "sigma"}),
    "ddpm": ("DDPMScheduler", {"clip_sample": False, "timestep_spacing": "trailing"}, {"spacing": "trailing"}),
    "dpm++-2m-sde": ("DPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver++"},
                     {"spacing": "linspace-open"}),
    "lcm": ("LCMScheduler", {"clip_sample": False, "set_alpha_to_one": False}, {"spacing": "lcm"}),
}  # fmt: skip
MODULES = {
    "euler-ancestral": "euler_ancestral_discrete",
    "dpm2-ancestral": "k_dpm_2_ancestral_discrete",
    "ddpm": "ddpm",
    "dpm++-2m-sde": "dpmsolver_multistep",
    "lcm": "lcm",
}


@lru_cache
def loaded(folder: Path):
    """The card that the folder becomes, and its system."""
    card = zoo.find(str(folder))
    return card, Engine(device="cpu", dtype=torch.float32, cards=[card]).load(card.name)


def both(made, sampler: str, monkeypatch: pytest.MonkeyPatch, negative: str = NEGATIVE):
    """Latents by diffusers and by us."""
    pipeline, folder = made
    kind, settings, options = (SAMPLERS | STOCHASTIC)[sampler]
    pipeline.scheduler = getattr(diffusers, kind)(**NOISE, **settings)
    theirs_noise, ours_noise = Noise([5]), Noise([5])
    start = theirs_noise.normal(4, SIDE // 8, SIDE // 8)
    if sampler in MODULES:

        def draw(shape, **more):
            return theirs_noise.normal(*shape[1:]).to(more.get("dtype") or torch.float32)

        monkeypatch.setattr(f"diffusers.schedulers.scheduling_{MODULES[sampler]}.randn_tensor", draw)
    truth = pipeline(
        prompt=PROMPT, negative_prompt=negative or None, latents=start, num_inference_steps=STEPS, guidance_scale=5.0,
        width=SIDE, height=SIDE, output_type="latent",
    ).images  # fmt: skip
    card, system = loaded(folder)
    request, _ = resolve(
        Request(prompt=PROMPT, negative=negative, model=card.name, size=(SIDE, SIDE), steps=STEPS, guidance=5.0,
                sampler=sampler, seed=5), card, seed=0,
    )  # fmt: skip
    seen = []
    decode = system.codec.decode
    monkeypatch.setattr(system.codec, "decode", lambda latents: (seen.append(latents), decode(latents))[1])
    settings = build(system_class(card).Options, options, owner="test")
    pixels = drain(system.synthesize(request, settings, ours_noise))
    scale = pipeline.vae.config.scaling_factor
    with torch.no_grad():
        decoded = pipeline.vae.decode(truth / scale).sample
    torch.testing.assert_close(pixels, decoded, rtol=1e-3, atol=1e-3)
    return truth, seen[-1]


@pytest.mark.parametrize("sampler", [*SAMPLERS, *STOCHASTIC])
def test_stable_diffusion_1(sd1, sampler: str, monkeypatch: pytest.MonkeyPatch) -> None:
    truth, ours = both(sd1, sampler, monkeypatch)
    assert float((ours - truth).norm() / truth.norm()) < 1e-3


@pytest.mark.parametrize("negative", [NEGATIVE, ""])
@pytest.mark.parametrize("sampler", ["euler", "dpm++-2m"])
def test_stable_diffusion_xl(sdxl, sampler: str, negative: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a negative prompt XL's other half is zeros, not an empty text."""
    truth, ours = both(sdxl, sampler, monkeypatch, negative)
    assert float((ours - truth).norm() / truth.norm()) < 1e-3
