import math
from functools import cache

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mindseye.errors import PromptError
from mindseye.text.chunks import BACKTRACK, Insert, called, chunk, pad_to, reweigh
from mindseye.text.prompt import BREAK, Schedule, Span, attention
from mindseye.text.tokenizer import Tokenizer

CORPUS = ["a red circle above a blue square, a green star", "two cats, three dogs"] * 3


@cache
def tokenizer(length=32, pad=None):
    return Tokenizer(Tokenizer.train(CORPUS, 600)._backend, length, pad)


@pytest.mark.parametrize(("length", "pad"), [(32, None), (32, 0), (77, None)])
@pytest.mark.parametrize("text", ["a red circle, a star", "", "  \u6771\u4eac &amp;amp;amp; \u201cquoted\u201d  "])
def test_a_plain_short_text_is_encoded_as_ever(text, length, pad):
    coder = tokenizer(length, pad)
    chunks = chunk(coder, attention(text))
    ids, cut = coder.encode([text])
    assert torch.equal(chunks.ids, ids)
    assert cut == [""]
    assert torch.equal(chunks.weights, torch.ones(1, length))
    assert (chunks.count, chunks.inserts) == (1, ())
    assert torch.equal(chunks.blank, coder.encode([""])[0][0])


def reference(coder, spans, backtrack):
    """Chunks of (id, weight) as the reference fills them, from its description; no embeddings."""
    room = coder.length - 2
    chunks, comma = [[]], None
    for span in spans:
        if span is BREAK:
            chunks, comma = [*chunks, []], None
            continue
        for token in coder.pieces([span.text])[0]:
            is_comma = token == coder.comma
            if len(chunks[-1]) == room:
                moved = []
                if not is_comma and comma is not None and room - comma <= backtrack:
                    chunks[-1], moved = chunks[-1][: comma + 1], chunks[-1][comma + 1 :]
                chunks, comma = [*chunks, moved], None
            if is_comma:
                comma = len(chunks[-1])
            chunks[-1].append((token, span.weight))
    return chunks[:-1] if len(chunks) > 1 and not chunks[-1] else chunks


WORDS = st.lists(
    st.sampled_from(["red", "circle", ",", "a", "star,", "(blue:1.5)", "[cat]", "BREAK", "\u6771"]), max_size=80
)


@given(WORDS.map(" ".join), st.integers(4, 20), st.sampled_from([0, 3, BACKTRACK]))
def test_equals_the_reference(text, length, backtrack):
    coder, spans = tokenizer(length), attention(text)
    chunks = chunk(coder, spans, backtrack=backtrack)
    rows = [
        [
            (int(token), float(weight))
            for token, weight in zip(ids[1:], weights[1:], strict=True)
            if token not in (coder.eot, coder.pad)
        ]
        for ids, weights in zip(chunks.ids, chunks.weights, strict=True)
    ]
    wanted = reference(coder, spans, backtrack)
    assert [[token for token, _ in row] for row in rows] == [[token for token, _ in row] for row in wanted]
    assert [w for row in rows for _, w in row] == pytest.approx([w for row in wanted for _, w in row])
    assert (chunks.ids[:, 0] == coder.sot).all()
    for ids, row in zip(chunks.ids, wanted, strict=True):
        assert ids[len(row) + 1] == coder.eot
        assert (ids[len(row) + 2 :] == coder.pad).all()


def test_nothing_is_lost_in_a_long_text():
    coder = tokenizer()
    text = "a red circle above a blue square " * 40
    chunks = chunk(coder, attention(text))
    inner = [token for row in chunks.ids.tolist() for token in row if token < coder.sot]
    assert inner == coder.pieces([text])[0]
    assert chunks.count == math.ceil(len(inner) / 30)


def test_a_full_chunk_ends_at_its_comma():
    coder = tokenizer(12)  # room for ten
    words = "red " * 6 + ", blue star star star star"
    assert chunk(coder, attention(words)).ids.shape == (2, 12)
    first, second = chunk(coder, attention(words)).ids.tolist()
    assert first.index(coder.eot) == 8  # opening id, six words, the comma
    assert second.index(coder.eot) == 6
    first, second = chunk(coder, attention(words), backtrack=0).ids.tolist()
    assert (first.index(coder.eot), second.index(coder.eot)) == (11, 3)


def test_breaks():
    coder = tokenizer()
    chunks = chunk(coder, attention("red BREAK blue BREAK"))
    assert chunks.count == 2
    assert torch.equal(chunks.ids, coder.encode(["red", "blue"])[0])
    assert torch.equal(chunk(coder, attention("BREAK red")).ids, coder.encode(["", "red"])[0])


def test_weights_stand_where_their_words_do():
    coder = tokenizer()
    chunks = chunk(coder, (Span("red"), Span("blue star", 1.5)))
    one, two = coder.pieces(["red", "blue star"])
    wanted = [1.0] * (1 + len(one)) + [1.5] * len(two)
    assert chunks.weights[0].tolist() == wanted + [1.0] * (32 - len(wanted))


def test_embeddings_take_their_places():
    coder = tokenizer()
    names = {"bad-hands": 3, "bad": 1, "<toy>": 1, "my thing": 2}
    chunks = chunk(coder, attention("red (BAD-hands:2), bad <toy> My Thing badly"), names)
    ids = chunks.ids[0].tolist()
    assert [(each.name, each.vector_index) for each in chunks.inserts] == [
        ("bad-hands", 0),
        ("bad-hands", 1),
        ("bad-hands", 2),
        ("bad", 0),
        ("<toy>", 0),
        ("my thing", 0),
        ("my thing", 1),
    ]
    assert all(each.chunk == 0 and ids[each.position] == 0 for each in chunks.inserts)
    at = 1 + len(coder.pieces(["red"])[0])
    assert [each.position for each in chunks.inserts[:3]] == [at, at + 1, at + 2]
    assert chunks.weights[0, at : at + 3].tolist() == [2, 2, 2]
    rest = [token for index, token in enumerate(ids) if index not in {each.position for each in chunks.inserts}]
    assert rest[1 : rest.index(coder.eot)] == sum(coder.pieces(["red", ",", "badly"]), [])


@pytest.mark.parametrize("prompt", ["red (BAD-hands:2), badly", r"a \[toy\] <toy>", "[bad:<toy> (x:1.1):0.5]", "toy"])
def test_what_a_prompt_calls_is_what_will_be_found_in_its_texts(prompt):
    names = {"bad-hands": 3, "bad": 1, "<toy>": 1, "[toy]": 2}
    found = [
        insert.name
        for entry in Schedule(prompt).entries(4)
        for insert in chunk(tokenizer(), attention(entry.text), names).inserts
    ]
    assert called(prompt, names) == set(found)
    assert called(r"a \[toy\] bad-hands, badly", names) == {"[toy]", "bad-hands"}


def test_an_embedding_is_never_torn():
    coder = tokenizer(12)
    assert chunk(coder, attention("red red red red red toy"), {"toy": 8}).inserts[0] == Insert(1, 1, "toy", 0)
    moved = chunk(coder, attention("red red, toy red red red"), {"toy": 5})
    assert [(each.chunk, each.position) for each in moved.inserts] == [(1, place) for place in range(1, 6)]
    with pytest.raises(PromptError, match="11 vectors"):
        chunk(coder, attention("red"), {"toy": 11})


def test_pad_to():
    coder = tokenizer()
    chunks = chunk(coder, attention("(red:2)"))
    padded = pad_to(chunks, 3)
    assert torch.equal(padded.ids, coder.encode(["red", "", ""])[0])
    assert padded.weights[0].tolist() == chunks.weights[0].tolist()
    assert (padded.weights[1:] == 1).all()
    assert pad_to(padded, 2) is padded


def brute_force(tokens, weights):
    """The definition, number by number: multiply, then scale by the mean before over the mean after."""
    out = []
    for chunk_tokens, chunk_weights in zip(tokens.tolist(), weights.tolist(), strict=True):
        before = [value for vector in chunk_tokens for value in vector]
        after = [
            [value * weight for value in vector] for vector, weight in zip(chunk_tokens, chunk_weights, strict=True)
        ]
        scale = math.fsum(before) / math.fsum(value for vector in after for value in vector)
        out.append([[value * scale for value in vector] for vector in after])
    return torch.tensor(out)


def test_reweigh_restores_the_mean_of_each_chunk():
    draw = torch.Generator().manual_seed(0)
    tokens = torch.randn(3, 8, 5, generator=draw) + 0.3
    weights = torch.rand(3, 8, generator=draw) * 2
    weights[1] = 1
    found = reweigh(tokens, weights)
    torch.testing.assert_close(found, brute_force(tokens, weights), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found.mean(dim=(1, 2)), tokens.mean(dim=(1, 2)))
    assert torch.equal(found[1], tokens[1])
    assert torch.equal(reweigh(tokens, weights, "plain"), tokens * weights[:, :, None])
    assert reweigh(tokens, weights, "none") is tokens
    assert reweigh(tokens, torch.ones(3, 8)) is tokens


def test_reweigh_keeps_the_dtype_and_stays_finite():
    tokens = torch.tensor([[[1.0, -1.0], [2.0, 3.0]]])
    assert reweigh(tokens, torch.tensor([[5.0, 0.0]])).tolist() == [[[5.0, -5.0], [0.0, 0.0]]]  # a mean of 0
    assert reweigh(tokens.bfloat16(), torch.tensor([[1.0, 1.2]])).dtype == torch.bfloat16
