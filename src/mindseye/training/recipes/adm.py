"""adm-pocket: the unconditional diffusion model over pixels that CLIP-guided diffusion and Disco Diffusion steer.

Nichol and Dhariwal's hybrid objective (arXiv:2102.09672) on a cosine table: squared error of the prediction, the
variational bound for the variance. It predicts v rather than noise (arXiv:2202.00512), because guidance looks at the
clean picture from the first step on, where an estimate made of noise is no estimate. The corpus' pictures are halved to
64x64. Captions are not looked at.
"""

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from mindseye.diffusion.learned_variance import HybridDiffusion, PixelDenoiser
from mindseye.diffusion.samplers import SAMPLERS
from mindseye.diffusion.schedule import cosine, spacing
from mindseye.networks.adm import ADM, POCKET
from mindseye.noise import Noise
from mindseye.objective import Batch
from mindseye.pictures import sheet
from mindseye.pixels import to_images
from mindseye.request import Steps
from mindseye.shapes import Pixels
from mindseye.training.feeds import order, to_pixels
from mindseye.training.pictures import held_out, training_pictures
from mindseye.training.recipe import Every, Feed, Optimizer, Recipe, Workshop

__all__ = ["SIZE", "SmallFeed", "adm_pocket", "shrunk"]

SIZE: Final = 64
"""Pixels a side that it draws."""


def shrunk(pixels: Pixels, size: int = SIZE) -> Pixels:
    """Averaged down by a whole factor."""
    return F.avg_pool2d(pixels, pixels.shape[-1] // size)


class SmallFeed:
    """Pictures as ``pixels`` of `SIZE`.

    Args:
        pictures: Larger by a whole factor.
        seed: Of the order.
    """

    def __init__(self, pictures: NDArray[np.uint8], seed: int = 0) -> None:
        self.pictures = pictures
        self.seed = seed

    def batch(self, step: int, size: int) -> Batch:
        """``{"pixels": B 3 H W}``."""
        rows = np.sort(order(step, size, len(self.pictures), self.seed))
        return {"pixels": shrunk(to_pixels(self.pictures[rows]))}


def _feed(workshop: Workshop) -> Steps[Feed]:
    return SmallFeed((yield from training_pictures(workshop)).pictures)


def _objective(workshop: Workshop) -> HybridDiffusion:
    network: Any = ADM(POCKET)
    return HybridDiffusion(network.to(memory_format=torch.channels_last), cosine(), "v")


@torch.no_grad()
def _samples(workshop: Workshop, parts: Mapping[str, Any]) -> Any:
    """Whatever comes to its mind."""
    table, noise = cosine(), Noise(range(32))
    knots = spacing("trailing", table, 30)
    x = noise.normal(3, SIZE, SIZE) / float(table.signal(knots[0]))
    walk = SAMPLERS["ddim"](PixelDenoiser(parts["adm-pocket"], table, "v"), x, knots, noise)
    drawn: Tensor | None = None
    while drawn is None:
        try:
            next(walk)
        except StopIteration as stop:
            drawn = stop.value
    return sheet(to_images(drawn))


@torch.no_grad()
def _scores(workshop: Workshop, parts: Mapping[str, Any]) -> dict[str, float]:
    """Error and bound on held-out pictures, at levels and with noise that are always the same."""
    kept = held_out(workshop)
    rows = np.random.default_rng(0).permutation(len(kept))[:512]
    objective = HybridDiffusion(parts["adm-pocket"], cosine(), "v")
    found: list[dict[str, float]] = []
    for number, chunk in enumerate(np.array_split(rows, min(8, len(rows)))):
        objective.reseed(number)
        found.append(objective({"pixels": shrunk(to_pixels(kept.pictures[chunk]))}).parts)
    return {name: float(np.mean([each[name] for each in found])) for name in found[0]}


def adm_pocket() -> Recipe:
    """About 30 pictures a second on two cores, so 40 minutes; held-out figures are in the part's provenance."""
    return Recipe(
        name="adm-pocket",
        about="unconditional diffusion over 64x64 pixels with a learned variance, to be steered",
        objective=_objective,
        feed=_feed,
        steps=2_400,
        batch=32,
        optimizer=Optimizer(kind="muon", lr=2e-3, betas=(0.9, 0.99), weight_decay=0.01, warmup=60),
        ema=0.998,
        every=Every(sample=600, checkpoint=200),
        samples=_samples,
        scores=_scores,
    )
