"""Wrappers around a denoiser, one idea each; they compose because each is a denoiser again.

A system builds them from the inside out: ``Masked(Thresholded(Guided(net, ...)), ...)``.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from mindseye.diffusion.denoiser import Conditioning, Denoiser, NetDenoiser
from mindseye.shapes import Sigma

__all__ = ["Guided", "Masked", "Thresholded"]


@dataclass(frozen=True, eq=False)
class Guided:
    """Classifier-free guidance (Ho and Salimans 2022, arXiv:2207.12598): null + scale * (cond - null).

    Both halves go through the network in one batch, [null, cond] as diffusers has it. At scale 1, and outside the
    interval, the null half is not computed at all.

    Attributes:
        net: The conditional network.
        cond: The text, one row a picture.
        null: What to move away from: the empty or the negative prompt.
        scale: 1 follows the model as it is.
        rescale: How far the answer's spread is pulled back to that of the conditional answer (phi of Lin et al. 2023,
            arXiv:2305.08891; 0 = not, 0.7 is usual). Taken on what the network predicts, as there and in diffusers.
        interval: Guide only where low < sigma <= high (Kynkaanniemi et al. 2024, arXiv:2404.07724).
    """

    net: NetDenoiser
    cond: Conditioning
    null: Conditioning
    scale: float
    rescale: float = 0.0
    interval: tuple[float, float] = (0.0, float("inf"))

    def __call__(self, x: Float[Tensor, "B C h w"], sigma: Sigma) -> Float[Tensor, "B C h w"]:
        """Estimate x0."""
        low, high = self.interval
        if self.scale == 1 or not low < float(sigma[0]) <= high:
            return self.net(x, sigma, self.cond)
        out = self.net.predict(x, sigma, self.null.cat(self.cond))
        null, cond = out.chunk(2)
        guided = null + self.scale * (cond - null)
        if self.rescale:
            axes = tuple(range(1, x.ndim))
            ratio = cond.std(axes, keepdim=True) / guided.std(axes, keepdim=True)
            guided = guided * (1 + self.rescale * (ratio - 1))
        return self.net.estimate(guided, x, sigma)


@dataclass(frozen=True, eq=False)
class Thresholded:
    """Dynamic thresholding (Saharia et al. 2022, arXiv:2205.11487): strong guidance without burnt colours.

    x0 is clipped at a quantile of its own magnitudes and divided by it, so that no more than a few values lie at the
    edge.

    Attributes:
        denoise: What is wrapped.
        quantile: Of the magnitudes of one picture; 0.995 in the paper, 0.95 in DeepFloyd IF.
        lowest: The range that is always allowed: 1 for pixels in [-1, 1], more for latents of unit variance.
        highest: The quantile is believed up to here.
    """

    denoise: Denoiser
    quantile: float
    lowest: float = 1.0
    highest: float = float("inf")

    def __call__(self, x: Float[Tensor, "B *S"], sigma: Sigma) -> Float[Tensor, "B *S"]:
        """Estimate x0."""
        x0 = self.denoise(x, sigma)
        reach = x0.flatten(1).abs().float().quantile(self.quantile, dim=1).clamp(self.lowest, self.highest).to(x0.dtype)
        reach = reach.view(-1, *[1] * (x0.ndim - 1))
        return x0.clamp(-reach, reach) * (self.lowest / reach)


@dataclass(frozen=True, eq=False)
class Masked:
    """Inpainting with any network: outside the mask the clean picture is known, so the estimate there is that picture.

    For a deterministic sampler this is the familiar "paste the original, noised to the next level, after every step":
    where x = known + sigma * n, an estimate of ``known`` moves x to known + sigma' * n with the same n, for one-step
    and multistep solvers alike, and the last step lands on ``known`` itself. A stochastic sampler draws fresh noise
    outside the mask too, where the pasting recipe keeps the old; the distribution is the same.

    Attributes:
        denoise: What is wrapped.
        known: The clean picture or its latents.
        mask: 1 = repaint, 0 = keep.
    """

    denoise: Denoiser
    known: Float[Tensor, "B C h w"]
    mask: Float[Tensor, "#B 1 h w"]

    def __call__(self, x: Float[Tensor, "B C h w"], sigma: Sigma) -> Float[Tensor, "B C h w"]:
        """Estimate x0."""
        return torch.lerp(self.known, self.denoise(x, sigma), self.mask.expand_as(x))
