"""bpe-pocket, clip-pocket and clip-rn-pocket: the words, the critic that guides, and the judge that never does.

The judge has another image tower (CLIP's residual network), another seed and another order of examples, so that
pictures which please the critic by accident do not please the judge by the same accident.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from mindseye.contrastive import contrastive_loss
from mindseye.networks.clip import CLIP, POCKET, POCKET_RESNET, POCKET_TEXT
from mindseye.objective import Batch, Loss, Objective
from mindseye.request import Steps
from mindseye.shapes import Pixels
from mindseye.text.tokenizer import Tokenizer
from mindseye.training.feeds import order, to_pixels
from mindseye.training.pictures import held_out, training_pictures
from mindseye.training.recipe import Craft, Every, Feed, Optimizer, Recipe, Workshop

__all__ = ["Contrasting", "bpe_pocket", "clip_pocket", "clip_rn_pocket"]


def _learn_words(workshop: Workshop, run: Path) -> Steps[dict[str, Path]]:
    rendered = yield from training_pictures(workshop)
    tokenizer = Tokenizer.train(rendered.captions, POCKET_TEXT.vocabulary, length=POCKET_TEXT.length)
    path = run / "bpe-pocket.json"
    tokenizer.save(path)
    provenance = {"name": "bpe-pocket", "about": bpe_pocket().about, "captions": len(rendered.captions)}
    path.with_suffix(".provenance.json").write_text(json.dumps(provenance, indent=2), encoding="utf-8")
    return {"bpe-pocket": path}


def bpe_pocket() -> Craft:
    """Seconds; nothing random in it."""
    return Craft(
        name="bpe-pocket", about="CLIP-style byte-pair encoding learned from the corpus' captions", make=_learn_words
    )


class Contrasting(Objective):
    """CLIP's symmetric loss; equal captions in a batch are no negatives of each other.

    Args:
        clip: what is trained.
        name: the part it becomes.
    """

    def __init__(self, clip: CLIP, name: str) -> None:
        super().__init__()
        self.clip = clip
        self.name = name

    def forward(self, batch: Batch, turn: str) -> Loss:
        """``batch["pixels"]``: ``B 3 H W``; ``batch["ids"]``: ``B L``."""
        ids = batch["ids"]
        # Nothing follows the end of the longest caption, so nothing is computed there.
        ids = ids[:, : int((ids == ids.max()).int().argmax(1).max()) + 1]
        pixels = shrink(batch["pixels"], self.clip)
        image = self.clip.image(pixels)
        _, text = self.clip.text(ids)
        total = contrastive_loss(image.float(), text.float(), self.clip.logit_scale, ids)
        with torch.no_grad():
            logits = F.normalize(image.float(), dim=-1) @ F.normalize(text.float(), dim=-1).T
            hits = logits.argmax(1) == torch.arange(len(ids), device=logits.device)
        return Loss(total, {"accuracy": hits.float().mean().item(), "scale": self.clip.logit_scale.exp().item()})

    def parts(self) -> Mapping[str, nn.Module]:
        """The CLIP."""
        return {self.name: self.clip}


def shrink(pixels: Pixels, clip: CLIP) -> Float[Tensor, "B 3 h w"]:
    """Pictures at the size that the image tower reads."""
    size = clip.config.image.size if clip.config.image is not None else pixels.shape[-1]
    return pixels if pixels.shape[-1] == size else F.interpolate(pixels, size=(size, size), mode="area")


class CaptionedFeed:
    """Pictures with the ids of their captions."""

    def __init__(self, pictures: Any, ids: Tensor, seed: int, reduce: int) -> None:
        self.pictures = pictures
        self.ids = ids
        self.seed = seed
        self.reduce = reduce

    def batch(self, step: int, size: int) -> Batch:
        """``{"pixels": B 3 H W, "ids": B L}``."""
        rows = np.sort(order(step, size, len(self.ids), self.seed))
        pixels = to_pixels(self.pictures[rows])
        return {"pixels": F.avg_pool2d(pixels, self.reduce) if self.reduce > 1 else pixels, "ids": self.ids[rows]}


def retrieval_set(workshop: Workshop, count: int = 1000) -> tuple[list[str], Float[Tensor, "N 3 H W"]]:
    """Held-out pictures with ``count`` different captions: unseen (concept, style) pairs, filled up with relations."""
    kept = held_out(workshop, ("pairs", "relations"))
    rows = list({caption: row for row, caption in reversed(list(enumerate(kept.captions)))}.values())
    rows = np.sort(rows)[:count]
    return [kept.captions[row] for row in rows], to_pixels(kept.pictures[rows])


def _scores(workshop: Workshop, parts: Mapping[str, Any]) -> dict[str, float]:
    clip = next(iter(parts.values()))
    tokenizer = Tokenizer.from_file(workshop.part_files("bpe-pocket"), clip.config.text.length)
    captions, pixels = retrieval_set(workshop)
    ids, _ = tokenizer.encode(captions)
    text = F.normalize(torch.cat([clip.text(chunk)[1] for chunk in ids.split(100)]), dim=-1)
    image = F.normalize(torch.cat([clip.image(shrink(chunk, clip)) for chunk in pixels.split(100)]), dim=-1)
    rank = (image @ text.T).argsort(dim=1, descending=True).argsort(dim=1).diagonal()
    return {"top1": (rank < 1).float().mean().item(), "top5": (rank < 5).float().mean().item()}


def _feed(seed: int, reduce: int) -> Any:
    def feed(workshop: Workshop) -> Steps[Feed]:
        rendered = yield from training_pictures(workshop)
        tokenizer = Tokenizer.from_file(workshop.part_files("bpe-pocket"), POCKET_TEXT.length)
        ids, _ = tokenizer.encode(rendered.captions)
        return CaptionedFeed(rendered.pictures, ids, seed, reduce)

    return feed


def clip_pocket() -> Recipe:
    """An hour on two cores; held-out retrieval as recorded in the part's provenance."""
    return Recipe(
        name="clip-pocket",
        about="CLIP with a vision transformer at 64x64: text encoder of the diffusion systems, and the critic",
        objective=lambda workshop: Contrasting(CLIP(POCKET), "clip-pocket"),
        feed=_feed(seed=0, reduce=2),
        steps=4_000,
        batch=192,
        optimizer=Optimizer(kind="muon", lr=2e-3, betas=(0.9, 0.98), weight_decay=0.1, warmup=100),
        ema=0.998,
        every=Every(sample=500, checkpoint=250),
        scores=_scores,
    )


def clip_rn_pocket() -> Recipe:
    """An hour on two cores; held-out retrieval as recorded in the part's provenance."""
    return Recipe(
        name="clip-rn-pocket",
        about="CLIP with a residual image tower at 128x128, another seed: the held-out judge, never used to guide",
        objective=lambda workshop: Contrasting(CLIP(POCKET_RESNET), "clip-rn-pocket"),
        feed=_feed(seed=7, reduce=1),
        steps=4_000,
        batch=192,
        optimizer=Optimizer(kind="muon", lr=2e-3, betas=(0.9, 0.98), weight_decay=0.1, warmup=100),
        ema=0.998,
        every=Every(sample=500, checkpoint=250),
        seed=7,
        scores=_scores,
    )
