"""Tables and plans of timesteps against the schedulers of diffusers."""

import pytest
import torch

from mindseye.diffusion.schedule import cosine, linear, scaled_linear, spacing

diffusers = pytest.importorskip("diffusers")
pytestmark = [pytest.mark.parity, pytest.mark.filterwarnings("ignore:__array__:DeprecationWarning")]

SD = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


@pytest.mark.parametrize(
    ("table", "config"),
    [
        (linear, {"beta_start": 1e-4, "beta_end": 0.02, "beta_schedule": "linear"}),
        (scaled_linear, SD),
        (cosine, {"beta_schedule": "squaredcos_cap_v2"}),
    ],
)
def test_tables(table, config) -> None:
    # Theirs is a running product in float32.
    expected = diffusers.DDPMScheduler(**config).alphas_cumprod.double()
    torch.testing.assert_close(table().alphas_bar, expected, rtol=2e-4 if table is cosine else 2e-6, atol=1e-9)


def test_zero_terminal_snr() -> None:
    expected = diffusers.DDIMScheduler(**SD, rescale_betas_zero_snr=True).alphas_cumprod.double()
    torch.testing.assert_close(scaled_linear().zero_terminal().alphas_bar, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("steps", [1, 7, 10, 30, 50])
@pytest.mark.parametrize(
    ("name", "scheduler", "config", "knobs"),
    [
        ("leading", "DDIMScheduler", {"steps_offset": 1}, {"offset": 1}),
        ("trailing", "DDIMScheduler", {"timestep_spacing": "trailing"}, {}),
        ("linspace-open", "DPMSolverMultistepScheduler", {}, {}),
        ("linspace-open", "UniPCMultistepScheduler", {}, {}),
        ("lcm", "LCMScheduler", {}, {}),
    ],
)
def test_plans(name: str, scheduler: str, config: dict, knobs: dict, steps: int) -> None:
    theirs = getattr(diffusers, scheduler)(**SD, **config)
    theirs.set_timesteps(steps)
    schedule = scaled_linear()
    got = schedule.timestep(spacing(name, schedule, steps, **knobs)[:-1])
    torch.testing.assert_close(got, theirs.timesteps.double(), rtol=0, atol=1e-9)


@pytest.mark.parametrize("kind", ["karras", "exponential"])
@pytest.mark.parametrize("steps", [2, 10, 25])
def test_geometric_spacings(kind: str, steps: int) -> None:
    theirs = diffusers.EulerDiscreteScheduler(**SD, **{f"use_{kind}_sigmas": True})
    theirs.set_timesteps(steps)
    torch.testing.assert_close(spacing(kind, scaled_linear(), steps), theirs.sigmas.double(), rtol=1e-5, atol=1e-6)
    got = scaled_linear().timestep(spacing(kind, scaled_linear(), steps)[:-1])
    torch.testing.assert_close(got, theirs.timesteps.double(), rtol=1e-4, atol=2e-2)
