"""Further opinions on paintings beside the judge's: a frozen CLIP's, and a classifier's of what it sees."""

from collections.abc import Callable
from typing import final

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from mindseye.adversarial.watch import Probe
from mindseye.networks.clip import CLIP
from mindseye.objective import Batch
from mindseye.shapes import Pixels

__all__ = ["ClassGuide", "ClipGuide", "Guide"]

Guide = Callable[[Pixels, Batch], Float[Tensor, ""]]
"""A further opinion on paintings; lower is better."""


@final
class ClipGuide:
    """A frozen CLIP's opinion: a painting goes with its own text better than with the batch's others (LAFITE, XMC-GAN).

    Not a Module, so that it is neither trained nor saved.

    Args:
        clip: With an image tower.
        key: Of the batch: the texts' vectors, of any length.
        scale: Of the cosines; None = the CLIP's own, which is so sharp that it soon has nothing to say.
    """

    def __init__(self, clip: CLIP, key: str = "vector", scale: float | None = 20.0) -> None:
        self.clip, self.key, self.scale = clip, key, scale

    def __call__(self, pixels: Pixels, batch: Batch) -> Float[Tensor, ""]:
        """Cross-entropy, both ways."""
        told, seen = batch[self.key], _look(self.clip, pixels)
        scale = self.clip.logit_scale.exp() if self.scale is None else self.scale
        logits = seen @ F.normalize(told.float(), dim=-1).T * scale
        logits = logits.masked_fill(_twins(told), float("-inf"))
        own = torch.arange(len(logits), device=logits.device)
        return 0.5 * (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own))


@final
class ClassGuide:
    """A frozen classifier's opinion: a painting is of the class that it was told (AC-GAN, arXiv:1610.09585).

    There the judge learns to classify on its own; here a `watch.Probe` of a frozen CLIP's features does, fitted before
    the contest. Not a Module, so that it is neither trained nor saved.

    Args:
        clip: With an image tower.
        probe: Fitted on its features of real pictures, as unit rows.
        key: Of the batch: one-hot rows.
        scale: Of the probe's scores, which are about 1 and 0.
    """

    def __init__(self, clip: CLIP, probe: Probe, key: str = "classes", scale: float = 10.0) -> None:
        self.clip, self.probe, self.key, self.scale = clip, probe, key, scale

    def __call__(self, pixels: Pixels, batch: Batch) -> Float[Tensor, ""]:
        """Cross-entropy."""
        return F.cross_entropy(
            self.scale * self.probe.scores(_look(self.clip, pixels)), batch[self.key].argmax(1)
        ).float()


def _look(clip: CLIP, pixels: Pixels) -> Float[Tensor, "B D"]:
    """What CLIP sees, as unit rows."""
    image = clip.config.image
    size = image.size if image is not None else pixels.shape[-1]
    if pixels.shape[-1] != size:
        pixels = F.interpolate(pixels, size=(size, size), mode="bilinear", antialias=size < pixels.shape[-1])
    return F.normalize(clip.to(pixels.device).image(pixels).float(), dim=-1)


def _twins(told: Float[Tensor, "B N"]) -> Bool[Tensor, "B B"]:
    """Where two different rows say the same: no picture is wrong for its twin's text."""
    same = (told[:, None] == told[None]).all(-1)
    return same & ~torch.eye(len(told), dtype=torch.bool, device=told.device)
