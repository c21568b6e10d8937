"""dalle-mini-pocket: captions translated into the 16x16 codes of vqgan-pocket.

As DALL-E mini: next-code cross-entropy, and a tenth of the captions left out, so that super-conditioning has something
to leave. Where we deviate: the vocabulary is the corpus' own, Muon takes the place of distributed Shampoo, and pictures
of plain shapes are seen more often, because which word goes with which thing is learned from them.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Final

from mindseye.autoregression import NextToken
from mindseye.networks.bart import POCKET, Bart
from mindseye.noise import Noise
from mindseye.pictures import sheet
from mindseye.pixels import to_images
from mindseye.request import Request, Steps, drain
from mindseye.shapes import Ids
from mindseye.systems.dalle_mini import DalleMini
from mindseye.text.tokenizer import Tokenizer
from mindseye.training.recipe import Every, Feed, Optimizer, Recipe, Workshop
from mindseye.training.recipes.stable_diffusion import PROMPTS
from mindseye.training.tokens import gather_tokens, token_scores

__all__ = ["dalle_mini_pocket"]

CODEC: Final = "vqgan-pocket"
"""Whose ids are written."""
NAME: Final = "dalle-mini-pocket"


def _tokenizer(workshop: Workshop) -> Tokenizer:
    return Tokenizer.from_file(workshop.part_files("bpe-pocket"), POCKET.text_length)


def _read(tokenizer: Tokenizer, texts: Sequence[str]) -> Ids:
    """Ids of texts, what is too long left out."""
    return tokenizer.encode(texts)[0]


def _feed(workshop: Workshop) -> Steps[Feed]:
    return (yield from gather_tokens(workshop, CODEC, partial(_read, _tokenizer(workshop))))


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
    """Held-out loss in bits a token, and what the text is worth of it."""
    return token_scores(workshop, parts[NAME], CODEC, partial(_read, _tokenizer(workshop)))


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
