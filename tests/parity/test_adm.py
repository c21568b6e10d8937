"""The ADM, its tables, and the samplers under guidance against guided-diffusion (PyPI guided-diffusion-sdk 1.0.0)."""

import contextlib
import warnings

import pytest
import torch

from mindseye.checkpoints.layout import convert
from mindseye.checkpoints.layouts.guided_diffusion import adm_config, adm_rules
from mindseye.checkpoints.save import from_json
from mindseye.critique.judge import Opinion
from mindseye.diffusion.critic_guidance import CriticGuided
from mindseye.diffusion.learned_variance import PixelDenoiser, learned_ancestral, respaced, step_variance
from mindseye.diffusion.samplers import SAMPLERS
from mindseye.diffusion.schedule import linear
from mindseye.networks.adm import ADM, Config
from mindseye.noise import Noise
from mindseye.request import Request, drain
from mindseye.systems import disco
from mindseye.systems.steering import Steering

pytestmark = pytest.mark.parity

VARIANTS = {
    "film, residual": {"num_head_channels": 16, "resblock_updown": True},
    "kaliyuga": {"num_heads": 2, "use_scale_shift_norm": False},
    "new order, classes": {
        "num_heads": 2, "use_new_attention_order": True, "class_cond": True, "resblock_updown": True,
        "channel_mult": "1,2,2",
    },
}  # fmt: skip


def pair(name="film, residual", respacing="ddim4"):
    """Their model and diffusion, and ours with the same weights."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it uses a decorator that torch has renamed
        script = pytest.importorskip("guided_diffusion.script_util")
    settings = script.model_and_diffusion_defaults() | {
        "image_size": 64, "num_channels": 32, "num_res_blocks": 1, "channel_mult": "1,2", "learn_sigma": True,
        "attention_resolutions": "32", "rescale_timesteps": True, "timestep_respacing": respacing,
    }  # fmt: skip
    settings |= VARIANTS[name]
    theirs, diffusion = script.create_model_and_diffusion(**settings)
    torch.manual_seed(0)
    for parameter in theirs.parameters():
        parameter.data = 0.1 * torch.randn_like(parameter)
    theirs.eval().requires_grad_(False)
    state = theirs.state_dict()
    shapes = {key: tuple(value.shape) for key, value in state.items()}
    heads = None if settings["num_head_channels"] > 0 else settings["num_heads"]
    order = "new" if settings["use_new_attention_order"] else "legacy"
    told = adm_config(shapes, heads=heads, head_dim=None if heads else settings["num_head_channels"], order=order)
    ours = ADM(from_json(Config, told))
    ours.load_state_dict(convert(state, list(adm_rules(ours.config))), strict=True)
    return theirs, diffusion, ours.eval().requires_grad_(False)


@pytest.mark.parametrize("name", VARIANTS)
@torch.no_grad()
def test_networks_answer_alike(name):
    theirs, _, ours = pair(name)
    x, t = torch.randn(2, 3, 32, 64), torch.tensor([3.0, 999.0])
    y = (torch.tensor([1, 7]),) if "class_cond" in VARIANTS[name] else ()
    torch.testing.assert_close(ours(x, t, *y), theirs(x, t, *y), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("respacing", ["ddim50", "250", "10,15,20", "1000", "ddim4"])
def test_tables_are_theirs(respacing):
    _, diffusion, _ = pair(respacing=respacing)
    table = linear()
    knots = respaced(table, respacing)
    bars = torch.from_numpy(diffusion.alphas_cumprod).flip(0)
    torch.testing.assert_close(1 / (1 + knots[:-1] ** 2), bars, rtol=1e-10, atol=1e-10)
    times = [round(float(table.timestep(each))) for each in knots[:-1]]
    assert times == diffusion.timestep_map[::-1]
    for place, (sigma, after) in enumerate(zip(knots[:-1].tolist(), knots[1:].tolist(), strict=True)):
        least, greatest = step_variance(sigma, after)
        index = len(times) - 1 - place
        assert least / (1 + after**2) == pytest.approx(diffusion.posterior_variance[index], rel=1e-9, abs=1e-14)
        assert greatest / (1 + after**2) == pytest.approx(diffusion.betas[index], rel=1e-9)


MINDED, BEYOND = 1e-3, 0.02
"""How much the judge wants its colour, and values in range: felt at every step, and pictures stay within thousands. At
30 and 20 those of these random networks end at 1e13, and nothing counts but their last pushes."""


class Minds:
    """Wants pictures of one colour, and draws nothing."""

    def opinion(self, pixels, noise, share):
        return Opinion(torch.zeros(len(pixels)), 2 * MINDED * (pixels - 0.3), {})


class Queue(Noise):
    """Noise in the order in which it was laid down."""

    def __init__(self, draws):
        super().__init__([0])
        self.draws = list(draws)

    def normal_like(self, x):
        return self.draws.pop(0).to(x)

    def normal(self, *shape):
        return self.draws.pop(0)


@contextlib.contextmanager
def drawn(draws, monkeypatch):
    """torch's own randn_like, from the same list; they draw at the last step, too.

    Where it is of doubles, all of theirs is: they ask for float32 by name, of their tables first.
    """
    queue = list(draws)
    with monkeypatch.context() as patch:
        patch.setattr(torch, "randn_like", lambda x, **_: queue.pop(0).to(x))
        if draws.dtype == torch.float64:
            patch.setattr(torch.Tensor, "float", torch.Tensor.double)
        yield


def walked(sampler, denoise, x, knots, noise, **more):
    walk = sampler(denoise, x, knots, noise, **more)
    try:
        while True:
            next(walk)
    except StopIteration as stop:
        return stop.value


def their_guide(diffusion):
    """The notebooks' cond_fn_with_grad: the judge's gradient at the blend, and a little range."""

    def guide(x, t, out, **_):
        bar = torch.from_numpy(diffusion.alphas_cumprod)[t].float().view(-1, 1, 1, 1)
        fac = (1 - bar).sqrt()
        blend = out["pred_xstart"] * fac + x * (1 - fac)
        beyond = out["pred_xstart"] - out["pred_xstart"].clamp(-1, 1)
        loss = MINDED * ((blend - 0.3) ** 2).sum() + BEYOND * (beyond**2).mean((1, 2, 3)).sum()
        return -torch.autograd.grad(loss, x)[0]

    return guide


@pytest.mark.parametrize(("dtype", "near"), [(torch.float32, 1e-5), (torch.float64, 1e-6)], ids=["single", "double"])
@pytest.mark.parametrize("sampler", ["ddim", "ancestral", "plms"])
@torch.no_grad()
def test_guided_samplers_walk_alike(sampler, dtype, near, monkeypatch):
    respacing = "ddim5" if sampler != "ancestral" else "5"
    theirs, diffusion, ours = pair(respacing=respacing)
    theirs.to(dtype).dtype = dtype
    table = linear()
    knots = respaced(table, respacing)
    generator = torch.Generator().manual_seed(1)
    start = torch.randn(1, 3, 32, 32, generator=generator).to(dtype)
    draws = torch.randn(6, 1, 3, 32, 32, generator=generator).to(dtype)
    loop, more = {
        "ddim": (diffusion.ddim_sample_loop_progressive, {"eta": 0.8}),
        "ancestral": (diffusion.p_sample_loop_progressive, {}),
        "plms": (diffusion.plms_sample_loop_progressive, {"order": 4}),
    }[sampler]
    with drawn(draws, monkeypatch):
        walk = loop(
            theirs, start.shape, noise=start.clone(), clip_denoised=False, model_kwargs={}, device="cpu",
            cond_fn=their_guide(diffusion), cond_fn_with_grad=True, **more,
        )  # fmt: skip
        wanted = [now["sample"] for now in walk]
    guided = CriticGuided(PixelDenoiser(ours.to(dtype), table, "eps"), Minds(), Noise([0]), table, range_scale=BEYOND)
    x = start * float((1 + knots[0] ** 2).sqrt())
    if sampler == "plms":
        # Their last step forgets the history; ours does not. Up to there they agree.
        mine = walked(SAMPLERS["plms"], guided, x, knots[:-1], Queue(draws)) * float(table.signal(knots[-2]))
        del wanted[-1]
    elif sampler == "ddim":
        mine = walked(SAMPLERS["ddim"], guided, x, knots, Queue(draws), eta=0.8)
    else:
        mine = walked(learned_ancestral, guided, x, knots, Queue(draws))
    scale = wanted[-1].abs().max()
    assert mine.dtype == wanted[-1].dtype == dtype and scale < 1e4
    torch.testing.assert_close(mine / scale, wanted[-1] / scale, rtol=near, atol=near)


@torch.no_grad()
def test_steps_skipped_without_a_picture_start_from_grey(monkeypatch):
    theirs, diffusion, ours = pair(respacing="ddim10")
    generator = torch.Generator().manual_seed(1)
    start = torch.randn(1, 3, 64, 32, generator=generator)
    draws = torch.randn(7, 1, 3, 64, 32, generator=generator)
    with drawn(draws, monkeypatch):
        wanted = diffusion.ddim_sample_loop(
            theirs, start.shape, noise=start.clone(), clip_denoised=False, model_kwargs={}, device="cpu", eta=0.8,
            skip_timesteps=3, cond_fn=their_guide(diffusion), cond_fn_with_grad=True,
        )  # fmt: skip
    request = Request(prompt="a", size=(32, 64), steps=10, sampler="ddim", strength=0.7)
    steered = Steering.of(
        request, disco.Knobs(start="grey", clamp=0.0), Queue([start, *draws]), unet=ours, prediction="eps",
        schedule="linear", critics=(),
    )  # fmt: skip
    mine = drain(steered.walk(steered.guided(Minds(), range_scale=BEYOND)))
    scale = wanted.abs().max()
    torch.testing.assert_close(mine / scale, wanted / scale, rtol=1e-5, atol=1e-5)
