"""Who looks: a network that puts pictures and words into one space.

Every system of 2021 that "listens to CLIP" asks the same two things of it (Murdock's Deep Daze and Big Sleep, Crowson's
VQGAN+CLIP and CLIP-guided diffusion, Disco Diffusion): a vector for a text, once, and a vector for each of many small
pictures, at every step and with a gradient. `Critic` is those two things; `ClipCritic` is any CLIP of ours.

Deviation: vectors are unit rows on both sides. Cosines and spherical distances are the same numbers for it; only the
mean of several pictures' vectors, which Deep Daze takes, is the mean of directions here and not of raw vectors.
"""

import copy
from collections.abc import Sequence
from typing import Protocol, final, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from mindseye.networks.clip import CLIP
from mindseye.text.tokenizer import Tokenizer

__all__ = ["ClipCritic", "Critic", "critics_of"]


@runtime_checkable
class Critic(Protocol):
    """Pictures and words in one space."""

    @property
    def size(self) -> int:
        """Pixels a side of the pictures it reads."""
        ...

    def embed_text(self, prompts: Sequence[str], *, unit: bool = True) -> Float[Tensor, "P D"]:
        """One unit row a prompt, float32; of the network's own length where ``unit`` is False."""
        ...

    def embed_image(self, pixels: Float[Tensor, "N 3 S S"], *, unit: bool = True) -> Float[Tensor, "N D"]:
        """One such row a picture in [-1, 1], float32; differentiable in the pixels, which may be of any dtype."""
        ...


@final
class ClipCritic:
    """A CLIP, its image tower a vision transformer or a residual network.

    Args:
        clip: The network; its weights are not trained here. In half precision on a CPU it is copied to float32, for
            CPUs sum float16 badly and most of them slowly; bfloat16 stays as it is.
        tokenizer: What its text tower reads.

    Raises:
        ValueError: The network has no image tower.

    Attributes:
        size: Pixels a side of the pictures it reads.
        clip: The network that is asked.
    """

    def __init__(self, clip: CLIP, tokenizer: Tokenizer) -> None:
        image = clip.config.image
        if image is None:
            raise ValueError("this CLIP is a text encoder alone: it cannot look at pictures")
        weight = clip.text_tower.embedding.weight
        if weight.dtype == torch.float16 and weight.device.type == "cpu":
            clip = copy.deepcopy(clip).float()
        self.clip, self.tokenizer = clip, tokenizer
        self.size = image.size

    @property
    def device(self) -> torch.device:
        """Where it lives."""
        return self.clip.text_tower.embedding.weight.device

    @torch.no_grad()
    def embed_text(self, prompts: Sequence[str], *, unit: bool = True) -> Float[Tensor, "P D"]:
        """One row a prompt, float32; words beyond what the tower reads are left out.

        Args:
            prompts: The texts.
            unit: Make rows of unit length; False leaves them as the network has them.
        """
        ids, _ = self.tokenizer.encode(prompts)
        found = self.clip.text(ids.to(self.device))[1].float()
        return F.normalize(found, dim=1) if unit else found

    def embed_image(self, pixels: Float[Tensor, "N 3 S S"], *, unit: bool = True) -> Float[Tensor, "N D"]:
        """One row a picture, float32.

        Args:
            pixels: In [-1, 1], S the critic's `size`, of any dtype.
            unit: As of `embed_text`.
        """
        weight = self.clip.text_tower.embedding.weight
        found = self.clip.image(pixels.to(weight.device, weight.dtype)).float()
        return F.normalize(found, dim=1) if unit else found


def critics_of(*pairs: tuple[CLIP | None, Tokenizer | None]) -> tuple[ClipCritic, ...]:
    """Critics of the pairs that are there: systems have fields ``clip``, ``tokenizer``, ``clip_2``, ``tokenizer_2`` ...

    Raises:
        ValueError: A CLIP without a tokenizer, or no CLIP at all.
    """
    critics = []
    for place, (clip, tokenizer) in enumerate(pairs, start=1):
        if clip is None:
            continue
        if tokenizer is None:
            raise ValueError(f"CLIP number {place} has no tokenizer")
        critics.append(ClipCritic(clip, tokenizer))
    if not critics:
        raise ValueError("a system that listens to a critic needs at least one CLIP")
    return tuple(critics)
