import json
from functools import cache
from importlib import resources

import pytest
import tokenizers
import torch
from hypothesis import given
from hypothesis import strategies as st

from mindseye.text.tokenizer import EOT, SOT, Tokenizer, clean

CORPUS = ["a red circle above a blue square"] * 3 + ["a blue circle", "Two RED squares, please!", "le café bleu"]


@cache
def trained():
    return Tokenizer.train(CORPUS, 560, length=200)


@pytest.fixture(scope="module")
def small():
    return Tokenizer(trained()._backend, 32)


def pieces(tokenizer, ids):
    """What ids spell, without the special ones; the end of a word becomes a space."""
    visible = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    byte = {chr(b): b for b in visible}
    byte |= {chr(0x100 + i): b for i, b in enumerate(b for b in range(256) if b not in visible)}
    words = "".join(tokenizer._backend.id_to_token(i) for i in ids if i < tokenizer.sot).split("</w>")
    return " ".join(bytes(byte[c] for c in word).decode() for word in words).strip()


def test_clip_ids_of_real_texts(material):
    rows = [json.loads(line) for line in (material / "clip/tokens.jsonl").read_text(encoding="utf-8").splitlines()]
    tokenizer = Tokenizer.clip(material / "clip/bpe_simple_vocab_16e6.txt.gz", length=96)
    assert (tokenizer.vocabulary, tokenizer.sot, tokenizer.eot, tokenizer.pad) == (49408, 49406, 49407, 49407)
    ids, cut = tokenizer.encode([row["text"] for row in rows])
    wanted = torch.full_like(ids, 49407)
    for line, row in zip(wanted, rows, strict=True):
        line[: len(row["openai_ftfy"]) + 1] = torch.tensor([49406, *row["openai_ftfy"]])
    assert torch.equal(ids, wanted)
    assert not any(cut)


def test_the_packaged_vocabulary_is_the_published_one(material):
    rows = [json.loads(line) for line in (material / "clip/tokens.jsonl").read_text(encoding="utf-8").splitlines()]
    packaged, published = Tokenizer.packaged(), Tokenizer.clip(material / "clip/bpe_simple_vocab_16e6.txt.gz")
    assert packaged._backend.to_str() == published._backend.to_str()
    assert packaged.pieces([row["text"] for row in rows]) == [row["openai_ftfy"] for row in rows]


def test_the_packaged_vocabulary():
    tokenizer = Tokenizer.packaged(length=8, pad=0)
    assert (tokenizer.vocabulary, tokenizer.sot, tokenizer.eot, tokenizer.comma) == (49408, 49406, 49407, 267)
    assert tokenizer.encode(["a photo of a cat"])[0].tolist() == [[49406, 320, 1125, 539, 320, 2368, 49407, 0]]
    files = {each.name: each for each in resources.files("mindseye.text").joinpath("clip_vocabulary").iterdir()}
    assert len(files["merges.txt.xz"].read_bytes()) < 200_000
    assert "Copyright (c) 2021 OpenAI" in files["NOTICE.md"].read_text(encoding="utf-8")


def test_pieces_are_what_stands_between_the_special_ids(small):
    texts = ["a red circle", "", "one word &amp; another"]
    for text, pieces_, ids in zip(texts, small.pieces(texts), small.encode(texts)[0].tolist(), strict=True):
        assert ids[: len(pieces_) + 2] == [small.sot, *pieces_, small.eot], text


def test_both_published_forms_agree(material):
    release = Tokenizer.clip(material / "clip/bpe_simple_vocab_16e6.txt.gz", pad=0)
    folder = Tokenizer.clip(material / "sd15_layout/tokenizer", pad=0)
    assert release._backend.get_vocab() == folder._backend.get_vocab()
    text = ["Straßenbahn, 東京 🎉 don't <|endoftext|> 3.14"]
    assert torch.equal(release.encode(text)[0], folder.encode(text)[0])
    assert release.encode([""])[0][0].tolist() == [49406, 49407] + [0] * 75


def test_first_merges_are_the_most_frequent_pairs():
    # In "low low low lower" the pair l-o stands 4 times; once it is merged, lo-w</w> stands 3 times.
    tokenizer = Tokenizer.train(["low low low lower"], 516, length=8)
    assert tokenizer.vocabulary == 516
    ids, _ = tokenizer.encode(["LOW"])
    assert ids[0].tolist() == [514, 513] + [515] * 6
    assert tokenizer._backend.id_to_token(512) == "lo"


def test_special_tokens_come_last(small):
    assert small.vocabulary <= 560
    assert (small.sot, small.eot, small.pad) == (small.vocabulary - 2, small.vocabulary - 1, small.vocabulary - 1)


def test_frequent_words_become_one_token(small):
    ids, _ = small.encode(["circle"])
    assert (ids[0] == small.eot).nonzero()[0].item() == 2


@given(st.text(st.characters(), max_size=8))
def test_any_text_is_spelled_completely(text):
    tokenizer = trained()
    normal = tokenizer._backend.normalizer.normalize_str(clean(text))
    ids, cut = tokenizer.encode([text])
    assert pieces(tokenizer, ids[0].tolist()).replace(" ", "") == "".join(normal.split())
    assert cut == [""]


def test_what_does_not_fit_is_named(small):
    tight = Tokenizer(small._backend, 5)
    ids, cut = tight.encode(["a red circle above   a blue square", "a red circle", "a red xylophone"])
    assert ids.shape == (3, 5)
    assert ids[:, 0].eq(small.sot).all()
    assert ids[:, -1].eq(small.eot).all()
    assert cut == ["above a blue square", "", "xylophone"]  # cut in its middle, named whole


@pytest.mark.parametrize(
    ("broken", "mended"),
    [
        ("a corgi\u2019s \u201chead\u201d", 'a corgi\'s "head"'),
        ("fish &amp;amp; chips &lt;3", "fish & chips <3"),
        ("\ufb01re \uff26\uff35\uff2c\uff2c", "fire FULL"),
        ("a\x00b\x1f \ufeffc \ud83d", "ab c \ufffd"),
        ("½ litre², Ⅳ", "½ litre², Ⅳ"),  # compatibility letters that ftfy leaves alone
    ],
)
def test_clean(broken, mended):
    assert clean(broken) == mended


def test_case_and_space_do_not_matter(small):
    ids, _ = small.encode(["A  Red\n\tCircle ", "a red circle"])
    assert torch.equal(ids[0], ids[1])


def test_save_and_read_back(small, tmp_path):
    padded = Tokenizer(small._backend, 32, pad=0)
    padded.save(tmp_path / "bpe.json")
    again = Tokenizer.from_file(tmp_path / "bpe.json", 32)
    texts = [*CORPUS, "日本語", ""]
    assert again.pad == 0
    assert torch.equal(again.encode(texts)[0], padded.encode(texts)[0])
    plain = tokenizers.Tokenizer.from_file(str(tmp_path / "bpe.json"))
    assert plain.encode("A red circle").ids[:3] == again.encode(["a red circle"])[0][0, 1:4].tolist()


def test_training_is_repeatable(small):
    assert Tokenizer.train(iter(CORPUS), 560)._backend.get_vocab() == small._backend.get_vocab()


def test_refusals():
    with pytest.raises(ValueError, match="514"):
        Tokenizer.train(CORPUS, 500)
    with pytest.raises(ValueError, match="no room"):
        Tokenizer.train(CORPUS, 520, length=2)
    with pytest.raises(ValueError, match="lacks"):
        Tokenizer(tokenizers.Tokenizer(tokenizers.models.BPE()), 8)


def test_special_tokens_written_by_hand_are_recognised(small):
    ids, _ = small.encode([f"{SOT} a {EOT}"])
    assert ids[0, 1] == small.sot
    assert ids[0, 3] == small.eot
