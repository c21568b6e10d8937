"""The second protocol: networks that say how unsure they are, and the sampler that asks them.

An improved diffusion model (Nichol and Dhariwal 2021, arXiv:2102.09672) answers twice a pixel: what it predicts, and v
in about [-1, 1], which places the log variance of the next ancestral step between its least and greatest sensible
values. Most samplers have no use for v, and see such a network as any other (`PixelDenoiser` is a `Denoiser`). The
ancestral sampler of guided-diffusion has: `learned_ancestral` asks for a `Belief`. A critic's push is scaled by the
same variance there (Sohl-Dickstein et al. 2015, arXiv:1503.03585).

In the samplers' coordinates (x = x0 + sigma noise; divide theirs by sqrt(alpha_bar)), a step from sigma to sigma' has

    mean      x0 + (sigma' / sigma)^2 (x - x0)
    least     sigma'^2 (sigma^2 - sigma'^2) / sigma^2                    (the posterior's own variance)
    greatest  (1 + sigma'^2) (sigma^2 - sigma'^2) / (1 + sigma^2)        (their beta)

so betas never appear, and "respacing" is no more than a choice of timesteps (`respaced`).
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple, Protocol, cast, final, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from mindseye.diffusion.denoiser import Denoiser, NetDenoiser, Network, Prediction, per_row, precondition, target
from mindseye.diffusion.objective import draw_levels
from mindseye.diffusion.samplers import Estimate, Estimates, X
from mindseye.diffusion.schedule import Knots, Schedule, Tabulated
from mindseye.errors import OptionError
from mindseye.noise import Noise
from mindseye.objective import Batch, Loss, Objective
from mindseye.shapes import Pixels, Sigma

__all__ = [
    "Belief",
    "Believer",
    "HybridDiffusion",
    "MaskedBelief",
    "PixelDenoiser",
    "believed",
    "learned_ancestral",
    "respaced",
    "step_variance",
]

Classes = Callable[[], Int[Tensor, "B"]]


class Belief(NamedTuple):
    """What a denoiser makes of a noisy picture.

    Attributes:
        x0: The clean picture, unguided.
        fraction: Where the log variance lies between its least and its greatest, 0 to 1; None = nobody says.
        push: The gradient of what is wanted by the picture as the network sees it, of unit variance; None = nobody
            wants anything.
    """

    x0: Tensor
    fraction: Tensor | None = None
    push: Tensor | None = None

    def detached(self) -> "Belief":
        """Without what gradients need."""
        return Belief(*(None if each is None else each.detach() for each in self))  # type: ignore[arg-type]


@runtime_checkable
class Believer(Protocol):
    """A denoiser that tells more than x0."""

    def __call__(self, x: X, sigma: Sigma) -> X:
        """Estimate x0."""
        ...

    def believe(self, x: X, sigma: Sigma) -> Belief:
        """Estimate x0, and say how sure that is and where somebody wants it moved."""
        ...


def believed(denoise: Denoiser, x: X, sigma: Sigma) -> Belief:
    """What any denoiser believes."""
    return denoise.believe(x, sigma) if isinstance(denoise, Believer) else Belief(denoise(x, sigma))


@final
@dataclass(frozen=True, eq=False)
class PixelDenoiser:
    """A network over pixels, with or without a variance, with or without classes, in the samplers' coordinates.

    Attributes:
        network: `mindseye.networks.adm.ADM`, or another with its face.
        schedule: The one it was trained on.
        prediction: What it was trained to predict.
        classes: Gives the class of each picture, at every call anew; None = the network has none.
        rescale: Multiplies timesteps: 1000 / T for a table of T entries and a network that was told thousandths.
    """

    network: nn.Module
    schedule: Schedule
    prediction: Prediction
    classes: Classes | None = None
    rescale: float = 1.0

    def __call__(self, x: Pixels, sigma: Sigma) -> Pixels:
        """Estimate x0."""
        return self.believe(x, sigma).x0

    def believe(self, x: Pixels, sigma: Sigma) -> Belief:
        """x0, and the fraction where the network has one."""
        fraction: Tensor | None = None

        def predicted(seen: Tensor, timesteps: Tensor, tokens: Any, vector: Any) -> Tensor:
            nonlocal fraction
            weight = next(self.network.parameters())
            y = () if self.classes is None else (self.classes().to(x.device),)
            out = self.network(seen.to(weight.dtype), timesteps * self.rescale, *y).to(x.dtype)
            if out.shape[1] == seen.shape[1]:
                return out
            mean, v = out.chunk(2, dim=1)
            fraction = (v + 1) / 2
            return mean

        x0 = NetDenoiser(cast(Network, predicted), self.schedule, self.prediction)(x, sigma)
        return Belief(x0, fraction)


@final
@dataclass(frozen=True, eq=False)
class MaskedBelief:
    """`mindseye.diffusion.guidance.Masked` for believers: what is kept is known, and nobody can want it moved.

    Attributes:
        denoise: What is wrapped.
        known: The clean picture.
        mask: 1 = repaint, 0 = keep.
    """

    denoise: Denoiser
    known: Float[Tensor, "#B 3 H W"]
    mask: Float[Tensor, "#B 1 H W"]

    def __call__(self, x: Pixels, sigma: Sigma) -> Pixels:
        """Estimate x0."""
        return torch.lerp(self.known.to(x), self.denoise(x, sigma), self.mask.to(x).expand_as(x))

    def believe(self, x: Pixels, sigma: Sigma) -> Belief:
        """x0 outside the mask is what is known there."""
        belief = believed(self.denoise, x, sigma)
        mask = self.mask.to(x).expand_as(x)
        x0 = torch.lerp(self.known.to(x).expand_as(x), belief.x0, mask)
        return belief._replace(x0=x0, push=None if belief.push is None else belief.push * mask)


def step_variance(sigma: float, after: float) -> tuple[float, float]:
    """Least and greatest variance of the ancestral step from ``sigma`` to ``after``."""
    gap = sigma**2 - after**2
    return after**2 * gap / sigma**2, (1 + after**2) * gap / (1 + sigma**2)


def learned_ancestral(denoise: Denoiser, x: X, sigmas: Knots, noise: Noise) -> Estimates:
    """Ancestral sampling with the variance that the network learned, or the posterior's where it learned none.

    The last step adds no noise; where it is pushed, its least variance is read as that of the step before, as
    guided-diffusion has it.
    """
    total = len(sigmas) - 1
    before = 0.0
    for step, (sigma, after) in enumerate(pairwise(sigmas.tolist()), start=1):
        belief = _ask(denoise, x, sigma)
        least, greatest = step_variance(sigma, after)
        if after == 0:
            least = before
        variance: Tensor | float = least
        if belief.fraction is not None:
            low, high = math.log(max(least, 1e-20)), math.log(greatest)
            variance = (low + belief.fraction * (high - low)).exp()
        mean = belief.x0 + (after / sigma) ** 2 * (x - belief.x0)
        if belief.push is not None:
            mean = mean + variance / math.sqrt(1 + after**2) * belief.push
        spread = variance.sqrt() if isinstance(variance, Tensor) else math.sqrt(variance)
        x = mean + spread * noise.normal_like(x) if after > 0 else mean
        # In the network's own coordinates, for the coordinates change with every step.
        before = least / (1 + after**2)
        yield Estimate(step, total, belief.x0)
    return x


@torch.no_grad()
def _ask(denoise: Denoiser, x: X, sigma: float) -> Belief:
    return believed(denoise, x, torch.full((len(x),), sigma, dtype=torch.float64))


def respaced(schedule: Tabulated, counts: str) -> Knots:
    """The sigmas of guided-diffusion's ``timestep_respacing``.

    Args:
        schedule: The table.
        counts: "250" (so many, both ends of the table included), "10,15,20" (so many in each of equal sections, the
            least noisy first), or "ddim50" (every so-manieth from the least noisy; only where that gives exactly 50).

    Returns:
        Falling, 0 at the end.

    Raises:
        OptionError: No such notation, or more steps than there are.
    """
    total = schedule.steps
    many = counts.removeprefix("ddim").split(",")
    if not all(each.strip().isascii() and each.strip().isdigit() and len(each) < 8 for each in many):
        raise OptionError(f"respacing {counts!r:.60} cannot be read", hint='say "250", "ddim50" or "10,15,20"')
    steps = [int(each) for each in many]
    if counts.startswith("ddim"):
        # The stride of the largest number of steps that is not more; any number is had from few strides.
        stride = -(-total // steps[0]) if steps[0] else 0
        if len(many) > 1 or not stride or len(range(0, total, stride)) != steps[0]:
            raise OptionError(f"respacing {counts!r:.60}: no whole stride through {total} gives that many steps")
        kept = set(range(0, total, stride))
    else:
        kept = set()
        start = 0
        for number, count in enumerate(steps):
            size = total // len(steps) + (number < total % len(steps))
            if count > size:
                raise OptionError(f"respacing {counts!r:.60}: a section of {size} has no {count} steps")
            stride = (size - 1) / (count - 1) if count > 1 else 1.0
            # Summed up, not multiplied: half-way cases are then rounded the same way.
            place = 0.0
            for _ in range(count):
                kept.add(start + round(place))
                place += stride
            start += size
    if not kept:
        raise OptionError(f"respacing {counts!r:.60} leaves no steps")
    sigmas = schedule.sigmas[torch.tensor(sorted(kept, reverse=True))]
    return torch.cat([sigmas, torch.zeros(1, dtype=torch.float64)])


@final
class HybridDiffusion(Objective):
    """Trains a network over pixels: squared error for what it predicts, the variational bound for its variance.

    The two never meet: the bound sees the prediction as given (equation 16 of arXiv:2102.09672, lambda T = 1). Batches
    hold ``pixels`` (``B 3 H W``) and, for a network with classes, ``classes`` (``B``).

    Args:
        network: `mindseye.networks.adm.ADM`, or another with its face.
        schedule: Its table.
        prediction: What it is to predict.
        name: Of the part that the network becomes.
        bound: Weight of the variational bound.
    """

    def __init__(
        self,
        network: nn.Module,
        schedule: Tabulated,
        prediction: Prediction,
        *,
        name: str = "adm-pocket",
        bound: float = 1.0,
    ) -> None:
        super().__init__()
        self.network = network
        self.schedule = schedule
        self.prediction: Prediction = prediction
        self.name = name
        self.bound = bound

    def parts(self) -> Mapping[str, nn.Module]:
        """One part: the network."""
        return {self.name: self.network}

    def forward(self, batch: Batch, turn: str = "main") -> Loss:
        """The hybrid loss; the bound is in bits a dimension."""
        x0 = batch["pixels"]
        sigma = draw_levels("uniform", self.schedule, len(x0), self.generator)
        noise = torch.randn(x0.shape, generator=self.generator).to(x0)
        signal = self.schedule.signal(sigma)
        seen = per_row(signal, x0) * x0 + per_row(signal * sigma, x0) * noise
        y = (batch["classes"],) if "classes" in batch else ()
        timesteps = self.schedule.timestep(sigma)
        out = self.network(seen, timesteps.to(torch.float32).to(x0.device), *y).float()
        mean, v = (out, None) if out.shape[1] == x0.shape[1] else out.chunk(2, dim=1)
        wanted = target(self.prediction, x0, noise, sigma, signal)
        error = (mean - wanted).square().mean()
        if v is None:
            return Loss(error, {"error": float(error.detach())})
        x = x0 + per_row(sigma, x0) * noise
        skip, gain = precondition(self.prediction, sigma, signal)
        expected = per_row(skip, x) * x + per_row(gain, x) * mean.detach()
        bound = self._bound(x0, x, expected, (v + 1) / 2, timesteps).mean()
        return Loss(error + self.bound * bound, {"error": float(error.detach()), "bound": float(bound.detach())})

    def _bound(
        self, x0: Tensor, x: Tensor, expected: Tensor, fraction: Tensor, timesteps: Float[Tensor, "B"]
    ) -> Float[Tensor, "B"]:
        """Bits a dimension that a step's belief costs, for each picture."""
        table = self.schedule.sigmas
        index = timesteps.round().long()
        sigma, after = table[index], torch.where(index > 0, table[(index - 1).clamp(min=0)], 0.0)
        gap = sigma**2 - after**2
        least, greatest = after**2 * gap / sigma**2, (1 + after**2) * gap / (1 + sigma**2)
        # The first step's own least variance is 0; the second's stands for it, in the network's coordinates.
        second = table[0] ** 2 * (table[1] ** 2 - table[0] ** 2) / table[1] ** 2 / (1 + table[0] ** 2)
        low = torch.where(index > 0, least, second).log()
        low, high = per_row(low, x0), per_row(greatest.log(), x0)
        log_variance = low + fraction * (high - low)
        keep = per_row((after / sigma) ** 2, x0)
        error = ((1 - keep) * (x0 - expected)).square()
        divergence = 0.5 * (log_variance - low - 1 + (low - log_variance).exp() + error * (-log_variance).exp())
        likelihood = _discretised(x0, expected, (0.5 * log_variance).exp())
        first = per_row((index == 0).double(), x0) > 0
        return torch.where(first, -likelihood, divergence).flatten(1).mean(1) / math.log(2)


def _discretised(x0: Tensor, mean: Tensor, spread: Tensor) -> Tensor:
    """Log likelihood of pictures of 256 levels in [-1, 1], each level a bin (Ho et al. 2020, section 3.3)."""
    upper = torch.special.ndtr((x0 + 1 / 255 - mean) / spread)
    lower = torch.special.ndtr((x0 - 1 / 255 - mean) / spread)
    upper = torch.where(x0 > 0.999, 1.0, upper)
    lower = torch.where(x0 < -0.999, 0.0, lower)
    return (upper - lower).clamp(min=1e-12).log()
