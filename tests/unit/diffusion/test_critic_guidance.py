"""Critic guidance against Crowson's formulas written in the network's own coordinates."""

import math
from dataclasses import dataclass

import pytest
import torch

from mindseye.critique.judge import Opinion
from mindseye.diffusion.critic_guidance import CriticGuided, SecondaryDenoiser, clamped, progress
from mindseye.diffusion.denoiser import per_row
from mindseye.diffusion.learned_variance import PixelDenoiser
from mindseye.diffusion.samplers import SAMPLERS
from mindseye.diffusion.schedule import cosine, linear, spacing
from mindseye.networks.secondary import Config, Secondary
from mindseye.noise import Noise

TABLE = linear()


@dataclass
class Minds:
    """Minds the square of every pixel's distance to a colour; notes what it is shown."""

    colour: float = 0.25

    def __post_init__(self):
        self.shown, self.shares = [], []

    def opinion(self, pixels, noise, share):
        assert not pixels.requires_grad
        self.shown.append(pixels)
        self.shares.append(share)
        noise.uniform(2)
        far = pixels - self.colour
        return Opinion((far**2).sum((1, 2, 3)), 2 * far, {"far": float((far**2).sum())})


class Net(torch.nn.Module):
    """A smooth network that mixes pixels, so that a gradient through it is not its input's."""

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        weight = torch.randn(3, 3, 3, 3, generator=generator, dtype=torch.float64) * 0.2
        self.weight = torch.nn.Parameter(weight, requires_grad=False)

    def forward(self, x, timesteps, y=None):
        return torch.tanh(torch.nn.functional.conv2d(x, self.weight, padding=1) + timesteps.view(-1, 1, 1, 1) / 2000)


def net():
    return PixelDenoiser(Net(), TABLE, "eps")


def reference(seen, t, *, read, through, range_scale=0.0, clamp=0.0, colour=0.25):
    """eps, x0 and cond_fn of the notebooks, for x as the network sees it: the guided x0 and the gradient."""
    bar = TABLE.alphas_bar[t].view(-1, 1, 1, 1)
    with torch.enable_grad():
        x = seen.detach().requires_grad_()
        eps = Net()(x, t.double())
        x0 = (x - (1 - bar).sqrt() * eps) / bar.sqrt()
        fac = (1 - bar).sqrt()
        x_in = x0 * fac + x * (1 - fac) if read == "blend" else x0
        loss = ((x_in - colour) ** 2).sum() + range_scale * ((x0 - x0.clamp(-1, 1)) ** 2).mean((1, 2, 3)).sum()
        if through == "network":
            grad = -torch.autograd.grad(loss, x)[0]
        else:
            # As through a network that answers v = 0, so x0 = sqrt(alpha_bar) x.
            slope = bar.sqrt() * fac + 1 - fac if read == "blend" else bar.sqrt()
            grad = -2 * (x_in.detach() - colour) * slope
    if clamp:
        size = grad.square().mean((1, 2, 3), keepdim=True).sqrt()
        grad = grad * size.clamp(max=clamp) / size
    eps = eps.detach() - (1 - bar).sqrt() * grad
    return (seen - (1 - bar).sqrt() * eps) / bar.sqrt(), grad


@pytest.mark.parametrize("read", ["blend", "x0"])
@pytest.mark.parametrize("through", ["network", "straight"])
@pytest.mark.parametrize("clamp", [0.0, 0.05])
@torch.no_grad()
def test_it_is_the_notebooks_formula(read, through, clamp):
    t = torch.tensor([30, 700])
    sigma = TABLE.sigmas[t]
    x = torch.randn(2, 3, 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) * per_row(
        sigma, torch.zeros(2, 3, 6, 6, dtype=torch.float64)
    )
    seen = x * per_row(TABLE.signal(sigma), x)
    scale = 40.0 if through == "network" else 0.0
    judge = Minds()
    guided = CriticGuided(
        net(), judge, Noise([1, 2]), TABLE, reads=read, through=through, clamp=clamp, range_scale=scale
    )
    # Judges answer in float32 as a rule; this one in float64, so that digits can be compared.
    wanted, grad = reference(seen, t, read=read, through=through, range_scale=scale, clamp=clamp)
    found = guided(x, sigma)
    torch.testing.assert_close(found, wanted, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(guided.believe(x, sigma).push, grad, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(guided.expected, net()(x, sigma))
    assert guided.parts["far"] > 0 and not found.requires_grad


@torch.no_grad()
def test_ddim_under_guidance_is_ddim_under_guidance():
    """The whole loop, eta included, with betas' tables in place of sigmas."""
    eta, steps = 0.8, 5
    knots = spacing("leading", TABLE, steps)
    noise, again = Noise([7]), Noise([7])
    x = noise.normal(3, 6, 6).double()
    seen = again.normal(3, 6, 6).double()
    walk = SAMPLERS["ddim"](
        CriticGuided(net(), Minds(), noise, TABLE, clamp=0.05), x * (1 + knots[0] ** 2).sqrt(), knots, noise, eta=eta
    )
    try:
        while True:
            next(walk)
    except StopIteration as stop:
        found = stop.value
    times = list(range(800, -1, -200))
    bars = [*TABLE.alphas_bar[times].tolist(), 1.0]
    for t, bar, after in zip(times, bars, bars[1:], strict=False):
        x0, _ = reference(seen, torch.tensor([t]), read="blend", through="network", clamp=0.05)
        again.uniform(2)  # the judge's own draw
        eps = (seen / math.sqrt(bar) - x0) / math.sqrt(1 / bar - 1)
        spread = eta * math.sqrt((1 - after) / (1 - bar)) * math.sqrt(1 - bar / after)
        seen = x0 * math.sqrt(after) + math.sqrt(max(1 - after - spread**2, 0)) * eps
        if after < 1:
            seen = seen + spread * again.normal(3, 6, 6).double()
    torch.testing.assert_close(found, seen, rtol=1e-8, atol=1e-8)


@torch.no_grad()
def test_through_the_secondary_model_only_the_secondary_is_differentiated():
    class Opaque(Net):
        def forward(self, x, timesteps, y=None):
            assert not x.requires_grad and not torch.is_grad_enabled()
            return super().forward(x, timesteps)

    torch.manual_seed(0)
    small = Secondary(Config(channels=(8, 12), planes=4)).double().requires_grad_(False)
    judge = Minds()
    guided = CriticGuided(
        PixelDenoiser(Opaque(), TABLE, "eps"), judge, Noise([1]), TABLE,
        through="secondary", secondary=SecondaryDenoiser(small),
    )  # fmt: skip
    t = torch.tensor([400])
    sigma = TABLE.sigmas[t]
    seen = torch.randn(1, 3, 8, 8, dtype=torch.float64)
    belief = guided.believe(seen * (1 + sigma**2).sqrt(), sigma)
    alpha, spread = TABLE.alphas_bar[400].sqrt(), (1 - TABLE.alphas_bar[400]).sqrt()
    with torch.enable_grad():
        x = seen.clone().requires_grad_()
        v = small(x, torch.atan2(spread, alpha)[None] * 2 / math.pi)
        x_in = (x * alpha - v * spread) * spread + x * (1 - spread)
        wanted = torch.autograd.grad(((x_in - 0.25) ** 2).sum(), x)[0]
    torch.testing.assert_close(belief.push, -wanted, rtol=1e-7, atol=1e-9)
    torch.testing.assert_close(judge.shown[0], x_in.detach(), rtol=1e-7, atol=1e-9)
    torch.testing.assert_close(belief.x0, net()(seen * (1 + sigma**2).sqrt(), sigma))
    with pytest.raises(ValueError, match="no secondary"):
        CriticGuided(net(), judge, Noise([1]), TABLE, through="secondary")


@torch.no_grad()
def test_range_is_felt_only_beyond_the_range():
    class Bright(torch.nn.Module):
        weight = torch.nn.Parameter(torch.zeros(1), requires_grad=False)

        def parameters(self, recurse=True):
            yield self.weight

        def forward(self, x, timesteps, y=None):
            return torch.full_like(x, self.level)

    class Silent(Minds):
        def opinion(self, pixels, noise, share):
            return Opinion(torch.zeros(1), torch.zeros_like(pixels), {})

    for level, felt in ((0.9, False), (1.5, True)):
        network = Bright()
        network.level = level
        denoise = PixelDenoiser(network, TABLE, "x0")
        guided = CriticGuided(denoise, Silent(), Noise([1]), TABLE, range_scale=10.0, through="straight")
        push = guided.believe(torch.zeros(1, 3, 2, 2), torch.ones(1, dtype=torch.float64)).push
        wanted = -2 * 10.0 * 0.5 / 12 / math.sqrt(2) if felt else 0.0
        torch.testing.assert_close(push, torch.full((1, 3, 2, 2), wanted))


def test_gradients_are_clamped_picture_by_picture_and_never_poison():
    g = torch.stack([torch.full((3, 2, 2), 4.0), torch.full((3, 2, 2), 0.01), torch.zeros(3, 2, 2)])
    g = torch.cat([g, g[:1], g[:1]])
    g[3, 0, 0, 0], g[4, 1, 1, 1] = float("nan"), float("inf")
    out = clamped(g, 0.05)
    assert torch.allclose(out[0], torch.full((3, 2, 2), 0.05))
    assert torch.equal(out[1], g[1])
    assert not out[2:].any() and out.isfinite().all()
    assert torch.equal(clamped(g[:2], 0.0), g[:2])


def test_progress_counts_thousandths_of_the_schedules_own_time():
    for t in (999, 998, 600, 599, 400, 0):
        sigma = float(TABLE.sigmas[t])
        # Disco: list[1000 - (int(t) + 1)]
        assert int(progress(TABLE, sigma) * 1000 + 1e-6) == 1000 - (t + 1)
    assert progress(cosine(), 1e9) == 0.0


@torch.no_grad()
def test_outside_its_interval_the_judge_is_not_asked():
    judge = Minds()
    guided = CriticGuided(net(), judge, Noise([1]), TABLE, interval=(0.5, 10.0))
    for level, asked in ((0.5, 0), (0.51, 1), (10.0, 2), (10.1, 2)):
        x, sigma = torch.ones(1, 3, 6, 6, dtype=torch.float64), torch.tensor([level], dtype=torch.float64)
        found, alone = guided(x, sigma), net()(x, sigma)
        assert len(judge.shown) == asked
        assert torch.equal(found, alone) == (level in (0.5, 10.1))
        torch.testing.assert_close(guided.expected, alone, rtol=1e-12, atol=1e-12)


@torch.no_grad()
def test_a_picture_is_the_same_alone_and_in_a_batch():
    def run(seeds):
        noise = Noise(seeds)
        knots = spacing("trailing", TABLE, 4)
        x = noise.normal(3, 6, 6).double() * knots[0]
        judge = Minds()
        walk = SAMPLERS["ddim"](CriticGuided(net(), judge, noise, TABLE, clamp=0.05), x, knots, noise, eta=1.0)
        try:
            while True:
                next(walk)
        except StopIteration as stop:
            return stop.value

    torch.testing.assert_close(run([5, 6])[1:], run([6]), rtol=1e-9, atol=1e-9)
