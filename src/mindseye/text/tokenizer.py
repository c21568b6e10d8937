"""Text to token ids: one thin face over the `tokenizers` library.

CLIP's byte-pair encoding (Radford et al. 2021, arXiv:2103.00020, after Sennrich et al. 2016, arXiv:1508.07909): text is
lower-cased, cut into words by one regular expression, every word is spelled in the 256 bytes of its UTF-8 form, the
last byte carrying the suffix `</w>`, and learned merges join neighbours. Bytes make every text expressible: there is no
unknown token. The two special tokens come last in the vocabulary, because CLIP pools its text tower where the id is
largest.

Deviation: the release repairs its input with the library `ftfy`. We do what of it matters in prompts (HTML entities,
curly quotes, ligatures, full-width letters, control characters, NFC) and leave out guessing at wrongly decoded text.
"""

import gzip
import html
import json
import lzma
import re
import unicodedata
from collections.abc import Iterable, Sequence
from importlib import resources
from pathlib import Path
from typing import final

import torch
from tokenizers import AddedToken, Regex, models, normalizers, pre_tokenizers, trainers
from tokenizers import Tokenizer as Backend

from mindseye.shapes import Ids

SOT = "<|startoftext|>"
"""Opens every text."""
EOT = "<|endoftext|>"
"""Closes every text; the largest id."""
SUFFIX = "</w>"
"""Marks the last piece of a word."""
MERGES = 49152 - 512 - 2 + 256
"""Of the merges in CLIP's release, the first so many are used: 49,408 ids less 512 bytes and two special tokens."""

_WORDS = r"(?i)'s|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+"
_CONTROLS = [*range(0x09), 0x0B, *range(0x0E, 0x20), 0x7F, *range(0x206A, 0x2070), 0xFEFF, *range(0xFFF9, 0xFFFD)]
_MENDED = str.maketrans(
    "\u2018\u2019\u201a\u201b\u02bc\u201c\u201d\u201e\u201f", "'''''\"\"\"\"", "".join(map(chr, _CONTROLS))
)
_WIDE = re.compile("[\ufb00-\ufb06\uff01-\uff9f\uffe0-\uffee\u3000]+")


def clean(text: str) -> str:
    """Repairs what copying text from elsewhere breaks.

    HTML entities, curly quotes, ligatures, full-width letters, half characters and invisible control characters. White
    space and case are not touched: the tokenizer's own normaliser does those.
    """
    text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    text = html.unescape(html.unescape(text)).translate(_MENDED)
    return _WIDE.sub(lambda found: unicodedata.normalize("NFKC", found[0]), text)


@final
class Tokenizer:
    """Strings to padded ids of one fixed length.

    Attributes:
        length: ids a text becomes, the special ones included.
        vocabulary: how many different ids there are.
        sot: id that opens every text.
        eot: id that closes every text.
        pad: id that fills the rest: the end id (Stable Diffusion 1) or 0 (CLIP itself, OpenCLIP, Stable Diffusion 2).
        comma: id of a comma that stands alone; None where the vocabulary has none.
    """

    def __init__(self, backend: Backend, length: int, pad: int | None = None) -> None:
        """Wraps a `tokenizers` tokenizer that knows the two special tokens.

        Args:
            backend: the tokenizer; its file's padding section says the pad id.
            length: ids a text becomes; at least 3.
            pad: overrides the pad id of the file; the end id if neither says.

        Raises:
            ValueError: the two special tokens are missing, or `length` leaves no room for text.
        """
        sot, eot = backend.token_to_id(SOT), backend.token_to_id(EOT)
        if sot is None or eot is None:
            raise ValueError(f"a text tokenizer needs the tokens {SOT} and {EOT}; this vocabulary lacks one of them")
        if length < 3:
            raise ValueError(f"length {length} leaves no room for text between the two special tokens; 3 is the least")
        filed = (backend.padding or {}).get("pad_id")
        self.length, self.vocabulary = length, backend.get_vocab_size()
        self.sot: int = sot
        self.eot: int = eot
        self.pad: int = next(value for value in (pad, filed, eot) if value is not None)
        self.comma: int | None = backend.token_to_id("," + SUFFIX)
        backend.no_truncation()  # cutting and padding are done here, to know what was cut
        backend.no_padding()
        self._backend = backend

    @classmethod
    def from_file(cls, path: str | Path, length: int) -> "Tokenizer":
        """Reads a file of the `tokenizers` library (`tokenizer.json`, `bpe-pocket.json`)."""
        return cls(Backend.from_file(str(path)), length)

    @classmethod
    def clip(cls, path: str | Path, length: int = 77, pad: int | None = None) -> "Tokenizer":
        """Reads CLIP's published vocabulary.

        Args:
            path: `bpe_simple_vocab_16e6.txt.gz` of the release, or a folder with `vocab.json` and `merges.txt`, or with
                `tokenizer.json`.
            length: ids a text becomes; CLIP was trained with 77.
            pad: pad id; the end id if not given.
        """
        path = Path(path)
        if path.is_dir() and not (path / "vocab.json").is_file() and (path / "tokenizer.json").is_file():
            # What transformers 5 writes: both tables in one file of the `tokenizers` library.
            stored = json.loads((path / "tokenizer.json").read_text(encoding="utf-8"))["model"]
            vocabulary = stored["vocab"]
            merges = [tuple(merge.split(" ") if isinstance(merge, str) else merge) for merge in stored["merges"]]
        elif path.is_dir():
            vocabulary = json.loads((path / "vocab.json").read_text(encoding="utf-8"))
            merges = _merges((path / "merges.txt").read_text(encoding="utf-8"))
        else:
            merges = _merges(gzip.decompress(path.read_bytes()).decode("utf-8"))[:MERGES]
            vocabulary = _vocabulary(merges)
        return cls(_backend(vocabulary, merges), length, pad)

    @classmethod
    def packaged(cls, length: int = 77, pad: int | None = None) -> "Tokenizer":
        """CLIP's vocabulary as it travels with this package, for checkpoints that bring none.

        Args:
            length: ids a text becomes; CLIP was trained with 77.
            pad: pad id; the end id if not given.
        """
        packed = resources.files("mindseye.text").joinpath("clip_vocabulary", "merges.txt.xz").read_bytes()
        merges = _merges(lzma.decompress(packed).decode("utf-8"))
        return cls(_backend(_vocabulary(merges), merges), length, pad)

    @classmethod
    def train(cls, texts: Iterable[str], vocabulary: int, length: int = 77) -> "Tokenizer":
        """Learns merges from texts, in CLIP's form.

        Args:
            texts: the corpus, read once.
            vocabulary: ids wanted, 514 of them fixed (256 bytes, the same as ends of words, two special tokens).
                A small corpus can run out of merges earlier.
            length: ids a text becomes.

        Raises:
            ValueError: `vocabulary` is below 514.
        """
        room = vocabulary - 2 * 256 - 2
        if room < 0:
            raise ValueError(f"a vocabulary of {vocabulary} cannot hold the 514 ids that every text may need")
        backend = _backend({}, [])
        trainer = trainers.BpeTrainer(
            vocab_size=vocabulary + 514,  # it counts fixed ids otherwise; merges beyond `room` are left out below
            initial_alphabet=_alphabet(),
            end_of_word_suffix=SUFFIX,
            show_progress=False,
            special_tokens=[],
        )
        backend.train_from_iterator((clean(text) for text in texts), trainer)
        merges = [tuple(merge) for merge in json.loads(backend.to_str())["model"]["merges"]][:room]
        return cls(_backend(_vocabulary(merges), merges), length)

    def save(self, path: str | Path) -> None:
        """Writes one self-contained file that `from_file` and the `tokenizers` library read."""
        backend = Backend.from_str(self._backend.to_str())
        backend.enable_padding(pad_id=self.pad, pad_token=backend.id_to_token(self.pad))
        Path(path).write_text(backend.to_str(pretty=True), encoding="utf-8")

    def encode(self, texts: Sequence[str]) -> tuple[Ids, list[str]]:
        """Ids of texts, opened, closed and padded.

        Args:
            texts: B strings of any length and script.

        Returns:
            ids `B L` with L = `length`, int64; and for every text the words that did not fit, "" if all did. A word cut
            in its middle counts as cut off, though its first pieces are still in the ids. The last id of a text that
            was cut is the end id.
        """
        mended = [clean(text) for text in texts]
        ids = torch.full((len(mended), self.length), self.pad, dtype=torch.long)
        cut = []
        encodings = self._backend.encode_batch(mended, add_special_tokens=False)
        for row, text, found in zip(ids, mended, encodings, strict=True):
            kept = [self.sot, *found.ids[: self.length - 2], self.eot]
            row[: len(kept)] = torch.tensor(kept)
            cut.append(from_word(text, found.offsets[self.length - 2][0]) if len(found) > self.length - 2 else "")
        return ids, cut

    def pieces(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of texts, neither opened nor closed nor cut nor padded: what `encode` puts between the special ones."""
        encodings = self._backend.encode_batch([clean(text) for text in texts], add_special_tokens=False)
        return [encoding.ids for encoding in encodings]

    def pieces_at(self, texts: Sequence[str]) -> list[tuple[str, list[int], list[int]]]:
        """The same beside each text, repaired, and with the places in it where they begin."""
        mended = [clean(text) for text in texts]
        encodings = self._backend.encode_batch(mended, add_special_tokens=False)
        return [
            (text, each.ids, [start for start, _ in each.offsets]) for text, each in zip(mended, encodings, strict=True)
        ]


def from_word(text: str, start: int) -> str:
    """The text from the beginning of the word that holds position `start`."""
    while start > 0 and not text[start - 1].isspace():
        start -= 1
    return " ".join(text[start:].split())


def _alphabet() -> list[str]:
    """The 256 bytes as visible characters, in CLIP's order: those that are visible in Latin-1 first, as themselves."""
    visible = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    return [chr(byte) for byte in visible] + [chr(0x100 + rank) for rank in range(256 - len(visible))]


def _vocabulary(merges: Sequence[tuple[str, ...]]) -> dict[str, int]:
    """CLIP's numbering: bytes, bytes that end a word, merges in order, special tokens."""
    alphabet = _alphabet()
    tokens = [*alphabet, *(byte + SUFFIX for byte in alphabet), *("".join(merge) for merge in merges), SOT, EOT]
    return {token: index for index, token in enumerate(dict.fromkeys(tokens))}


def _merges(text: str) -> list[tuple[str, ...]]:
    """Reads the published list, one merge a line below a heading."""
    return [tuple(line.split()) for line in text.split("\n")[1:] if line.strip()]


def _backend(vocabulary: dict[str, int], merges: Sequence[tuple[str, ...]]) -> Backend:
    pairs = [(first, second) for first, second in merges]
    backend = Backend(models.BPE(vocab=vocabulary, merges=pairs, end_of_word_suffix=SUFFIX))
    backend.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase(), normalizers.Strip()]
    )
    words = pre_tokenizers.Split(Regex(_WORDS), behavior="removed", invert=True)
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [words, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    if vocabulary:
        backend.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in (SOT, EOT)])
    return backend
