"""parti-pocket: an encoder-decoder from captions to the pocket VQGAN's tokens.

Next-token cross-entropy; one caption in ten is replaced by none, so that guidance has something to leave. Tokens are
made once and cached, so a step costs what the network costs. Left out of the paper: its encoder was warmed up on text.
"""

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mindseye.autoregression import NextToken, bits
from mindseye.networks.parti import POCKET, Parti
from mindseye.noise import Noise
from mindseye.pictures import sheet
from mindseye.pixels import to_images
from mindseye.request import Request, Steps, drain
from mindseye.systems.parti import Parti as System
from mindseye.training.pictures import training_pictures
from mindseye.training.recipe import Every, Feed, Optimizer, Recipe, Workshop
from mindseye.training.recipes.stable_diffusion import PROMPTS
from mindseye.training.tokens import CODEC, held_out_tokens, no_text, tokens_of, words

__all__ = ["parti_pocket"]

NAME = "parti-pocket"


def _feed(workshop: Workshop) -> Steps[Feed]:
    rendered = yield from training_pictures(workshop)
    return (yield from tokens_of(workshop, rendered))


def _objective(workshop: Workshop) -> NextToken:
    return NextToken(Parti(POCKET), name=NAME, null_text=no_text(workshop))


def _samples(workshop: Workshop, parts: Mapping[str, Any]) -> Any:
    """Two pictures of each prompt."""
    system = System(network=parts[NAME], codec=workshop.parts(CODEC), tokenizer=words(workshop))
    images: list[Any] = []
    for prompt in PROMPTS:
        request = Request(prompt=prompt, size=(128, 128), seed=0, steps=1, guidance=3.0, count=2)
        images += to_images(drain(system.synthesize(request, system.Options(top_k=128), Noise([0, 1]))))
    return sheet(images)


def _scores(workshop: Workshop, parts: Mapping[str, Any]) -> dict[str, float]:
    """Bits a token of held-out pictures: with their captions, and without."""
    text, ids = held_out_tokens(workshop)
    said = {"image_bits": text, "image_bits_untold": no_text(workshop).expand_as(text)}
    return {name: float(_bits(parts[NAME], each, ids).mean()) for name, each in said.items()}


def _bits(network: Parti, text: Int[Tensor, "B L"], ids: Int[Tensor, "B N"]) -> Float[Tensor, "B"]:
    """Some at a time."""
    return torch.cat([bits(network, *pair) for pair in zip(text.split(32), ids.split(32), strict=True)])


def parti_pocket() -> Recipe:
    """Needs vqgan-pocket and bpe-pocket; held-out bits a token are in the part's provenance."""
    return Recipe(
        name=NAME,
        about="encoder-decoder from captions to the 16x16 tokens of vqgan-pocket",
        objective=_objective,
        feed=_feed,
        steps=8_000,
        batch=32,
        optimizer=Optimizer(kind="muon", lr=2e-3, betas=(0.9, 0.99), weight_decay=0.01, warmup=100),
        ema=0.998,
        every=Every(sample=1000, checkpoint=250),
        samples=_samples,
        scores=_scores,
    )
