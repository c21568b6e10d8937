"""The translators: pix2pix-pocket paints after a sketch, cyclegan-pocket redraws one kind of picture as another.

Neither is shipped: they are for a user's own pictures. pix2pix makes its pairs itself, from any pictures. CycleGAN
wants two kinds: of the corpus, emoji drawn flat and in 3d; of a user's own, pictures with one of two captions.
"""

import re
from collections import Counter
from dataclasses import replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from mindseye.adversarial.sketch import sketch
from mindseye.adversarial.translation import Cycling, Pairing
from mindseye.errors import DataError
from mindseye.networks.discriminator import PatchConfig, PatchGAN
from mindseye.networks.translator import ResNetConfig, ResNetTranslator, UNetConfig, UNetTranslator
from mindseye.objective import Batch
from mindseye.request import Steps
from mindseye.training.feeds import order, to_pixels
from mindseye.training.pictures import training_pictures
from mindseye.training.recipe import Every, Feed, Recipe, Workshop
from mindseye.training.recipes.gan import CONTEST, ToldFeed, channels_last, small

__all__ = ["cyclegan_pocket", "pix2pix_pocket"]

_FLAT: Final = re.compile(r"\bflat\b")
_SOLID: Final = re.compile(r"\b(glossy|3d)\b")


class TwoKinds:
    """Pictures of two kinds, not paired."""

    def __init__(self, pictures: NDArray[np.uint8], first: NDArray[np.int64], second: NDArray[np.int64]) -> None:
        self.pictures, self.first, self.second = pictures, first, second

    def batch(self, step: int, size: int) -> Batch:
        """``{"source": B 3 S S, "pixels": B 3 S S}``."""
        kinds = [
            to_pixels(self.pictures[np.sort(kind[order(step, size, len(kind), seed)])])
            for seed, kind in enumerate((self.first, self.second))
        ]
        return {"source": kinds[0], "pixels": kinds[1]}


def _pair_feed(workshop: Workshop) -> Steps[Feed]:
    rendered = yield from training_pictures(workshop)
    pictures = yield from small(workshop, rendered)
    return ToldFeed(pictures, {}, np.arange(len(pictures)), pairs=sketch)


def _kinds_feed(workshop: Workshop) -> Steps[Feed]:
    rendered = yield from training_pictures(workshop)
    pictures = yield from small(workshop, rendered)
    if workshop.data is None:
        masks = [np.array([bool(kind.search(text)) for text in rendered.captions]) for kind in (_FLAT, _SOLID)]
    else:
        often = Counter(caption.strip() for caption in rendered.captions)
        if len(often) != 2:
            raise DataError(
                f"the pictures have {len(often)} different captions; two kinds are turned into each other",
                hint='give every picture one of two captions, say "horse" and "zebra"',
            )
        masks = [np.array([caption.strip() == kind for caption in rendered.captions]) for kind in sorted(often)]
    return TwoKinds(pictures, np.flatnonzero(masks[0]), np.flatnonzero(masks[1]))


def pix2pix_pocket() -> Recipe:
    """Half an hour on two cores; not shipped. Pairs are made: every picture and its sketch."""
    config = UNetConfig()
    return Recipe(
        name="pix2pix-pocket",
        about="sketch to picture, 64x64: pix2pix's U-Net against a patch judge",
        objective=lambda workshop: Pairing(
            channels_last(UNetTranslator(config)),
            channels_last(PatchGAN(PatchConfig(channels=6, width=32, layers=2, norm="instance"))),
            name="pix2pix-pocket",
            z_dim=config.noise,
        ),
        feed=_pair_feed,
        steps=3_000,
        batch=16,
        optimizer=replace(CONTEST, lr=2e-4, betas=(0.5, 0.999)),
        ema=0.995,
        every=Every(sample=500, checkpoint=500),
    )


def cyclegan_pocket() -> Recipe:
    """An hour on two cores; not shipped."""
    judges = PatchConfig(width=32, layers=2)
    return Recipe(
        name="cyclegan-pocket",
        about="flat drawings to 3d ones and back, 64x64, without pairs; or a user's own pictures with two captions",
        objective=lambda workshop: Cycling(
            channels_last(ResNetTranslator(ResNetConfig())),
            channels_last(ResNetTranslator(ResNetConfig())),
            PatchGAN(judges),
            PatchGAN(judges),
            names=("cyclegan-there-pocket", "cyclegan-back-pocket"),
        ),
        feed=_kinds_feed,
        steps=2_000,
        batch=8,
        optimizer=replace(CONTEST, lr=2e-4, betas=(0.5, 0.999)),
        ema=0.995,
        every=Every(sample=500, checkpoint=500),
    )
