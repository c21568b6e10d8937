"""Frozen encodings, made once: what a frozen network says of every example, as a memory-mapped array of small numbers.

The file's name carries the hashes of the network's weights and of what went in, so a better autoencoder or another
corpus never meets encodings of the old one.
"""

import hashlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mindseye.request import Progress, Steps

__all__ = ["encode_all", "fingerprint"]


def fingerprint(*files: Path) -> str:
    """Twelve hex digits that tell these files from any others."""
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.read_bytes())
    return digest.hexdigest()[:12]


def encode_all(
    path: Path, count: int, encode: Callable[[int, int], Tensor], *, stage: str, size: int = 128, kind: Any = np.float16
) -> Steps[NDArray[Any]]:
    """``encode(start, stop)`` over ``count`` examples, kept at ``path``.

    Args:
        path: the ``.npy`` to write, or to read when it is there.
        count: how many examples there are.
        encode: rows ``start`` to ``stop`` to a tensor of as many rows.
        stage: what the progress is called.
        size: rows at a time.
        kind: numpy's dtype of what is kept: half precision, or `np.int16` for ids below 32,768.
    """
    if not path.exists():
        part = path.with_suffix(f".part{os.getpid()}.npy")
        store: NDArray[Any] | None = None
        for start in range(0, count, size):
            with torch.no_grad():
                rows = encode(start, min(start + size, count)).cpu().numpy().astype(kind)
            if store is None:
                store = np.lib.format.open_memmap(part, mode="w+", dtype=kind, shape=(count, *rows.shape[1:]))
            store[start : start + len(rows)] = rows
            yield Progress(stage, start, count, tuple)
        if store is not None:
            store.flush()
        del store
        os.replace(part, path)
    return np.load(path, mmap_mode="r")


def distinct(captions: Sequence[str]) -> tuple[list[str], NDArray[np.int64]]:
    """Different captions in order of appearance, and for each caption its place among them."""
    places: dict[str, int] = {}
    where = np.array([places.setdefault(caption, len(places)) for caption in captions])
    return list(places), where
