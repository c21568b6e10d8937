"""Which of several pictures goes best with the words.

A system that draws quickly may draw often: every picture has several candidates, a critic says how near each is to the
prompt, and the others are forgotten. DALL-E (Ramesh et al. 2021, arXiv:2102.12092) made that a habit, with CLIP
choosing 32 of 512; what a candidate is, and how many are kept, is the business of whoever draws.
"""

from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from mindseye.critique.critic import Critic
from mindseye.shapes import Pixels
from mindseye.text.prompt import split_networks

__all__ = ["Ranking"]


@final
@dataclass(frozen=True, eq=False)
class Ranking:
    """Who says how well a picture goes with the prompt.

    Attributes:
        critic: Who looks.
        texts: What it was told: the prompt, and what to keep away from, if anything.
    """

    critic: Critic
    texts: Float[Tensor, "T D"]

    @classmethod
    def of(cls, critic: Critic, prompt: str, negative: str = "") -> "Ranking":
        """From words; names of adapters among them are not read."""
        words = [split_networks(text)[0].strip() for text in (prompt, negative)]
        return cls(critic, critic.embed_text([words[0], *filter(None, words[1:])]))

    @torch.no_grad()
    def scores(self, pixels: Pixels) -> Float[Tensor, "B"]:
        """Nearness to the prompt, less nearness to the negative prompt: cosines, on the CPU."""
        size = (self.critic.size, self.critic.size)
        seen = self.critic.embed_image(
            F.interpolate(pixels.float().clamp(-1, 1), size, mode="bilinear", antialias=True)
        )
        near = seen @ self.texts.T
        return (near[:, 0] - (near[:, 1] if near.shape[1] > 1 else 0)).float().cpu()
