"""Which pictures a recipe sees, and which it is measured on: the corpus, or a user's own.

The corpus keeps whole splits from training. Of a user's data set every twentieth picture is kept.
"""

from typing import Final

import numpy as np

from mindseye.data.glyphs import Corpus
from mindseye.data.rendered import Rendered, gather_captions, render_examples
from mindseye.request import Steps, drain
from mindseye.training.recipe import Workshop

__all__ = ["PICTURES", "held_out", "training_pictures"]

PICTURES: Final = 100_000
"""How many examples of the corpus' endless stream are painted."""
KEPT: Final = 20


def training_pictures(workshop: Workshop) -> Steps[Rendered]:
    """What is trained on."""
    if workshop.data is None:
        return (yield from render_examples(workshop.corpus, PICTURES))
    everything = yield from gather_captions(workshop.data, workshop.cache)
    return everything.rows(np.flatnonzero(np.arange(len(everything)) % KEPT != 0), "train")


def held_out(workshop: Workshop, splits: tuple[str, ...] = ("concepts", "pairs", "relations")) -> Rendered:
    """What is never trained on: the named splits of the corpus, or every twentieth picture of a user's own."""
    if workshop.data is not None:
        return drain(gather_captions(workshop.data, workshop.cache)).rows(slice(None, None, KEPT), "kept")
    corpus = Corpus.open(workshop.corpus)
    examples = [example for split in splits for example in corpus.held_out(split)]  # pyright: ignore[reportArgumentType]
    pictures = np.stack([example.array() for example in examples])
    return Rendered("-".join(splits), pictures, [example.caption for example in examples])
