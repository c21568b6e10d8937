"""The whole of Stable Diffusion against the pipelines of diffusers: tiny random weights, the same noise and text."""

import importlib.util
from functools import lru_cache
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from PIL import Image

from mindseye.checkpoints.layout import convert
from mindseye.checkpoints.layouts.diffusers import unet_rules
from mindseye.networks import clip
from mindseye.networks.unet import Config, Transformers, UNet
from mindseye.noise import Noise
from mindseye.request import Request, drain
from mindseye.systems.stable_diffusion import StableDiffusion
from mindseye.text.tokenizer import Tokenizer

diffusers = pytest.importorskip("diffusers")
pytestmark = [pytest.mark.parity, pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")]

SD = {"num_train_timesteps": 1000, "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
SEEDS = (5, 6)
SIZE = (24, 32)  # width, height: 6 x 8 latents
SCALE = 0.18215


def neighbour(name: str) -> ModuleType:
    """A test file beside this one: they hold the maps of names and the twins."""
    spec = importlib.util.spec_from_file_location(f"neighbour_{name}", Path(__file__).with_name(f"{name}.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@lru_cache
def twins() -> tuple[dict, StableDiffusion]:
    """The components of a diffusers pipeline, and a system of ours, with the same weights."""
    unets, vaes = neighbour("test_unet"), neighbour("test_vae")
    torch.manual_seed(0)
    config = Config(
        in_channels=4,
        out_channels=4,
        channels=(8, 16),
        blocks=1,
        transformers=Transformers(depth=(1, 0), middle=1, context=12, heads=2, linear=False),
        embedding=32,
        groups=4,
    )
    their_unet = unets.theirs_for(config).eval()
    their_unet.register_to_config(sample_size=64)
    unet = UNet(config).eval()
    unet.load_state_dict(convert(their_unet.state_dict(), unet_rules(config)))
    their_vae, vae = vaes.twins(vaes.TINY)
    their_vae.register_to_config(scaling_factor=SCALE)
    vae.latents_std.fill_(1 / SCALE)
    tokenizer = Tokenizer.train(["a red apple on a table"], 530, length=10)
    text = clip.CLIP(
        clip.Config(
            text=clip.Text(vocabulary=tokenizer.vocabulary, length=10, width=12, layers=1, heads=2),
            image=None,
            embed=None,
        )
    ).eval()
    ours = StableDiffusion(
        unet=unet, codec=vae, text=text, tokenizer=tokenizer, prediction="eps", schedule="scaled-linear"
    )
    parts = {
        "unet": their_unet,
        "vae": their_vae,
        "text_encoder": None,
        "tokenizer": None,
        "safety_checker": None,
        "feature_extractor": None,
    }
    return parts, ours


def variant(prediction: str) -> StableDiffusion:
    _, ours = twins()
    return StableDiffusion(
        unet=ours.unet,
        codec=ours.codec,
        text=ours.text,
        tokenizer=ours.tokenizer,
        prediction=prediction,
        schedule=ours.schedule,
    )


def embeddings() -> dict[str, torch.Tensor]:
    _, ours = twins()
    told = ours.condition(["a red apple", "table"]).tokens
    return {"prompt_embeds": told[:1].expand(2, -1, -1), "negative_prompt_embeds": told[1:].expand(2, -1, -1)}


def request(**more) -> Request:
    return Request(prompt="a red apple", negative="table", size=SIZE, count=2, seed=5, **more)


def noise() -> torch.Tensor:
    return Noise(SEEDS).normal(4, SIZE[1] // 4, SIZE[0] // 4)


def picture() -> Image.Image:
    values = np.random.default_rng(0).integers(0, 255, (SIZE[1], SIZE[0], 3), dtype=np.uint8)
    return Image.fromarray(values)


SAMPLERS = {
    "ddim": (
        lambda **more: diffusers.DDIMScheduler(**SD, clip_sample=False, set_alpha_to_one=False, steps_offset=1, **more),
        {"spacing": "leading", "offset": 1, "final": "minimum"},
    ),
    "plms": (
        lambda **more: diffusers.PNDMScheduler(
            **SD, skip_prk_steps=True, set_alpha_to_one=False, steps_offset=1, **more
        ),
        {"spacing": "leading", "offset": 1, "final": "minimum"},
    ),
    "dpm++-2m": (lambda **more: diffusers.DPMSolverMultistepScheduler(**SD, **more), {"spacing": "linspace-open"}),
    "unipc": (lambda **more: diffusers.UniPCMultistepScheduler(**SD, **more), {"spacing": "linspace-open"}),
}


# Not plms with v: diffusers averages the v of different times before it turns them into noise; we average the noise.
@pytest.mark.parametrize(
    ("sampler", "prediction", "rescale"),
    [(name, "eps", 0.0) for name in SAMPLERS] + [(name, "v", 0.7) for name in SAMPLERS if name != "plms"],
)
def test_text_to_image(sampler: str, prediction: str, rescale: float) -> None:
    parts, _ = twins()
    build, options = SAMPLERS[sampler]
    scheduler = build(prediction_type="epsilon" if prediction == "eps" else "v_prediction")
    pipeline = diffusers.StableDiffusionPipeline(**parts, scheduler=scheduler, requires_safety_checker=False)
    pipeline.set_progress_bar_config(disable=True)
    truth = pipeline(
        **embeddings(),
        latents=noise(),
        num_inference_steps=8,
        guidance_scale=5.0,
        guidance_rescale=rescale,
        width=SIZE[0],
        height=SIZE[1],
        output_type="pt",
    ).images
    got = drain(
        variant(prediction).synthesize(
            request(steps=8, guidance=5.0, sampler=sampler),
            StableDiffusion.Options(**options, rescale=rescale),
            Noise(SEEDS),
        )
    )
    assert truth.std() > 0.01
    torch.testing.assert_close((got / 2 + 0.5).clamp(0, 1), truth, rtol=0, atol=2e-5)


@pytest.mark.parametrize("strength", [0.3, 0.75, 1.0])
def test_image_to_image(strength: float, monkeypatch: pytest.MonkeyPatch) -> None:
    parts, ours = twins()
    home = "diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion_img2img"
    monkeypatch.setattr(f"{home}.retrieve_latents", lambda encoded, generator: encoded.latent_dist.mode())
    monkeypatch.setattr(f"{home}.randn_tensor", lambda *_, **__: noise())
    scheduler = diffusers.DDIMScheduler(**SD, clip_sample=False, timestep_spacing="trailing")
    pipeline = diffusers.StableDiffusionImg2ImgPipeline(**parts, scheduler=scheduler, requires_safety_checker=False)
    pipeline.set_progress_bar_config(disable=True)
    truth = pipeline(
        **embeddings(),
        image=[picture()] * 2,
        strength=strength,
        num_inference_steps=10,
        guidance_scale=4.0,
        output_type="pt",
    ).images
    got = drain(
        ours.synthesize(
            request(steps=10, guidance=4.0, sampler="ddim", image=picture(), strength=strength),
            StableDiffusion.Options(spacing="trailing"),
            Noise(SEEDS),
        )
    )
    torch.testing.assert_close((got / 2 + 0.5).clamp(0, 1), truth, rtol=0, atol=2e-5)


@pytest.mark.parametrize("sampler", ["ddim", "dpm++-2m"])
@pytest.mark.parametrize("strength", [0.6, 1.0])
def test_inpainting(strength: float, sampler: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Theirs pastes the noised original after every step; ours knows it. The latents come out the same.

    But at strength 1 theirs sees nothing of the original in its first step, and ours sees what the noise has left.
    """
    parts, ours = twins()
    home = "diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion_inpaint"
    monkeypatch.setattr(f"{home}.retrieve_latents", lambda encoded, generator: encoded.latent_dist.mode())
    monkeypatch.setattr(f"{home}.randn_tensor", lambda *_, **__: noise())
    if sampler == "ddim":
        scheduler, spacing = diffusers.DDIMScheduler(**SD, clip_sample=False, timestep_spacing="trailing"), "trailing"
    else:
        scheduler, spacing = diffusers.DPMSolverMultistepScheduler(**SD), "linspace-open"
    pipeline = diffusers.StableDiffusionInpaintPipeline(**parts, scheduler=scheduler, requires_safety_checker=False)
    pipeline.set_progress_bar_config(disable=True)
    mask = Image.new("L", SIZE, 0)
    mask.paste(255, (0, 0, 12, 16))  # on the grid of the latents
    truth = pipeline(
        **embeddings(),
        image=picture(),
        mask_image=mask,
        strength=strength,
        num_inference_steps=10,
        guidance_scale=4.0,
        width=SIZE[0],
        height=SIZE[1],
        output_type="pt",
    ).images
    asked = request(steps=10, guidance=4.0, sampler=sampler, image=picture(), mask=mask, strength=strength)
    got = drain(ours.synthesize(asked, StableDiffusion.Options(spacing=spacing, paste=False), Noise(SEEDS)))
    torch.testing.assert_close((got / 2 + 0.5).clamp(0, 1), truth, rtol=0, atol=2e-5 if strength < 1 else 5e-4)
