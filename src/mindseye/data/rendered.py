"""Pictures painted once and kept: the first n examples of a training stream as one memory-mapped array.

Painting costs a core what a small network's step costs; a cache makes the step the network's own cost. Painted in
parallel, written under a temporary name and renamed, so a half cache is never read.
"""

import hashlib
import json
import os
from collections.abc import Generator, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mindseye.data.captions import open_captions
from mindseye.data.glyphs import SIDE, VERSION, Corpus
from mindseye.request import Progress

__all__ = ["Rendered", "gather_captions", "render_examples"]


@dataclass(frozen=True, eq=False)
class Rendered:
    """Pictures with their captions.

    Attributes:
        name: Tells these pictures from any others; part of the names of what is cached of them.
        pictures: ``N SIDE SIDE 3`` bytes.
        captions: One a picture.
    """

    name: str
    pictures: NDArray[np.uint8]
    captions: list[str]

    def __len__(self) -> int:
        return len(self.captions)

    def rows(self, which: slice | NDArray[np.int64], name: str) -> "Rendered":
        """Some of the pictures."""
        captions = self.captions[which] if isinstance(which, slice) else [self.captions[i] for i in which]
        return Rendered(f"{self.name}-{name}", self.pictures[which], captions)


def render_examples(root: Path, count: int, seed: int = 0, workers: int = 2) -> Generator[Progress, None, Rendered]:
    """The first ``count`` examples of stream ``seed`` of the corpus in ``root``, painted when not there yet."""
    stem = root / f"examples-v{VERSION}-seed{seed}-{count}"
    if not stem.with_suffix(".json").exists():
        spans = [(root, seed, start, min(start + 256, count)) for start in range(0, count, 256)]
        with ProcessPoolExecutor(max_workers=workers) as pool:
            yield from _keep(stem, count, pool.map(_paint_span, spans), "paint")
    return _read(stem)


def gather_captions(path: Path, cache: Path) -> Generator[Progress, None, Rendered]:
    """A user's own captioned pictures, cropped to squares of `SIDE` pixels and kept in the folder ``cache``.

    Args:
        path: A folder, a ``.jsonl`` list, a ``.tar`` or a folder of ``.tar`` files (see `mindseye.data.captions`).
        cache: Where the array goes; made anew when the data set was changed since.

    Raises:
        DataError: There is no data set, or it cannot be read.
    """
    captions = open_captions(path, (SIDE, SIDE))
    changed = max((item.stat().st_mtime_ns for item in (path, *path.rglob("*"))), default=0)
    mark = hashlib.sha256(f"{path.resolve()}|{len(captions)}|{changed}".encode()).hexdigest()[:12]
    cache.mkdir(parents=True, exist_ok=True)
    stem = cache / f"pictures-{mark}-{SIDE}"
    if not stem.with_suffix(".json").exists():
        pairs = (([np.asarray(picture.convert("RGB"))], [caption]) for picture, caption in captions)
        yield from _keep(stem, len(captions), pairs, "read")
    return _read(stem)


def _keep(
    stem: Path,
    most: int,
    spans: Iterable[tuple[Sequence[NDArray[np.uint8]] | NDArray[np.uint8], list[str]]],
    stage: str,
) -> Generator[Progress, None, None]:
    """Write pictures and captions, captions last; there may be fewer than ``most``."""
    part = stem.with_suffix(f".part{os.getpid()}.npy")
    store = np.lib.format.open_memmap(part, mode="w+", dtype=np.uint8, shape=(most, SIDE, SIDE, 3))
    captions: list[str] = []
    try:
        for pictures, words in spans:
            store[len(captions) : len(captions) + len(words)] = pictures
            captions += words
            yield Progress(stage, len(captions), most, tuple)
        store.flush()
        del store
        os.replace(part, stem.with_suffix(".npy"))
    finally:
        part.unlink(missing_ok=True)
    draft = stem.with_suffix(f".part{os.getpid()}")
    draft.write_text(json.dumps(captions, ensure_ascii=False), encoding="utf-8")
    os.replace(draft, stem.with_suffix(".json"))


def _read(stem: Path) -> Rendered:
    captions = json.loads(stem.with_suffix(".json").read_text(encoding="utf-8"))
    return Rendered(stem.name, np.load(stem.with_suffix(".npy"), mmap_mode="r")[: len(captions)], captions)


_corpora: dict[Path, Corpus] = {}


def _paint_span(span: tuple[Path, int, int, int]) -> tuple[NDArray[np.uint8], list[str]]:
    root, seed, start, stop = span
    # One corpus a worker process: opening it costs a second, a span costs less.
    if root not in _corpora:
        _corpora[root] = Corpus.open(root)
    examples = [_corpora[root].example(i, seed) for i in range(start, stop)]
    return np.stack([example.array() for example in examples]), [example.caption for example in examples]
