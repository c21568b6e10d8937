"""Pictures painted once and kept: the first n examples of a training stream as one memory-mapped array.

Painting costs a core what a small network's step costs; a cache makes the step the network's own cost. Painted in
parallel, written under a temporary name and renamed, so a half cache is never read.
"""

import json
import os
from collections.abc import Generator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mindseye.data.glyphs import SIDE, VERSION, Corpus
from mindseye.request import Progress

__all__ = ["Rendered", "render_examples"]


class Rendered:
    """Pictures with their captions.

    Attributes:
        pictures: ``N SIDE SIDE 3`` bytes, memory-mapped.
        captions: one a picture.
    """

    def __init__(self, pictures: NDArray[np.uint8], captions: list[str]) -> None:
        self.pictures = pictures
        self.captions = captions

    def __len__(self) -> int:
        return len(self.captions)


def render_examples(root: Path, count: int, seed: int = 0, workers: int = 2) -> Generator[Progress, None, Rendered]:
    """The first ``count`` examples of stream ``seed`` of the corpus in ``root``, painted when not there yet."""
    stem = root / f"examples-v{VERSION}-seed{seed}-{count}"
    captions_file, pictures_file = stem.with_suffix(".json"), stem.with_suffix(".npy")
    if not captions_file.exists():
        part = stem.with_suffix(f".part{os.getpid()}.npy")
        store = np.lib.format.open_memmap(part, mode="w+", dtype=np.uint8, shape=(count, SIDE, SIDE, 3))
        captions: list[str] = []
        spans = [(root, seed, start, min(start + 256, count)) for start in range(0, count, 256)]
        with ProcessPoolExecutor(max_workers=workers) as pool:
            for pictures, words in pool.map(_paint_span, spans):
                store[len(captions) : len(captions) + len(words)] = pictures
                captions += words
                yield Progress("paint", len(captions), count, tuple)
        store.flush()
        del store
        os.replace(part, pictures_file)
        draft = captions_file.with_suffix(f".part{os.getpid()}")
        draft.write_text(json.dumps(captions, ensure_ascii=False), encoding="utf-8")
        os.replace(draft, captions_file)
    captions = json.loads(captions_file.read_text(encoding="utf-8"))
    return Rendered(np.load(pictures_file, mmap_mode="r"), captions)


_corpora: dict[Path, Corpus] = {}


def _paint_span(span: tuple[Path, int, int, int]) -> tuple[NDArray[np.uint8], list[str]]:
    root, seed, start, stop = span
    # One corpus a worker process: opening it costs a second, a span costs less.
    if root not in _corpora:
        _corpora[root] = Corpus.open(root)
    examples = [_corpora[root].example(i, seed) for i in range(start, stop)]
    return np.stack([example.array() for example in examples]), [example.caption for example in examples]
