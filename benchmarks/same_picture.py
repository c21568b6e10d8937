"""The same picture as diffusers, at the full size of Stable Diffusion 1.5: latents after a whole run, and the picture.

Random weights in the real shapes, written by diffusers as a folder, read by both. What is compared: everything from the
folder to the pixels, in float32. The tiny twins of tests/parity/test_same_picture.py do it for every sampler.

    python benchmarks/same_picture.py FOLDER [--size 512] [--steps 20] [--sampler dpm++-2m]

FOLDER holds the configs and the tokenizer of the release (unet/config.json, vae/, text_encoder/, tokenizer/).
"""

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from mindseye import zoo
from mindseye.engine.engine import Engine
from mindseye.noise import Noise
from mindseye.request import Request, drain, resolve

SAMPLERS = {
    "ddim": ("DDIMScheduler", {"spacing": "leading", "offset": 1, "final": "minimum"}),
    "euler": ("EulerDiscreteScheduler", {"spacing": "linspace", "noise_scale": "sigma"}),
    "dpm++-2m": ("DPMSolverMultistepScheduler", {"spacing": "linspace-open"}),
    "unipc": ("UniPCMultistepScheduler", {"spacing": "linspace-open"}),
}
NOISE = {"num_train_timesteps": 1000, "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
MORE = {
    "ddim": {"clip_sample": False, "set_alpha_to_one": False, "steps_offset": 1},
    "euler": {"timestep_spacing": "linspace"},
}


def built(folder: Path) -> Any:
    """The pipeline of the release's shapes with random weights."""
    import diffusers
    import transformers

    torch.manual_seed(0)
    unet = diffusers.UNet2DConditionModel.from_config(json.loads((folder / "unet/config.json").read_text()))
    vae = diffusers.AutoencoderKL.from_config(json.loads((folder / "vae/config.json").read_text()))
    text = transformers.CLIPTextModel(transformers.CLIPTextConfig.from_pretrained(folder / "text_encoder"))
    words = transformers.CLIPTokenizer.from_pretrained(folder / "tokenizer")
    pipeline = diffusers.StableDiffusionPipeline(
        vae=vae.eval(), text_encoder=text.eval(), tokenizer=words, unet=unet.eval(), safety_checker=None,
        scheduler=diffusers.DDIMScheduler(**NOISE, clip_sample=False), feature_extractor=None,
        requires_safety_checker=False,
    )  # fmt: skip
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--sampler", choices=SAMPLERS, default="dpm++-2m")
    parser.add_argument("--prompt", default="a red apple on a wooden table, oil painting")
    asked = parser.parse_args()

    import diffusers

    pipeline = built(asked.folder)
    kind, options = SAMPLERS[asked.sampler]
    pipeline.scheduler = getattr(diffusers, kind)(**NOISE, **MORE.get(asked.sampler, {}))
    started = time.perf_counter()
    truth = pipeline(
        asked.prompt, negative_prompt="blurry", latents=Noise([5]).normal(4, asked.size // 8, asked.size // 8),
        num_inference_steps=asked.steps, guidance_scale=7.5, width=asked.size, height=asked.size, output_type="latent",
    ).images  # fmt: skip
    pixels = pipeline.vae.decode(truth / pipeline.vae.config.scaling_factor).sample
    theirs = time.perf_counter() - started
    with tempfile.TemporaryDirectory() as place:
        pipeline.save_pretrained(place)
        del pipeline
        card = zoo.find(f"{place}/")
        system = Engine(device="cpu", dtype=torch.float32, cards=[card]).load(card.name)
        seen = []
        decode = system.codec.decode
        system.codec.decode = lambda latents: (seen.append(latents), decode(latents))[1]
        request, _ = resolve(
            Request(prompt=asked.prompt, negative="blurry", model=card.name, size=(asked.size, asked.size),
                    steps=asked.steps, guidance=7.5, sampler=asked.sampler, seed=5), card, seed=0,
        )  # fmt: skip
        started = time.perf_counter()
        ours = drain(system.synthesize(request, system.Options(**options), Noise([5])))
        seconds = time.perf_counter() - started
    for name, got, wanted in (("latents", seen[-1], truth), ("pictures", ours, pixels)):
        print(f"{name}: relative difference {float((got - wanted).norm() / wanted.norm()):.2e}")
    print(f"seconds: diffusers {theirs:.1f}, mindseye {seconds:.1f} ({theirs / seconds:.2f} times faster)")


if __name__ == "__main__":
    main()
