"""Does a picture say its caption? Questions put to a critic: score, R-precision, retrieval.

- CLIPScore (Hessel et al. 2021, arXiv:2104.08718): 2.5 max(cos, 0), how well a picture and its caption agree.
- R-precision (Xu et al. 2018, arXiv:1711.10485, with CLIP as Park et al. 2021): among the true caption and 99 wrong
  ones drawn at random, does the critic put the true one first?
- Retrieval (Radford et al. 2021, arXiv:2103.00020): among the captions of N pictures, is the picture's own first, in
  the first five?

A tie is a miss: a critic that cannot tell two captions apart has not found the true one. Captions with the same words
are the same caption, never each other's distractor. The critic that judges must never have guided or trained the
pictures.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, final, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from PIL import Image
from torch import Tensor

from mindseye.networks.clip import CLIP
from mindseye.pixels import from_images
from mindseye.shapes import Embedding, Pixels
from mindseye.text.tokenizer import Tokenizer

__all__ = [
    "ClipJudge",
    "Judge",
    "clip_score",
    "distractors",
    "embed_pictures",
    "embed_texts",
    "r_precision",
    "retrieval",
]


@runtime_checkable
class Judge(Protocol):
    """A critic, as far as measuring needs it."""

    @property
    def size(self) -> int:
        """The side of the pictures that it looks at."""
        ...

    def embed_text(self, prompts: Sequence[str]) -> Float[Tensor, "P D"]:
        """One vector of length 1 a text."""
        ...

    def embed_image(self, pixels: Pixels) -> Embedding:
        """One vector of length 1 a picture of ``size x size`` in [-1, 1]."""
        ...


@final
@dataclass(frozen=True)
class ClipJudge:
    """A CLIP and its tokenizer as a judge."""

    clip: CLIP
    tokenizer: Tokenizer

    @property
    def size(self) -> int:
        """See `Judge`."""
        if self.clip.config.image is None:
            raise ValueError("this CLIP is a text encoder alone: it cannot judge pictures")
        return self.clip.config.image.size

    @torch.no_grad()
    def embed_text(self, prompts: Sequence[str]) -> Float[Tensor, "P D"]:
        """See `Judge`."""
        ids, _ = self.tokenizer.encode(prompts)
        pooled = self.clip.text(ids.to(self.clip.logit_scale.device))[1]
        return torch.nn.functional.normalize(pooled.float(), dim=-1)

    @torch.no_grad()
    def embed_image(self, pixels: Pixels) -> Embedding:
        """See `Judge`."""
        scale = self.clip.logit_scale
        features = self.clip.image(pixels.to(device=scale.device, dtype=scale.dtype))
        return torch.nn.functional.normalize(features.float(), dim=-1)


def embed_pictures(judge: Judge, pictures: Sequence[Image.Image], batch: int = 64) -> Float[Tensor, "N D"]:
    """Every picture as the judge sees it, on the CPU in float32."""
    size = (judge.size, judge.size)
    parts = [pictures[i : i + batch] for i in range(0, len(pictures), batch)]
    seen = [judge.embed_image(from_images(part, size)).cpu().float() for part in parts]
    return torch.cat(seen) if seen else torch.empty(0, 0)


def embed_texts(judge: Judge, texts: Sequence[str], batch: int = 256) -> Float[Tensor, "N D"]:
    """Every text as the judge reads it, on the CPU in float32; the same text is read once."""
    unique = list(dict.fromkeys(texts))
    row = {text: i for i, text in enumerate(unique)}
    read = torch.cat([judge.embed_text(unique[i : i + batch]).cpu().float() for i in range(0, len(unique), batch)])
    return read[[row[text] for text in texts]]


def clip_score(pictures: Float[Tensor, "N D"], texts: Float[Tensor, "N D"]) -> Float[Tensor, "N"]:
    """2.5 max(cos, 0) of each picture and its caption, in [0, 2.5]."""
    return 2.5 * torch.nn.functional.cosine_similarity(pictures, texts, dim=-1).clamp(min=0)


def distractors(captions: Sequence[str], pool: Sequence[str], count: int = 99, seed: int = 0) -> Int[np.ndarray, "N K"]:
    """For each caption, ``count`` different other captions out of a pool, as indices into it.

    Args:
        captions: The true ones.
        pool: Where wrong ones are drawn from; no text twice.
        count: How many a caption.
        seed: Decides the draw.

    Raises:
        ValueError: The pool repeats a text, or is too small.
    """
    place = {text: i for i, text in enumerate(pool)}
    if len(place) < len(pool):
        raise ValueError("the pool repeats a text, which would be drawn twice as often")
    rng = np.random.default_rng(seed)
    rows = []
    for caption in captions:
        own = place.get(caption)
        room = len(pool) - (own is not None)
        if room < count:
            raise ValueError(f"{count} distractors cannot be drawn from {room} other captions")
        drawn = rng.choice(room, count, replace=False)
        rows.append(drawn if own is None else drawn + (drawn >= own))
    return np.array(rows, dtype=np.int64).reshape(len(captions), count)


def r_precision(
    pictures: Float[Tensor, "N D"],
    texts: Float[Tensor, "N D"],
    pool: Float[Tensor, "P D"],
    wrong: Int[np.ndarray, "N K"],
) -> Bool[Tensor, "N"]:
    """Whether each picture is strictly closer to its own caption than to every one of its distractors.

    Args:
        pictures: Unit vectors.
        texts: The true captions, unit vectors.
        pool: The captions that distractors come from, unit vectors.
        wrong: Each picture's distractors, from `distractors`.
    """
    true = (pictures * texts).sum(-1)
    others = torch.einsum("nd,nkd->nk", pictures, pool[torch.from_numpy(wrong)])
    return (true[:, None] > others).all(1)


def retrieval(pictures: Float[Tensor, "N D"], texts: Float[Tensor, "N D"], captions: Sequence[str]) -> Int[Tensor, "N"]:
    """The rank, 0 the best, at which each picture finds its own caption among all N.

    Captions with the same words count once, so that two pictures of one caption do not stand in each other's way.
    """
    first = {caption: i for i, caption in reversed(list(enumerate(captions)))}
    unique = torch.tensor(sorted(first.values()), dtype=torch.long)
    column = {int(row): i for i, row in enumerate(unique)}
    own = torch.tensor([column[first[caption]] for caption in captions], dtype=torch.long)
    likeness = pictures @ texts[unique].T
    true = likeness.gather(1, own[:, None])
    # The own column is never above itself, and ties count against the picture.
    return (likeness >= true).sum(1) - 1
