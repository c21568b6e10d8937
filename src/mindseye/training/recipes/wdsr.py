"""wdsr-pocket: what makes Parti's pictures twice as large.

As WDSR (Yu et al. 2018, arXiv:1808.08718), by the absolute error; and as Parti (Yu et al. 2022, arXiv:2206.10789), on
what a tokenizer makes of pictures instead of on pictures themselves, so that it also repairs what the tokenizer does.

It is taught at half the size at which it is used: pictures are halved, turned into tokens and painted from them, and
the network is to give back the pictures as they were. The corpus has no pictures that are larger, and convolutions do
not know how large a picture is; only things are half as large there.
"""

from collections.abc import Mapping
from typing import Any, Final, final

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from mindseye.codec import TokenCodec
from mindseye.networks.wdsr import POCKET, WDSR
from mindseye.objective import Batch, Loss, Objective
from mindseye.pictures import sheet
from mindseye.pixels import to_images
from mindseye.request import Steps
from mindseye.shapes import Pixels
from mindseye.training.feeds import order, to_pixels
from mindseye.training.pictures import training_pictures
from mindseye.training.recipe import Every, Feed, Optimizer, Recipe, Workshop
from mindseye.training.recipes.vae import held_out_pixels, psnr
from mindseye.training.recipes.writing import CODEC
from mindseye.training.tokens import gather_ids, shrunk

__all__ = ["Enlarging", "PairFeed", "wdsr_pocket"]

NAME: Final = "wdsr-pocket"


@final
class PairFeed:
    """Pictures, and the ids of the same pictures at a smaller size.

    Args:
        pictures: ``N S S 3`` bytes.
        ids: One row a picture.
    """

    def __init__(self, pictures: NDArray[np.uint8], ids: NDArray[np.int16]) -> None:
        self.pictures, self.ids = pictures, ids

    def batch(self, step: int, size: int) -> Batch:
        """``{"pixels": B 3 S S, "ids": B N}``."""
        rows = np.sort(order(step, size, len(self.pictures)))
        return {"pixels": to_pixels(self.pictures[rows]), "ids": torch.from_numpy(np.array(self.ids[rows])).long()}


@final
class Enlarging(Objective):
    """The absolute error of enlarged pictures.

    Args:
        network: What is trained.
        codec: What paints the small ones; frozen.
    """

    def __init__(self, network: WDSR, codec: TokenCodec) -> None:
        super().__init__()
        self.network = network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        self._codec = (codec,)  # in a tuple, so that it is no part of this

    def parts(self) -> Mapping[str, nn.Module]:
        """The network."""
        return {NAME: self.network}

    def forward(self, batch: Batch, turn: str) -> Loss:
        """``batch["pixels"]``: ``B 3 S S`` in [-1, 1]; ``batch["ids"]``: ``B N``, of the same pictures made smaller."""
        with torch.no_grad():
            small = self._codec[0].from_ids(batch["ids"]).float().clamp(-1, 1)
        large = self.network(small).float()
        error = F.l1_loss(large, batch["pixels"])
        return Loss(error, {"l1": error.item(), "mse": F.mse_loss(large.detach(), batch["pixels"]).item()})


def _small(workshop: Workshop, pixels: Pixels) -> Float[Tensor, "B 3 h w"]:
    """What the codec makes of pictures at the size that is enlarged."""
    codec: TokenCodec = workshop.parts(CODEC)
    painted = [codec.from_ids(codec.to_ids(shrunk(chunk, POCKET.factor))) for chunk in pixels.split(64)]
    return torch.cat(painted).float().clamp(-1, 1)


def _feed(workshop: Workshop) -> Steps[Feed]:
    rendered = yield from training_pictures(workshop)
    ids = yield from gather_ids(workshop, CODEC, rendered, POCKET.factor)
    return PairFeed(rendered.pictures, ids)


@torch.no_grad()
def _scores(workshop: Workshop, parts: Mapping[str, Any]) -> dict[str, float]:
    """Fidelity to held-out pictures, beside that of what needs no network."""
    pixels = held_out_pixels(workshop, 256)
    small = _small(workshop, pixels)
    large = torch.cat([parts[NAME](chunk).float() for chunk in small.split(64)])
    smooth = F.interpolate(small, scale_factor=POCKET.factor, mode="bicubic")
    return {"psnr": float(psnr(large, pixels).mean()), "psnr_bicubic": float(psnr(smooth, pixels).mean())}


@torch.no_grad()
def _samples(workshop: Workshop, parts: Mapping[str, Any]) -> Any:
    """Held-out pictures: what is enlarged, what it becomes, and what it was."""
    pixels = held_out_pixels(workshop, 16)
    small = _small(workshop, pixels)
    before = F.interpolate(small, scale_factor=POCKET.factor)
    return sheet(to_images(torch.stack([before, parts[NAME](small).float(), pixels], 1).flatten(0, 1)), columns=6)


def wdsr_pocket() -> Recipe:
    """Needs vqgan-pocket; held-out PSNR, beside that of bicubic enlarging, is in the part's provenance."""
    return Recipe(
        name=NAME,
        about="WDSR over what vqgan-pocket paints: twice as large, 0.4 million parameters",
        objective=lambda workshop: Enlarging(WDSR(POCKET), workshop.parts(CODEC)),
        feed=_feed,
        steps=3_000,
        batch=16,
        optimizer=Optimizer(kind="adamw", lr=1e-3, betas=(0.9, 0.99), weight_decay=0.0, warmup=100),
        ema=0.998,
        every=Every(sample=1000, checkpoint=250),
        samples=_samples,
        scores=_scores,
    )
