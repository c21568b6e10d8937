"""dalle-mini-pocket: captions translated into the 16x16 codes of vqgan-pocket.

As DALL-E mini: next-code cross-entropy, and a tenth of the captions left out, so that super-conditioning has something
to leave. Where we deviate: the vocabulary is the corpus' own, Muon takes the place of distributed Shampoo, and pictures
of plain shapes are seen more often, because which word goes with which thing is learned from them.
"""

from collections.abc import Mapping
from typing import Any

import torch

from mindseye.autoregression import NextToken, bits
from mindseye.networks.bart import POCKET, Bart
from mindseye.noise import Noise
from mindseye.pictures import sheet
from mindseye.pixels import to_images
from mindseye.request import Request, Steps, drain
from mindseye.systems.dalle_mini import DalleMini
from mindseye.text.tokenizer import Tokenizer
from mindseye.training.recipe import Every, Feed, Optimizer, Recipe, Workshop
from mindseye.training.recipes.stable_diffusion import PROMPTS
from mindseye.training.tokens import held_out_tokens, token_feed

__all__ = ["dalle_mini_pocket"]

CODEC = "vqgan-pocket"
NAME = "dalle-mini-pocket"
PLAIN_TIMES = 3


def _tokenizer(workshop: Workshop) -> Tokenizer:
    return Tokenizer.from_file(workshop.part_files("bpe-pocket"), POCKET.text_length)


def _feed(workshop: Workshop) -> Steps[Feed]:
    return (yield from token_feed(workshop, _tokenizer(workshop), codec=CODEC, plain=PLAIN_TIMES))


def _objective(workshop: Workshop) -> NextToken:
    null, _ = _tokenizer(workshop).encode([""])
    return NextToken(Bart(POCKET), name=NAME, null_text=null, drop=0.1)


def _samples(workshop: Workshop, parts: Mapping[str, Any]) -> Any:
    """Two pictures a prompt."""
    system = DalleMini(network=parts[NAME], codec=workshop.parts(CODEC), tokenizer=_tokenizer(workshop))
    options = system.Options(top_k=64)
    images: list[Any] = []
    for prompt in PROMPTS:
        request = Request(prompt=prompt, size=(system.side, system.side), seed=0, guidance=4.0, count=2)
        images += to_images(drain(system.synthesize(request, options, Noise([0, 1]))))
    return sheet(images)


def _scores(workshop: Workshop, parts: Mapping[str, Any]) -> dict[str, float]:
    """Bits that a held-out picture's code costs with its caption, and how many more without."""
    network, tokenizer = parts[NAME], _tokenizer(workshop)
    kept = held_out_tokens(workshop, tokenizer, codec=CODEC, count=512)
    null = tokenizer.encode([""])[0]
    told, untold = [], []
    for text, ids in zip(kept.text.split(32), kept.ids.split(32), strict=True):
        told.append(bits(network, text, ids))
        untold.append(bits(network, null.expand(len(text), -1), ids))
    with_text, without = (float(torch.cat(each).mean()) for each in (told, untold))
    return {"bits": with_text, "bits_of_text": without - with_text}


def dalle_mini_pocket() -> Recipe:
    """Needs bpe-pocket and vqgan-pocket; held-out figures as recorded in the part's provenance."""
    return Recipe(
        name=NAME,
        about="DALL-E mini's encoder-decoder, 32 ids of text to 16x16 codes of vqgan-pocket, 3.6 million parameters",
        objective=_objective,
        feed=_feed,
        steps=6_000,
        batch=32,
        optimizer=Optimizer(kind="muon", lr=2e-3, betas=(0.9, 0.98), weight_decay=0.05, warmup=150),
        ema=0.998,
        every=Every(sample=1000, checkpoint=250),
        samples=_samples,
        scores=_scores,
    )
