"""Which pictures a recipe sees, and which it is measured on: the corpus, or a user's own.

The corpus keeps whole splits from training. Of a user's data set every twentieth picture is kept.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from mindseye.data.glyphs import Corpus
from mindseye.data.rendered import Rendered, gather_captions, render_examples
from mindseye.data.scenes import names_plain_shapes, names_relation
from mindseye.errors import DataError
from mindseye.request import Steps, drain
from mindseye.training.recipe import Workshop

__all__ = ["PICTURES", "PLAIN_TIMES", "RELATED_TIMES", "held_out", "stream", "training_pictures"]

PICTURES: Final = 100_000
"""How many examples of the corpus' endless stream are painted."""
KEPT: Final = 20
FEWEST: Final = KEPT + 1
"""Pictures of a user's own: two of them are kept, for some measures are of what lies between two."""
PLAIN_TIMES: Final = 3
"""How often pictures of plain shapes are seen for each time that others are: which word goes with which thing is
learned from them, and came slowest when they were seen once (no relation in 355,000 pictures)."""
RELATED_TIMES: Final = 6
"""The same for two plain shapes of which one stands somewhere from the other: which of the two is meant, and where it
stands, is learned from them alone."""


def training_pictures(workshop: Workshop) -> Steps[Rendered]:
    """What is trained on.

    Raises:
        DataError: Of a user's own there are not enough.
    """
    if workshop.data is None:
        return (yield from render_examples(workshop.corpus, PICTURES))
    everything = yield from gather_captions(workshop.data, workshop.cache)
    if len(everything) < FEWEST:
        count = len(everything)
        raise DataError(
            f"{workshop.data} has {count} captioned pictures, and no network is trained on fewer than {FEWEST}",
            hint=f"one in {KEPT} is kept to measure it by, and two of those are needed",
        )
    return everything.rows(np.flatnonzero(np.arange(len(everything)) % KEPT != 0), "train")


def held_out(workshop: Workshop, splits: tuple[str, ...] = ("concepts", "pairs", "relations")) -> Rendered:
    """What is never trained on: the named splits of the corpus, or every twentieth picture of a user's own."""
    if workshop.data is not None:
        return drain(gather_captions(workshop.data, workshop.cache)).rows(slice(None, None, KEPT), "kept")
    corpus = Corpus.open(workshop.corpus)
    examples = [example for split in splits for example in corpus.held_out(split)]  # pyright: ignore[reportArgumentType]
    pictures = np.stack([example.array() for example in examples])
    return Rendered("-".join(splits), pictures, [example.caption for example in examples])


def stream(
    captions: Sequence[str], where: NDArray[np.int64], *, plain: int = PLAIN_TIMES, related: int = RELATED_TIMES
) -> NDArray[np.int64]:
    """The pictures of an epoch, some of them several times.

    Args:
        captions: The different ones.
        where: Which of them belongs to each picture.
        plain: How often those of plain shapes are there.
        related: How often those of two plain shapes are of which one stands somewhere from the other.
    """

    def times(caption: str) -> int:
        if not names_plain_shapes(caption):
            return 1
        return related if names_relation(caption) else plain

    return np.repeat(np.arange(len(where)), np.array([times(caption) for caption in captions])[where])
