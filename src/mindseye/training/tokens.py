"""Pictures as tokens beside the ids of their captions: what models that write are trained on, made once and cached."""

from collections.abc import Sequence
from typing import Final

import numpy as np
import torch
from jaxtyping import Int
from numpy.typing import NDArray
from torch import Tensor

from mindseye.codec import TokenCodec
from mindseye.data.rendered import Rendered
from mindseye.data.scenes import names_plain_shapes
from mindseye.objective import Batch
from mindseye.request import Steps
from mindseye.text.tokenizer import Tokenizer
from mindseye.training.encodings import distinct, encode_all, fingerprint
from mindseye.training.feeds import order, to_pixels
from mindseye.training.pictures import held_out
from mindseye.training.recipe import Workshop

__all__ = ["CODEC", "LENGTH", "TokenFeed", "held_out_tokens", "no_text", "spelled", "tokens_of", "words"]

CODEC: Final = "vqgan-pocket"
"""The part whose tokens are written; vit-vqgan-pocket has as many, of as many codes."""
LENGTH: Final = 32
"""Ids that are read of a caption: the corpus' longest has 30."""
PLAIN_TIMES: Final = 3
"""How often pictures of plain shapes are seen for each time that others are, as with the U-Net."""


class TokenFeed:
    """Tokens with the ids of their captions.

    Args:
        ids: ``N T``, of pictures.
        text: ``M L``, of captions.
        caption: Which caption belongs to a picture.
        stream: The pictures of an epoch; one that stands there three times is seen three times.
        seed: Of the order.
    """

    def __init__(
        self,
        ids: NDArray[np.integer],
        text: Int[Tensor, "M L"],
        caption: NDArray[np.int64],
        stream: NDArray[np.int64],
        seed: int = 0,
    ) -> None:
        self.ids, self.text, self.caption, self.stream, self.seed = ids, text, caption, stream, seed

    def batch(self, step: int, size: int) -> Batch:
        """``{"ids": B T, "text": B L}``."""
        rows = np.sort(self.stream[order(step, size, len(self.stream), self.seed)])
        ids = torch.from_numpy(np.asarray(self.ids[rows]).astype(np.int64))
        return {"ids": ids, "text": self.text[torch.from_numpy(self.caption[rows])]}


def words(workshop: Workshop) -> Tokenizer:
    """What spells captions."""
    return Tokenizer.from_file(workshop.part_files("bpe-pocket"), LENGTH)


def no_text(workshop: Workshop) -> Int[Tensor, "1 L"]:
    """The ids of nothing said."""
    return words(workshop).encode([""])[0]


def spelled(workshop: Workshop, captions: Sequence[str]) -> tuple[Int[Tensor, "M L"], NDArray[np.int64]]:
    """The ids of all different captions, and which of them each one is."""
    different, where = distinct(captions)
    return words(workshop).encode(different)[0], where


def tokens_of(workshop: Workshop, rendered: Rendered) -> Steps[TokenFeed]:
    """The feed of pictures, encoded when they are not yet."""
    codec: TokenCodec = workshop.parts(CODEC)
    folder = workshop.cache / "encodings"
    folder.mkdir(parents=True, exist_ok=True)
    seen = fingerprint(workshop.part_files(CODEC))
    ids = yield from encode_all(
        folder / f"codes-{rendered.name}-{seen}.npy",
        len(rendered),
        lambda start, stop: codec.to_ids(to_pixels(rendered.pictures[start:stop])),
        stage="encode pictures",
        dtype=np.int32,
    )
    text, where = spelled(workshop, rendered.captions)
    plain = np.array([names_plain_shapes(caption) for caption in rendered.captions], dtype=bool)
    stream = np.repeat(np.arange(len(where)), np.where(plain, PLAIN_TIMES, 1))
    return TokenFeed(ids, text, where, stream)


def held_out_tokens(workshop: Workshop, count: int = 512) -> tuple[Int[Tensor, "N L"], Int[Tensor, "N T"]]:
    """Captions and tokens of pictures that are never trained on, always the same ones."""
    kept = held_out(workshop)
    rows = np.random.default_rng(0).permutation(len(kept))[:count]
    codec: TokenCodec = workshop.parts(CODEC)
    with torch.no_grad():
        ids = torch.cat(
            [codec.to_ids(to_pixels(kept.pictures[chunk])) for chunk in np.array_split(rows, 16) if len(chunk)]
        )
    return words(workshop).encode([kept.captions[row] for row in rows])[0], ids
