"""A critic of two thousand weights, and what every system that paints is asked in its tests."""

import functools

import torch

from mindseye.engine.options import build
from mindseye.networks import clip
from mindseye.noise import Noise
from mindseye.request import Request, drain
from mindseye.text.tokenizer import Tokenizer


@functools.cache
def tokenizer():
    """Of a few words."""
    return Tokenizer.train(["a red apple on a blue table, a green tree"], 530, length=12)


def randomised(module, seed, spread=0.1):
    """Weights that are not at rest, as parts are loaded: frozen."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(parameter + spread * torch.randn(parameter.shape, generator=generator))
    return module.eval().requires_grad_(False)


def critic(seed=0, size=16):
    """A CLIP that reads small pictures."""
    torch.manual_seed(seed)
    text = clip.Text(vocabulary=tokenizer().vocabulary, length=12, width=12, layers=1, heads=2)
    image = clip.ViT(size=size, patch=8, width=12, layers=1, heads=2)
    return randomised(clip.CLIP(clip.Config(text=text, image=image, embed=12)), seed)


def ask(system, prompt="a red apple", *, seeds=(1,), size=(32, 32), steps=3, options=None, on_progress=None, **request):
    """Pictures."""
    wanted = Request(
        prompt=prompt, size=size, steps=steps, seed=seeds[0], count=len(seeds), guidance=1.0, sampler="", **request
    )
    settings = build(system.Options, {"cuts": 4, **(options or {})}, owner="it")
    return drain(system.synthesize(wanted, settings, Noise(seeds)), on_progress)


def likeness(system, pixels, prompt):
    """Mean cosine of whole pictures and a prompt, for the first critic."""
    (first, *_) = system.critics
    small = torch.nn.functional.interpolate(pixels, (first.size, first.size), mode="area")
    return (first.embed_image(small) @ first.embed_text([prompt]).T).mean().item()
