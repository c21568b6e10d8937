"""What a file says of itself, and what is no adapter."""

import json
import pickle

import pytest
import torch
from safetensors.torch import load_file, save_file

from mindseye.checkpoints.adapters import Weights, attach, read_adapter
from mindseye.errors import WeightsError, WeightsMissing

QUERY = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
OURS = "down.0.stages.0.transformer.blocks.0.attention.query.weight"


def peft(rank=4, prefix="unet."):
    torch.manual_seed(0)
    stem = f"{prefix}{QUERY}"
    return {f"{stem}.lora_A.weight": torch.randn(rank, 8), f"{stem}.lora_B.weight": torch.randn(8, rank)}


def merged(parts, adapter):
    before = dict(parts["unet"].named_parameters())[OURS].clone()
    with attach(parts, [(adapter, Weights())]):
        return dict(parts["unet"].named_parameters())[OURS] - before


def test_facts(kohya):
    metadata = {
        "ss_network_dim": "2",
        "ss_tag_frequency": json.dumps({"10_fox": {"red fox": 10, "snow": 3}, "5_more": {"snow": 9}}),
        "modelspec.title": "Foxes",
    }
    adapter = read_adapter(kohya(name="foxes", metadata=metadata))
    assert (adapter.name, adapter.dialect, adapter.rank) == ("foxes", "kohya", (2,))
    assert adapter.words == ("snow", "red fox")
    assert adapter.metadata["modelspec.title"] == "Foxes"
    metadata["modelspec.trigger_phrase"] = "fxs, winter"
    assert read_adapter(kohya(metadata=metadata)).words == ("fxs", "winter")
    assert read_adapter(kohya(metadata={"ss_tag_frequency": "{" * 100_000})).words == ()


@pytest.mark.parametrize(
    ("metadata", "base"),
    [
        ({"modelspec.architecture": "stable-diffusion-xl-v1-base/lora"}, "sdxl"),
        ({"ss_base_model_version": "sd_v1"}, "sd1"),
        ({"ss_v2": "True"}, "sd2"),
        ({}, ""),
    ],
)
def test_base_as_it_says(kohya, metadata, base):
    module = "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn1_to_q"
    assert read_adapter(kohya({module: kohya.pair(640, 640)}, metadata=metadata)).base == base


@pytest.mark.parametrize(
    ("config", "scale"),
    [
        ({}, 1),
        ({"lora_alpha": 2, "r": 4}, 0.5),
        ({"lora_alpha": 2, "r": 4, "use_rslora": True}, 1),
        ({"lora_alpha": 2, "r": 4, "alpha_pattern": {QUERY: 8}}, 2),
        ({"lora_alpha": 2, "r": 4, "alpha_pattern": {"attn1.to_q": 8, "attn1.to_k": 80}}, 2),
    ],
)
@pytest.mark.parametrize("where", ["beside", "inside"])
def test_peft_keeps_alpha_elsewhere(parts, tmp_path, config, scale, where):
    state = peft(prefix="base_model.model." if where == "beside" else "unet.")
    name, metadata = "pytorch_lora_weights.safetensors", {"lora_adapter_metadata": "{}"}
    if where == "beside":
        name = "adapter_model.safetensors"
        (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    else:
        metadata = {"lora_adapter_metadata": json.dumps({f"unet.{key}": value for key, value in config.items()})}
    save_file(state, tmp_path / name, metadata)
    adapter = read_adapter(tmp_path)  # the folder
    assert adapter.name == tmp_path.name
    a, b = state.values()
    torch.testing.assert_close(merged(parts, adapter), scale * (b @ a), rtol=1e-4, atol=1e-5)


def test_a_folder_without_one_and_a_config_that_cannot_be_read(tmp_path):
    with pytest.raises(WeightsError, match="folder without an adapter"):
        read_adapter(tmp_path)
    save_file(peft(), tmp_path / "adapter_model.safetensors")
    (tmp_path / "adapter_config.json").write_text("{")
    with pytest.raises(WeightsError, match=r"adapter_config\.json.*cannot be read"):
        read_adapter(tmp_path)


def test_words_that_travel_inside(material, tmp_path):
    adapter = read_adapter(material / "lora_cloneofsimo" / "lora_disney.safetensors")
    assert [(word.name, word.base, len(word)) for word in adapter.embeddings] == [
        ("<s1>", "sd1", 1),
        ("<s2>", "sd1", 1),
    ]
    assert not adapter.left
    path = tmp_path / "bundle.safetensors"
    words = {"bundle_emb.fox.string_to_param.*": torch.ones(3, 768), "bundle_emb.xl.clip_l": torch.ones(2, 768)}
    save_file(peft() | words | {"bundle_emb.xl.clip_g": torch.ones(2, 1280), "odd": torch.ones(1)}, path)
    adapter = read_adapter(path)
    assert {word.name: (word.base, len(word)) for word in adapter.embeddings} == {"fox": ("sd1", 3), "xl": ("sdxl", 2)}
    assert adapter.left == ("odd",)


def test_pickles_and_lists(parts, tmp_path):
    torch.save(peft(), tmp_path / "named.bin")
    torch.save({"state_dict": peft()}, tmp_path / "nested.ckpt")
    for name in ("named.bin", "nested.ckpt"):
        a, b = peft().values()
        adapter = read_adapter(tmp_path / name)
        torch.testing.assert_close(merged(parts, adapter), b @ a, rtol=1e-4, atol=1e-5)
    pairs = [torch.nn.Parameter(torch.ones(12, 1)), torch.nn.Parameter(torch.ones(1, 12))] * 8
    torch.save(pairs, tmp_path / "list.text_encoder.pt")
    adapter = read_adapter(tmp_path / "list.text_encoder.pt")
    assert (adapter.dialect, len(adapter.modules)) == ("cloneofsimo-list", 8)
    with attach(parts, [(adapter, Weights())]) as attached:
        assert attached.reports[0].matched == 8
    torch.save(pairs[:6] + [torch.ones(3, 1), torch.ones(1, 3)], tmp_path / "short.pt")
    with pytest.raises(WeightsError, match="a list of 4 pairs"):
        read_adapter(tmp_path / "short.pt")


def test_the_list_form_of_a_real_file(material, tmp_path):
    """As the trainer itself saves lists: the same tensors in the order of their numbers, one part a file."""
    named = load_file(material / "lora_cloneofsimo" / "analog_svd_rank4.safetensors")
    original = read_adapter(material / "lora_cloneofsimo" / "analog_svd_rank4.safetensors")
    for part, count, name in (("unet", 144, "unet"), ("text_encoder", 48, "text")):
        path = tmp_path / f"{part}.pt"
        torch.save([named[f"{part}:{i}:{way}"] for i in range(count) for way in ("up", "down")], path)
        tensors, adapter = torch.load(path, weights_only=True), read_adapter(path)
        assert set(adapter.modules) == {target for target in original.modules if target.part == name}
        for target, change in adapter.modules.items():
            for factor, place in change.keys.items():
                assert torch.equal(tensors[int(place)], named[original.modules[target].keys[factor]])


def test_a_header_as_long_as_a_pickle_begins(tmp_path):
    """Lengths are written lowest byte first: every 32nd safetensors file begins like a pickle, with 0x80."""
    path = tmp_path / "x.safetensors"
    for padding in range(0, 512, 8):
        save_file(peft(), path, {"pad": "x" * padding})
        if path.read_bytes()[0] == 0x80:
            break
    assert path.read_bytes()[0] == 0x80
    assert read_adapter(path).metadata["pad"] == "x" * padding


class Bomb:
    def __reduce__(self):
        return (print, ("ran",))


def test_a_pickle_with_code_is_not_opened(tmp_path, capsys):
    path = tmp_path / "bomb.pt"
    torch.save({"lora_unet_conv_in.lora_up.weight": torch.ones(1), "x": Bomb()}, path)
    with pytest.raises(WeightsError, match="more than numbers in it.*print"):
        read_adapter(path)
    path.write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(WeightsError):
        read_adapter(path)
    assert "ran" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        (["model.diffusion_model.out.2.weight", "first_stage_model.decoder.conv_in.weight"] * 4, "whole checkpoint"),
        ([f"down_blocks.{i}.resnets.0.conv1.weight" for i in range(8)], "is a network .8 tensors., not an adapter"),
        (["emb_params"], "is an embedding"),
        (["clip_l", "clip_g"], "is an embedding"),
        (["<cat>"], "is an embedding"),
        ([f"thing{i}" for i in range(9)], "its first keys are thing0, thing1, thing2"),
    ],
)
def test_what_is_no_adapter_is_called_by_its_name(tmp_path, keys, says):
    path = tmp_path / "x.safetensors"
    save_file({key: torch.ones(2, 768) for key in keys}, path)
    with pytest.raises(WeightsError, match=says):
        read_adapter(path)


def test_damaged_files(tmp_path, kohya):
    whole = kohya().read_bytes()
    for content, says in (
        (whole[:-4], "cut short"),
        (whole[:60], "cut short"),
        (b"", "empty"),
        (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer"),
        (b"<!DOCTYPE html>", "web page"),
        (b"PK\x03\x04 and no more", "damaged or cut short"),
        (b"\x80\x02 and no more", "damaged or cut short|more than numbers"),
    ):
        path = tmp_path / "bad.safetensors"
        path.write_bytes(content)
        with pytest.raises(WeightsError, match=says):
            read_adapter(path)
    with pytest.raises(WeightsMissing):
        read_adapter(tmp_path / "nothing.safetensors")
