"""Does a phrase change a picture, and does the picture survive it?

Each case is a held-out picture and the caption of another one. The judge, which never guided, says whether the changed
picture is nearer to the phrase than the start was; SSIM says how much of the start's structure is left. One alone is
easy: a new picture has the phrase and nothing of the start, an untouched one the start and nothing of the phrase.
"""

from collections.abc import Sequence

import torch
from PIL import Image

from mindseye.evaluation import intervals
from mindseye.evaluation.clip_score import Judge, embed_pictures, embed_texts
from mindseye.evaluation.drawing import Edit, Run
from mindseye.evaluation.figures import Row
from mindseye.evaluation.ssim import ssim
from mindseye.pixels import from_images
from mindseye.request import Steps

__all__ = ["edit_rows"]


def edit_rows(run: Run, edit: Edit, captions: Sequence[str], pictures: Sequence[Image.Image]) -> Steps[list[Row]]:
    """The share of edits that are nearer to their phrase, and what is left of the starts.

    Args:
        run: Looks, and keeps.
        edit: The card.
        captions: Of real pictures that were kept from training.
        pictures: The same pictures; picture i is changed by the caption half of them further on.
    """
    count = min(run.sizes.edits, len(pictures) // 2)
    if count < 1:
        return []
    starts, phrases = list(pictures[:count]), list(captions[len(captions) // 2 :][:count])
    made = yield from run.change("edits", edit, phrases, starts)
    right = _nearer(run.judge, starts, made, phrases)
    fooled = None if run.critic is None else sum(_nearer(run.critic, starts, made, phrases)) / count
    left: list[float] = []
    for start, changed in zip(starts, made, strict=True):
        left += ssim(from_images([start], changed.size), from_images([changed], changed.size)).tolist()
    return [
        Row(
            key="edits",
            label="a start picture changed by a phrase is nearer to the phrase than it was",
            estimate=run.decide("edits", right),
            unit="%",
            critic=fooled,
        ),
        Row(
            key="edits_ssim",
            label="SSIM of the changed picture and its start",
            estimate=intervals.mean(left, run.seed),
        ),
    ]


def _nearer(
    judge: Judge, starts: Sequence[Image.Image], made: Sequence[Image.Image], phrases: Sequence[str]
) -> list[bool]:
    """Whether each changed picture is nearer to its phrase than its start."""
    texts = embed_texts(judge, phrases)
    before, after = ((embed_pictures(judge, each) * texts).sum(-1) for each in (starts, made))
    return torch.gt(after, before).tolist()
