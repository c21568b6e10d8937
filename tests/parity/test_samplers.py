"""Every sampler, step by step, against the schedulers of diffusers on a toy network, in float64, with the same noise.

diffusers keeps its tables (and DDIM, Euler and Heun their samples) partly in float32, so 1e-5 is what can be asked.
"""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from mindseye.diffusion.denoiser import NetDenoiser
from mindseye.diffusion.samplers import choose
from mindseye.diffusion.schedule import RectifiedFlow, scaled_linear, spacing
from mindseye.noise import Noise

diffusers = pytest.importorskip("diffusers")
pytestmark = [pytest.mark.parity, pytest.mark.filterwarnings("ignore:__array:DeprecationWarning")]

SD = {"num_train_timesteps": 1000, "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
SHAPE = (2, 4, 5, 3)


def toy(x: Tensor, timesteps: Tensor, tokens: Tensor | None = None, vector: Tensor | None = None) -> Tensor:
    """Nonlinear in x and in t, mixing neighbours."""
    t = timesteps.to(x.dtype).view(-1, 1, 1, 1) / 1000
    return torch.tanh(1.3 * x + 0.4 * x.roll(1, -1) - 0.2 * x.roll(1, 1)) * (0.5 + t) + 0.1 * torch.sin(3 * t)


class Scripted(Noise):
    """Hands out a list of tensors in turn and counts them."""

    def __init__(self, drawn: list[Tensor]) -> None:
        super().__init__(range(SHAPE[0]))
        self.drawn, self.used = drawn, 0

    def normal_like(self, x: Tensor) -> Tensor:
        self.used += 1
        return self.drawn[self.used - 1]


def theirs(
    scheduler, steps: int, start: Tensor, drawn: list[Tensor], monkeypatch, **step
) -> tuple[list[Tensor], Tensor]:
    """Samples after every call of the network, and the last one. ``start`` has unit variance."""
    queue = iter(drawn)

    def scripted(shape, **_) -> Tensor:
        return next(queue)

    for module in (
        "ddim",
        "ddpm",
        "dpmsolver_multistep",
        "euler_ancestral_discrete",
        "k_dpm_2_ancestral_discrete",
        "lcm",
    ):
        monkeypatch.setattr(f"diffusers.schedulers.scheduling_{module}.randn_tensor", scripted)
    scheduler.set_timesteps(steps)
    x = start * getattr(scheduler, "init_noise_sigma", 1.0)
    trail = []
    for t in scheduler.timesteps:
        seen = scheduler.scale_model_input(x, t) if hasattr(scheduler, "scale_model_input") else x
        x = scheduler.step(toy(seen, t.double().expand(len(x))), t, x, **step).prev_sample
        trail.append(x)
    return trail, x


def ours(
    name: str, sigmas: Tensor, start: Tensor, drawn: list[Tensor], schedule=None, prediction="eps", **knobs
) -> Tensor:
    """``start`` is x at the first sigma."""
    schedule = schedule or scaled_linear()
    noise = Scripted(drawn)
    steps = choose(name, **knobs)(NetDenoiser(toy, schedule, prediction), start, sigmas, noise)
    while True:
        try:
            next(steps)
        except StopIteration as stop:
            return stop.value


def drawn(count: int, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(SHAPE, generator=generator, dtype=torch.float64) for _ in range(count)]


def plan(scheduler, steps: int) -> list[float]:
    scheduler.set_timesteps(steps)
    return scheduler.timesteps.double().tolist()


def vp(x: Tensor, sigma: float) -> Tensor:
    return x / (1 + sigma**2) ** 0.5


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("eta", [0.0, 0.6, 1.0])
def test_ddim(eta: float, prediction: str, monkeypatch: pytest.MonkeyPatch) -> None:
    scheduler = diffusers.DDIMScheduler(
        **SD, set_alpha_to_one=False, clip_sample=False, steps_offset=1, prediction_type=prediction
    )
    start, *rest = drawn(11)
    _, expected = theirs(scheduler, 10, start, rest, monkeypatch, eta=eta)
    sigmas = spacing("leading", scaled_linear(), 10, offset=1, final="minimum")
    named = {"epsilon": "eps", "v_prediction": "v", "sample": "x0"}[prediction]
    got = ours("ddim", sigmas, start * (1 + sigmas[0] ** 2) ** 0.5, rest, prediction=named, eta=eta)
    torch.testing.assert_close(vp(got, float(sigmas[-1])), expected, rtol=1e-5, atol=1e-5)


def test_ddpm(monkeypatch: pytest.MonkeyPatch) -> None:
    scheduler = diffusers.DDPMScheduler(**SD, clip_sample=False, timestep_spacing="trailing")
    start, *rest = drawn(21)
    _, expected = theirs(scheduler, 20, start, rest, monkeypatch)
    sigmas = spacing("trailing", scaled_linear(), 20)
    got = ours("ddpm", sigmas, start * (1 + sigmas[0] ** 2) ** 0.5, rest)
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("steps", [2, 4, 10])
def test_plms(steps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    scheduler = diffusers.PNDMScheduler(**SD, skip_prk_steps=True, set_alpha_to_one=False, steps_offset=1)
    (start,) = drawn(1)
    sigmas = spacing("leading", scaled_linear(), steps, offset=1, final="minimum")
    _, expected = theirs(scheduler, steps, start, [], monkeypatch)
    got = ours("plms", sigmas, start * (1 + sigmas[0] ** 2) ** 0.5, [])
    torch.testing.assert_close(vp(got, float(sigmas[-1])), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "theirs_name", "stochastic"),
    [
        ("euler", "EulerDiscreteScheduler", False),
        ("euler-ancestral", "EulerAncestralDiscreteScheduler", True),
        ("heun", "HeunDiscreteScheduler", False),
    ],
)
def test_euler_family(name: str, theirs_name: str, stochastic: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    scheduler = getattr(diffusers, theirs_name)(**SD, timestep_spacing="linspace")
    start, *rest = drawn(11)
    _, expected = theirs(scheduler, 10, start, rest, monkeypatch)
    sigmas = spacing("linspace", scaled_linear(), 10)
    got = ours(name, sigmas, start * sigmas[0], rest if stochastic else [])
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize(
    ("name", "theirs_name", "stochastic"),
    [
        ("lms", "LMSDiscreteScheduler", False),
        ("dpm2", "KDPM2DiscreteScheduler", False),
        ("dpm2-ancestral", "KDPM2AncestralDiscreteScheduler", True),
    ],
)
def test_the_rest_of_k_diffusion(
    name: str, theirs_name: str, stochastic: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if name == "lms":
        pytest.importorskip("scipy")
    scheduler = getattr(diffusers, theirs_name)(**SD, timestep_spacing="linspace")
    start, *rest = drawn(25)
    _, expected = theirs(scheduler, 10, start, rest, monkeypatch)
    used = rest if stochastic else []
    got = ours(name, spacing("linspace", scaled_linear(), 10), start * scheduler.init_noise_sigma.double(), used)
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=5e-5)


def test_euler_with_karras_spacing(monkeypatch: pytest.MonkeyPatch) -> None:
    scheduler = diffusers.EulerDiscreteScheduler(**SD, timestep_spacing="linspace", use_karras_sigmas=True)
    (start,) = drawn(1)
    _, expected = theirs(scheduler, 10, start, [], monkeypatch)
    sigmas = spacing("karras", scaled_linear(), 10)
    got = ours("euler", sigmas, start * sigmas[0], [])
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=5e-5)


@pytest.mark.parametrize("steps", [2, 5, 10, 20])
@pytest.mark.parametrize(
    ("name", "build"),
    [
        ("dpm++-2m", lambda: diffusers.DPMSolverMultistepScheduler(**SD)),
        ("dpm++-2m-sde", lambda: diffusers.DPMSolverMultistepScheduler(**SD, algorithm_type="sde-dpmsolver++")),
        ("unipc", lambda: diffusers.UniPCMultistepScheduler(**SD)),
    ],
)
def test_multistep(name: str, build: Callable, steps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    start, *rest = drawn(steps + 1)
    _, expected = theirs(build(), steps, start, rest, monkeypatch)
    sigmas = spacing("linspace-open", scaled_linear(), steps)
    got = ours(name, sigmas, start * (1 + sigmas[0] ** 2) ** 0.5, rest)
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize("steps", [4, 8])
def test_lcm(steps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    scheduler = diffusers.LCMScheduler(**SD, clip_sample=False, set_alpha_to_one=False)
    start, *rest = drawn(steps + 1)
    _, expected = theirs(scheduler, steps, start, rest, monkeypatch)
    sigmas = spacing("lcm", scaled_linear(), steps)
    got = ours("lcm", sigmas, start * (1 + sigmas[0] ** 2) ** 0.5, rest)
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_rectified_flow(shift: float, monkeypatch: pytest.MonkeyPatch) -> None:
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=shift)
    scheduler.set_timesteps(sigmas=[1 - i / 10 for i in range(10)])
    (start,) = drawn(1)
    x = start
    for t in scheduler.timesteps:
        x = scheduler.step(toy(x, t.double().expand(len(x))), t, x).prev_sample
    schedule = RectifiedFlow()
    sigmas = spacing("trailing", schedule, 10, shift=shift)
    got = ours("euler", sigmas, start / schedule.signal(sigmas[0]), [], schedule=schedule, prediction="flow")
    torch.testing.assert_close(got, x, rtol=1e-5, atol=1e-5)


def test_steps_agree_not_only_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """The trail of DPM-Solver++(2M), in its own coordinates, after every step."""
    (start,) = drawn(1)
    trail, _ = theirs(diffusers.DPMSolverMultistepScheduler(**SD), 10, start, [], monkeypatch)
    sigmas = spacing("linspace-open", scaled_linear(), 10)
    for step in range(1, 10):
        got = ours("dpm++-2m", sigmas[: step + 1], start * (1 + sigmas[0] ** 2) ** 0.5, [])
        torch.testing.assert_close(vp(got, float(sigmas[step])), trail[step - 1], rtol=1e-5, atol=1e-5)
