"""The text tower of Latent Diffusion against diffusers' LDMBertModel, and its word pieces against transformers'."""

import json

import pytest
import torch

from mindseye.checkpoints.layout import convert, restore
from mindseye.checkpoints.layouts import ldm_bert
from mindseye.networks.bert import Bert, Config
from mindseye.text.bert_tokenizer import BertTokenizer

pytestmark = pytest.mark.parity


def test_same_numbers(tmp_path):
    pytest.importorskip("diffusers")
    from diffusers.pipelines.latent_diffusion.pipeline_latent_diffusion import LDMBertConfig, LDMBertModel

    torch.manual_seed(0)
    config = Config(vocabulary=60, length=9, width=32, layers=3, heads=3, head=8, hidden=48)
    theirs = LDMBertModel(
        LDMBertConfig(
            vocab_size=60,
            max_position_embeddings=9,
            encoder_layers=3,
            encoder_ffn_dim=48,
            encoder_attention_heads=3,
            head_dim=8,
            d_model=32,
        )
    ).eval()
    for name, weight in theirs.named_parameters():
        torch.nn.init.normal_(weight, mean=float("norm.weight" in name), std=0.3)
    theirs.config.save_pretrained(tmp_path)
    assert ldm_bert.config_of(json.loads((tmp_path / "config.json").read_text())) == config
    ours = Bert(config).eval()
    state = theirs.state_dict()
    ours.load_state_dict(convert(state, ldm_bert.bert_rules(config), ignore=ldm_bert.IGNORE), strict=True)
    ids = torch.randint(0, 60, (2, 9))
    with torch.no_grad():
        wanted = theirs(ids).last_hidden_state
        torch.testing.assert_close(ours.text(ids)[0], wanted, rtol=1e-5, atol=1e-5)
    back = restore(ours.state_dict(), ldm_bert.bert_rules(config))
    left = {key for key in state if not key.startswith("to_logits")}
    assert set(back) == left and all(torch.equal(back[key], state[key]) for key in left)


def test_same_ids(tmp_path):
    transformers = pytest.importorskip("transformers")
    pieces = [
        "[PAD]",
        "[unused0]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        *"abcdeft,.!'-",
        *(f"##{c}" for c in "abcdeft"),
    ]
    pieces += ["a", "cat", "##s", "red", "fox", "cafe", "\u732b"]
    pieces = list(dict.fromkeys(pieces))
    (tmp_path / "vocab.txt").write_text("\n".join(pieces) + "\n", encoding="utf-8")
    theirs = transformers.BertTokenizerFast(str(tmp_path / "vocab.txt"))
    ours = BertTokenizer.from_file(tmp_path, 12)
    texts = [
        "",
        "A red cat",
        "Cats, cats! \u00c9T\u00c9 \u00e9",
        "\u732b\u732b fox-fade zebra",
        "a\u00a0b\tc\u200bd",
        "cat " * 40,
        "x" * 200,
    ]
    wanted = theirs(texts, padding="max_length", truncation=True, max_length=12, return_tensors="pt")["input_ids"]
    assert torch.equal(ours.encode(texts)[0], wanted)
