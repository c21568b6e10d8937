"""vae-pocket: the KL autoencoder that the latent systems share.

Trained for fidelity (absolute and squared error, and the same on the picture's differences, where edges live) through
noised latents, whole and halved; no adversary, since icons have no texture for one to invent.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mindseye.networks.vae import POCKET, AutoencoderKL
from mindseye.objective import Batch, Loss, Objective
from mindseye.pictures import sheet
from mindseye.pixels import to_images
from mindseye.request import Steps, drain
from mindseye.training.feeds import PictureFeed, to_pixels
from mindseye.training.pictures import held_out, training_pictures
from mindseye.training.recipe import Every, Feed, Optimizer, Recipe, Workshop

__all__ = ["Autoencoding", "psnr", "vae_pocket"]

NOISE = 0.1
"""Standard deviation of the posterior."""


class Autoencoding(Objective):
    """Reconstruction from noised latents that are kept small.

    A variational autoencoder (Kingma and Welling 2013, arXiv:1312.6114) whose posterior has one fixed width. Where the
    width is learned, every latent that is used ends with a variance of one; where it is fixed, the encoder can only get
    over the noise by making large what matters to the picture, so that latents come in order of importance, and a
    diffusion over them decides what is coarse before what is fine.

    Args:
        vae: what is trained.
        noise: standard deviation of the posterior.
        size: weight of the squared size of the latents: the KL divergence, but for a constant.
        edges: weight of the absolute error of horizontal and vertical differences.
        halved: weight of the same errors where the latents are halved in size and ought to give the halved picture
            (Kouzelis et al. 2025, arXiv:2502.09509): neighbours are then worth averaging, and a picture moved by a
            little has latents that moved.
    """

    def __init__(
        self, vae: AutoencoderKL, noise: float = NOISE, size: float = 5e-4, edges: float = 0.5, halved: float = 0.25
    ) -> None:
        super().__init__()
        self.vae = vae.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        self.noise = noise
        self.size = size
        self.edges = edges
        self.halved = halved

    def forward(self, batch: Batch, turn: str) -> Loss:
        """``batch["pixels"]``: ``B 3 H W`` in [-1, 1]."""
        pixels = batch["pixels"]
        mean, _ = self.vae.posterior(pixels)
        noise = torch.randn(mean.shape, generator=self.generator).to(mean)
        noised = mean + self.noise * noise
        total, parts = self._errors(noised, pixels)
        if self.halved:
            some = slice(None, None, 2)  # half of them are enough
            smaller, _ = self._errors(F.avg_pool2d(noised[some], 2), F.avg_pool2d(pixels[some], 2))
            total = total + self.halved * smaller
        size = mean.float().square().mean()
        return Loss(total + self.size * size, {**parts, "size": size.item()})

    def _errors(self, latents: Tensor, pixels: Tensor) -> tuple[Tensor, dict[str, float]]:
        painted = self.vae.decode_raw(latents).float()
        absolute = F.l1_loss(painted, pixels)
        square = F.mse_loss(painted, pixels)
        error = painted - pixels
        edges = (error[..., 1:] - error[..., :-1]).abs().mean() + (error[..., 1:, :] - error[..., :-1, :]).abs().mean()
        total = absolute + 2 * square + self.edges * edges
        return total, {"l1": absolute.item(), "mse": square.item(), "edges": edges.item()}

    def parts(self) -> Mapping[str, nn.Module]:
        """The autoencoder."""
        return {"vae-pocket": self.vae}


def psnr(a: Tensor, b: Tensor) -> Tensor:
    """Peak signal-to-noise ratio a picture, in dB, of pixels in [-1, 1] (peak to peak 2): ``B``."""
    return 10 * torch.log10(4 / (a.clamp(-1, 1) - b).square().flatten(1).mean(1).clamp_min(1e-10))


def held_out_pixels(workshop: Workshop, count: int, seed: int = 0) -> Tensor:
    """Some of the pictures that are never trained on, as pixels."""
    kept = held_out(workshop)
    return to_pixels(kept.pictures[np.random.default_rng(seed).permutation(len(kept))[:count]])


def _scores(workshop: Workshop, parts: Mapping[str, Any]) -> dict[str, float]:
    vae = parts["vae-pocket"]
    pixels = held_out_pixels(workshop, 512)
    painted = torch.cat([vae.decode(vae.encode(chunk)) for chunk in pixels.split(64)])
    each = psnr(painted, pixels)
    pooled = 10 * torch.log10(4 / (painted.clamp(-1, 1) - pixels).square().mean())
    return {"psnr": float(each.mean()), "psnr_pooled": float(pooled)}


def _samples(workshop: Workshop, parts: Mapping[str, Any]) -> Any:
    """Held-out pictures, each beside what comes back of it."""
    vae = parts["vae-pocket"]
    pixels = held_out_pixels(workshop, 24)
    pairs = torch.stack([pixels, vae.decode(vae.encode(pixels))], dim=1).flatten(0, 1)
    return sheet(to_images(pairs))


@torch.no_grad()
def _normalise(workshop: Workshop, parts: Mapping[str, Any]) -> None:
    """Make the latents of training pictures zero mean, and of unit variance all together.

    One scale for all channels: what matters more is larger, and stays so. The posterior's width is written where
    others look for it.
    """
    vae = parts["vae-pocket"]
    shown = drain(training_pictures(workshop))
    rows = np.random.default_rng(1).permutation(len(shown))[:2048]
    chunks = (rows[start : start + 64] for start in range(0, len(rows), 64))
    mean = torch.cat([vae.posterior(to_pixels(shown.pictures[chunk]))[0] for chunk in chunks])
    vae.latents_mean.copy_(mean.mean((0, 2, 3)))
    vae.latents_std.fill_(float((mean - vae.latents_mean[:, None, None]).square().mean().sqrt()))
    channels = vae.config.latent_channels
    vae.encoder.conv_out.weight[channels:].zero_()
    vae.encoder.conv_out.bias[channels:].fill_(2 * math.log(NOISE))


def _feed(workshop: Workshop) -> Steps[Feed]:
    return PictureFeed((yield from training_pictures(workshop)).pictures)


def vae_pocket() -> Recipe:
    """About 15 pictures a second on two AVX2 cores; PSNR on held-out pictures as recorded in the part's provenance."""
    return Recipe(
        name="vae-pocket",
        about="KL autoencoder, 128x128 pictures to 8x16x16 latents",
        objective=lambda workshop: Autoencoding(AutoencoderKL(POCKET)),
        feed=_feed,
        steps=12_000,
        batch=16,
        optimizer=Optimizer(kind="muon", lr=2e-3, betas=(0.9, 0.99), weight_decay=1e-3, warmup=150),
        ema=0.998,
        every=Every(sample=1000, checkpoint=500),
        samples=_samples,
        scores=_scores,
        finish=_normalise,
    )
