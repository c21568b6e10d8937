"""Pictures as tokens, and captions as ids: what every recipe of a model that writes pictures token by token is fed.

The codec is frozen, so each picture is encoded once (`mindseye.training.encodings`), and a step costs what the model
costs.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple, final

import numpy as np
import torch
from jaxtyping import Int
from numpy.typing import NDArray
from torch import Tensor

from mindseye.data.scenes import names_plain_shapes
from mindseye.objective import Batch
from mindseye.request import Steps
from mindseye.training.encodings import encode_all, fingerprint
from mindseye.training.feeds import order, to_pixels
from mindseye.training.pictures import held_out, training_pictures
from mindseye.training.recipe import Workshop

__all__ = ["TokenFeed", "Tokens", "held_out_tokens", "token_feed"]


class Tokens(NamedTuple):
    """Pictures of which both halves are integers.

    Attributes:
        text: Ids of the captions.
        ids: Codes of the pictures, row by row.
        captions: What was said.
    """

    text: Int[Tensor, "B L"]
    ids: Int[Tensor, "B N"]
    captions: Sequence[str]


@final
class TokenFeed:
    """Ids of captions, and codes of their pictures.

    Args:
        text: One row a picture.
        ids: One row a picture.
        stream: The pictures of an epoch; one that stands there three times is seen three times.
        seed: Of the order.
    """

    def __init__(
        self, text: Int[Tensor, "M L"], ids: NDArray[Any], stream: NDArray[np.int64] | None = None, seed: int = 0
    ) -> None:
        self.text, self.ids, self.seed = text, ids, seed
        self.stream = np.arange(len(ids)) if stream is None else stream

    def batch(self, step: int, size: int) -> Batch:
        """``{"text": B L, "ids": B N}``."""
        rows = np.sort(self.stream[order(step, size, len(self.stream), self.seed)])
        return {"text": self.text[rows], "ids": torch.from_numpy(np.array(self.ids[rows])).long()}


def token_feed(workshop: Workshop, tokenizer: Any, *, codec: str, plain: int = 1, seed: int = 0) -> Steps[TokenFeed]:
    """The training pictures as tokens, encoded when they are first asked for.

    Args:
        workshop: Where things are.
        tokenizer: Of the text; its ``encode`` gives ids of one length.
        codec: Name of the part that encodes pictures, a `mindseye.codec.TokenCodec`.
        plain: How often pictures of plain shapes are seen for each time that others are.
        seed: Of the order.
    """
    rendered = yield from training_pictures(workshop)
    network = workshop.parts(codec)
    folder = workshop.cache / "encodings"
    folder.mkdir(parents=True, exist_ok=True)
    ids = yield from encode_all(
        folder / f"ids-{rendered.name}-{fingerprint(workshop.part_files(codec))}.npy",
        len(rendered),
        lambda start, stop: network.to_ids(to_pixels(rendered.pictures[start:stop])),
        stage="encode pictures",
        dtype=np.int32,
    )
    text, _ = tokenizer.encode(rendered.captions)
    often = np.array([plain if names_plain_shapes(caption) else 1 for caption in rendered.captions])
    return TokenFeed(text, ids, np.repeat(np.arange(len(ids)), often), seed)


@torch.no_grad()
def held_out_tokens(
    workshop: Workshop, tokenizer: Any, *, codec: str, count: int, splits: tuple[str, ...] = ("pairs", "relations")
) -> Tokens:
    """The first pictures that are never trained on, as tokens.

    Args:
        workshop: Where things are.
        tokenizer: Of the text.
        codec: Name of the part that encodes pictures.
        count: How many.
        splits: Of the corpus; a user's own pictures have one.
    """
    kept = held_out(workshop, splits)
    rows = np.linspace(0, len(kept) - 1, min(count, len(kept))).astype(int)
    network = workshop.parts(codec)
    pixels = to_pixels(kept.pictures[rows])
    captions = [kept.captions[row] for row in rows]
    ids = torch.cat([network.to_ids(chunk) for chunk in pixels.split(64)])
    return Tokens(tokenizer.encode(captions)[0], ids, captions)
