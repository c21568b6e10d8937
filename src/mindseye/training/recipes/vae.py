"""vae-pocket: the KL autoencoder that the latent systems share.

Trained for fidelity (absolute and squared error, and the same on the picture's differences, where edges live) with a
weak pull of the posterior to a standard normal; no adversary, since icons have no texture for one to invent.
"""

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


class Autoencoding(Objective):
    """Reconstruction and a weak KL term.

    Args:
        vae: what is trained.
        kl: weight of the KL divergence (mean over latent elements).
        edges: weight of the absolute error of horizontal and vertical differences.
    """

    def __init__(self, vae: AutoencoderKL, kl: float = 1e-4, edges: float = 0.5) -> None:
        super().__init__()
        self.vae = vae.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        self.kl = kl
        self.edges = edges

    def forward(self, batch: Batch, turn: str) -> Loss:
        """``batch["pixels"]``: ``B 3 H W`` in [-1, 1]."""
        pixels = batch["pixels"]
        mean, logvar = self.vae.posterior(pixels)
        noise = torch.randn(mean.shape, generator=self.generator).to(mean)
        painted = self.vae.decode_raw(mean + (0.5 * logvar).exp() * noise).float()
        absolute = F.l1_loss(painted, pixels)
        square = F.mse_loss(painted, pixels)
        kl = 0.5 * (mean.float() ** 2 + logvar.float().exp() - 1 - logvar.float()).mean()
        error = painted - pixels
        edges = (error[..., 1:] - error[..., :-1]).abs().mean() + (error[..., 1:, :] - error[..., :-1, :]).abs().mean()
        total = absolute + 2 * square + self.edges * edges + self.kl * kl
        return Loss(total, {"l1": absolute.item(), "mse": square.item(), "edges": edges.item(), "kl": kl.item()})

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
    """Make the latents of training pictures zero mean and unit variance, channel by channel."""
    vae = parts["vae-pocket"]
    shown = drain(training_pictures(workshop))
    rows = np.random.default_rng(1).permutation(len(shown))[:2048]
    mean = torch.cat([vae.posterior(to_pixels(shown.pictures[chunk]))[0] for chunk in np.array_split(rows, 32)])
    vae.latents_mean.copy_(mean.mean((0, 2, 3)))
    vae.latents_std.copy_(mean.std((0, 2, 3)))


def _feed(workshop: Workshop) -> Steps[Feed]:
    return PictureFeed((yield from training_pictures(workshop)).pictures)


def vae_pocket() -> Recipe:
    """About 40 pictures a second on two cores; PSNR on held-out pictures as recorded in the part's provenance."""
    return Recipe(
        name="vae-pocket",
        about="KL autoencoder, 128x128 pictures to 32x8x8 latents",
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
