"""dalle-pocket: DALL-E's network over the pocket tokenizer's ids and those of the pocket VQGAN.

As DALL-E (Ramesh et al. 2021, arXiv:2102.12092), text and picture are one sentence, and losses of text and picture
count 1 : 7. A tenth of the captions are left out, so that guidance has something to leave, which DALL-E did not do. Ids
are made once and cached, so a step costs what the network costs.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Final

import torch

from mindseye.autoregression import NextToken
from mindseye.networks.dalle import DALLE, POCKET
from mindseye.noise import Noise
from mindseye.pictures import sheet
from mindseye.pixels import to_images
from mindseye.request import Request, Steps, drain
from mindseye.shapes import Ids
from mindseye.systems import dalle
from mindseye.text.plain_tokenizer import PlainTokenizer
from mindseye.text.tokenizer import Tokenizer
from mindseye.training.recipe import Every, Feed, Optimizer, Recipe, Workshop
from mindseye.training.recipes.stable_diffusion import PROMPTS
from mindseye.training.tokens import gather_tokens, token_scores

__all__ = ["CODEC", "dalle_pocket"]

CODEC: Final = "vqgan-pocket"
"""Whose ids are written."""


def words(workshop: Workshop) -> PlainTokenizer:
    """The pocket tokenizer without its special ids."""
    full = Tokenizer.from_file(workshop.part_files("bpe-pocket"), POCKET.text_length)
    return PlainTokenizer.of(full, POCKET.text_length)


def read(tokenizer: PlainTokenizer, texts: Sequence[str]) -> Ids:
    """Ids of texts, what is too long left out."""
    return tokenizer.encode(texts)[0]


def _feed(workshop: Workshop) -> Steps[Feed]:
    return (yield from gather_tokens(workshop, CODEC, partial(read, words(workshop))))


def _objective(workshop: Workshop) -> NextToken:
    network = DALLE(replace(POCKET, text_tokens=words(workshop).vocabulary))
    nothing = torch.zeros(1, POCKET.text_length, dtype=torch.long)
    return NextToken(network, name="dalle-pocket", null_text=nothing, drop=0.1)


def _samples(workshop: Workshop, parts: Mapping[str, Any]) -> Any:
    system = dalle.DALLE(parts["dalle-pocket"], workshop.parts(CODEC), words(workshop))
    images: list[Any] = []
    for prompt in PROMPTS:
        request = Request(prompt=prompt, size=(system.side, system.side), seed=0, steps=1, guidance=3.0, count=2)
        images += to_images(drain(system.synthesize(request, dalle.Knobs(top_p=0.95), Noise([0, 1]))))
    return sheet(images)


def _scores(workshop: Workshop, parts: Mapping[str, Any]) -> dict[str, float]:
    """Held-out loss in bits a token, and what the text is worth of it."""
    return token_scores(workshop, parts["dalle-pocket"], CODEC, partial(read, words(workshop)))


def dalle_pocket() -> Recipe:
    """Needs bpe-pocket and vqgan-pocket; held-out figures as recorded in the part's provenance."""
    return Recipe(
        name="dalle-pocket",
        about="DALL-E's decoder of 3.8 million parameters over 32 text ids and 16x16 ids of vqgan-pocket",
        objective=_objective,
        feed=_feed,
        steps=30_000,
        batch=32,
        optimizer=Optimizer(kind="muon", lr=2e-3, betas=(0.9, 0.99), weight_decay=0.01, warmup=200),
        ema=0.999,
        every=Every(sample=1000, checkpoint=250),
        samples=_samples,
        scores=_scores,
    )
