"""Every network, whatever it was trained to predict, becomes an estimate of the clean picture.

A sampler knows x = x0 + sigma * noise and asks for x0. With the network's own coordinates ``a x`` (``a`` from
`Schedule.signal`), each way of predicting is linear in the network's answer, x0 = skip * x + gain * out:

=========  ================================  ====================  =======================
predicts   the answer is                     skip                  gain
=========  ================================  ====================  =======================
``eps``    noise                             1                     -sigma
``x0``     x0                                0                     1
``v``      a noise - a sigma x0              1 / (1 + sigma^2)     -sigma / (a (1 + sigma^2))
``flow``   noise - x0                        1 / (1 + sigma)       -sigma / (1 + sigma)
=========  ================================  ====================  =======================

eps: Ho et al. 2020 (arXiv:2006.11239); v: Salimans and Ho 2022 (arXiv:2202.00512); flow: Liu et al. 2022
(arXiv:2209.03003). ``a`` cancels where it can, so any prediction may be paired with any schedule.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Literal, Protocol, TypeAlias, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from mindseye.diffusion.schedule import Schedule
from mindseye.shapes import Embedding, Sigma, TextMask, TextTokens

__all__ = [
    "Conditioning",
    "Denoiser",
    "NetDenoiser",
    "Prediction",
    "per_row",
    "pooled_vector",
    "precondition",
    "target",
]

Prediction: TypeAlias = Literal["eps", "x0", "v", "flow"]


@runtime_checkable
class Denoiser(Protocol):
    """The posterior mean of the clean picture, as well as it is known."""

    def __call__(self, x: Float[Tensor, "B *S"], sigma: Sigma) -> Float[Tensor, "B *S"]:
        """Estimate x0.

        Args:
            x: x0 + sigma * noise.
            sigma: One noise level a row; samplers give float64 on the CPU.
        """
        ...


@dataclass(frozen=True, eq=False)
class Conditioning:
    """What a network is told besides the noisy picture. Absent parts are None.

    Attributes:
        tokens: Text for cross-attention.
        mask: Which tokens count.
        vector: One vector a picture, added to the time embedding.
        planes: Channels set beside the noisy picture, such as an inpainting mask.
    """

    tokens: TextTokens | None = None
    mask: TextMask | None = None
    vector: Float[Tensor, "B V"] | None = None
    planes: Float[Tensor, "B P H W"] | None = None

    def cat(self, other: "Conditioning") -> "Conditioning":
        """The rows of both, one below the other; both must have the same parts."""
        return self._with(other, lambda a, b: torch.cat([a, b]))

    def rows(self, default: int) -> int:
        """How many there are; ``default`` where all parts are absent."""
        parts = (getattr(self, each.name) for each in fields(self))
        return next((len(part) for part in parts if part is not None), default)

    def row(self, index: int) -> "Conditioning":
        """One row, still with its batch axis."""
        return self._with(self, lambda a, _: a[index : index + 1])

    def expand(self, batch: int) -> "Conditioning":
        """One row repeated ``batch`` times (without a copy)."""
        return self._with(self, lambda a, _: a.expand(batch, *a.shape[1:]))

    def lerp(self, other: "Conditioning", amount: float) -> "Conditioning":
        """Part of the way (0 to 1) to the other; masks stay this one's."""
        return self._with(other, lambda a, b: a if a.dtype == torch.bool else torch.lerp(a, b, amount))

    def drop(self, dropped: Bool[Tensor, "B"], null: "Conditioning") -> "Conditioning":
        """``null`` (of one row) in the rows where ``dropped`` is true."""
        return self._with(null, lambda a, b: torch.where(dropped.view(-1, *[1] * (a.ndim - 1)), b, a))

    def _with(self, other: "Conditioning", combine: Callable[[Tensor, Tensor], Tensor]) -> "Conditioning":
        """Combine part by part."""
        combined: dict[str, Tensor | None] = {}
        for each in fields(self):
            mine, theirs = getattr(self, each.name), getattr(other, each.name)
            if (mine is None) != (theirs is None):
                raise ValueError(f"only one of the two conditionings has {each.name}")
            combined[each.name] = None if mine is None else combine(mine, theirs)
        return Conditioning(**combined)


@runtime_checkable
class Network(Protocol):
    """What a diffusion network looks like from here; `mindseye.networks.unet.UNet` does."""

    def __call__(
        self,
        x: Float[Tensor, "B C h w"],
        timesteps: Float[Tensor, "B"],
        tokens: Float[Tensor, "R L D"] | None,
        vector: Float[Tensor, "B V"] | None,
    ) -> Float[Tensor, "R D h w"]:
        """Whatever it was trained to predict; one row a text where it ``shares`` latents among several, else R = B."""
        ...


@dataclass(frozen=True, eq=False)
class NetDenoiser:
    """A network in sampler's coordinates.

    Attributes:
        network: Sees ``signal * x``, is told timesteps.
        schedule: The one it was trained on.
        prediction: What it was trained to predict.
    """

    network: Network
    schedule: Schedule
    prediction: Prediction

    def predict(
        self, x: Float[Tensor, "B C h w"], sigma: Sigma, cond: Conditioning = Conditioning()
    ) -> Float[Tensor, "R C h w"]:
        """The network's own answer, in the dtype of ``x``, a row for each of ``cond``.

        ``cond`` may have two rows or more for every one of ``x``, as guidance has: ``x`` is meant as often, and a
        network that can (`mindseye.networks.unet.UNet.shares`) sees it once as far as that makes no difference.

        A sampler's x stays in float32 (at large sigma it needs the digits); the network gets what its weights are in.
        """
        weights = next(self.network.parameters(), x) if isinstance(self.network, nn.Module) else x
        times = cond.rows(len(x)) // len(x)
        if times > 1 and (cond.planes is not None or not getattr(self.network, "shares", False)):
            x, sigma = torch.cat([x] * times), torch.cat([sigma] * times)
        scaled = x * per_row(self.schedule.signal(sigma), x)
        if cond.planes is not None:
            scaled = torch.cat([scaled, cond.planes.to(scaled)], dim=1)
        # Half precision cannot tell 998 from 999.
        exact = torch.float64 if weights.dtype == torch.float64 else torch.float32
        timesteps = self.schedule.timestep(sigma).to(exact).to(x.device)
        return self.network(scaled.to(weights.dtype), timesteps, cond.tokens, cond.vector).to(x.dtype)

    def estimate(
        self, out: Float[Tensor, "B C h w"], x: Float[Tensor, "B C h w"], sigma: Sigma
    ) -> Float[Tensor, "B C h w"]:
        """x0 from the network's answer."""
        skip, gain = precondition(self.prediction, sigma, self.schedule.signal(sigma))
        return per_row(skip, x) * x + per_row(gain, x) * out

    def __call__(
        self, x: Float[Tensor, "B C h w"], sigma: Sigma, cond: Conditioning = Conditioning()
    ) -> Float[Tensor, "B C h w"]:
        """Estimate x0."""
        return self.estimate(self.predict(x, sigma, cond), x, sigma)


def precondition(prediction: Prediction, sigma: Sigma, signal: Sigma) -> tuple[Sigma, Sigma]:
    """``skip`` and ``gain`` of the module's table."""
    if prediction == "eps":
        return torch.ones_like(sigma), -sigma
    if prediction == "x0":
        return torch.zeros_like(sigma), torch.ones_like(sigma)
    if prediction == "v":
        return 1 / (1 + sigma**2), -sigma / (signal * (1 + sigma**2))
    return 1 / (1 + sigma), -sigma / (1 + sigma)


def target(
    prediction: Prediction,
    x0: Float[Tensor, "B *S"],
    noise: Float[Tensor, "B *S"],
    sigma: Sigma,
    signal: Sigma,
) -> Float[Tensor, "B *S"]:
    """What a network of this kind should have answered."""
    if prediction == "eps":
        return noise
    if prediction == "x0":
        return x0
    if prediction == "v":
        return per_row(signal, x0) * noise - per_row(signal * sigma, x0) * x0
    return noise - x0


def pooled_vector(pooled: Embedding) -> Embedding:
    """CLIP's projected text embedding, made to have unit mean square: what the pocket U-Net is given as its vector.

    CLIP only means directions, and a unit vector of E components would be too faint beside a time embedding.
    """
    return F.normalize(pooled, dim=-1) * pooled.shape[-1] ** 0.5


def per_row(values: Float[Tensor, "B"], x: Float[Tensor, "B *S"]) -> Float[Tensor, "B *ones"]:
    """One number a row, in the dtype and on the device of ``x``, with axes to multiply it."""
    return values.to(x.dtype).to(x.device).view(-1, *[1] * (x.ndim - 1))
