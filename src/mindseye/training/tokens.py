"""What models of tokens are trained on: captions as ids, pictures as the ids of a frozen codec, encoded once.

All of them share it: which text becomes which ids is the recipe's business, which codec the picture's, and the two are
cached under the fingerprints of the files that made them (`mindseye.training.encodings`).
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mindseye.autoregression import Predictor, bits
from mindseye.codec import TokenCodec
from mindseye.data.scenes import names_plain_shapes
from mindseye.objective import Batch
from mindseye.request import Steps
from mindseye.shapes import Ids
from mindseye.training.encodings import distinct, encode_all, fingerprint
from mindseye.training.feeds import order, to_pixels
from mindseye.training.pictures import held_out, training_pictures
from mindseye.training.recipe import Workshop
from mindseye.training.recipes.stable_diffusion import PLAIN_TIMES

__all__ = ["TokenFeed", "gather_tokens", "token_scores"]

Read = Callable[[Sequence[str]], Ids]
"""Texts to ids of one length."""


class TokenFeed:
    """Ids of pictures with the ids of their captions.

    Args:
        ids: One row a picture.
        words: One row a caption.
        caption: Which caption belongs to a picture.
        stream: The pictures of an epoch; one that stands there three times is seen three times.
        seed: Of the order.
    """

    def __init__(
        self,
        ids: NDArray[np.int16],
        words: NDArray[np.int32],
        caption: NDArray[np.int64],
        stream: NDArray[np.int64],
        seed: int = 0,
    ) -> None:
        self.ids, self.words, self.caption, self.stream, self.seed = ids, words, caption, stream, seed

    def batch(self, step: int, size: int) -> Batch:
        """``{"text": B L, "ids": B N}``, int64."""
        rows = np.sort(self.stream[order(step, size, len(self.stream), self.seed)])
        arrays = {"text": self.words[self.caption[rows]], "ids": self.ids[rows]}
        return {key: torch.from_numpy(np.asarray(value)).long() for key, value in arrays.items()}


def gather_tokens(workshop: Workshop, codec: str, read: Read) -> Steps[TokenFeed]:
    """Every training picture and caption as ids; plain shapes are seen more often, as by the pocket U-Net.

    Args:
        workshop: Where pictures, parts and the cache are.
        codec: The part that makes ids of pictures: "vqgan-pocket".
        read: Texts to ids.
    """
    rendered = yield from training_pictures(workshop)
    network: TokenCodec = workshop.parts(codec)
    folder = workshop.cache / "encodings"
    folder.mkdir(parents=True, exist_ok=True)

    def to_ids(start: int, stop: int) -> Tensor:
        return network.to_ids(to_pixels(rendered.pictures[start:stop]))

    made = fingerprint(workshop.part_files(codec))
    path = folder / f"ids-{codec}-{rendered.name}-{made}.npy"
    ids = yield from encode_all(path, len(rendered), to_ids, stage="encode pictures", kind=np.int16)
    captions, where = distinct(rendered.captions)
    words = np.concatenate([read(captions[i : i + 4096]).numpy() for i in range(0, len(captions), 4096)])
    plain = np.array([names_plain_shapes(caption) for caption in captions])[where]
    stream = np.repeat(np.arange(len(where)), np.where(plain, PLAIN_TIMES, 1))
    return TokenFeed(ids, words.astype(np.int32), where, stream)


@torch.no_grad()
def token_scores(workshop: Workshop, network: Predictor, codec: str, read: Read, count: int = 512) -> dict[str, float]:
    """Bits a token on held-out pictures: with their captions, with none, and with each other's.

    The differences are what the text is worth: a model that does not listen has none.
    """
    kept = held_out(workshop)
    chosen = np.linspace(0, len(kept) - 1, min(count, len(kept))).astype(np.int64)
    tokens: TokenCodec = workshop.parts(codec)
    told = read([kept.captions[i] for i in chosen])
    texts: Mapping[str, Tensor] = {"": told, "_untold": read([""] * len(chosen)), "_mistold": told.roll(1, 0)}
    found: dict[str, list[Any]] = {name: [] for name in texts}
    for start in range(0, len(chosen), 32):
        ids = tokens.to_ids(to_pixels(kept.pictures[chosen[start : start + 32]]))
        for name, text in texts.items():
            found[name].append(bits(network, text[start : start + 32], ids))
    return {f"bits{name}": float(torch.cat(each).mean()) for name, each in found.items()}
