"""Respacing and the learned-variance sampler against DDPM's own formulas, betas and all, in float64."""

import math

import numpy as np
import pytest
import torch

from mindseye.diffusion.denoiser import per_row
from mindseye.diffusion.learned_variance import (
    Belief,
    Believer,
    HybridDiffusion,
    MaskedBelief,
    PixelDenoiser,
    believed,
    learned_ancestral,
    respaced,
    step_variance,
)
from mindseye.diffusion.samplers import SAMPLERS, Estimate
from mindseye.diffusion.schedule import Tabulated, cosine, linear, spacing
from mindseye.errors import OptionError
from mindseye.noise import Noise


def timesteps_of(knots, table):
    return [int(torch.argmin((table.sigmas - each).abs())) for each in knots[:-1]]


class Tables:
    """Guided-diffusion's tables: betas rebuilt from the alphas_bar that are kept."""

    def __init__(self, alphas_bar, kept):
        kept = sorted(kept)
        self.bar = np.array([alphas_bar[i] for i in kept])
        self.before = np.append(1.0, self.bar[:-1])
        self.betas = 1 - self.bar / self.before
        self.bar = np.cumprod(1 - self.betas)
        self.before = np.append(1.0, self.bar[:-1])
        self.posterior = self.betas * (1 - self.before) / (1 - self.bar)
        self.log_posterior = np.log(np.append(self.posterior[1], self.posterior[1:]))
        self.of_x0 = self.betas * np.sqrt(self.before) / (1 - self.bar)
        self.of_x = (1 - self.before) * np.sqrt(1 - self.betas) / (1 - self.bar)


def test_respacing_keeps_the_published_timesteps():
    table = linear()
    assert timesteps_of(respaced(table, "1000"), table) == list(range(999, -1, -1))
    assert timesteps_of(respaced(table, "ddim50"), table) == list(range(980, -1, -20))
    assert timesteps_of(respaced(table, "4"), table) == [999, 666, 333, 0]
    assert timesteps_of(respaced(table, "1,2,3"), table) == sorted([0, 334, 666, 667, 833, 999], reverse=True)
    torch.testing.assert_close(respaced(table, "ddim50"), spacing("leading", table, 50), rtol=0, atol=1e-10)


@pytest.mark.parametrize("text", ["ddim51", "1001", "ddim", "", "-4", "600,600", "4;5", "ddim5,5", "٣", "1e9", "0"])
def test_other_respacings_are_refused(text):
    with pytest.raises(OptionError):
        respaced(linear(), text)


@pytest.mark.parametrize("text", ["ddim4", "7", "3,5,9", "250"])
@pytest.mark.parametrize("table", [linear(), cosine()], ids=["linear", "cosine"])
def test_variances_are_those_of_the_rebuilt_betas(text, table):
    knots = respaced(table, text)
    # The schedule's own floor: sigma ends at 4096.
    tables = Tables(table.alphas_bar.clamp(min=2.0**-24).numpy(), timesteps_of(knots, table))
    pairs = list(zip(knots[:-1].tolist(), knots[1:].tolist(), strict=True))[::-1]
    for place, (sigma, after) in enumerate(pairs):
        least, greatest = step_variance(sigma, after)
        # The sampler's coordinates, divided by sqrt(alpha_bar), against the network's.
        unit = 1 + after**2
        assert least / unit == pytest.approx(tables.posterior[place], rel=1e-10, abs=1e-14)
        assert greatest / unit == pytest.approx(tables.betas[place], rel=1e-10)
        keep = (after / sigma) ** 2
        of_x = keep * math.sqrt((1 + sigma**2) / unit)
        assert of_x == pytest.approx(tables.of_x[place], rel=1e-9, abs=1e-14)
        assert (1 - keep) / math.sqrt(unit) == pytest.approx(tables.of_x0[place], rel=1e-9)


class Told(torch.nn.Module):
    """A network with a variance whose answer is a smooth function of what it is given."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor(0.3, dtype=torch.float64), requires_grad=False)

    def forward(self, x, timesteps, y=None):
        t = timesteps.view(-1, 1, 1, 1) / 1000
        return torch.cat([torch.tanh(self.weight * x + t), torch.sin(x + 3 * t)], dim=1)


class Pushed:
    """Believes what another does, and wants more of something."""

    def __init__(self, denoise, push):
        self.denoise, self.push = denoise, push

    def __call__(self, x, sigma):
        return self.denoise(x, sigma)

    def believe(self, x, sigma):
        return self.denoise.believe(x, sigma)._replace(push=self.push(x / (1 + sigma.view(-1, 1, 1, 1) ** 2).sqrt()))


def reference(network, tables, kept, x, draws, push):
    """p_sample_loop of guided-diffusion with LEARNED_RANGE and condition_mean, from the formulas."""
    for place in range(len(kept) - 1, -1, -1):
        t = torch.full((len(x),), float(kept[place]), dtype=torch.float64)
        eps, v = network(x, t).chunk(2, dim=1)
        x0 = x / math.sqrt(tables.bar[place]) - math.sqrt(1 / tables.bar[place] - 1) * eps
        share = (v + 1) / 2
        log_variance = share * math.log(tables.betas[place]) + (1 - share) * tables.log_posterior[place]
        mean = tables.of_x0[place] * x0 + tables.of_x[place] * x + log_variance.exp() * push(x)
        x = mean + (0.5 * log_variance).exp() * next(draws) if place else mean
    return x


@torch.no_grad()
@pytest.mark.parametrize("text", ["6", "ddim4", "2,3"])
def test_learned_ancestral_is_guided_diffusions_loop(text):
    table, network = linear(), Told()
    knots = respaced(table, text)
    kept = sorted(timesteps_of(knots, table))
    push = lambda seen: 0.2 * torch.cos(seen)  # noqa: E731
    noise = Noise([3, 4])
    start = noise.normal(3, 4, 4).double()
    again = Noise([3, 4])
    again.normal(3, 4, 4)
    draws = iter([again.normal(3, 4, 4).double() for _ in kept[1:]])
    wanted = reference(network, Tables(table.alphas_bar.numpy(), kept), kept, start, draws, push)
    denoise = Pushed(PixelDenoiser(network, table, "eps"), push)
    walk = learned_ancestral(denoise, start * (1 + knots[0] ** 2).sqrt(), knots, noise)
    last = None
    try:
        while True:
            last = next(walk)
    except StopIteration as stop:
        found = stop.value
    assert isinstance(last, Estimate)
    torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-10)


@torch.no_grad()
def test_without_a_learned_variance_it_is_ddpm():
    table = linear()
    denoise = lambda x, sigma: torch.tanh(x / per_row(1 + sigma, x))  # noqa: E731
    knots = respaced(table, "8")
    x = Noise([5]).normal(3, 4, 4).double() * knots[0]

    def run(sampler):
        walk = sampler(denoise, x, knots, Noise([1]))
        try:
            while True:
                next(walk)
        except StopIteration as stop:
            return stop.value

    torch.testing.assert_close(run(learned_ancestral), run(SAMPLERS["ddpm"]), rtol=1e-9, atol=1e-9)


@torch.no_grad()
def test_a_pixel_denoiser_splits_off_the_variance_and_draws_classes():
    table = linear()
    asked = []

    class Classed(Told):
        def forward(self, x, timesteps, y=None):
            asked.append((timesteps.tolist(), None if y is None else y.tolist()))
            return super().forward(x, timesteps)

    classes = iter([torch.tensor([1, 2]), torch.tensor([3, 4])])
    denoise = PixelDenoiser(Classed(), table, "eps", classes=lambda: next(classes), rescale=0.5)
    sigma = table.sigmas[[100, 900]]
    x = torch.randn(2, 3, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    x0, fraction, push = denoise.believe(x, sigma)
    assert isinstance(denoise, Believer) and push is None
    assert asked == [([50.0, 450.0], [1, 2])]
    seen = x * per_row(table.signal(sigma), x)
    eps, v = Told()(seen, torch.tensor([50.0, 450.0], dtype=torch.float64)).chunk(2, 1)
    torch.testing.assert_close(x0, x - per_row(sigma, x) * eps)
    torch.testing.assert_close(fraction, (v + 1) / 2)
    denoise(x, sigma)
    assert asked[1][1] == [3, 4]


def test_what_is_kept_is_known_and_cannot_be_pushed():
    known, mask = torch.full((1, 3, 2, 2), 0.5), torch.tensor([[[[1.0, 0.0], [0.0, 1.0]]]])

    class Pushy:
        def __call__(self, x, sigma):
            return x

        def believe(self, x, sigma):
            return Belief(x, None, torch.ones_like(x))

    masked = MaskedBelief(Pushy(), known, mask)
    x, sigma = torch.full((2, 3, 2, 2), -1.0), torch.ones(2, dtype=torch.float64)
    belief = believed(masked, x, sigma)
    assert torch.equal(belief.x0[0, 0], torch.tensor([[-1.0, 0.5], [0.5, -1.0]]))
    assert torch.equal(belief.push[1, 2], mask[0, 0])
    assert torch.equal(masked(x, sigma), belief.x0)


class Oracle(torch.nn.Module):
    """Knows the noise exactly, and one number of its own for the variance."""

    def __init__(self, off, v):
        super().__init__()
        self.off = off
        self.v = torch.nn.Parameter(torch.tensor(v))
        self.noise = None

    def forward(self, x, timesteps, y=None):
        return torch.cat([self.noise + self.off, self.v.expand_as(x)], dim=1)


def test_the_bound_is_a_divergence_and_leaves_the_mean_alone(monkeypatch):
    table = Tabulated(linear().alphas_bar[::100])
    network = Oracle(0.1, -1.0)
    objective = HybridDiffusion(network, table, "eps", bound=1.0)
    pixels = torch.rand(6, 3, 4, 4, generator=torch.Generator().manual_seed(1)) * 1.6 - 0.8
    real = torch.randn

    def keep(*args, **more):
        network.noise = real(*args, **more)
        return network.noise

    monkeypatch.setattr(torch, "randn", keep)
    # Timestep 4 for all: away from the first, whose bound is a likelihood.
    monkeypatch.setattr(
        "mindseye.diffusion.learned_variance.draw_levels", lambda how, schedule, n, g: schedule.sigmas[4].repeat(n)
    )
    objective.reseed(0)
    loss = objective({"pixels": pixels}, "main")
    assert loss.parts["error"] == pytest.approx(0.01, rel=1e-4)
    # KL of two Gaussians of the posterior's own variance: (difference of means)^2 / (2 variance), in bits.
    sigma, after = table.sigmas[4].item(), table.sigmas[3].item()
    least, greatest = step_variance(sigma, after)
    error = ((1 - (after / sigma) ** 2) * sigma * 0.1) ** 2
    assert loss.parts["bound"] == pytest.approx(error / (2 * least) / math.log(2), rel=1e-3)
    loss.total.backward()
    ratio = math.log(greatest / least)
    wanted = 0.5 * ratio / 2 * (1 - (1 + error / least)) / math.log(2)
    assert network.v.grad.item() == pytest.approx(wanted, rel=2e-3, abs=1e-7)


def test_the_first_steps_bound_is_a_likelihood_that_sums_to_one():
    from mindseye.diffusion.learned_variance import _discretised

    levels = torch.linspace(-1, 1, 256, dtype=torch.float64).view(256, 1, 1, 1)
    mean, spread = torch.full_like(levels, 0.3), torch.full_like(levels, 0.05)
    assert _discretised(levels, mean, spread).exp().sum().item() == pytest.approx(1, abs=1e-4)
    wide = torch.full_like(levels, 2.0)
    assert _discretised(levels, mean, wide).exp().sum().item() == pytest.approx(1, abs=1e-9)


def test_training_lowers_the_loss():
    class Small(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Conv2d(3, 6, 1)

        def forward(self, x, timesteps, y=None):
            return self.layer(x)

    torch.manual_seed(0)
    objective = HybridDiffusion(Small(), cosine(), "v")
    pixels = torch.rand(32, 3, 4, 4) * 0.2 + 0.4
    optimizer = torch.optim.Adam(objective.parameters(), 0.05)
    losses = []
    for step in range(60):
        objective.reseed(step)
        loss = objective({"pixels": pixels}, "main")
        optimizer.zero_grad()
        loss.total.backward()
        optimizer.step()
        losses.append(loss.total.item())
    assert sum(losses[-10:]) < 0.7 * sum(losses[:10])
