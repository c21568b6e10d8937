"""Word pieces: known words, unknown ones, and what does not fit."""

import pytest

from mindseye.errors import WeightsError, WeightsMissing
from mindseye.text.bert_tokenizer import BertTokenizer

PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "red", "fox", "##es", "."]


def test_words_are_spelled_in_the_longest_pieces(tmp_path):
    (tmp_path / "vocab.txt").write_text("\n".join(PIECES) + "\n", encoding="utf-8")
    tokenizer = BertTokenizer.from_file(tmp_path / "vocab.txt", 8)
    assert (tokenizer.vocabulary, tokenizer.sot, tokenizer.eot, tokenizer.pad) == (9, 2, 3, 0)
    ids, cut = tokenizer.encode(["A RED foxes.", "", "a zebra"])
    assert ids.tolist() == [[2, 4, 5, 6, 7, 8, 3, 0], [2, 3, 0, 0, 0, 0, 0, 0], [2, 4, 1, 3, 0, 0, 0, 0]]
    assert cut == ["", "", ""]


def test_it_says_what_did_not_fit():
    tokenizer = BertTokenizer(PIECES, 5)
    ids, cut = tokenizer.encode(["a red foxes a fox", "a red fox"])
    assert ids.tolist() == [[2, 4, 5, 6, 3], [2, 4, 5, 6, 3]]
    assert cut == ["foxes a fox", ""]


def test_a_vocabulary_without_the_special_pieces_is_refused():
    with pytest.raises(ValueError, match=r"\[UNK\]"):
        BertTokenizer(["[PAD]", "[CLS]", "[SEP]"])
    with pytest.raises(ValueError, match="no room"):
        BertTokenizer(PIECES, 2)


def test_a_release_without_its_vocabulary_is_refused_in_words(tmp_path):
    for folder in (None, tmp_path):
        with pytest.raises(WeightsMissing, match="needs BERT's vocabulary"):
            BertTokenizer.read(folder)
    (tmp_path / "vocab.txt").write_text("just words", encoding="utf-8")
    with pytest.raises(WeightsError, match="is no BERT vocabulary"):
        BertTokenizer.read(tmp_path)
    (tmp_path / "vocab.txt").write_text("\n".join(PIECES), encoding="utf-8")
    assert BertTokenizer.read(tmp_path, 5).length == 5
