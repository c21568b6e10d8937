"""Guidance by somebody who looks: a critic's gradient bends a network that was never told about texts.

Katherine Crowson's CLIP-guided diffusion (2021), after the classifier guidance of Dhariwal and Nichol 2021
(arXiv:2105.05233). In the coordinates of the samplers (x = x0 + sigma noise) guidance is one line: what the critic
minds, L, moves the estimate to

    x0 - sigma^2 dL/dx,

which is their "eps -= sqrt(1 - alpha_bar) grad" to the letter. What a critic can be shown is the question, for early
estimates are fog. Crowson shows a blend of fog and noise, x0 sqrt(1 - alpha_bar) + x (1 - sqrt(1 - alpha_bar)), and
takes the gradient through the network. Disco Diffusion takes it through a small second model that only reads. And it
may be taken straight: as through a network that knows nothing of pictures but their mean and variance, and so expects
``seen`` sqrt(alpha_bar), which costs no gradient at all.

"x" as a network sees it, with unit variance, is called ``seen`` below: gradients are measured and clamped in it.

Repaired: a magnitude of zero divided by itself turned pictures black; a gradient with a NaN in it is none, a picture at
a time; and the penalty on values out of range, which Disco computes on x0 and then differentiates by something x0 does
not depend on, is felt.
"""

from typing import Literal, NamedTuple, TypeAlias, final

import torch
from jaxtyping import Float
from torch import Tensor

from mindseye.critique.judge import Judge
from mindseye.diffusion.denoiser import Denoiser, per_row, precondition
from mindseye.diffusion.learned_variance import Belief, believed
from mindseye.diffusion.schedule import Schedule
from mindseye.networks.secondary import Secondary
from mindseye.noise import Noise
from mindseye.shapes import Pixels, Sigma

__all__ = ["CriticGuided", "Reads", "SecondaryDenoiser", "Through", "clamped", "progress"]

Reads: TypeAlias = Literal["blend", "x0"]
Through: TypeAlias = Literal["network", "secondary", "straight"]


class _Look(NamedTuple):
    """What the network believes, and how much, and which way, the noisy picture has to change for the critic."""

    belief: Belief
    gradient: Tensor


@final
class CriticGuided:
    """A denoiser that listens to a judge.

    Args:
        denoise: The network.
        judge: Looks at pictures; lower scores are better.
        noise: Of the pictures that are drawn: cuts are drawn from it.
        schedule: The network's; tells how far a run is, in its own time, whatever the number of steps.
        reads: What the judge is shown: Crowson's "blend", or the clean picture as it is expected ("x0").
        through: By which way the judge's gradient reaches the noisy picture: through the "network" (dear, exact),
            through a "secondary" model (which then also makes what the judge is shown), or "straight".
        secondary: That model.
        clamp: Largest root mean square of a gradient; 0 = as it is.
        range_scale: How much values of x0 beyond [-1, 1] are minded.
        interval: Ask the judge only where low < sigma <= high. A table that ends in pure noise takes its first step
            from a sigma of thousands, by which any push is multiplied.
    """

    def __init__(
        self,
        denoise: Denoiser,
        judge: Judge,
        noise: Noise,
        schedule: Schedule,
        *,
        reads: Reads = "blend",
        through: Through = "network",
        secondary: Denoiser | None = None,
        clamp: float = 0.0,
        range_scale: float = 0.0,
        interval: tuple[float, float] = (0.0, float("inf")),
    ) -> None:
        if through == "secondary" and secondary is None:
            raise ValueError("there is no secondary model to go through")
        self.denoise, self.judge, self.noise, self.schedule = denoise, judge, noise, schedule
        self.reads: Reads = reads
        self.through: Through = through
        self.secondary = secondary if through == "secondary" else None
        self.clamp, self.range_scale, self.interval = clamp, range_scale, interval
        self.expected: Tensor | None = None
        """x0 as the network alone expected it when it was last asked: what is worth showing."""
        self.parts: dict[str, float] = {}
        """What the judge said last, part by part."""

    def __call__(self, x: Pixels, sigma: Sigma) -> Pixels:
        """Estimate x0, moved."""
        belief = self.believe(x, sigma)
        level = per_row(sigma, x)
        push = belief.push
        return belief.x0 if push is None else belief.x0 + level**2 / (1 + level**2).sqrt() * push

    def believe(self, x: Pixels, sigma: Sigma) -> Belief:
        """As the network, with the push added that the judge wants."""
        low, high = self.interval
        if not low < float(sigma[0]) <= high:
            belief = believed(self.denoise, x, sigma)
            self.expected = belief.x0
            return belief
        look = self._look(x.detach(), sigma)
        self.expected = look.belief.x0
        return look.belief._replace(push=-clamped(look.gradient, self.clamp))

    def _look(self, x: Pixels, sigma: Sigma) -> _Look:
        """Ask the network, then the judge, and bring the judge's gradient back to ``seen``."""
        with torch.set_grad_enabled(self.through != "straight"):
            scale = per_row((1 + sigma.double() ** 2).sqrt(), x)
            seen = (x / scale).requires_grad_(self.through != "straight")
            if self.through == "network":
                belief = believed(self.denoise, seen * scale, sigma)
                x0 = belief.x0
            else:
                with torch.no_grad():
                    belief = believed(self.denoise, x, sigma)
                x0 = belief.x0 if self.secondary is None else self.secondary(seen * scale, sigma)
            share = per_row((sigma.double() / (1 + sigma.double() ** 2).sqrt()), x)
            shown = x0 if self.reads == "x0" else torch.lerp(seen, x0, share.expand_as(x0))
        opinion = self.judge.opinion(shown.detach(), self.noise, progress(self.schedule, float(sigma[0])))
        self.parts = dict(opinion.parts)
        pulls, ways = [opinion.gradient.to(shown)], [shown]
        if self.range_scale:
            beyond = (x0.detach() - x0.detach().clamp(-1, 1)) * (2 * self.range_scale / x0[0].numel())
            pulls, ways = [*pulls, beyond], [*ways, x0]
        if self.through == "straight":
            signal = scale.reciprocal()
            slopes = [signal if way is x0 else torch.lerp(torch.ones_like(signal), signal, share) for way in ways]
            gradient = torch.stack([pull * slope for pull, slope in zip(pulls, slopes, strict=True)]).sum(0)
        else:
            (gradient,) = torch.autograd.grad(ways, seen, pulls)
        return _Look(belief.detached(), gradient.detach())


def clamped(gradient: Float[Tensor, "B *S"], most: float) -> Float[Tensor, "B *S"]:
    """The gradient, no larger than ``most`` in root mean square, picture by picture; 0 = however large.

    A picture's gradient that holds a NaN or an infinity is zero.
    """
    rows = gradient.flatten(1)
    sound = rows.isfinite().all(1)
    rows = torch.where(sound[:, None], rows, 0)
    if most:
        size = rows.square().mean(1).sqrt()
        rows = rows * (most / size.clamp(min=most))[:, None]
    return rows.view_as(gradient)


def progress(schedule: Schedule, sigma: float) -> float:
    """How much of the denoising is done at a noise level, in thousandths of the schedule's own time: 0 to 0.999.

    What Disco Diffusion indexes its lists with, and so independent of the number of steps.
    """
    timestep = float(schedule.timestep(torch.tensor(sigma, dtype=torch.float64))) - schedule.first
    return min(max(1 - (int(timestep + 1e-6) + 1) / schedule.steps, 0.0), 1.0)


@final
class SecondaryDenoiser:
    """The secondary model in the samplers' coordinates; it knows no table, only the angle of signal and noise.

    Args:
        network: Predicts v.
    """

    def __init__(self, network: Secondary) -> None:
        self.network = network

    def __call__(self, x: Pixels, sigma: Sigma) -> Pixels:
        """Estimate x0."""
        signal = (1 + sigma.double() ** 2).rsqrt()
        weight = next(self.network.parameters())
        time = torch.atan(sigma.double()) * (2 / torch.pi)
        v = self.network((x * per_row(signal, x)).to(weight.dtype), time.to(weight)).to(x.dtype)
        skip, gain = precondition("v", sigma.double(), signal)
        return per_row(skip, x) * x + per_row(gain, x) * v
