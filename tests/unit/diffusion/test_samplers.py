"""Samplers on a problem whose answer is known: a Gaussian x0, for which the flow has a closed form."""

import math

import pytest
import torch

from mindseye.diffusion.denoiser import NetDenoiser
from mindseye.diffusion.samplers import SAMPLERS, Estimate, choose
from mindseye.diffusion.schedule import RectifiedFlow, scaled_linear, spacing
from mindseye.errors import OptionError, UnknownName
from mindseye.noise import Noise

MEAN, SPREAD = 0.7, 0.5


def finish(steps):
    try:
        while True:
            next(steps)
    except StopIteration as stop:
        return stop.value


class Posterior:
    """The mean of x0 ~ N(MEAN, SPREAD^2) given x0 + sigma * noise; counts how often it is asked."""

    def __init__(self):
        self.calls = 0

    def __call__(self, x, sigma):
        self.calls += 1
        share = (SPREAD**2 / (SPREAD**2 + sigma.to(x) ** 2)).view(-1, *[1] * (x.ndim - 1))
        return MEAN + share * (x - MEAN)


def flowed(x, sigma, after):
    """Where the probability flow carries x."""
    return MEAN + (x - MEAN) * math.sqrt((SPREAD**2 + after**2) / (SPREAD**2 + sigma**2))


def curved(high, low, steps):
    return torch.linspace(high ** (1 / 7), low ** (1 / 7), steps + 1, dtype=torch.float64) ** 7


@pytest.mark.parametrize(
    ("name", "order"),
    [
        *(("euler", 1), ("ddim", 1), ("heun", 2), ("dpm2", 2), ("lms", 2)),
        *(("dpm++-2m", 2), ("unipc", 2), ("plms", 2)),
    ],
)
def test_order_of_convergence(name, order):
    x = torch.tensor([[3.0, -8.0, 10.0]], dtype=torch.float64)
    errors = []
    for steps in (80, 160, 320):
        got = finish(SAMPLERS[name](Posterior(), x, curved(10.0, 0.1, steps), Noise([0])))
        errors.append(float((got - flowed(x, 10.0, 0.1)).abs().max()))
    slopes = [math.log2(a / b) for a, b in zip(errors, errors[1:], strict=False)]
    assert errors[0] < 0.1
    # At least as fast as promised; a wrong coefficient costs a whole order.
    assert min(slopes) > order - 0.2, (slopes, errors)
    if order == 1:
        assert max(slopes) < 1.25


def test_plms_is_of_higher_order_where_sigma_falls_evenly():
    x = torch.tensor([[3.0, -8.0, 10.0]], dtype=torch.float64)
    errors = []
    for steps in (20, 40, 80):
        sigmas = torch.linspace(4.0, 2.0, steps + 1, dtype=torch.float64)
        got = finish(SAMPLERS["plms"](Posterior(), x, sigmas, Noise([0])))
        errors.append(float((got - flowed(x, 4.0, 2.0)).abs().max()))
    assert all(math.log2(a / b) > 2.75 for a, b in zip(errors, errors[1:], strict=False)), errors


@pytest.mark.parametrize(
    "name", ["ddpm", "euler-ancestral", "dpm++-2m-sde", "dpm2-ancestral", "dpm++-2s-ancestral", "dpm++-sde"]
)
def test_stochastic_samplers_reach_the_distribution(name):
    noise = Noise([3])
    x = 40 * noise.normal(20_000).double()
    sigmas = torch.cat([curved(40.0, 0.02, 400), torch.zeros(1, dtype=torch.float64)])
    got = finish(SAMPLERS[name](Posterior(), x, sigmas, noise))
    assert float(got.mean()) == pytest.approx(MEAN, abs=0.02)
    assert float(got.std()) == pytest.approx(SPREAD, rel=0.03)
    # It is no function of where it started.
    assert abs(float(torch.corrcoef(torch.stack([got[0], x[0]]))[0, 1])) < 0.05


@pytest.mark.parametrize("name", ["euler", "heun", "dpm2", "lms", "dpm++-2m", "unipc", "plms"])
def test_the_default_twenty_five_steps_are_close(name):
    schedule = RectifiedFlow()
    x = Noise([1]).normal(2000).double() / schedule.signal(spacing("trailing", schedule, 25)[0])
    got = finish(SAMPLERS[name](Posterior(), x, spacing("trailing", schedule, 25), Noise([1])))
    assert float(got.mean()) == pytest.approx(MEAN, abs=0.03)
    assert float(got.std()) == pytest.approx(SPREAD, rel=0.07)


@pytest.mark.parametrize("name", SAMPLERS)
def test_one_step_to_zero_is_the_estimate(name):
    x = torch.tensor([[3.0, -8.0]], dtype=torch.float64)
    got = finish(SAMPLERS[name](Posterior(), x, torch.tensor([10.0, 0.0], dtype=torch.float64), Noise([0])))
    torch.testing.assert_close(got, Posterior()(x, torch.tensor([10.0])))


@pytest.mark.parametrize("name", SAMPLERS)
def test_no_steps_change_nothing(name):
    x = torch.ones(1, 2)
    assert torch.equal(finish(SAMPLERS[name](Posterior(), x, torch.tensor([0.0], dtype=torch.float64), Noise([0]))), x)


def test_two_stage_solvers_without_their_noise_are_of_second_order():
    x = torch.tensor([[3.0, -8.0, 10.0]], dtype=torch.float64)
    for name in ("dpm++-2s-ancestral", "dpm++-sde", "dpm2-ancestral"):
        errors = []
        for steps in (80, 160, 320):
            got = finish(choose(name, eta=0.0)(Posterior(), x, curved(10.0, 0.1, steps), Noise([0])))
            errors.append(float((got - flowed(x, 10.0, 0.1)).abs().max()))
        assert min(math.log2(a / b) for a, b in zip(errors, errors[1:], strict=False)) > 1.8, (name, errors)


@pytest.mark.parametrize(
    ("name", "calls"),
    [("euler", 6), ("heun", 11), ("dpm2", 11), ("lms", 6), ("plms", 7), ("dpm++-2m", 6), ("unipc", 6)],
)
def test_evaluations(name, calls):
    denoise = Posterior()
    sigmas = spacing("trailing", scaled_linear(), 6)
    finish(SAMPLERS[name](denoise, torch.ones(1, 3), sigmas, Noise([0])))
    assert denoise.calls == calls


@pytest.mark.parametrize("name", SAMPLERS)
def test_estimates_count_and_closing_stops(name):
    denoise = Posterior()
    sigmas = curved(10.0, 0.1, 5)
    seen = list(SAMPLERS[name](denoise, torch.ones(1, 3), sigmas, Noise([0])))
    assert [(each.step, each.total) for each in seen] == [(step, 5) for step in range(1, 6)]
    assert all(isinstance(each, Estimate) and each.x0.shape == (1, 3) for each in seen)
    calls = denoise.calls
    steps = SAMPLERS[name](denoise, torch.ones(1, 3), sigmas, Noise([0]))
    next(steps)
    steps.close()
    assert denoise.calls - calls <= 2


@pytest.mark.parametrize("name", SAMPLERS)
def test_the_loop_needs_no_gradient_and_leaves_the_callers_mode(name):
    inside = []

    def denoise(x, sigma):
        inside.append(torch.is_grad_enabled())
        return x / 2

    x = torch.ones(1, 3, requires_grad=True)
    for _ in SAMPLERS[name](denoise, x, curved(10.0, 0.1, 3), Noise([0])):
        assert torch.is_grad_enabled()
    assert inside
    assert not any(inside)


@pytest.mark.parametrize("name", SAMPLERS)
def test_seed_n_alone_is_seed_n_in_a_batch(name):
    sigmas = curved(10.0, 0.1, 6)

    def run(seeds):
        noise = Noise(seeds)
        return finish(SAMPLERS[name](Posterior(), 10 * noise.normal(3, 2), sigmas, noise))

    torch.testing.assert_close(run([5])[0], run([4, 5, 6])[1], rtol=0, atol=0)


@pytest.mark.parametrize("name", ["euler", "ddim", "heun", "plms", "lms", "dpm2", "dpm++-2m", "unipc"])
def test_deterministic_samplers_draw_nothing(name):
    noise = Noise([0])
    finish(SAMPLERS[name](Posterior(), torch.ones(1, 3), curved(10.0, 0.1, 3), noise))
    assert torch.equal(noise.normal(4), Noise([0]).normal(4))


def test_euler_is_the_plain_step_of_a_rectified_flow():
    """x_{t - dt} = x_t - dt * v, in the network's own coordinates, from t = 1 to t = 0."""

    def network(x, timesteps, tokens, vector):
        t = timesteps.to(x.dtype).view(-1, 1, 1, 1) / 1000
        return torch.tanh(x * (1 + t)) + torch.sin(3 * t) * x.roll(1, -1)

    steps, schedule = 20, RectifiedFlow()
    start = Noise([0, 1]).normal(4, 3, 3).double()
    plain = start
    for step in range(steps):
        t = torch.full((2,), 1 - step / steps, dtype=torch.float64)
        plain = plain - network(plain, 1000 * t, None, None) / steps
    sigmas = spacing("trailing", schedule, steps)
    got = finish(
        SAMPLERS["euler"](
            NetDenoiser(network, schedule, "flow"), start / schedule.signal(sigmas[0]), sigmas, Noise([0, 1])
        )
    )
    torch.testing.assert_close(got, plain, rtol=0, atol=1e-5)


def test_half_the_digits_are_enough():
    """From sigma a million down, float32 loses nothing that shows: errors shrink with sigma."""
    schedule = RectifiedFlow()
    sigmas = spacing("trailing", schedule, 20)
    x = Noise([0]).normal(1000) / float(schedule.signal(sigmas[0]))
    for name in ("euler", "heun", "dpm++-2m", "unipc", "plms"):
        single = finish(SAMPLERS[name](Posterior(), x, sigmas, Noise([0])))
        double = finish(SAMPLERS[name](Posterior(), x.double(), sigmas, Noise([0])))
        torch.testing.assert_close(single.double(), double, rtol=0, atol=1e-5)


def test_eta():
    x = torch.full((1, 3), 5.0, dtype=torch.float64)
    sigmas = curved(10.0, 0.1, 5)

    def run(name, eta=None):
        return finish(choose(name, eta)(Posterior(), x, sigmas, Noise([0])))

    assert torch.equal(run("ddim", 1.0), run("ddpm"))
    assert torch.equal(run("euler-ancestral", 0.0), run("euler"))
    assert torch.equal(run("dpm++-2m-sde", 0.0), run("dpm++-2m"))
    assert not torch.equal(run("ddim", 0.5), run("ddim"))
    with pytest.raises(OptionError, match="has no eta"):
        choose("heun", 0.5)
    with pytest.raises(UnknownName) as caught:
        choose("dpm++2m")
    assert caught.value.nearest == "dpm++-2m"


def test_lcm_renoises_its_estimate():
    x = torch.full((1, 3), 5.0)
    sigmas = torch.tensor([10.0, 2.0], dtype=torch.float64)
    got = finish(SAMPLERS["lcm"](Posterior(), x, sigmas, Noise([4])))
    expected = Posterior()(x, torch.tensor([10.0])) + 2 * Noise([4]).normal(3)
    torch.testing.assert_close(got, expected)
