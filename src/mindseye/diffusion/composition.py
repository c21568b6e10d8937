"""Several prompts at once, and prompts that change on the way: two more wrappers of the kind in `guidance`.

`Composed` is composable diffusion (Liu et al. 2022, arXiv:2206.01714), the AND of prompts: every prompt pulls from the
same unguided answer, each with a weight of its own. `Scheduled` changes the denoiser between steps, which is what
prompt editing is: "[a cat:a dog:0.5]".
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from mindseye.diffusion.denoiser import Conditioning, Denoiser, NetDenoiser
from mindseye.shapes import Sigma

__all__ = ["Composed", "Scheduled", "scheduled"]


@dataclass(frozen=True, eq=False)
class Composed:
    """null + scale * sum(weight * (cond - null)): classifier-free guidance by several prompts.

    With one prompt of weight 1 this is `mindseye.diffusion.guidance.Guided`.

    Attributes:
        net: The conditional network.
        conds: What pulls, with its weight; each has one row a picture, and all have equally many tokens.
        null: What all of them pull away from.
        scale: How strongly.
        rescale: As in `Guided`; the spread is taken from the weighted mean of the prompts' answers.
        interval: Guide only where low < sigma <= high; elsewhere the weighted mean of the prompts' answers counts.
    """

    net: NetDenoiser
    conds: Sequence[tuple[Conditioning, float]]
    null: Conditioning
    scale: float
    rescale: float = 0.0
    interval: tuple[float, float] = (0.0, float("inf"))

    def __call__(self, x: Float[Tensor, "B C h w"], sigma: Sigma) -> Float[Tensor, "B C h w"]:
        """Estimate x0."""
        low, high = self.interval
        null = self.net.predict(x, sigma, self.null)
        pull = torch.zeros_like(null)
        for cond, weight in self.conds:
            pull = pull + weight * (self.net.predict(x, sigma, cond) - null)
        if not low < float(sigma[0]) <= high:
            return self.net.estimate(null + pull, x, sigma)
        guided = null + self.scale * pull
        if self.rescale:
            axes = tuple(range(1, x.ndim))
            ratio = (null + pull).std(axes, keepdim=True) / guided.std(axes, keepdim=True)
            guided = guided * (1 + self.rescale * (ratio - 1))
        return self.net.estimate(guided, x, sigma)


@dataclass(frozen=True, eq=False)
class Scheduled:
    """One denoiser after the other.

    Attributes:
        knots: The sigmas of the run, falling.
        stages: Denoisers with the last step, counted from 0, that each of them serves; the last serves all the rest.
    """

    knots: Float[Tensor, "N"]
    stages: Sequence[tuple[int, Denoiser]]

    def step(self, sigma: float) -> int:
        """The step a sigma belongs to: the last knot that is not below it begins the step.

        A second evaluation within a step lies between two knots and belongs to the step; one on the next knot (Heun's)
        belongs to the next.
        """
        return max(0, int((self.knots >= sigma * (1 - 1e-6)).sum()) - 1)

    def __call__(self, x: Float[Tensor, "B *S"], sigma: Sigma) -> Float[Tensor, "B *S"]:
        """Estimate x0."""
        step = self.step(float(sigma[0]))
        denoise = next((denoise for until, denoise in self.stages if step <= until), self.stages[-1][1])
        return denoise(x, sigma)


def scheduled(knots: Float[Tensor, "N"], stages: Sequence[tuple[int, Denoiser]]) -> Denoiser:
    """One denoiser for all stages: the only one itself where there is but one."""
    return stages[0][1] if len(stages) == 1 else Scheduled(knots, stages)
