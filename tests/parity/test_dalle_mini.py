"""DALL-E mini beside a second implementation, written from the paper's and release's description in plain einsums.

It reads tensors by the names of the two published layouts, so that names and arithmetic are held against each other at
once. Where the port min-dalle is installed, its own modules are run, too (by file: importing the package switches
gradients off everywhere).
"""

import importlib.util
import math
import sys
from pathlib import Path

import pytest
import torch

from mindseye.checkpoints.layout import convert, restore
from mindseye.checkpoints.layouts.dalle_mini import flax_config, flax_rules, min_dalle_config, min_dalle_rules
from mindseye.networks.bart import Bart, Config

pytestmark = pytest.mark.parity

CONFIG = Config(
    width=64,
    heads=1,
    hidden=48,
    encoder=2,
    decoder=2,
    vocabulary=50,
    text_length=8,
    codes=16384,
    rows=16387,
    length=9,
    start=16384,
)
TEXT = torch.tensor([[0, 2, 1, 1, 1, 1, 1, 1], [0, 5, 6, 7, 2, 1, 1, 1]])


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    found = Bart(CONFIG).eval().requires_grad_(False)
    for parameter in found.parameters():
        parameter.copy_(torch.randn(parameter.shape) * parameter.shape[-1] ** -0.5)
    return found


@pytest.fixture(scope="module")
def ids():
    return torch.randint(0, CONFIG.codes, (2, CONFIG.length), generator=torch.Generator().manual_seed(1))


def shapes(tensors):
    return {key: tuple(value.shape) for key, value in tensors.items()}


def normed(x, scale=None, shift=None):
    x = (x - x.mean(-1, keepdim=True)) / (x.var(-1, unbiased=False, keepdim=True) + 1e-5).sqrt()
    return (x if scale is None else x * scale) + (0 if shift is None else shift)


def attention(x, source, weights, seen, heads):
    """``weights``: four matrices, in by out, for queries, keys, values and the way out."""
    q, k, v = (
        torch.einsum("bnc,chd->bnhd", of, weight.reshape(weight.shape[0], heads, -1))
        for of, weight in zip((x, source, source), weights[:3], strict=True)
    )
    scores = torch.einsum("bnhd,bmhd->bhnm", q, k) / math.sqrt(q.shape[-1])
    scores = torch.where(seen, scores, torch.tensor(-math.inf)).softmax(-1)
    return torch.einsum("bhnm,bmhd->bnhd", scores, v).flatten(2) @ weights[3]


def gelu(x):
    return x * 0.5 * (1 + torch.erf(x / math.sqrt(2)))


def reference(file, text, ids, *, heads, start):
    """Logits of all rows by a Flax file of unscanned layers, everything at once, in float64."""
    file = {key: value.double() for key, value in file.items()}

    def half(side, x, own, read=None, looked=None):
        top = f"model.{side}"
        x = file[f"{top}.embed_tokens.embedding"][x] + file[f"{top}.embed_positions.embedding"][: x.shape[1]]
        x = normed(x, file[f"{top}.layernorm_embedding.scale"], file[f"{top}.layernorm_embedding.bias"])
        number = 0
        while (block := f"{top}.layers.FlaxBart{side.capitalize()}Layer_{number}") + ".LayerNorm_0.bias" in file:
            for place, (source, seen) in enumerate([(None, own)] + ([(read, looked)] if read is not None else [])):
                names = [f"{block}.FlaxBartAttention_{place}.{each}_proj.kernel" for each in ("q", "k", "v", "out")]
                y = normed(x, None, file[f"{block}.LayerNorm_{2 * place}.bias"])
                y = attention(y, y if source is None else source, [file[name] for name in names], seen, heads)
                after = f"{block}.LayerNorm_{2 * place + 1}"
                x = x + normed(y, file[f"{after}.scale"], file[f"{after}.bias"])
            glu = f"{block}.GLU_0"
            y = normed(x, None, file[f"{glu}.LayerNorm_0.bias"])
            y = gelu(y @ file[f"{glu}.Dense_0.kernel"]) * (y @ file[f"{glu}.Dense_1.kernel"])
            x = x + normed(y, None, file[f"{glu}.LayerNorm_1.bias"]) @ file[f"{glu}.Dense_2.kernel"]
            number += 1
        assert number
        return normed(x, None, file[f"{top}.final_ln.bias"])

    counts = (text != 1)[:, None, None, :]
    read = half("encoder", text, counts)
    inputs = torch.cat([torch.full((len(ids), 1), start), ids[:, :-1]], 1)
    past = torch.arange(ids.shape[1])[:, None] >= torch.arange(ids.shape[1])
    return half("decoder", inputs, past, read, counts) @ file["lm_head.kernel"]


def test_equal_to_a_second_implementation(network, ids):
    file = {key: value.clone() for key, value in restore(network.state_dict(), flax_rules(CONFIG)).items()}
    wanted = reference(file, TEXT, ids, heads=1, start=CONFIG.start)[..., : CONFIG.codes]
    torch.testing.assert_close(network(TEXT, ids)[1].double(), wanted, atol=1e-5, rtol=1e-5)


def test_several_heads_are_equal_too(ids):
    config = Config(**{**vars(CONFIG), "heads": 4, "rows": 16385, "encoder": 1, "decoder": 1})
    torch.manual_seed(2)
    network = Bart(config).eval().requires_grad_(False)
    file = restore(network.state_dict(), flax_rules(config))
    wanted = reference(file, TEXT, ids, heads=4, start=config.start)[..., : config.codes]
    torch.testing.assert_close(network(TEXT, ids)[1].double(), wanted, atol=1e-5, rtol=1e-5)


def test_layouts_there_and_back(network):
    for rules, config_of in (
        (flax_rules, lambda found: flax_config(found, {"decoder_start_token_id": CONFIG.start})),
        (min_dalle_rules, min_dalle_config),
    ):
        theirs = restore(network.state_dict(), rules(CONFIG))
        assert Config(**config_of(shapes(theirs))) == CONFIG
        back = convert(theirs, rules(CONFIG))
        assert back.keys() == network.state_dict().keys()
        assert all(torch.equal(back[key], value) for key, value in network.state_dict().items())


def test_equal_to_min_dalle(network, ids, monkeypatch):
    spec = importlib.util.find_spec("min_dalle")
    if spec is None:
        pytest.skip("min-dalle is not installed")
    folder = Path(spec.submodule_search_locations[0]) / "models"
    package = type(sys)("min_dalle_files")
    package.__path__ = [str(folder)]
    monkeypatch.setitem(sys.modules, "min_dalle_files", package)
    encoders = importlib.import_module("min_dalle_files.dalle_bart_encoder")
    decoders = importlib.import_module("min_dalle_files.dalle_bart_decoder")
    monkeypatch.setattr(decoders, "IMAGE_TOKEN_COUNT", CONFIG.length)
    sizes = {"layer_count": 2, "embed_count": 64, "attention_head_count": 1, "glu_embed_count": 48, "device": "cpu"}
    encoder = encoders.DalleBartEncoder(text_vocab_count=50, text_token_count=8, **sizes).eval()
    decoder = decoders.DalleBartDecoder(image_vocab_count=CONFIG.rows - 1, **sizes).eval()
    theirs = restore(network.state_dict(), min_dalle_rules(CONFIG))
    for name, half in (("encoder", encoder), ("decoder", decoder)):
        own = {key.removeprefix(f"{name}."): value for key, value in theirs.items() if key.startswith(f"{name}.")}
        found = half.load_state_dict(own, strict=False)
        assert not found.unexpected_keys
        assert all(key.endswith(".weight") and ("ln" in key or "layer_norm" in key) for key in found.missing_keys)
    with torch.no_grad():
        read = encoder(TEXT)
        kept = torch.zeros(2, 4, CONFIG.length, 64)
        before = torch.full((1,), CONFIG.start)
        # Its decoder is made for one prompt beside no prompt: both rows are told the same codes.
        same = ids[:1].expand(2, -1)
        _, ours = network(TEXT, same)
        for place in range(CONFIG.length):
            logits, kept = decoder(
                attention_mask=TEXT.not_equal(1)[:, None, None, :],
                encoder_state=read,
                attention_state=kept,
                prev_tokens=before[:, None],
                token_index=torch.tensor([place]),
            )
            torch.testing.assert_close(ours[:, place], logits[:, -1, : CONFIG.codes], atol=1e-5, rtol=1e-5)
            before = same[:1, place]
