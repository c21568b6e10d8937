"""Samplers: one generator function each, in the coordinates x = x0 + sigma * noise.

A sampler walks down the sigmas it is given, asks the denoiser for x0, yields an `Estimate` after every step, and
returns the last x. Nothing in here knows what a network, a prompt or a timestep is.

In these coordinates famous samplers turn out to be one. With slope d = (x - x0) / sigma, DDIM's deterministic step *is*
Euler's; and with the noise DDIM adds at eta = 1, it *is* DDPM's ancestral step with the small variance, and
k-diffusion's "Euler ancestral". So `ancestral` is written once, and what sets the four apart is the spacing they are
used with.

Steps to sigma = 0 end at x0 itself. lambda is -log sigma throughout. Euler's x + (sigma' - sigma) d is always written
x0 + sigma' d: from sigma = a million, the difference would cost float32 its digits.
"""

import math
from collections.abc import Callable, Generator, Mapping
from functools import partial
from itertools import pairwise
from typing import NamedTuple, TypeAlias

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from mindseye.diffusion.denoiser import Denoiser
from mindseye.diffusion.schedule import Knots
from mindseye.errors import OptionError, UnknownName
from mindseye.noise import Noise

__all__ = ["SAMPLERS", "Estimate", "Estimates", "Sampler", "choose"]


class Estimate(NamedTuple):
    """Where a sampler is: `step` of `total` done, and the clean picture as it is expected now."""

    step: int
    total: int
    x0: Tensor


X: TypeAlias = Float[Tensor, "B *S"]
Estimates: TypeAlias = Generator[Estimate, None, X]
Sampler: TypeAlias = Callable[[Denoiser, X, Knots, Noise], Estimates]


def ancestral(denoise: Denoiser, x: X, sigmas: Knots, noise: Noise, *, eta: float = 1.0) -> Estimates:
    """Step to x0 plus as much of the old noise as ``eta`` leaves room for, plus fresh noise.

    DDIM (Song et al. 2020, arXiv:2010.02502, equation 12): eta 0 is deterministic, eta 1 is DDPM.
    """
    total = len(sigmas) - 1
    for step, (sigma, after) in enumerate(pairwise(sigmas.tolist()), start=1):
        x0 = _ask(denoise, x, sigma)
        kept, fresh = _split(sigma, after, eta)
        x = x0 + kept / sigma * (x - x0)
        if fresh > 0:
            x = x + fresh * noise.normal_like(x)
        yield Estimate(step, total, x0)
    return x


def _split(sigma: float, after: float, eta: float) -> tuple[float, float]:
    """How much of the noise at ``after`` is the old one's, and how much is drawn afresh; their squares add up."""
    fresh = min(after, eta * after * math.sqrt(max(sigma**2 - after**2, 0.0)) / sigma)
    return math.sqrt(after**2 - fresh**2), fresh


def ddpm(denoise: Denoiser, x: X, sigmas: Knots, noise: Noise) -> Estimates:
    """Ancestral sampling with the posterior's own variance (Ho et al. 2020, arXiv:2006.11239)."""
    return ancestral(denoise, x, sigmas, noise, eta=1.0)


def ddim(denoise: Denoiser, x: X, sigmas: Knots, noise: Noise, *, eta: float = 0.0) -> Estimates:
    """Implicit sampling (Song et al. 2020, arXiv:2010.02502)."""
    return ancestral(denoise, x, sigmas, noise, eta=eta)


def euler(denoise: Denoiser, x: X, sigmas: Knots, noise: Noise) -> Estimates:
    """Euler's method on the probability flow (Karras et al. 2022, arXiv:2206.00364, without churn)."""
    return ancestral(denoise, x, sigmas, noise, eta=0.0)


def euler_ancestral(denoise: Denoiser, x: X, sigmas: Knots, noise: Noise, *, eta: float = 1.0) -> Estimates:
    """Euler's method to a lower level, then noise back up (k-diffusion, Crowson 2022)."""
    return ancestral(denoise, x, sigmas, noise, eta=eta)


def heun(denoise: Denoiser, x: X, sigmas: Knots, noise: Noise) -> Estimates:
    """Heun's second-order method; two evaluations a step but the last (Karras et al. 2022, arXiv:2206.00364)."""
    total = len(sigmas) - 1
    for step, (sigma, after) in enumerate(pairwise(sigmas.tolist()), start=1):
        x0 = _ask(denoise, x, sigma)
        slope = (x - x0) / sigma
        there = x0 + after * slope
        if 0 < after and sigma < _PURE:
            end = (there - _ask(denoise, there, after)) / after
            there = there + (after - sigma) * (end - slope) / 2
        x = there
        yield Estimate(step, total, x0)
    return x


def dpm2(denoise: Denoiser, x: X, sigmas: Knots, noise: Noise) -> Estimates:
    """The midpoint method, midway in log sigma (DPM-Solver-2, Lu et al. 2022, arXiv:2206.00927; after k-diffusion)."""
    return dpm2_ancestral(denoise, x, sigmas, noise, eta=0.0)


def dpm2_ancestral(denoise: Denoiser, x: X, sigmas: Knots, noise: Noise, *, eta: float = 1.0) -> Estimates:
    """The midpoint method to a lower level, then noise back up (k-diffusion). Two evaluations a step but the last."""
    total = len(sigmas) - 1
    for step, (sigma, after) in enumerate(pairwise(sigmas.tolist()), start=1):
        x0 = _ask(denoise, x, sigma)
        kept, fresh = _split(sigma, after, eta)
        slope = (x - x0) / sigma
        if 0 < kept and sigma < _PURE:
            between = math.sqrt(sigma * kept)
            midway = x0 + between * slope
            middle = (midway - _ask(denoise, midway, between)) / between
            x = x0 + kept * slope + (kept - sigma) * (middle - slope)
        else:
            x = x0 + kept * slope
        if fresh > 0:
            x = x + fresh * noise.normal_like(x)
        yield Estimate(step, total, x0)
    return x


def lms(denoise: Denoiser, x: X, sigmas: Knots, noise: Noise) -> Estimates:
    """Linear multistep of order up to 4 in sigma, weights exact for uneven steps (k-diffusion, Crowson 2022)."""
    knots = sigmas.tolist()
    total = len(knots) - 1
    history: list[tuple[float, Tensor]] = []
    for step, (sigma, after) in enumerate(pairwise(knots), start=1):
        x0 = _ask(denoise, x, sigma)
        slope = (x - x0) / sigma
        if sigma < _PURE:
            history = [*history[-3:], (sigma, slope)]
            weights = _lagrange([each for each, _ in history], sigma, after)
            ahead = sum(w * d for w, (_, d) in zip(weights, history, strict=True))
            x = x + ahead
        else:
            x = x0 + after * slope
        yield Estimate(step, total, x0)
    return x


def _lagrange(places: list[float], low: float, high: float) -> list[float]:
    """Integrals from ``low`` to ``high`` of the polynomials that are 1 at one place and 0 at the others."""
    weights = []
    for index, place in enumerate(places):
        others = [other for at, other in enumerate(places) if at != index]
        basis = np.poly1d(others, r=True) / math.prod(place - other for other in others)
        whole = basis.integ()
        weights.append(float(whole(high) - whole(low)))
    return weights


def plms(denoise: Denoiser, x: X, sigmas: Knots, noise: Noise) -> Estimates:
    """Pseudo linear multistep (Liu et al. 2022, arXiv:2202.09778): Adams-Bashforth on the noise, up to order 4.

    The first step averages the slopes at both of its ends, as CompVis and diffusers (``skip_prk_steps``) do; its second
    slope does not enter the history. One evaluation more than there are steps. The weights are those of even steps, so
    the order is 2 where sigma does not fall evenly.
    """
    total = len(sigmas) - 1
    history: list[Tensor] = []
    for step, (sigma, after) in enumerate(pairwise(sigmas.tolist()), start=1):
        x0 = _ask(denoise, x, sigma)
        slope = (x - x0) / sigma
        there = x0 + after * slope
        if sigma < _PURE:
            history = [*history[-3:], slope]
            mean = sum(w / 24 * d for w, d in zip(_ADAMS[len(history)], reversed(history), strict=True))
            if len(history) == 1 and after > 0:
                mean = (slope + (there - _ask(denoise, there, after)) / after) / 2
            there = there + (after - sigma) * (mean - slope)
        x = there
        yield Estimate(step, total, x0)
    return x


_PURE = 1000.0
"""Above this sigma x is all noise: a rectified flow's start (a million), or a table's without terminal signal (4096).

A step from there spans orders of magnitude of sigma, over which no polynomial in sigma holds, so the two methods that
work with slopes take it as Euler does. The solvers in lambda do not need to be told.
"""

_ADAMS: Mapping[int, tuple[int, ...]] = {1: (24,), 2: (36, -12), 3: (46, -32, 10), 4: (55, -59, 37, -9)}
"""Adams-Bashforth weights in 24ths, newest slope first."""


def dpmpp_2m(denoise: Denoiser, x: X, sigmas: Knots, noise: Noise) -> Estimates:
    """DPM-Solver++(2M), multistep in lambda on x0, midpoint (Lu et al. 2022, arXiv:2211.01095)."""
    return (yield from dpmpp_2m_sde(denoise, x, sigmas, noise, eta=0.0))


def dpmpp_2m_sde(denoise: Denoiser, x: X, sigmas: Knots, noise: Noise, *, eta: float = 1.0) -> Estimates:
    """The same with noise put back: SDE-DPM-Solver++(2M), midpoint (Lu et al. 2022, arXiv:2211.01095).

    First order on the first step, and on the last when it goes to 0. Independent noise a step, as in diffusers;
    k-diffusion draws from one Brownian path instead, so single pictures differ while their distribution does not.
    """
    total = len(sigmas) - 1
    old: Tensor | None = None
    old_width = 0.0
    for step, (sigma, after) in enumerate(pairwise(sigmas.tolist()), start=1):
        x0 = _ask(denoise, x, sigma)
        width = _lambda(after) - _lambda(sigma)
        ahead = x0 if old is None or math.isinf(width) else x0 + width / (2 * old_width) * (x0 - old)
        decay = math.exp(-(1 + eta) * width)
        x = decay * x + (1 - decay) * ahead if after > 0 else x0
        if eta > 0 and after > 0:
            x = x + after * math.sqrt(-math.expm1(-2 * eta * width)) * noise.normal_like(x)
        old, old_width = x0, width
        yield Estimate(step, total, x0)
    return x


def dpmpp_2s_ancestral(denoise: Denoiser, x: X, sigmas: Knots, noise: Noise, *, eta: float = 1.0) -> Estimates:
    """DPM-Solver++(2S) to a lower level, then noise back up (k-diffusion). Two evaluations a step but the last."""
    total = len(sigmas) - 1
    for step, (sigma, after) in enumerate(pairwise(sigmas.tolist()), start=1):
        x0 = _ask(denoise, x, sigma)
        kept, fresh = _split(sigma, after, eta)
        ahead = x0
        if kept > 0:
            between = math.sqrt(sigma * kept)
            midway = x0 + between / sigma * (x - x0)
            ahead = _ask(denoise, midway, between)
        x = ahead + kept / sigma * (x - ahead)
        if fresh > 0:
            x = x + fresh * noise.normal_like(x)
        yield Estimate(step, total, x0)
    return x


def dpmpp_sde(denoise: Denoiser, x: X, sigmas: Knots, noise: Noise, *, eta: float = 1.0) -> Estimates:
    """SDE-DPM-Solver++(2S): like `dpmpp_2s_ancestral`, with noise on the way to the midpoint, too (k-diffusion).

    Independent noise for the halves of a step, where k-diffusion draws both from one Brownian path.
    """
    total = len(sigmas) - 1
    for step, (sigma, after) in enumerate(pairwise(sigmas.tolist()), start=1):
        x0 = _ask(denoise, x, sigma)
        ahead = x0
        if after > 0:
            between = math.sqrt(sigma * after)
            kept, fresh = _split(sigma, between, eta)
            midway = x0 + kept / sigma * (x - x0)
            if fresh > 0:
                midway = midway + fresh * noise.normal_like(x)
            ahead = _ask(denoise, midway, between)
        kept, fresh = _split(sigma, after, eta)
        x = ahead + kept / sigma * (x - ahead)
        if fresh > 0:
            x = x + fresh * noise.normal_like(x)
        yield Estimate(step, total, x0)
    return x


def unipc(denoise: Denoiser, x: X, sigmas: Knots, noise: Noise) -> Estimates:
    """UniPC of order 2 on x0 with B(h) = expm1(h) (Zhao et al. 2023, arXiv:2302.04867).

    A multistep predictor; and each new evaluation first corrects the step that led to it, at no further cost. The first
    and the last step are of order 1.
    """
    total = len(sigmas) - 1
    knots = sigmas.tolist()
    values: list[Tensor] = []
    start, order = x, 1
    for step, (sigma, after) in enumerate(pairwise(knots), start=1):
        x0 = _ask(denoise, x, sigma)
        if values:
            x = _unipc_correct(start, x0, values, knots[max(step - 3, 0) : step], order)
        values = [*values[-1:], x0]
        start = x
        order = 2 if 1 < step < total else 1
        width = _lambda(after) - _lambda(sigma)
        shrink = math.expm1(-width)
        x = after / sigma * x - shrink * x0
        if order == 2:
            ratio = (_lambda(knots[step - 2]) - _lambda(sigma)) / width
            x = x - shrink / 2 / ratio * (values[0] - x0)
        yield Estimate(step, total, x0)
    return x


def _unipc_correct(start: Tensor, new: Tensor, values: list[Tensor], knots: list[float], order: int) -> Tensor:
    """Redo the last step, from ``start`` at knots[-2] to knots[-1], now that x0 there (``new``) is known."""
    sigma, after = knots[-2:]
    width = _lambda(after) - _lambda(sigma)
    shrink = math.expm1(-width)
    x0 = values[-1]
    x = after / sigma * start - shrink * x0
    if order == 1:
        return x - shrink / 2 * (new - x0)
    # The weights that make polynomials of degree 2 exact: a 2x2 system, solved by hand.
    first = (shrink / -width - 1) / shrink
    second = ((shrink / -width - 1) / -width - 0.5) * 2 / shrink
    ratio = (_lambda(knots[-3]) - _lambda(sigma)) / width
    back = (first - second) / (1 - ratio)
    return x - shrink * (back / ratio * (values[-2] - x0) + (first - back) * (new - x0))


def lcm(denoise: Denoiser, x: X, sigmas: Knots, noise: Noise) -> Estimates:
    """Jump to x0, noise it to the next level, again (latent consistency models, Luo et al. 2023, arXiv:2310.04378).

    The paper also blends a trace of x into x0 (c_skip, under 1e-6 at every time a four-step model visits); we do not.
    """
    total = len(sigmas) - 1
    for step, (sigma, after) in enumerate(pairwise(sigmas.tolist()), start=1):
        x0 = _ask(denoise, x, sigma)
        x = x0 + after * noise.normal_like(x) if after > 0 else x0
        yield Estimate(step, total, x0)
    return x


SAMPLERS: Mapping[str, Callable[..., Estimates]] = {
    "ddpm": ddpm,
    "ddim": ddim,
    "plms": plms,
    "euler": euler,
    "euler-ancestral": euler_ancestral,
    "heun": heun,
    "lms": lms,
    "dpm2": dpm2,
    "dpm2-ancestral": dpm2_ancestral,
    "dpm++-2m": dpmpp_2m,
    "dpm++-2m-sde": dpmpp_2m_sde,
    "dpm++-2s-ancestral": dpmpp_2s_ancestral,
    "dpm++-sde": dpmpp_sde,
    "unipc": unipc,
    "lcm": lcm,
}

_WITH_ETA = ("ddim", "euler-ancestral", "dpm2-ancestral", "dpm++-2m-sde", "dpm++-2s-ancestral", "dpm++-sde")


def choose(name: str, eta: float | None = None) -> Sampler:
    """The sampler of that name.

    Args:
        name: A key of `SAMPLERS`.
        eta: How much of its noise to use, for the samplers that have any; None = as published.

    Raises:
        UnknownName: No such sampler.
        OptionError: An eta for a sampler that has none.
    """
    if name not in SAMPLERS:
        raise UnknownName("sampler", name, SAMPLERS)
    if eta is None:
        return SAMPLERS[name]
    if name not in _WITH_ETA:
        raise OptionError(f"sampler {name!r} has no eta; {', '.join(_WITH_ETA)} have")
    return partial(SAMPLERS[name], eta=eta)


@torch.no_grad()
def _ask(denoise: Denoiser, x: X, sigma: float) -> X:
    """x0, without a gradient: everything a loop does follows from this, so no loop needs a grad mode of its own.

    (Decorating the loops would do, but a generator that is wrapped once more, as run-time shape checks wrap it, is no
    generator function any more, and torch then covers its creation instead of its run.)
    """
    # float64, so that sigma meets its entry in a table exactly.
    return denoise(x, torch.full((len(x),), sigma, dtype=torch.float64))


def _lambda(sigma: float) -> float:
    return -math.log(sigma) if sigma > 0 else math.inf
