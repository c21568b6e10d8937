"""How much noise there is at which time, and which times a sampler visits.

One space serves every sampler: x = x0 + sigma * noise (the variance-exploding coordinates of Karras et al. 2022,
arXiv:2206.00364). A network was trained in coordinates of its own, ``signal`` * x, and is told a timestep rather than a
sigma; a `Schedule` is these two translations. `Tabulated` holds the variance-preserving tables of DDPM (Ho et al. 2020,
arXiv:2006.11239) and its heirs, `RectifiedFlow` the straight line of arXiv:2209.03003, whose (1 - t) x0 + t noise is
the same x with sigma = t / (1 - t).

`spacing` turns a schedule and a number of steps into the sigmas a sampler walks down.

Everything here is float64 on the CPU: tables are read a few times a step, and the cast to the network's dtype happens
once, in `mindseye.diffusion.denoiser`. Between entries of a table we interpolate log sigma (as k-diffusion does; the
Euler scheduler of diffusers interpolates sigma itself, which differs in the fourth digit at fractional timesteps only).
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol, TypeAlias, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from mindseye.errors import OptionError, UnknownName

__all__ = [
    "SCHEDULES",
    "SPACINGS",
    "Knots",
    "RectifiedFlow",
    "Schedule",
    "Tabulated",
    "cosine",
    "linear",
    "longest",
    "scaled_linear",
    "spacing",
]

Knots: TypeAlias = Float[Tensor, "knots"]
"""The N + 1 sigmas of a run of N steps, falling; float64 on the CPU. The last is usually 0."""


@runtime_checkable
class Schedule(Protocol):
    """The two translations between sigma and what a network was trained on."""

    @property
    def steps(self) -> int:
        """Noise levels told apart in training; the unit of a timestep."""
        ...

    @property
    def first(self) -> int:
        """Timestep of the least noisy level; the noisiest is ``first + steps - 1``."""
        ...

    @property
    def discrete(self) -> bool:
        """Whether the network has only ever seen whole timesteps."""
        ...

    @property
    def span(self) -> tuple[float, float]:
        """Least and greatest sigma between which spacings that are even in some power of sigma run."""
        ...

    def sigma(self, timestep: Float[Tensor, "*S"]) -> Float[Tensor, "*S"]:
        """Noise level of timesteps, which may be fractional."""
        ...

    def timestep(self, sigma: Float[Tensor, "*S"]) -> Float[Tensor, "*S"]:
        """What the network is told; the inverse of `sigma`, clamped to the schedule's ends."""
        ...

    def signal(self, sigma: Float[Tensor, "*S"]) -> Float[Tensor, "*S"]:
        """The network sees ``signal * x``, which holds ``signal`` of x0 and ``signal * sigma`` of noise."""
        ...

    def draw(self, u: Float[Tensor, "*S"]) -> Float[Tensor, "*S"]:
        """Timesteps for training from numbers in [0, 1), evenly."""
        ...


@dataclass(frozen=True, eq=False)
class Tabulated:
    """A variance-preserving schedule given as a table.

    Attributes:
        alphas_bar: Share of the signal's variance left after each step, falling, float64. Zero is read as 2**-24, so
            that a table whose last entry is pure noise still has a finite sigma (4096).
    """

    alphas_bar: Float[Tensor, "T"]

    first = 0
    discrete = True

    @classmethod
    def from_betas(cls, betas: Float[Tensor, "T"]) -> "Tabulated":
        """From the variance added by each step."""
        return cls((1 - betas.double()).cumprod(0))

    @property
    def steps(self) -> int:
        """Entries of the table."""
        return len(self.alphas_bar)

    @property
    def sigmas(self) -> Float[Tensor, "T"]:
        """Noise level of each timestep, rising."""
        alphas_bar = self.alphas_bar.clamp(min=2.0**-24)
        return ((1 - alphas_bar) / alphas_bar).sqrt()

    @property
    def span(self) -> tuple[float, float]:
        """The ends of the table."""
        sigmas = self.sigmas
        return float(sigmas[0]), float(sigmas[-1])

    def sigma(self, timestep: Float[Tensor, "*S"]) -> Float[Tensor, "*S"]:
        """Log-linear between entries, clamped to the ends."""
        places = torch.arange(self.steps, dtype=torch.float64)
        return _interpolate(timestep.cpu().double(), places, self.sigmas.log()).exp()

    def timestep(self, sigma: Float[Tensor, "*S"]) -> Float[Tensor, "*S"]:
        """Log-linear between entries, clamped to the ends."""
        places = torch.arange(self.steps, dtype=torch.float64)
        return _interpolate(sigma.cpu().double().log(), self.sigmas.log(), places)

    def signal(self, sigma: Float[Tensor, "*S"]) -> Float[Tensor, "*S"]:
        """1 / sqrt(1 + sigma^2): unit variance in, unit variance out."""
        return (1 + sigma**2).rsqrt()

    def draw(self, u: Float[Tensor, "*S"]) -> Float[Tensor, "*S"]:
        """Whole timesteps."""
        return (u.cpu().double() * self.steps).floor()

    def zero_terminal(self) -> "Tabulated":
        """The same table, stretched so that nothing of the signal is left at its end (Lin et al. 2023,
        arXiv:2305.08891).

        Only a network that predicts v or x0 can start there, and only "trailing" and "linspace" start there.
        """
        root = self.alphas_bar.sqrt()
        return Tabulated(((root - root[-1]) * root[0] / (root[0] - root[-1])) ** 2)


@dataclass(frozen=True)
class RectifiedFlow:
    """The straight line (1 - t) x0 + t noise; a network is told 1000 t.

    At t = 1 sigma is infinite, so the line ends at t = 1 - 2**-20 instead, where the signal is a millionth of the
    noise.
    """

    steps: int = 1000

    first = 1
    discrete = False

    @property
    def span(self) -> tuple[float, float]:
        """From t = 1/1000 to the 80 of Karras et al.: evenly in a power of sigma, more would be spent on pure noise."""
        return 1 / (self.steps - 1), 80.0

    def sigma(self, timestep: Float[Tensor, "*S"]) -> Float[Tensor, "*S"]:
        """t / (1 - t)."""
        t = (timestep.cpu().double() / self.steps).clamp(0, 1 - 2.0**-20)
        return t / (1 - t)

    def timestep(self, sigma: Float[Tensor, "*S"]) -> Float[Tensor, "*S"]:
        """1000 sigma / (1 + sigma)."""
        sigma = sigma.cpu().double()
        return self.steps * sigma / (1 + sigma)

    def signal(self, sigma: Float[Tensor, "*S"]) -> Float[Tensor, "*S"]:
        """1 / (1 + sigma), which is 1 - t."""
        return 1 / (1 + sigma)

    def draw(self, u: Float[Tensor, "*S"]) -> Float[Tensor, "*S"]:
        """Any timestep."""
        return u.cpu().double() * self.steps


def linear(steps: int = 1000, low: float = 1e-4, high: float = 0.02) -> Tabulated:
    """Evenly growing variances, as in DDPM."""
    return Tabulated.from_betas(torch.linspace(low, high, steps, dtype=torch.float64))


def scaled_linear(steps: int = 1000, low: float = 0.00085, high: float = 0.012) -> Tabulated:
    """Evenly growing standard deviations: latent and Stable Diffusion. CompVis's files call this one "linear"."""
    return Tabulated.from_betas(torch.linspace(low**0.5, high**0.5, steps, dtype=torch.float64) ** 2)


def cosine(steps: int = 1000, cap: float = 0.999) -> Tabulated:
    """Nichol and Dhariwal's (arXiv:2102.09672), each variance capped; the published name is squaredcos_cap_v2."""
    angle = (torch.arange(steps + 1, dtype=torch.float64) / steps + 0.008) / 1.008 * math.pi / 2
    remaining = angle.cos() ** 2
    return Tabulated.from_betas((1 - remaining[1:] / remaining[:-1]).clamp(max=cap))


SCHEDULES: Mapping[str, Callable[[], Schedule]] = {
    "linear": linear,
    "scaled-linear": scaled_linear,
    "cosine": cosine,
    "scaled-linear-zero-snr": lambda: scaled_linear().zero_terminal(),
    "rectified-flow": RectifiedFlow,
}
"""What a card or a folder's facts may name."""

SPACINGS: Mapping[str, str] = {
    "trailing": "even in time from the very end of the schedule (Lin et al. 2023)",
    "leading": "even in time from the start, as Stable Diffusion 1 shipped; never visits the noisiest times",
    "linspace": "even in time, both ends included",
    "linspace-open": "even in time, the least noisy end left out; what diffusers gives DPM-Solver++",
    "karras": "even in sigma^(1/7) (Karras et al. 2022)",
    "exponential": "even in log sigma",
    "lcm": "every so many of 50 trailing steps, the times a consistency model was distilled at",
}
"""Names `spacing` knows, each with a sentence for menus."""


def longest(name: str, schedule: Schedule) -> int:
    """Most steps that a spacing tells apart on a schedule."""
    return 50 if name == "lcm" else schedule.steps


def spacing(
    name: str, schedule: Schedule, steps: int, *, offset: int = 0, shift: float = 1.0, final: str = "zero"
) -> Knots:
    """The sigmas a sampler of ``steps`` steps walks down.

    Args:
        name: One of `SPACINGS`.
        schedule: Where timesteps get their sigma.
        steps: How many steps.
        offset: Added to the timesteps of "leading"; Stable Diffusion 1 and 2 use 1.
        shift: Multiplies every sigma, so that more steps are spent on noise (Esser et al. 2024, arXiv:2403.03206); only
            a schedule without a table has room for it.
        final: Where the last step lands: "zero" (clean) or "minimum" (the schedule's least sigma, as Stable Diffusion's
            ``set_alpha_to_one=False`` does).

    Returns:
        ``steps + 1`` sigmas.

    Raises:
        UnknownName: No such spacing.
        OptionError: More steps than the schedule tells apart, or a shift of a table.
    """
    if name not in SPACINGS:
        raise UnknownName("spacing", name, SPACINGS)
    most = longest(name, schedule)
    if not 1 <= steps <= most:
        raise OptionError(f"{steps} steps of spacing {name!r}: 1 to {most} are possible")
    if shift != 1 and schedule.discrete:
        raise OptionError(f"shift {shift}: this model's noise table cannot be shifted, only a rectified flow can")
    low, high = schedule.span
    even = torch.linspace(0, 1, steps, dtype=torch.float64)
    if name == "karras":
        sigmas = (high ** (1 / 7) + even * (low ** (1 / 7) - high ** (1 / 7))) ** 7
    elif name == "exponential":
        sigmas = (math.log(high) + even * (math.log(low) - math.log(high))).exp()
    else:
        sigmas = schedule.sigma(_plan(name, schedule, steps, offset) + schedule.first)
    end = float(schedule.sigma(torch.tensor(float(schedule.first)))) if final == "minimum" else 0.0
    return torch.cat([sigmas * shift, torch.tensor([end], dtype=torch.float64)])


def _plan(name: str, schedule: Schedule, steps: int, offset: int) -> Float[Tensor, "N"]:
    """Timesteps, falling, counted from 0 at the least noisy."""
    total = schedule.steps
    count = torch.arange(steps, dtype=torch.float64)
    if name == "leading":
        return (count.flip(0) * (total // steps) + offset).clamp(max=total - 1)
    if name == "lcm":
        # Of the 50 timesteps of distillation, noisiest first, the ones at floor(i * 50 / steps).
        return total - 1 - (count * 50 / steps).floor() * (total // 50)
    if name == "trailing":
        plan = total - count * (total / steps) - 1
    elif name == "linspace":
        return torch.linspace(total - 1, 0, steps, dtype=torch.float64)
    else:
        plan = torch.linspace(total - 1, 0, steps + 1, dtype=torch.float64)[:-1]
    return plan.round() if schedule.discrete else plan


def _interpolate(at: Float[Tensor, "*S"], xs: Float[Tensor, "T"], ys: Float[Tensor, "T"]) -> Float[Tensor, "*S"]:
    """Piecewise linear through (xs, ys), flat outside; exact at the knots."""
    right = torch.searchsorted(xs, at.contiguous()).clamp(1, len(xs) - 1)
    weight = ((at - xs[right - 1]) / (xs[right] - xs[right - 1])).clamp(0, 1)
    return (1 - weight) * ys[right - 1] + weight * ys[right]
