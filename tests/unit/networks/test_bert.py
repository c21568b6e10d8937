"""The text tower of Latent Diffusion: what it promises, and the original's names."""

import pytest
import torch

from mindseye.checkpoints.layout import convert, restore
from mindseye.checkpoints.layouts import ldm_bert
from mindseye.checkpoints.save import _Uninitialised
from mindseye.networks.bert import TEXT2IMG_LARGE, Bert, Config

TINY = Config(vocabulary=50, length=7, width=24, layers=2, heads=2, head=64, hidden=40)


def fresh():
    torch.manual_seed(0)
    return Bert(TINY).eval().requires_grad_(False)


def test_every_token_sees_every_other_padding_included():
    bert = fresh()
    ids = torch.tensor([[1, 2, 3, 0, 0, 0, 0]])
    tokens, pooled = bert.text(ids)
    assert tokens.shape == (1, 7, 24) and pooled is None
    changed = ids.clone()
    changed[0, 6] = 9
    assert ((tokens - bert.text(changed)[0]).abs().amax(-1) > 0).all()
    with pytest.raises(ValueError, match="8 tokens do not fit a text tower of 7"):
        bert.text(torch.zeros(1, 8, dtype=torch.long))


def test_positions_matter():
    tokens, _ = fresh().text(torch.tensor([[4, 4]]))
    assert not torch.allclose(tokens[:, 0], tokens[:, 1])


def test_the_public_size():
    with _Uninitialised():
        bert = Bert(TEXT2IMG_LARGE)
    assert sum(weight.numel() for weight in bert.parameters()) == 542_895_360


@pytest.mark.parametrize("rules", [ldm_bert.original_rules, ldm_bert.bert_rules])
def test_names_go_there_and_back_and_tell_the_shape(rules):
    state = fresh().state_dict()
    theirs = restore(state, rules(TINY))
    assert ldm_bert.config({key: tuple(value.shape) for key, value in theirs.items()}) == TINY
    theirs |= {"to_logits.weight": torch.zeros(50, 24), "to_logits.bias": torch.zeros(50)}
    back = convert(theirs, rules(TINY), ignore=ldm_bert.IGNORE)
    assert set(back) == set(state) and all(torch.equal(back[key], value) for key, value in state.items())
    assert ldm_bert.config({"text_model.embeddings.token_embedding.weight": (49408, 768)}) is None


def test_the_original_alternates_attention_and_perceptron():
    names = {rule.ours: rule.theirs for rule in ldm_bert.original_rules(TINY)}
    assert names["blocks.1.attention_norm.weight"] == "attn_layers.layers.2.0.weight"
    assert names["blocks.1.out.bias"] == "attn_layers.layers.2.1.to_out.bias"
    assert names["blocks.1.up.weight"] == "attn_layers.layers.3.1.net.0.0.weight"
    assert names["blocks.1.down.weight"] == "attn_layers.layers.3.1.net.2.weight"
