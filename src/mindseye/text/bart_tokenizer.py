"""Text to the ids of DALL-E mini: BART's byte-pair encoding, and what is done to a text before.

BART took its encoding from GPT-2 (Radford et al. 2019): every text is spelled in the 256 bytes of its UTF-8 form, a
space belonging to the word behind it, and learned merges join neighbours; nothing is unknown. A release ships it as
``vocab.json`` and ``merges.txt`` (or both in one ``tokenizer.json``). Texts stand between ``<s>`` and ``</s>`` and are
filled with ``<pad>``.

DALL-E mini was trained on captions in one plain spelling, and a prompt in another is read as something rarer. `plain`
does what its training did: lower case, ASCII, no markup, addresses or emphasis, all punctuation a comma. The port
min-dalle only lowers the case and drops what is not ASCII (`ported`); both are here, because pictures differ.

Where we deviate: the release repairs text with ftfy, spells other scripts in Latin letters with unidecode and names
emoji as the library of that name does. We mend as `mindseye.text.tokenizer.clean`, take letters apart from their marks
and drop other scripts, and name emoji as Unicode does. A hashtag stays one word: the release cuts it with a list of
word frequencies.
"""

import json
import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final, final

import torch
from tokenizers import AddedToken, models, pre_tokenizers
from tokenizers import Tokenizer as Backend

from mindseye.errors import WeightsError, WeightsMissing
from mindseye.shapes import Ids
from mindseye.text.tokenizer import clean

__all__ = ["SPELLINGS", "BartTokenizer", "plain", "ported"]

START, END, PAD, MASK = "<s>", "</s>", "<pad>", "<mask>"

_LETTERS = str.maketrans(
    {"æ": "ae", "œ": "oe", "ø": "o", "đ": "d", "ð": "d", "ł": "l", "þ": "th", "ı": "i", "ß": "ss"}
    | dict.fromkeys("‐‑‒–—―−", "-")
)
_DOT, _QUOTE, _SLASH = "\ue000", "\ue001", "\ue002"
_KEPT: Final = str.maketrans({_DOT: ".", _QUOTE: "'", _SLASH: "/"})
_STEPS: Final = tuple(
    (re.compile(pattern), instead)
    for pattern, instead in (
        (r"<[^<]+?>", " "),  # markup
        (r"http\S+", ""),
        (r"\A\s*\[\d+\]|\[\d+\]\s*\Z", ""),  # an encyclopedia's references
        (r"(\d),(\d{3})", r"\1\2"),
        (r"(\d),(\d{3})", r"\1\2"),
        (r"(\w)\.(\w)", rf"\1{_DOT}\2"),  # within a number, a name, an address
        (r"'(?=(?:[stdm]|ll|re|ve)\b)", _QUOTE),
        (r"(\d)/(\d)", rf"\1{_SLASH}\2"),
        (r"(\w)-(\w)", r"\1 \2"),
        (r"([%&/$*])", r" \1 "),
        (r"[_#\\]", " "),
        (r"['\"`]", ' " '),
        (r"[()\[\].,|:;?!=+~\-/{}]", ","),
        (r"(\D)\1{3,}", r"\1"),
        (r'(?:\s*"+\s*)+', ' " '),
        (r"(?:\s*,+\s*)+", ", "),
        (r"\s+", " "),
    )
)
"""What happens to a text in lower case, in this order."""


def plain(text: str) -> str:
    """The spelling of DALL-E mini's captions; begins with a space, as every word does."""
    text = _ascii(_named(clean(text), ":{}:")).lower()
    for pattern, instead in _STEPS:
        text = pattern.sub(instead, text)
    text = text.translate(_KEPT).strip()
    return f" {text.removesuffix(',').removeprefix(',').strip()}"


def ported(text: str) -> str:
    """The spelling of min-dalle: lower case, ASCII, and words with one space in front of each."""
    text = _named(text, "{}").lower().encode("ascii", "ignore").decode()
    return "".join(f" {word}" for word in text.split(" ") if word)


def _exactly(text: str) -> str:
    return text


SPELLINGS: Final[Mapping[str, Callable[[str], str]]] = {"plain": plain, "min-dalle": ported, "as it is": _exactly}
"""By name: as the model was trained, as its port has it, not at all."""


def _named(text: str, form: str) -> str:
    """The text with its emoji by their names."""
    marks = {mark for mark in text if unicodedata.category(mark) == "So"}
    names = {mark: unicodedata.name(mark, "").lower().replace(" ", "_") for mark in marks}
    return "".join(form.format(names[mark]) if mark in names else mark for mark in text)


def _ascii(text: str) -> str:
    """The text in ASCII: letters without their marks, other scripts not at all."""
    return unicodedata.normalize("NFKD", text.lower().translate(_LETTERS)).encode("ascii", "ignore").decode()


@final
class BartTokenizer:
    """Strings to padded ids of one fixed length, with the face of `mindseye.text.tokenizer.Tokenizer`.

    Attributes:
        length: Ids a text becomes, the special ones included.
        vocabulary: How many different ids texts may become: one more than the largest. A place to fill in, which BART
            was trained with and no text has, does not count.
        sot: Id that opens every text (``<s>``).
        eot: Id that closes every text (``</s>``).
        pad: Id that fills the rest (``<pad>``).
    """

    def __init__(self, backend: Backend, length: int = 64) -> None:
        """Wraps a `tokenizers` tokenizer that knows the three special tokens.

        Raises:
            ValueError: One of them is missing, or ``length`` leaves no room for text.
        """
        found = [backend.token_to_id(special) for special in (START, END, PAD)]
        if None in found:
            raise ValueError(f"a vocabulary of BART's kind needs the tokens {START}, {END} and {PAD}")
        if length < 3:
            raise ValueError(f"length {length} leaves no room for text between the two special tokens; 3 is the least")
        self.length = length
        self.sot, self.eot, self.pad = (int(each) for each in found if each is not None)
        ids = backend.get_vocab()
        ids.pop(MASK, None)
        self.vocabulary = max(ids.values()) + 1
        backend.no_truncation()
        backend.no_padding()
        self._backend = backend
        self._spell = plain

    @classmethod
    def read(cls, path: Path, length: int = 64) -> "BartTokenizer":
        """Reads a release's vocabulary.

        Args:
            path: A folder with ``vocab.json`` and ``merges.txt``, or with ``tokenizer.json``; or the first of these
                files itself, where they have other names (``vocab_mini.json``, ``merges_mini.txt``).
            length: Ids a text becomes.

        Raises:
            WeightsMissing: They are not there.
            WeightsError: They are something else.
        """
        vocabulary = path / "vocab.json" if path.is_dir() else path
        merges = vocabulary.with_name(vocabulary.name.replace("vocab", "merges")).with_suffix(".txt")
        try:
            if vocabulary.is_file() and merges.is_file():
                words = json.loads(vocabulary.read_text(encoding="utf-8"))
                if not isinstance(words, dict):
                    raise ValueError(f"{vocabulary.name} is no table")
                return cls(_backend(words, merges.read_text(encoding="utf-8").split("\n")), length)
            if (whole := vocabulary.with_name("tokenizer.json")).is_file():
                model = json.loads(whole.read_text(encoding="utf-8"))["model"]
                pairs = [each if isinstance(each, str) else " ".join(each) for each in model["merges"]]
                return cls(_backend(model["vocab"], pairs), length)
        except Exception as error:  # the library raises bare Exception
            raise WeightsError(f"{path} holds no vocabulary of BART's kind: {error!s:.200}") from None
        raise WeightsMissing(
            f"{vocabulary.parent} has no vocabulary: there should be {vocabulary.name} and {merges.name}, "
            "or tokenizer.json"
        )

    def spelled(self, spelling: str) -> "BartTokenizer":
        """The same with another spelling.

        Args:
            spelling: A key of `SPELLINGS`.
        """
        made = BartTokenizer(self._backend, self.length)
        made._spell = SPELLINGS[spelling]
        return made

    def encode(self, texts: Sequence[str]) -> tuple[Ids, list[str]]:
        """Ids of texts, spelled, opened, closed and padded.

        Args:
            texts: B strings of any length and script.

        Returns:
            ids `B L` with L = `length`, int64; and for every text the words that did not fit, "" if all did, in their
            plain spelling. A word cut in its middle counts as cut off. The last id of a text that was cut is the end
            id.
        """
        room = self.length - 2
        ids = torch.full((len(texts), self.length), self.pad, dtype=torch.long)
        mended = [text.encode("utf-16", "surrogatepass").decode("utf-16", "replace") for text in texts]
        spelled = [self._spell(text) if text.strip() else "" for text in mended]
        cut = []
        encodings = self._backend.encode_batch(spelled, add_special_tokens=False)
        for row, text, found in zip(ids, spelled, encodings, strict=True):
            kept = [self.sot, *found.ids[:room], self.eot]
            row[: len(kept)] = torch.tensor(kept)
            start = found.offsets[room][0] if len(found.ids) > room else len(text)
            while 0 < start < len(text) and not (text[start].isspace() or text[start - 1].isspace()):
                start -= 1
            cut.append(" ".join(text[start:].split()))
        return ids, cut


def _backend(vocabulary: Mapping[str, int], merges: Sequence[str]) -> Backend:
    """The library's tokenizer from the two tables.

    Raises:
        ValueError: They are no such tables.
    """
    lines = [line for line in merges if line.strip() and not line.startswith("#version")]
    pairs = [(first, second) for first, second in (line.split(" ") for line in lines)]
    if not all(type(number) is int and number >= 0 for number in vocabulary.values()):
        raise ValueError("ids are whole numbers")
    backend = Backend(models.BPE(vocab=dict(vocabulary), merges=pairs))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    special = [token for token in (START, END, PAD, MASK) if token in vocabulary]
    backend.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    return backend
