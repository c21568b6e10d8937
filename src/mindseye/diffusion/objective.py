"""What a latent diffusion network is trained on.

A clean latent is noised to a random level, and the network is asked for what it should have predicted there
(Ho et al. 2020, arXiv:2006.11239; Rombach et al. 2022, arXiv:2112.10752). Two choices are left: how levels are drawn,
evenly or with more of the middle ("logit-normal", Esser et al. 2024, arXiv:2403.03206), and how they are weighted,
evenly or by min-SNR (Hang et al. 2023, arXiv:2303.09556).

Randomness comes from the objective's own CPU generator (see `mindseye.objective.Objective`).
"""

from collections.abc import Iterable, Mapping
from typing import Literal, TypeAlias, final

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import Parameter

from mindseye.diffusion.denoiser import Conditioning, Prediction, per_row, precondition, target
from mindseye.diffusion.schedule import Schedule
from mindseye.objective import Batch, Loss, Objective
from mindseye.shapes import Sigma

__all__ = ["LatentDiffusion", "Levels", "Weighting", "draw_levels", "weigh"]

Levels: TypeAlias = Literal["uniform", "logit-normal"]
Weighting: TypeAlias = Literal["uniform", "min-snr"]


def draw_levels(
    how: Levels, schedule: Schedule, count: int, generator: torch.Generator, *, mean: float = 0.0, spread: float = 1.0
) -> Float[Tensor, "B"]:
    """Sigmas to train at, float64 on the CPU.

    Args:
        how: "uniform" in time, or with time the sigmoid of a normal number.
        schedule: From times to sigmas.
        count: How many.
        generator: On the CPU.
        mean: Of the normal number; above 0 there is more noise.
        spread: Its standard deviation.
    """
    if how == "uniform":
        u = torch.rand(count, generator=generator, dtype=torch.float64)
    else:
        u = torch.sigmoid(mean + spread * torch.randn(count, generator=generator, dtype=torch.float64))
    return schedule.sigma(schedule.draw(u))


def weigh(how: Weighting, prediction: Prediction, sigma: Sigma, signal: Sigma, *, gamma: float = 5.0) -> Sigma:
    """Weights of the squared errors of the network's answers.

    Min-SNR says: the squared error *of x0* counts min(1 / sigma^2, gamma). The error of x0 is ``gain`` times the
    answer's (see `mindseye.diffusion.denoiser`), which turns that into min(snr, gamma) / snr for eps, / (snr + 1) for
    v, and gives the weight of a flow, which the paper has not, in the same way.
    """
    if how == "uniform":
        return torch.ones_like(sigma)
    _, gain = precondition(prediction, sigma, signal)
    # min(1 / sigma^2, gamma) * gain^2; flow and eps may meet sigma = 0, where their gain is 0 too.
    return (1 / sigma.clamp(min=1e-12) ** 2).clamp(max=gamma) * gain**2


@final
class LatentDiffusion(Objective):
    """Trains a U-Net over normalised latents.

    Batches hold ``latents`` (``B C h w``) and, if the network takes them, ``tokens`` (``B L D``) and ``vector`` (``B
    V``).

    Args:
        unet: What is trained.
        schedule: Its noise levels.
        prediction: What it is to predict.
        null_tokens: Tokens of the empty caption, ``1 L D``.
        null_vector: Vector of the empty caption, ``1 V``.
        drop: Share of pictures whose caption is replaced by the empty one, so that guidance has something to leave.
        levels: How noise levels are drawn.
        level_mean: Of the normal number behind "logit-normal"; above 0 there is more noise.
        level_spread: Its standard deviation.
        weighting: How they count.
        name: Of the part that the network becomes.
    """

    null_tokens: Tensor | None
    null_vector: Tensor | None

    def __init__(
        self,
        unet: nn.Module,
        schedule: Schedule,
        prediction: Prediction,
        *,
        null_tokens: Float[Tensor, "1 L D"] | None = None,
        null_vector: Float[Tensor, "1 V"] | None = None,
        drop: float = 0.1,
        levels: Levels = "logit-normal",
        level_mean: float = 0.0,
        level_spread: float = 1.0,
        weighting: Weighting = "uniform",
        name: str = "unet",
    ) -> None:
        super().__init__()
        self.unet = unet
        self.schedule = schedule
        self.prediction: Prediction = prediction
        self.register_buffer("null_tokens", null_tokens, persistent=False)
        self.register_buffer("null_vector", null_vector, persistent=False)
        self.drop = drop
        self.levels: Levels = levels
        self.level_mean = level_mean
        self.level_spread = level_spread
        self.weighting: Weighting = weighting
        self.name = name

    def turns(self) -> Mapping[str, Iterable[Parameter]]:
        """One turn: "main"."""
        return {"main": self.unet.parameters()}

    def parts(self) -> Mapping[str, nn.Module]:
        """One part: the network."""
        return {self.name: self.unet}

    def forward(self, batch: Batch, turn: str = "main") -> Loss:
        """Weighted mean square of the error of the network's answer."""
        x0 = batch["latents"]
        count = len(x0)
        sigma = draw_levels(
            self.levels, self.schedule, count, self.generator, mean=self.level_mean, spread=self.level_spread
        )
        noise = torch.randn(x0.shape, generator=self.generator).to(x0)
        dropped = (torch.rand(count, generator=self.generator) < self.drop).to(x0.device)
        cond = Conditioning(tokens=batch.get("tokens"), vector=batch.get("vector"))
        if self.drop:
            cond = cond.drop(dropped, Conditioning(tokens=self.null_tokens, vector=self.null_vector))

        signal = self.schedule.signal(sigma)
        noised = per_row(signal, x0) * x0 + per_row(signal * sigma, x0) * noise
        timesteps = self.schedule.timestep(sigma).to(torch.float32).to(x0.device)
        out = self.unet(noised, timesteps, cond.tokens, cond.vector)
        wanted = target(self.prediction, x0, noise, sigma, signal)
        # The squared error in float32, whatever the network ran in.
        errors = (out.float() - wanted.float()).square().flatten(1).mean(1)
        weights = weigh(self.weighting, self.prediction, sigma, signal).to(errors.dtype).to(errors.device)
        loss = (weights * errors).mean()
        return Loss(loss, {"error": float(errors.detach().mean())})
