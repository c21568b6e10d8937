"""Text as ids with nothing around it: cut or filled to one length, neither opened nor closed.

What the models read that continue a text with a picture:
- DALLE-pytorch: CLIP's vocabulary without its two special ids, filled up with 0; or any file of the `tokenizers`
  library.
- minDALL-E: characters and merges of them (``bpe-16k-vocab.json``, ``bpe-16k-merges.txt``), lower case, filled up with
  ``[PAD]``.
- The pocket models: the packaged vocabulary, as the first.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import final

import torch
from tokenizers import AddedToken, models, normalizers, pre_tokenizers
from tokenizers import Tokenizer as Backend

from mindseye.shapes import Ids
from mindseye.text.tokenizer import Tokenizer, from_word

__all__ = ["PlainTokenizer"]

UNKNOWN, PAD, SUFFIX = "[UNK]", "[PAD]", "</w>"
Split = Callable[[Sequence[str]], list[tuple[str, list[int], list[int]]]]
"""Texts to themselves, repaired where that is done, their ids, and where in the text each of these begins."""


@final
class PlainTokenizer:
    """Strings to ids of one fixed length.

    Attributes:
        length: Ids a text becomes.
        vocabulary: How many different ids there are.
        pad: Id that fills the rest.
    """

    def __init__(self, split: Split, vocabulary: int, length: int, pad: int) -> None:
        if length < 1:
            raise ValueError(f"a text of {length} ids says nothing")
        self._split, self.vocabulary, self.length, self.pad = split, vocabulary, length, pad

    @classmethod
    def of(cls, tokenizer: Tokenizer, length: int) -> "PlainTokenizer":
        """A tokenizer of CLIP's kind without its special ids, filled up with 0."""
        return cls(tokenizer.pieces_at, tokenizer.vocabulary, length, 0)

    @classmethod
    def clip(cls, length: int) -> "PlainTokenizer":
        """CLIP's vocabulary as it travels with this package: DALLE-pytorch's usual one."""
        return cls.of(Tokenizer.packaged(), length)

    @classmethod
    def from_file(cls, path: str | Path, length: int) -> "PlainTokenizer":
        """A file of the `tokenizers` library, filled up with 0.

        Raises:
            ValueError: It is none.
        """
        try:
            backend = Backend.from_file(str(path))
        except Exception as error:  # the library raises bare Exception
            raise ValueError(f"{Path(path).name} is no file of the tokenizers library: {error!s:.200}") from None
        return cls(_splitting(backend), backend.get_vocab_size(), length, 0)

    @classmethod
    def char_bpe(cls, folder: str | Path, length: int) -> "PlainTokenizer":
        """minDALL-E's: ``*vocab.json`` and ``*merges.txt`` in a folder.

        Raises:
            ValueError: The files are damaged, or have no ``[PAD]`` or no ``[UNK]``.
            OSError: They cannot be read.
        """
        files = [sorted(Path(folder).glob(ending)) for ending in ("*vocab.json", "*merges.txt")]
        if not all(files):
            raise ValueError("there is no *vocab.json with a *merges.txt")
        vocabulary = json.loads(files[0][0].read_text(encoding="utf-8"))
        lines = files[1][0].read_text(encoding="utf-8").splitlines()
        merges = [tuple(line.split(" ")) for line in lines if line and not line.startswith("#version")]
        if not isinstance(vocabulary, dict) or any(len(merge) != 2 for merge in merges):
            raise ValueError("its vocabulary or its merges are damaged")
        if UNKNOWN not in vocabulary:
            raise ValueError(f"its vocabulary has no {UNKNOWN}")
        try:
            model = models.BPE(
                vocab=vocabulary,
                merges=[(first, second) for first, second in merges],
                unk_token=UNKNOWN,
                end_of_word_suffix=SUFFIX,
            )
        except Exception as error:  # the library raises bare Exception
            raise ValueError(f"its merges do not belong to its vocabulary: {error!s:.200}") from None
        backend = Backend(model)
        backend.normalizer = normalizers.Sequence(
            [normalizers.BertNormalizer(lowercase=False), normalizers.Lowercase()]
        )
        backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        backend.add_special_tokens([AddedToken(UNKNOWN, special=True), AddedToken(PAD, special=True)])
        return cls(_splitting(backend), backend.get_vocab_size(), length, backend.token_to_id(PAD) or 0)

    def encode(self, texts: Sequence[str]) -> tuple[Ids, list[str]]:
        """Ids of texts, filled up.

        Args:
            texts: B strings of any length and script.

        Returns:
            ids `B L` with L = `length`, int64; and for every text the words that did not fit, "" if all did.
        """
        ids = torch.full((len(texts), self.length), self.pad, dtype=torch.long)
        cut = []
        for row, (text, found, places) in zip(ids, self._split(texts), strict=True):
            kept = found[: self.length]
            row[: len(kept)] = torch.tensor(kept, dtype=torch.long)
            cut.append(from_word(text, places[self.length]) if len(found) > self.length else "")
        return ids, cut


def _splitting(backend: Backend) -> Split:
    backend.no_truncation()
    backend.no_padding()

    def split(texts: Sequence[str]) -> list[tuple[str, list[int], list[int]]]:
        encodings = backend.encode_batch(list(texts), add_special_tokens=False)
        return [
            (text, each.ids, [start for start, _ in each.offsets]) for text, each in zip(texts, encodings, strict=True)
        ]

    return split
