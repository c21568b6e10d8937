"""Learned words in every container they come in."""

import base64
import collections
import json
import zlib

import numpy as np
import pytest
import torch
from PIL import Image, PngImagePlugin
from safetensors.torch import save_file

from mindseye.checkpoints.adapters import check_width, embeddings, read_embedding, read_embeddings
from mindseye.errors import WeightsError, WeightsMissing

VECTORS = torch.randn(3, 768, generator=torch.Generator().manual_seed(0))


def a1111(params):
    return {
        "string_to_token": {"*": 265},
        "string_to_param": params,
        "name": "fox",
        "step": 500,
        "sd_checkpoint": "81761151",
        "sd_checkpoint_name": "v1-5-pruned",
    }


def as_json(vectors):
    return json.dumps(a1111({"*": {"TORCHTENSOR": vectors.tolist()}})).encode()


def strips(payload: bytes, picture: Image.Image, noise: int = 0) -> Image.Image:
    """The web UI's hidden form, from its description: masked nibbles in strips of the picture's height."""
    height = picture.size[1]
    data = np.frombuffer(zlib.compress(payload, 9), np.uint8)
    columns = len(data) // (3 * height) + 1
    data = np.resize(data, height * columns * 3).reshape(height, columns, 3)
    state, mask = 0, []
    for _ in range(data.size):
        state = (1664525 * state + 1013904223) % 2**32
        mask.append(state % 255 & 15)
    mask = np.array(mask, np.uint8).reshape(data.shape)
    high_bits = np.random.default_rng(noise).integers(1, 16, data.shape).astype(np.uint8) << 4
    left, right = (data & 15 ^ mask) | high_bits, (data >> 4 ^ mask) | high_bits
    whole = Image.new("RGB", (picture.size[0] + 2 * columns + 2, height))
    whole.paste(Image.fromarray(left), (0, 0))
    whole.paste(picture, (columns + 1, 0))
    whole.paste(Image.fromarray(right), (columns + 2 + picture.size[0], 0))
    return whole


def old_parameter_dict():
    """As torch up to 1.11 pickled it: entries among a module's parameters, and no list of keys."""
    params = torch.nn.ParameterDict()
    for name in list(params.__dict__):
        if name not in torch.nn.Module().__dict__:
            del params.__dict__[name]
    params.__dict__["_parameters"] = collections.OrderedDict({"*": torch.nn.Parameter(VECTORS)})
    return params


@pytest.mark.parametrize("kind", ["dict", "ParameterDict", "old ParameterDict", "text", "hidden", "webp", "legacy"])
def test_a1111(tmp_path, kind):
    path = tmp_path / "my fox.pt"
    if kind in ("text", "hidden", "webp"):
        path = tmp_path / f"my fox.{'webp' if kind == 'webp' else 'png'}"
        picture = Image.fromarray(np.random.default_rng(1).integers(20, 255, (64, 48, 3), np.uint8))
        info = PngImagePlugin.PngInfo()
        if kind == "text":
            info.add_text("sd-ti-embedding", base64.b64encode(as_json(VECTORS)).decode())
        else:
            picture = strips(as_json(VECTORS), picture)
        picture.save(path, lossless=True) if kind == "webp" else picture.save(path, pnginfo=info)
    else:
        params = {
            "ParameterDict": lambda: torch.nn.ParameterDict({"*": torch.nn.Parameter(VECTORS)}),
            "old ParameterDict": old_parameter_dict,
        }.get(kind, lambda: {"*": VECTORS})()
        torch.save(a1111(params), path, _use_new_zipfile_serialization=kind != "legacy")
    word = read_embedding(path)
    assert torch.equal(word.vectors["text"], VECTORS)
    assert (word.name, word.names, word.base) == ("fox", ("fox", "my fox"), "sd1")
    assert (word.step, word.trained_on, len(word)) == (500, "v1-5-pruned", 3)


@pytest.mark.parametrize("ending", ["bin", "safetensors"])
def test_diffusers_kohya_xl_and_bare(tmp_path, ending):
    path = tmp_path / f"fox.{ending}"

    def read(content):
        torch.save(content, path) if ending == "bin" else save_file(content, path)
        return read_embeddings(path)

    (word,) = read({"<fox>": VECTORS[0].half()})
    assert (word.name, word.names) == ("<fox>", ("<fox>", "fox"))
    assert torch.equal(word.vectors["text"], VECTORS[:1].half().float())
    (word,) = read({"emb_params": VECTORS})
    assert (word.name, word.base, len(word)) == ("fox", "sd1", 3)
    (word,) = read({"clip_l": VECTORS, "clip_g": torch.ones(3, 1280)})
    assert {part: tuple(v.shape) for part, v in word.vectors.items()} == {"text": (3, 768), "text_2": (3, 1280)}
    assert word.base == "sdxl"
    (word,) = read({"<two>": torch.ones(2, 1024)})
    assert word.base == "sd2"
    several = read({"<s1>": torch.ones(768), "<s2>": torch.ones(768)})
    assert [word.name for word in several] == ["<s1>", "<s2>"]
    with pytest.raises(WeightsError, match="holds 2 words"):
        read_embedding(path)
    if ending == "bin":
        torch.save(VECTORS, path)
        assert torch.equal(read_embedding(path).vectors["text"], VECTORS)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (
            {"<x>": torch.ones(4096, dtype=torch.bfloat16)},
            "vectors of 4096 numbers; known are 768 for Stable Diffusion 1",
        ),
        ({"<x>": torch.ones(2, 3, 768)}, "not the vectors of a word"),
        ({"<x>": torch.full((768,), float("nan"))}, "NaN"),
        ({"clip_l": torch.ones(3, 768), "clip_g": torch.ones(2, 1280)}, "different number of vectors"),
        ({"lora_unet_conv_in.lora_up.weight": torch.ones(2, 768)}, "a LoRA or a checkpoint"),
        ({f"k{i}": torch.ones(1) for i in range(2000)}, "a LoRA or a checkpoint"),
    ],
)
def test_what_cannot_be_a_word(tmp_path, content, says):
    save_file(content, tmp_path / "x.safetensors")
    with pytest.raises(WeightsError, match=says):
        read_embedding(tmp_path / "x.safetensors")


def test_the_width_of_another_base_is_named(tmp_path):
    save_file({"<fox>": VECTORS}, tmp_path / "fox.safetensors")
    word = read_embedding(tmp_path / "fox.safetensors")
    check_width(word, {"text": 768})
    for widths, here in (({"text": 1024}, "1024"), ({"text": 768, "text_2": 1280}, "768 and 1280")):
        with pytest.raises(WeightsError, match=f"<fox> has vectors of 768 .* Stable Diffusion 1 .* reads {here}"):
            check_width(word, widths)


def test_pictures_without_a_word_in_them(tmp_path, monkeypatch):
    monkeypatch.setattr(embeddings, "MOST_BYTES", 10_000)
    path = tmp_path / "x.png"
    bomb = strips(b"[" + b"1," * 10_000 + b"1]", Image.new("RGB", (8, 64), "white"))
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 40, 3), np.uint8))
    for picture in (noise, Image.new("RGB", (9, 9)), Image.new("RGB", (9, 9), "white"), bomb):
        picture.save(path)
        with pytest.raises(WeightsError, match="picture without an embedding"):
            read_embedding(path)
    for text in ("not base64!", base64.b64encode(b"[" * 10_000).decode()):
        info = PngImagePlugin.PngInfo()
        info.add_text("sd-ti-embedding", text)
        noise.save(path, pnginfo=info)
        with pytest.raises(WeightsError, match="picture without an embedding"):
            read_embedding(path)
    path.write_bytes(b"\x89PNG and no more")
    with pytest.raises(WeightsError, match="no picture"):
        read_embedding(path)
    with pytest.raises(WeightsMissing):
        read_embedding(tmp_path / "nothing.png")


def test_code_is_not_run(tmp_path, capsys):
    class Bomb:
        def __reduce__(self):
            return (print, ("ran",))

    torch.save({"string_to_param": Bomb()}, tmp_path / "bomb.pt")
    with pytest.raises(WeightsError, match="more than numbers"):
        read_embedding(tmp_path / "bomb.pt")
    assert "ran" not in capsys.readouterr().out


def test_real_files(material):
    folder = material / "textual_inversion"
    found = {path.name: read_embedding(path) for path in sorted(folder.iterdir())}
    assert {name: (word.name, len(word), word.base) for name, word in found.items()} == {
        "cat-toy_learned_embeds.bin": ("<cat-toy>", 1, "sd1"),
        "fastai_learned_embeds.bin": ("<birb-style>", 1, "sd1"),
        "gta5_learned_embeds.bin": ("<gta5-artwork>", 1, "sd1"),
        "invoke_test_embedding.safetensors": ("invoke_test_embedding", 5, "sd1"),
    }
    raw = torch.load(folder / "cat-toy_learned_embeds.bin", weights_only=True)["<cat-toy>"]
    assert torch.equal(found["cat-toy_learned_embeds.bin"].vectors["text"][0], raw)
