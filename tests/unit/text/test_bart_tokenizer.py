"""BART's byte-pair encoding, and how DALL-E mini and its port spell what they are given."""

import json

import pytest
from tests.unit.checkpoints import tiny_dalle_mini as tiny

from mindseye.errors import WeightsError, WeightsMissing
from mindseye.text.bart_tokenizer import BartTokenizer, plain, ported


@pytest.fixture
def tokenizer(tmp_path):
    tiny.vocabulary(tmp_path)
    return BartTokenizer.read(tmp_path, 8)


@pytest.mark.parametrize(
    ("text", "spelled"),
    [
        # What the release's own normaliser says to these, run once.
        ("A red apple!", " a red apple"),
        ("an avocado-armchair, in the style of state-of-the-art art", " an avocado armchair, in the style of state of "
         "the art art"),
        ("a cat's 1,000,000 dollars 3.5 m", " a cat's 1000000 dollars 3.5 m"),
        ("Münchner Straße – “quoted” text", ' munchner strasse, " quoted " text'),
        ("see http://x.y/z <b>bold</b> now", " see bold now"),
        ("#hashtag_with a_b [12]", " hashtag with a b"),
        ("50% off & more $5 12/03/2022", " 50 % off & more $ 5 12/03/2022"),
        ("sooooooo coool!!!!", " so coool"),
        ("don't we'll \"quoted\" `x` 'y'", ' don\'t we\'ll " quoted " x " y "'),
        ("a 🍎 on a table 😀", " a, red apple, on a table, grinning face"),
        ("...start and end,,,", " start and end"),
        ("u.s.a. e.g. www.example.com", " u.s, a, e.g, www.example.com"),
        ("a--b a-b-c", " a, b a b, c"),
        ("[1] reference [2]", " reference"),
        ("&amp; &lt;i&gt;x&lt;/i&gt;", " & x"),
        ("1,2,3 1,234,567.89", " 1, 2, 3 1234567.89"),
        # Where we deviate: there, they are spelled in Latin letters.
        ("日本語 text", " text"),
    ],
)  # fmt: skip
def test_plain_is_the_spelling_of_the_training(text, spelled):
    assert plain(text) == spelled


def test_the_port_spells_less():
    assert ported("A  Red apple, 🍎 naïve") == " a red apple, red_apple nave"


def test_ids(tokenizer):
    ids, cut = tokenizer.encode(["red", "", "  ", "Red!"])
    red = tokenizer._backend.token_to_id("\u0120red")
    assert ids.tolist() == [[0, red, 2, *[1] * 5], [0, 2, *[1] * 6], [0, 2, *[1] * 6], [0, red, 2, *[1] * 5]]
    assert cut == [""] * 4
    assert (tokenizer.sot, tokenizer.eot, tokenizer.pad, tokenizer.vocabulary, tokenizer.length) == (0, 2, 1, 263, 8)


def test_spellings_differ(tokenizer):
    def first(name, text):
        return tokenizer.spelled(name).encode([text])[0][0]

    assert first("plain", "red!").tolist() != first("min-dalle", "red!").tolist()
    assert first("as it is", "Red").tolist() != first("as it is", "red").tolist()
    assert first("as it is", " red").tolist() == first("plain", "RED").tolist()


def test_what_does_not_fit_is_named(tokenizer):
    ids, (cut,) = tokenizer.encode(["red red red red red red Blue, green"])
    assert cut == "blue, green" and ids[0, -1] == tokenizer.eot
    _, (cut,) = tokenizer.encode(["red red red red red abc d"])
    assert cut == "abc d"


def test_both_tables_in_one_file(tokenizer, tmp_path):
    (tmp_path / "one").mkdir()
    tokenizer._backend.save(str(tmp_path / "one" / "tokenizer.json"))
    again = BartTokenizer.read(tmp_path / "one", 8)
    texts = ["a red apple", "Red? 3.5"]
    assert again.encode(texts)[0].tolist() == tokenizer.encode(texts)[0].tolist()


def test_a_mask_is_no_word(tmp_path):
    tiny.vocabulary(tmp_path)
    words = json.loads((tmp_path / "vocab.json").read_text())
    (tmp_path / "vocab.json").write_text(json.dumps({**words, "<mask>": 999}))
    assert BartTokenizer.read(tmp_path, 8).vocabulary == 263


@pytest.mark.parametrize(
    ("vocabulary", "merges"),
    [
        ("[]", ""),
        ("{", ""),
        ('{"a": 0}', ""),
        ('{"<s>": 0, "<pad>": 1, "</s>": 2}', "a b\n"),
        ('{"<s>": 0, "<pad>": 1, "</s>": -2}', ""),
        ('{"<s>": 0, "<pad>": 1, "</s>": 2}', "one\n"),
    ],
)
def test_what_is_no_vocabulary(vocabulary, merges, tmp_path):
    (tmp_path / "vocab.json").write_text(vocabulary)
    (tmp_path / "merges.txt").write_text(merges)
    with pytest.raises(WeightsError, match="no vocabulary of BART's kind") as caught:
        BartTokenizer.read(tmp_path)
    assert "\n" not in caught.value.message


def test_nothing_there(tmp_path):
    with pytest.raises(WeightsMissing, match="no vocabulary"):
        BartTokenizer.read(tmp_path)


@pytest.mark.parity
def test_ids_of_the_port(tokenizer, tmp_path):
    """min-dalle's own encoding of words, run from its file where it is installed."""
    import importlib.util
    import sys
    from pathlib import Path
    from types import ModuleType

    spec = importlib.util.find_spec("min_dalle")
    if spec is None:
        pytest.skip("min-dalle is not installed")
    path = Path(spec.submodule_search_locations[0]) / "text_tokenizer.py"
    emoji = ModuleType("emoji")
    emoji.demojize = lambda text, delimiters: text
    sys.modules.setdefault("emoji", emoji)
    theirs = importlib.util.module_from_spec(importlib.util.spec_from_file_location("port", path))
    theirs.__spec__.loader.exec_module(theirs)
    words = json.loads((tmp_path / "vocab.json").read_text())
    merges = (tmp_path / "merges.txt").read_text().split("\n")[1:-1]
    port = theirs.TextTokenizer(words, merges)
    long = BartTokenizer.read(tmp_path, 64).spelled("min-dalle")
    for text in ("A Red apple, predred", "it's 12:30", "na\u00efve", ""):
        wanted = port.tokenize(text)
        assert long.encode([text])[0][0, : len(wanted)].tolist() == wanted
