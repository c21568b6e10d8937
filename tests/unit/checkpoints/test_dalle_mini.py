"""DALL-E mini's files: found, told, read to the number, drawn with; and what is no such thing, in a sentence."""

import json
import pickle

import pytest
import torch
from tests.unit.checkpoints import tiny_dalle_mini as tiny
from tests.unit.checkpoints.test_early import added, draw

from mindseye import zoo
from mindseye.checkpoints import flax, kinds
from mindseye.checkpoints.convert import convert as convert_all
from mindseye.checkpoints.describe import describe
from mindseye.checkpoints.layout import convert, restore
from mindseye.checkpoints.layouts import dalle_mini as layout
from mindseye.checkpoints.library import Library
from mindseye.checkpoints.load import load_foreign
from mindseye.checkpoints.manifest import read_manifest
from mindseye.checkpoints.releases import identify
from mindseye.errors import UnknownName, WeightsError, WeightsMissing
from mindseye.networks.bart import Config
from mindseye.networks.vqgan import Config as CodesConfig
from mindseye.request import drain

FOLDERS = {
    "scanned": tiny.flax_folder,
    "unscanned": lambda folder: tiny.flax_folder(folder, scan=False),
    "min-dalle": tiny.min_dalle_folder,
}


@pytest.fixture(autouse=True)
def own(tmp_path, monkeypatch):
    monkeypatch.setenv("MINDSEYE_HOME", str(tmp_path / "home"))


def shapes(tensors):
    return {key: tuple(value.shape) for key, value in tensors.items()}


@pytest.mark.parametrize("name", FOLDERS)
def test_found_and_read_to_the_number(name, tmp_path):
    release = identify(FOLDERS[name](tmp_path / "mini"))
    assert (release.family, release.native, release.multiple) == ("dalle-mini", (6, 6), 1)
    assert list(release.parts) == ["network", "codec"]
    half = name == "min-dalle"
    for part, made in (("network", tiny.network()), ("codec", tiny.codec())):
        found = load_foreign(release.parts[part])
        wanted = made.state_dict()
        assert found.config == made.config or half
        assert set(found.state_dict()) <= set(wanted)
        for key, value in found.state_dict().items():
            torch.testing.assert_close(value, wanted[key], rtol=1e-3 if half else 0, atol=1e-3 if half else 0, msg=key)
    if half:
        assert any("no picture" in note for note in release.notes) and any(
            "first behind" in note for note in release.notes
        )
        assert load_foreign(release.parts["codec"]).encoder is None


@pytest.mark.parametrize("name", ["scanned", "min-dalle"])
def test_kept_and_drawn_with(name, tmp_path):
    entry = added(FOLDERS[name](tmp_path / "mini"))
    assert (entry.kind, entry.family, entry.problem) == ("model", "dalle-mini", "")
    assert kinds.is_unit(tmp_path / "mini")
    card = zoo.find(entry.name)
    assert card.defaults["guidance"] == 10 and set(card.parts) == {"network", "codec", "tokenizer"}
    first, again = draw(entry.name), draw(entry.name)
    assert first.images[0].tobytes() == again.images[0].tobytes()
    assert {len(digest) for digest in first.weights.values()} == {64}
    with pytest.raises(UnknownName, match="manner of painting"):
        zoo.find(f"big-sleep:{entry.name}")


@pytest.mark.parametrize("name", ["scanned", "min-dalle"])
def test_described_and_written_in_our_own_format(name, tmp_path):
    folder = FOLDERS[name](tmp_path / "mini")
    entry = added(folder)
    told = describe(entry, Library(), hashes=False)
    assert not told.get("problem") and told["family"] == "dalle-mini"
    for part in told["parts"].values():
        assert 0 < part["matched"] == part["tensors"]
    assert drain(convert_all(folder, tmp_path / "ours", "mindseye")) == ()
    ours = identify(tmp_path / "ours")
    assert ours.family == "dalle-mini" and ours.facts == {"length": 8}
    again = draw(str(tmp_path / "ours"))
    assert again.images[0].tobytes() == draw(entry.name).images[0].tobytes()


def test_the_vqgan_alone_is_a_vqgan(tmp_path):
    tiny.flax_folder(tmp_path / "mini")
    release = identify(tmp_path / "mini" / "vqgan")
    assert (release.family, release.parts["codec"].layout) == ("vqgan", "vqgan-jax")
    assert json.loads(release.parts["codec"].config)["positive"]


def test_two_models_in_one_folder(tmp_path):
    folder = tiny.min_dalle_folder(tmp_path / "both")
    tiny.min_dalle_folder(folder, "_mini")
    with pytest.raises(WeightsError, match="holds two models"):
        identify(folder)
    release = identify(folder / "decoder_mini.pt")
    assert [path.name for path in release.parts["network"].files] == ["encoder_mini.pt", "decoder_mini.pt"]
    assert release.tokenizers["tokenizer"] == folder / "vocab_mini.json"
    assert draw(str(folder / "encoder_mini.pt")).images


def test_pictures_are_ours_and_not_theirs():
    """What their towers take for 0 to 1 is -1 to 1 here, both ways."""
    codec = tiny.codec()
    plain = type(codec)(CodesConfig(**{**vars(tiny.CODES), "positive": False})).eval().requires_grad_(False)
    plain.load_state_dict(codec.state_dict())
    pixels = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1
    torch.testing.assert_close(codec.encode(pixels), plain.encode((pixels + 1) / 2))
    z = torch.randn(1, 8, 4, 4, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(codec.decode(z), 2 * plain.decode(z) - 1)


def test_vqgan_names_there_and_back():
    state = tiny.codec().state_dict()
    theirs = restore(state, layout.flax_vqgan_rules(tiny.CODES))
    wanted = (
        "encoder.down_1.attn_0.proj_out.kernel", "decoder.up_1.upsample.conv.kernel", "decoder.mid.block_1.norm1.scale",
        "quantize.embedding.embedding", "decoder.up_0.block_0.nin_shortcut.kernel",
    )  # fmt: skip
    assert set(wanted) <= set(theirs)
    assert theirs["encoder.conv_in.kernel"].shape == (3, 3, 3, 32)
    assert theirs["encoder.down_1.attn_0.q.kernel"].shape == (1, 1, 64, 64)
    back = convert(theirs, layout.flax_vqgan_rules(tiny.CODES))
    assert all(torch.equal(back[key], value) for key, value in state.items())


def test_a_file_of_gigabytes_is_only_walked_over(tmp_path):
    """Reading the table touches neither the numbers nor, here, disk blocks that were never written."""
    inside = (
        b"\x93\x92\xce" + (1 << 20).to_bytes(4, "big") + b"\xcd\x02\x00\xa7float32\xc6" + (1 << 31).to_bytes(4, "big")
    )
    head = b"\x81\xa7kernels\xc9" + (len(inside) + (1 << 31)).to_bytes(4, "big") + b"\x01" + inside
    path = tmp_path / "large.msgpack"
    with path.open("wb") as file:
        file.write(head)
        file.truncate(len(head) + (1 << 31))
    (entry,) = read_manifest(path).values()
    assert (entry.shape, entry.dtype, entry.offset) == ((1 << 20, 512), "F32", len(head))


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda raw: raw[:-7], "cut short"),
        (lambda raw: raw[: len(raw) // 2], "cut short"),
        (lambda raw: raw.replace(b"float32", b"float99", 1), "float99"),
        (lambda raw: raw.replace(b"lm_head", b"model\xa0\xa0", 1)[:20], "Flax file|cut short"),
        (lambda raw: b"\x81\xa1a" * 100 + b"\x80", "deeper than"),
        (lambda raw: b"\x81\xa1a\x81\xb9__msgpack_chunked_array__\xc3" + bytes(8), "in pieces"),
        (lambda raw: b"\x81\xa6plenty\x05" + bytes(8), "without arrays"),
    ],
)
def test_damaged_files_are_said_in_a_sentence(spoil, said, tmp_path):
    raw = tiny.packed(tiny.nested({"lm_head.kernel": torch.ones(3, 4), "model.x.bias": torch.ones(5)}))
    path = tmp_path / "flax_model.msgpack"
    path.write_bytes(spoil(raw))
    with pytest.raises(WeightsError, match=said) as caught:
        flax.arrays(path)
    assert "\n" not in caught.value.message


def test_a_damaged_file_in_a_folder_is_no_crash(tmp_path):
    folder = tiny.flax_folder(tmp_path / "mini")
    whole = (folder / "flax_model.msgpack").read_bytes()
    (folder / "flax_model.msgpack").write_bytes(whole[: len(whole) - 100])
    assert "cut short" in kinds.look(folder).problem


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"use_glu": False}, "use_glu is False"),
        ({"ln_positions": "swinv2"}, "ln_positions is 'swinv2'"),
        ({"decoder_start_token_id": 9999}, "row 9999 of 25"),
        ({"decoder_attention_heads": 2}, "different numbers of heads"),
    ],
)
def test_variants_that_were_not_published(settings, said, tmp_path):
    folder = tiny.flax_folder(tmp_path / "mini")
    (folder / "config.json").write_text(json.dumps({**tiny.SETTINGS, **settings}))
    with pytest.raises(WeightsError, match=said):
        identify(folder)


def test_what_is_missing_is_named(tmp_path):
    folder = tiny.min_dalle_folder(tmp_path / "mini")
    (folder / "detoker.pt").rename(folder / "kept.pt")
    with pytest.raises(WeightsMissing, match="without the VQGAN") as caught:
        identify(folder)
    assert "vqgan" in caught.value.hint
    (folder / "kept.pt").rename(folder / "detoker.pt")
    (folder / "vocab.json").unlink()
    with pytest.raises(WeightsMissing, match=r"vocab\.json and merges\.txt"):
        draw(str(folder / "encoder.pt"))
    (folder / "decoder.pt").unlink()
    with pytest.raises(WeightsMissing, match="one half of DALL-E mini"):
        identify(folder / "encoder.pt")


def test_a_pickle_of_a_whole_module_is_not_opened(tmp_path):
    folder = tiny.min_dalle_folder(tmp_path / "mini")
    torch.save(torch.nn.Linear(2, 2), folder / "encoder.pt")
    with pytest.raises(WeightsError, match="pickle with code in it"):
        identify(folder)
    (folder / "encoder.pt").write_bytes(pickle.dumps(print))
    with pytest.raises(WeightsError):
        identify(folder)


def test_a_vocabulary_of_another_model(tmp_path):
    folder = tiny.min_dalle_folder(tmp_path / "mini")
    words = {f"w{number}": number for number in range(900)} | {"<s>": 900, "<pad>": 901, "</s>": 902}
    (folder / "vocab.json").write_text(json.dumps(words))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    with pytest.raises(WeightsError, match="903 tokens and the network reads 280"):
        draw(str(folder / "encoder.pt"))


def test_names_and_shapes_tell_the_config():
    theirs = restore(tiny.network().state_dict(), layout.min_dalle_rules(tiny.WRITER))
    assert Config(**layout.min_dalle_config(shapes(theirs))) == tiny.WRITER
    assert Config(**layout.min_dalle_config(shapes(theirs), start=3)).start == 3
