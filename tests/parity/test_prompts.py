"""The packaged vocabulary and the chunks made of it against the tokenizer of transformers, on real prompts."""

import json

import pytest
import torch

from mindseye.text.chunks import chunk, reweigh
from mindseye.text.prompt import attention, parse
from mindseye.text.tokenizer import Tokenizer, clean

transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.parity


@pytest.fixture(scope="module")
def theirs(material):
    return transformers.CLIPTokenizer.from_pretrained(material / "sd15_layout/tokenizer")


@pytest.fixture(scope="module")
def ours():
    return Tokenizer.packaged()


@pytest.fixture(scope="module")
def prompts(material):
    parti = (material / "prompts/PartiPrompts.tsv").read_text(encoding="utf-8").splitlines()[1:]
    geneval = (material / "prompts/evaluation_metadata.jsonl").read_text(encoding="utf-8").splitlines()
    return [line.split("\t")[0] for line in parti] + [json.loads(line)["prompt"] for line in geneval]


def test_real_prompts_have_their_ids(ours, theirs, prompts):
    # Theirs leaves curly quotes and the like as they are; the release straightens them, and so do we.
    wanted = theirs([clean(text) for text in prompts], padding="max_length", truncation=True, max_length=77).input_ids
    for text, row in zip(prompts, wanted, strict=True):
        spans = attention(parse(text, steps=20).branches[0].at(1))
        if len(spans) == 1 and "\\" not in text:
            assert chunk(ours, spans, backtrack=0).ids[0].tolist() == row, text


def test_a_long_prompt_holds_all_their_ids(ours, theirs, prompts):
    text = clean(", ".join(prompts[-40:]))
    chunks = chunk(ours, attention(text))
    wanted = theirs(text, add_special_tokens=False, truncation=False, verbose=False).input_ids
    assert len(wanted) > 200
    assert [token for row in chunks.ids.tolist() for token in row if token < ours.sot] == wanted
    for row in chunks.ids[:-1].tolist():  # every chunk that ends early ends at a comma
        end = row.index(ours.eot, 1)
        assert 56 <= end <= 76
        assert end == 76 or row[end - 1] == ours.comma


def test_weighted_chunks_through_their_text_encoder(ours, theirs):
    """The whole way with a tiny text encoder: ids of each span by their tokenizer, multiplied, the mean restored."""
    torch.manual_seed(0)
    config = transformers.CLIPTextConfig(
        hidden_size=32, intermediate_size=37, num_hidden_layers=2, num_attention_heads=4, vocab_size=49408
    )
    encoder = transformers.CLIPTextModel(config).eval()
    spans = [("a photo of a", 1.0), ("red cat", 1.3), ("on a", 1.0), ("table", 1 / 1.1)]
    ids, factors = [49406], [1.0]
    for text, factor in spans:
        found = theirs(text, add_special_tokens=False).input_ids
        ids += found
        factors += [factor] * len(found)
    ids += [49407] * (77 - len(ids))
    factors += [1.0] * (77 - len(factors))
    with torch.no_grad():
        hidden = encoder(torch.tensor([ids])).last_hidden_state
        weighed = hidden * torch.tensor(factors)[None, :, None]
        wanted = weighed * (hidden.mean() / weighed.mean())

        chunks = chunk(ours, attention("a photo of a (red cat:1.3) on a [table]"))
        found = reweigh(encoder(chunks.ids).last_hidden_state, chunks.weights)
    assert chunks.ids.tolist() == [ids]
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-6)
