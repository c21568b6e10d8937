"""DALL-E's checkpoints as published: dalle.pt with its codec, minDALL-E's folder; from the file to a picture."""

import dataclasses
import json

import pytest
import torch
from tests.unit.checkpoints import tiny_dalle
from tests.unit.checkpoints import tiny_early as tiny

from mindseye.checkpoints.layout import restore
from mindseye.checkpoints.layouts import dalle_pytorch, dalle_pytorch_dvae, mindalle, openai_dvae, taming
from mindseye.checkpoints.library import Library
from mindseye.checkpoints.releases import identify
from mindseye.engine.engine import Engine
from mindseye.errors import WeightsError, WeightsMissing
from mindseye.networks import discrete_vae, dvae, vqgan
from mindseye.networks.dalle import DALLE, Config
from mindseye.networks.mindalle import Config as MinConfig
from mindseye.networks.mindalle import MinDALLE
from mindseye.noise import Noise
from mindseye.request import Request, drain
from mindseye.systems import dalle
from mindseye.text.plain_tokenizer import PlainTokenizer
from mindseye.text.tokenizer import Tokenizer
from mindseye.zoo import card_of

SHAPE = Config(
    width=16, layers=2, heads=2, head_width=12, text_tokens=600, text_length=5, image_tokens=24, grid=4,
    attention=("full", "axial_row"),
)  # fmt: skip
MIN = MinConfig(width=12, layers=2, heads=3, text_tokens=12, text_length=6, image_tokens=24, image_length=16)
HPARAMS = {
    "num_text_tokens": 600, "text_seq_len": 5, "dim": 16, "depth": 2, "heads": 2, "dim_head": 12, "reversible": False,
    "attn_types": ("full", "axial_row"), "shift_tokens": True, "rotary_emb": True, "stable": False,
    "shared_attn_ids": None, "shared_ff_ids": None, "share_input_output_emb": False,
}  # fmt: skip


@pytest.fixture(autouse=True)
def own(tmp_path, monkeypatch):
    monkeypatch.setenv("MINDSEYE_HOME", str(tmp_path / "home"))


def codec():
    return tiny.made(vqgan.VQGAN, tiny.CODES)


def dalle_file(path, hparams=HPARAMS, **more):
    """As train_dalle.py of DALLE-pytorch saves."""
    torch.manual_seed(0)
    network = DALLE(SHAPE).eval()
    weights = dict(restore(network.state_dict(), dalle_pytorch.dalle_rules(SHAPE)))
    weights["transformer.pos_emb"] = torch.zeros(1, 6 + 16, 12)
    theirs = restore(codec().state_dict(), taming.vqgan_rules(tiny.CODES))
    weights |= {f"vae.model.{key}": value for key, value in theirs.items()}
    weights = {key: value.clone() for key, value in weights.items()}
    content = {"hparams": hparams, "vae_params": None, "epoch": 3, "version": "1.6.6", "vae_class_name": "VQGanVAE"}
    torch.save({**content, "weights": weights, "opt_state": {"step": 1}, **more}, path)
    return network


def folder(path, told=True):
    """As minDALL-E's archive unpacks."""
    (path / "tokenizer").mkdir(parents=True)
    torch.manual_seed(0)
    network = MinDALLE(MIN).eval()
    tiny.written(path / "stage2_last.ckpt", restore(network.state_dict(), mindalle.mindalle_rules(MIN)))
    tiny.written(path / "stage1_last.ckpt", restore(codec().state_dict(), taming.vqgan_rules(tiny.CODES)))
    pieces = ["[UNK]", "a", "b", "n", "a</w>", "n</w>", "b</w>", "an</w>", "e</w>", "e", "d</w>"]
    (path / "tokenizer" / "bpe-16k-vocab.json").write_text(json.dumps({piece: n for n, piece in enumerate(pieces)}))
    (path / "tokenizer" / "bpe-16k-merges.txt").write_text("#version: 0.2\na n</w>\n")
    if told:
        (path / "config.yaml").write_text("stage2:\n  hparams:\n    n_heads: 3\n    gelu_use_approx: false\n")
    return network


def words(path):
    full = Tokenizer.train(["a cat", "a dog"] * 4, 600)
    full.save(path)
    return full


def test_a_dalle_with_its_codec_draws_what_its_network_would(tmp_path):
    network = dalle_file(tmp_path / "dalle.pt")
    words(tmp_path / "dalle.json")
    release = identify(tmp_path / "dalle.pt")
    assert (release.family, release.native, release.licence) == ("dalle", (8, 8), "")
    card = card_of(release, "mine")
    assert card.options["filter_thres"] == 0.9 and card.licence == "MIT"
    drain(Library().add(str(tmp_path / "dalle.pt")))
    result = Engine(device="cpu", dtype=torch.float32).generate(Request(prompt="a cat", model="dalle", seed=3))
    text = PlainTokenizer.from_file(tmp_path / "dalle.json", 5)
    system = dalle.DALLE(network.requires_grad_(False), codec(), text)
    pixels = drain(system.synthesize(result.request, dalle.Knobs(filter_thres=0.9), Noise([3])))
    from mindseye.pixels import to_images

    assert result.images[0].tobytes() == to_images(pixels)[0].tobytes()
    assert set(result.weights) == set(card.parts)


def without_codec(path, kind, **codec):
    """A dalle.pt over another codec: with these tensors of it, or none."""
    dalle_file(path, vae_class_name=kind)
    content = torch.load(path, weights_only=True)
    weights = {key: value for key, value in content["weights"].items() if not key.startswith("vae.")}
    content["weights"] = weights | {f"vae.{key}": value.contiguous() for key, value in codec.items()}
    torch.save(content, path)
    words(path.with_suffix(".json"))


def drawn_over(codec, path):
    """That it draws, over just that codec."""
    drain(Library().add(str(path)))
    engine = Engine(device="cpu", dtype=torch.float32)
    assert engine.generate(Request(prompt="a cat", model="dalle", seed=3)).images[0].size == (8, 8)
    found = engine.load("dalle").codec.state_dict()
    assert all(torch.equal(found[key], value) for key, value in codec.state_dict().items())


def test_a_dalle_over_its_own_autoencoder_is_read_with_it(tmp_path):
    own = discrete_vae.DiscreteVAE(discrete_vae.Config(layers=1, codes=24, code_channels=4, hidden=8, blocks=1))
    theirs = restore(own.state_dict(), dalle_pytorch_dvae.vae_rules(own.config))
    without_codec(tmp_path / "dalle.pt", "DiscreteVAE", **theirs)
    release = identify(tmp_path / "dalle.pt")
    assert (release.family, release.native) == ("dalle", (8, 8))
    assert release.parts["codec"].layout == "dalle-pytorch-dvae"
    drawn_over(own, tmp_path / "dalle.pt")


def test_a_dalle_over_openais_is_read_with_what_is_in_it(tmp_path):
    own = tiny.made(dvae.DVAE, tiny_dalle.DVAE)
    theirs = restore(own.state_dict(), openai_dvae.dvae_rules(own.config))
    short = {key.replace("encoder.", "enc.").replace("decoder.", "dec."): value for key, value in theirs.items()}
    without_codec(tmp_path / "dalle.pt", "OpenAIDiscreteVAE", **short)
    release = identify(tmp_path / "dalle.pt")
    assert (release.family, release.native, release.parts["codec"].prefix) == ("dalle", (8, 8), "vae.")
    drawn_over(own, tmp_path / "dalle.pt")


def test_or_with_the_two_files_beside_it(tmp_path):
    path = tmp_path / "dalle.pt"
    without_codec(path, "OpenAIDiscreteVAE")
    with pytest.raises(WeightsMissing, match="without its codec, OpenAI's discrete VAE") as caught:
        identify(path)
    assert "encoder.pkl and decoder.pkl" in caught.value.hint
    tiny_dalle.dvae_files(tmp_path / "encoder.pkl")
    release = identify(path)
    assert [each.name for each in release.parts["codec"].files] == ["encoder.pkl", "decoder.pkl"]
    drawn_over(tiny.made(dvae.DVAE, tiny_dalle.DVAE), path)
    # The folder is none of a dVAE alone; and of another size it is not taken.
    with pytest.raises(WeightsMissing, match="is no model"):
        identify(tmp_path)
    other = dataclasses.replace(tiny_dalle.DVAE, codes=28)
    tiny_dalle.dvae_files(tmp_path / "encoder.pkl", config=other)
    with pytest.raises(WeightsError, match="writes 24 codes, and its codec has 28"):
        identify(path)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"reversible": True}, "reversible"),
        ({"attn_types": ("full", "mlp")}, "no attention 'mlp'"),
        ({"heads": 5}, "not 5 heads"),
        ({"text_seq_len": "five"}, "not supported"),
    ],
)
def test_what_is_not_supported_is_a_sentence(changes, says, tmp_path):
    dalle_file(tmp_path / "dalle.pt", {**HPARAMS, **changes})
    words(tmp_path / "dalle.json")
    with pytest.raises(WeightsError, match=says):
        identify(tmp_path / "dalle.pt")


def test_a_dalle_without_its_tokenizer_or_settings_or_codec(tmp_path):
    path = tmp_path / "dalle.pt"
    dalle_file(path)
    with pytest.raises(WeightsError, match="600 different tokens") as caught:
        identify(path)
    assert "dalle.json" in caught.value.hint
    words(tmp_path / "dalle.json")
    dalle_file(path, hparams=None)
    with pytest.raises(WeightsError, match="'hparams' is missing"):
        identify(path)
    without_codec(path, "DiscreteVAE")
    with pytest.raises(WeightsError, match="trained over DiscreteVAE, and that is not in it"):
        identify(path)


def test_a_folder_of_mindalle_is_one_model_and_draws(tmp_path):
    network = folder(tmp_path / "1.3B")
    found = drain(Library().add(str(tmp_path / "1.3B"))).entries
    assert [(each.kind, each.family, each.problem) for each in found] == [("model", "mindalle", "")]
    release = identify(tmp_path / "1.3B")
    assert release.native == (8, 8) and release.notes == () and "NC" in card_of(release, "x").licence
    request = Request(prompt="an bad", model="1.3B", seed=2, count=2)
    result = Engine(device="cpu", dtype=torch.float32).generate(request)
    text = PlainTokenizer.char_bpe(tmp_path / "1.3B" / "tokenizer", 6)
    system = dalle.DALLE(network.requires_grad_(False), codec(), text)
    pixels = drain(system.synthesize(result.request, dalle.Knobs(top_k=256), Noise([2, 3])))
    from mindseye.pixels import to_images

    assert [each.tobytes() for each in result.images] == [each.tobytes() for each in to_images(pixels)]


def test_a_folder_that_is_not_whole(tmp_path):
    folder(tmp_path / "1.3B", told=False)
    assert "heads are taken for 64" in identify(tmp_path / "1.3B").notes[0]
    (tmp_path / "1.3B" / "stage1_last.ckpt").unlink()
    with pytest.raises(WeightsMissing, match="without its stage1_last.ckpt"):
        identify(tmp_path / "1.3B")
