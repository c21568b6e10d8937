"""parti-pocket: an encoder-decoder from captions to the pocket VQGAN's tokens.

Next-token cross-entropy; one caption in ten is replaced by none, so that guidance has something to leave. Tokens are
made once and cached, so a step costs what the network costs. Left out of the paper: its encoder was warmed up on text.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Final

from mindseye.autoregression import NextToken
from mindseye.networks.parti import POCKET, Parti
from mindseye.noise import Noise
from mindseye.pictures import sheet
from mindseye.pixels import to_images
from mindseye.request import Request, Steps, drain
from mindseye.shapes import Ids
from mindseye.systems.parti import Parti as System
from mindseye.text.tokenizer import Tokenizer
from mindseye.training.recipe import Every, Feed, Optimizer, Recipe, Workshop
from mindseye.training.recipes.stable_diffusion import PROMPTS
from mindseye.training.tokens import gather_tokens, token_scores

__all__ = ["CODEC", "parti_pocket", "read", "words"]

NAME: Final = "parti-pocket"
CODEC: Final = "vqgan-pocket"
"""Whose tokens are written; vit-vqgan-pocket has as many, of as many codes."""


def words(workshop: Workshop) -> Tokenizer:
    """What spells captions: the corpus' longest has 30 ids of the 32 that are read."""
    return Tokenizer.from_file(workshop.part_files("bpe-pocket"), POCKET.text.length)


def read(tokenizer: Tokenizer, texts: Sequence[str]) -> Ids:
    """Ids of texts, what is too long left out."""
    return tokenizer.encode(texts)[0]


def _feed(workshop: Workshop) -> Steps[Feed]:
    return (yield from gather_tokens(workshop, CODEC, partial(read, words(workshop))))


def _objective(workshop: Workshop) -> NextToken:
    return NextToken(Parti(POCKET), name=NAME, null_text=read(words(workshop), [""]))


def _samples(workshop: Workshop, parts: Mapping[str, Any]) -> Any:
    """Two pictures of each prompt."""
    system = System(network=parts[NAME], codec=workshop.parts(CODEC), tokenizer=words(workshop))
    images: list[Any] = []
    for prompt in PROMPTS:
        request = Request(prompt=prompt, size=(128, 128), seed=0, steps=1, guidance=3.0, count=2)
        images += to_images(drain(system.synthesize(request, system.Options(top_k=128), Noise([0, 1]))))
    return sheet(images)


def _scores(workshop: Workshop, parts: Mapping[str, Any]) -> dict[str, float]:
    """Held-out loss in bits a token, and what the text is worth of it."""
    return token_scores(workshop, parts[NAME], CODEC, partial(read, words(workshop)))


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
