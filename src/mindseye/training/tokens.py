"""What models of tokens are trained on: captions as ids, pictures as the ids of a frozen codec, encoded once.

All of them share it: which text becomes which ids is the recipe's business, which codec the picture's, and the two are
cached under the fingerprints of the files that made them (`mindseye.training.encodings`).
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from mindseye.autoregression import Predictor, bits
from mindseye.codec import TokenCodec
from mindseye.data.rendered import Rendered
from mindseye.objective import Batch
from mindseye.request import Steps
from mindseye.shapes import Ids, Pixels
from mindseye.training.encodings import distinct, encode_all, fingerprint
from mindseye.training.feeds import order, to_pixels
from mindseye.training.pictures import held_out, stream, training_pictures
from mindseye.training.recipe import Feed, Workshop

__all__ = ["Read", "TakingTurns", "TokenFeed", "gather_ids", "gather_tokens", "scene_tokens", "shrunk", "token_scores"]

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


class TakingTurns:
    """Two feeds: every so many steps the other one.

    Args:
        usual: What most steps see.
        other: What the last of every ``every`` steps sees; None = there is none.
        every: At least 2.
    """

    def __init__(self, usual: Feed, other: Feed | None, every: int) -> None:
        self.usual, self.other, self.every = usual, other, every

    def batch(self, step: int, size: int) -> Batch:
        """Of whichever feed's turn it is; each goes on where it was."""
        if self.other is None:
            return self.usual.batch(step, size)
        turn, place = divmod(step, self.every)
        if place == self.every - 1:
            return self.other.batch(turn, size)
        return self.usual.batch((self.every - 1) * turn + place, size)


def shrunk(pixels: Pixels, times: int) -> Float[Tensor, "B 3 h w"]:
    """Pictures so many times smaller, by the mean of squares of pixels."""
    return pixels if times == 1 else F.avg_pool2d(pixels, times)


def gather_ids(workshop: Workshop, codec: str, rendered: Rendered, shrink: int = 1) -> Steps[NDArray[np.int16]]:
    """Pictures as ids, a row each, encoded when they are not yet.

    Args:
        workshop: Where parts and the cache are.
        codec: The part that makes ids of pictures: "vqgan-pocket".
        rendered: The pictures.
        shrink: How many times smaller they are made first.
    """
    network: TokenCodec = workshop.parts(codec)

    def to_ids(start: int, stop: int) -> Tensor:
        return network.to_ids(shrunk(to_pixels(rendered.pictures[start:stop]), shrink))

    name = rendered.name if shrink == 1 else f"{rendered.name}-shrunk-{shrink}"
    path = _kept(workshop, codec, name)
    return (yield from encode_all(path, len(rendered), to_ids, stage="encode pictures", kind=np.int16))


def gather_tokens(workshop: Workshop, codec: str, read: Read, shrink: int = 1) -> Steps[TokenFeed]:
    """Every training picture and caption as ids; plain shapes are seen more often, as by the pocket U-Net.

    Args:
        workshop: Where pictures, parts and the cache are.
        codec: The part that makes ids of pictures: "vqgan-pocket".
        read: Texts to ids.
        shrink: How many times smaller pictures are made before they are encoded.
    """
    rendered = yield from training_pictures(workshop)
    ids = yield from gather_ids(workshop, codec, rendered, shrink)
    captions, where = distinct(rendered.captions)
    words = np.concatenate([read(captions[i : i + 4096]).numpy() for i in range(0, len(captions), 4096)])
    return TokenFeed(ids, words.astype(np.int32), where, stream(captions, where))


def scene_tokens(
    workshop: Workshop,
    codec: str,
    read: Read,
    name: str,
    captions: Sequence[str],
    painted: Callable[[int, int], NDArray[np.uint8]],
    seed: int,
) -> Steps[TokenFeed]:
    """What is painted for one recipe alone, and its captions, as ids; painted and encoded when they are not yet.

    Args:
        workshop: Where parts and the cache are.
        codec: The part that makes ids of pictures.
        read: Texts to ids.
        name: Tells these pictures from any others.
        captions: One an example.
        painted: From the first and the last but one example to their pictures, ``B F H W 3`` bytes, F pictures each.
        seed: Of the order.
    """
    network: TokenCodec = workshop.parts(codec)

    def to_ids(start: int, stop: int) -> Tensor:
        pictures = painted(start, stop)
        return network.to_ids(to_pixels(pictures.reshape(-1, *pictures.shape[2:]))).view(len(pictures), -1)

    path = _kept(workshop, codec, name)
    ids = yield from encode_all(path, len(captions), to_ids, stage="encode scenes", size=32, kind=np.int16)
    different, where = distinct(captions)
    return TokenFeed(ids, read(different).numpy().astype(np.int32), where, np.arange(len(captions)), seed)


def _kept(workshop: Workshop, codec: str, name: str) -> Path:
    """Where ids are kept: under the hash of the codec that made them."""
    folder = workshop.cache / "encodings"
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"ids-{codec}-{name}-{fingerprint(workshop.part_files(codec))}.npy"


@torch.no_grad()
def token_scores(
    workshop: Workshop, network: Predictor, codec: str, read: Read, *, shrink: int = 1, count: int = 512
) -> dict[str, float]:
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
        ids = tokens.to_ids(shrunk(to_pixels(kept.pictures[chosen[start : start + 32]]), shrink))
        for name, text in texts.items():
            found[name].append(bits(network, text[start : start + 32], ids))
    return {f"bits{name}": float(torch.cat(each).mean()) for name, each in found.items()}
