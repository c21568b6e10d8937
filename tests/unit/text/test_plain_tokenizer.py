"""Ids with nothing around them."""

import json

import pytest
import torch

from mindseye.text.plain_tokenizer import PlainTokenizer
from mindseye.text.tokenizer import Tokenizer

WORDS = ["a red apple", "a blue heart", "an owl"]


def test_what_stands_between_the_special_ids_filled_up_with_zeros():
    full = Tokenizer.train(WORDS * 4, 600, length=8)
    plain = PlainTokenizer.of(full, 8)
    (row,), (cut,) = plain.encode(["A red  apple"])
    (opened,), _ = full.encode(["A red  apple"])
    count = int((row != 0).sum())
    assert torch.equal(row[:count], opened[1 : 1 + count]) and opened[1 + count] == full.eot and not cut
    assert plain.vocabulary == full.vocabulary
    ids, cuts = plain.encode(["", "an owl an owl an owl zebra ﬃ"])
    assert not ids[0].any() and ids[1].all() and "zebra" in cuts[1]
    assert PlainTokenizer.clip(5).encode(["a photo"])[0].tolist() == [[320, 1125, 0, 0, 0]]


def test_characters_and_merges_as_mindalle_has_them(tmp_path):
    pieces = ["[UNK]", "a", "b", "n", "a</w>", "n</w>", "b</w>", "an</w>", ".</w>", "."]
    (tmp_path / "bpe-16k-vocab.json").write_text(json.dumps({piece: n for n, piece in enumerate(pieces)}))
    (tmp_path / "bpe-16k-merges.txt").write_text("#version: 0.2\na n</w>\n")
    words = PlainTokenizer.char_bpe(tmp_path, 6)
    assert words.vocabulary == 11 and words.pad == 10
    ids, cuts = words.encode(["AN b.", "ban ban z", ""])
    assert ids.tolist() == [[7, 6, 8, 10, 10, 10], [2, 7, 2, 7, 0, 10], [10] * 6]
    assert words.encode(["an an an an an an b a"])[1] == ["b a"] and cuts == ["", "", ""]


def test_what_is_damaged_is_a_sentence(tmp_path):
    with pytest.raises(ValueError, match="no \\*vocab.json"):
        PlainTokenizer.char_bpe(tmp_path, 4)
    (tmp_path / "vocab.json").write_text('{"a": 0}')
    (tmp_path / "merges.txt").write_text("a b c\n")
    with pytest.raises(ValueError, match="damaged"):
        PlainTokenizer.char_bpe(tmp_path, 4)
    (tmp_path / "merges.txt").write_text("a b\n")
    with pytest.raises(ValueError, match="UNK"):
        PlainTokenizer.char_bpe(tmp_path, 4)
    (tmp_path / "vocab.json").write_text('{"a": 0, "[UNK]": 1}')
    with pytest.raises(ValueError, match="merges do not belong"):
        PlainTokenizer.char_bpe(tmp_path, 4)
    with pytest.raises(ValueError, match="no file of the tokenizers library"):
        PlainTokenizer.from_file(tmp_path / "vocab.json", 4)
    with pytest.raises(ValueError, match="says nothing"):
        PlainTokenizer.of(Tokenizer.train(WORDS, 600, length=8), 0)
