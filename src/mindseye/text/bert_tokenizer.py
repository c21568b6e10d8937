"""Text to BERT's word pieces, for the text tower of Latent Diffusion.

WordPiece (Schuster & Nakajima 2012; Devlin et al. 2018, arXiv:1810.04805): text is lower-cased and stripped of accents,
cut at white space and punctuation, and every word is spelled in the longest pieces that the vocabulary has, pieces that
continue a word beginning with ``##``. A word that cannot be spelled is one unknown token. The vocabulary is the file
``vocab.txt`` that a release ships: one piece a line, its id the line's number.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import final

import torch
from tokenizers import Tokenizer as Backend
from tokenizers import models, normalizers, pre_tokenizers

from mindseye.errors import WeightsError, WeightsMissing
from mindseye.shapes import Ids

__all__ = ["BertTokenizer"]

CLS, SEP, PAD, UNKNOWN = "[CLS]", "[SEP]", "[PAD]", "[UNK]"
LONGEST_WORD = 100
"""Characters; a longer word is unknown, as in the release."""


@final
class BertTokenizer:
    """Strings to padded ids of one fixed length, with the face of `mindseye.text.tokenizer.Tokenizer`.

    Attributes:
        length: Ids a text becomes, the special ones included.
        vocabulary: How many different ids there are.
        sot: Id that opens every text (``[CLS]``).
        eot: Id that closes every text (``[SEP]``).
        pad: Id that fills the rest (``[PAD]``); it is attended to like any other.
    """

    def __init__(self, pieces: Sequence[str], length: int = 77) -> None:
        """Takes the pieces in the order of their ids.

        Raises:
            ValueError: One of the four special pieces is missing, or ``length`` leaves no room for text.
        """
        vocabulary = {piece: number for number, piece in enumerate(pieces)}
        if missing := [special for special in (CLS, SEP, PAD, UNKNOWN) if special not in vocabulary]:
            raise ValueError(f"a BERT vocabulary needs {', '.join(missing)}")
        if length < 3:
            raise ValueError(f"length {length} leaves no room for text between the two special tokens; 3 is the least")
        model = models.WordPiece(vocab=vocabulary, unk_token=UNKNOWN, max_input_chars_per_word=LONGEST_WORD)
        self._backend = Backend(model)
        self._backend.normalizer = normalizers.BertNormalizer(lowercase=True)
        self._backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        self.length, self.vocabulary = length, len(pieces)
        self.sot: int = vocabulary[CLS]
        self.eot: int = vocabulary[SEP]
        self.pad: int = vocabulary[PAD]

    @classmethod
    def from_file(cls, path: str | Path, length: int = 77) -> "BertTokenizer":
        """Reads ``vocab.txt``, or the folder it lies in.

        Raises:
            ValueError: It is no BERT vocabulary.
        """
        path = Path(path)
        file = path / "vocab.txt" if path.is_dir() else path
        pieces = file.read_text(encoding="utf-8").split("\n")
        return cls(pieces[:-1] if pieces and not pieces[-1] else pieces, length)

    @classmethod
    def read(cls, folder: Path | None, length: int = 77) -> "BertTokenizer":
        """Reads the vocabulary that a release ships in a folder; None where it ships none.

        Raises:
            WeightsMissing: There is no ``vocab.txt``.
            WeightsError: What is there is no BERT vocabulary.
        """
        if folder is None or not (folder / "vocab.txt").is_file():
            where = "its file holds none" if folder is None else f"{folder} has none"
            raise WeightsMissing(
                f"this model needs BERT's vocabulary (vocab.txt), and {where}",
                hint="mindseye models add latent-diffusion brings model and vocabulary",
            )
        try:
            return cls.from_file(folder, length)
        except (OSError, ValueError) as error:
            raise WeightsError(f"{folder / 'vocab.txt'} is no BERT vocabulary: {error!s:.200}") from None

    def encode(self, texts: Sequence[str]) -> tuple[Ids, list[str]]:
        """Ids of texts, opened, closed and padded.

        Args:
            texts: B strings of any length and script.

        Returns:
            ids `B L` with L = `length`, int64; and for every text what did not fit, from the beginning of the first
            word that was cut, "" if all fitted.
        """
        room = self.length - 2
        ids = torch.full((len(texts), self.length), self.pad, dtype=torch.long)
        cut = []
        mended = [text.encode("utf-16", "surrogatepass").decode("utf-16", "replace") for text in texts]
        for row, text, found in zip(ids, mended, self._backend.encode_batch(mended), strict=True):
            kept = [self.sot, *found.ids[:room], self.eot]
            row[: len(kept)] = torch.tensor(kept)
            start = found.offsets[room][0] if len(found.ids) > room else len(text)
            while 0 < start < len(text) and not text[start - 1].isspace():
                start -= 1
            cut.append(" ".join(text[start:].split()))
        return ids, cut
