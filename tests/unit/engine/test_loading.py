import json
import subprocess
import sys
from dataclasses import dataclass

import pytest
import torch

from mindseye.checkpoints.save import save_part
from mindseye.engine.engine import Engine
from mindseye.errors import WeightsError, WeightsMissing
from mindseye.networks.clip import CLIP, Config, Text
from mindseye.networks.vae import AutoencoderKL, Tower
from mindseye.networks.vae import Config as VAEConfig
from mindseye.request import Request
from mindseye.text.tokenizer import Tokenizer
from mindseye.zoo import File

TOWER = Tower(channels=(8, 8), blocks=(1, 1), middle=False)
TINY = VAEConfig(encoder=TOWER, decoder=TOWER, latent_channels=2, groups=4, quant_conv=False)
TEXT = Config(text=Text(vocabulary=600, length=8, width=16, layers=1, heads=2), image=None, embed=8)


@dataclass(frozen=True)
class Held:
    """A system that only holds its parts."""

    codec: AutoencoderKL
    text: CLIP
    tokenizer: Tokenizer

    @dataclass(frozen=True)
    class Options:
        """None."""


@pytest.fixture
def folder(tmp_path):
    torch.manual_seed(0)
    save_part(tmp_path / "vae.safetensors", AutoencoderKL(TINY), {})
    save_part(tmp_path / "clip.safetensors", CLIP(TEXT), {}, torch.float16)
    Tokenizer.train(["a red apple and a blue pear"], 530, 8).save(tmp_path / "bpe.json")
    return tmp_path


@pytest.fixture
def card(painter_card, folder, monkeypatch):
    sources = {"codec": File(folder / "vae.safetensors"), "text": File(folder / "clip.safetensors")}
    sys.modules["painter_for_tests"].Held = Held
    return painter_card(
        system="painter_for_tests:Held", parts={**sources, "tokenizer": File(folder / "bpe.json", length=8)}
    )


def test_parts_are_loaded_to_the_bit_and_shared(card, painter_card, folder):
    torch.manual_seed(0)
    expected = AutoencoderKL(TINY).state_dict()
    other = painter_card(name="other", system=card.system, parts=card.parts)
    engine = Engine(device="cpu", cards=[card, other])
    system = engine.load("painter")
    found = system.codec.state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[key], expected[key]) for key in expected)
    assert {each.dtype for each in system.text.state_dict().values()} == {torch.float32}
    assert not any(each.requires_grad for each in system.codec.parameters()) and not system.codec.training
    assert not any(each.is_meta for part in (system.codec, system.text) for each in part.buffers())
    assert engine.load("other").codec is system.codec
    assert set(engine.fingerprints(card.parts)) == {"codec", "text", "tokenizer"}
    engine.unload()
    assert engine.load("painter").codec is not system.codec


def test_half_precision_is_what_the_engine_says(card):
    system = Engine(device="cpu", dtype=torch.bfloat16, cards=[card]).load("painter")
    assert {each.dtype for each in system.codec.parameters()} == {torch.bfloat16}


def spoil(path, change):
    """Rewrite a safetensors file: header as JSON and the bytes after it."""
    data = path.read_bytes()
    size = int.from_bytes(data[:8], "little")
    header, body = json.loads(data[8 : 8 + size]), bytearray(data[8 + size :])
    change(header, body)
    packed = json.dumps(header).encode()
    path.write_bytes(len(packed).to_bytes(8, "little") + packed + body)


def put_nan(header, body):
    start = next(value["data_offsets"][0] for key, value in header.items() if key.endswith("weight"))
    body[start : start + 4] = torch.tensor(float("nan")).numpy().tobytes()


def forget_who(header, body):
    header.pop("__metadata__")


def point_elsewhere(header, body):
    header["__metadata__"]["network"] = "os:system"


def lose_a_tensor(header, body):
    last = max((key for key in header if key != "__metadata__"), key=lambda key: header[key]["data_offsets"][1])
    del body[header.pop(last)["data_offsets"][0] :]


@pytest.mark.parametrize(
    "change", [put_nan, forget_who, point_elsewhere, lose_a_tensor], ids=lambda each: each.__name__
)
def test_a_weights_file_that_is_not_right_is_a_sentence(card, folder, change):
    spoil(folder / "vae.safetensors", change)
    with pytest.raises(WeightsError, match=r"vae\.safetensors"):
        Engine(device="cpu", cards=[card]).load("painter")


@pytest.mark.parametrize("length", [0, 4, 8, 200, -1])
def test_a_weights_file_cut_short_is_a_sentence(card, folder, length):
    path = folder / "vae.safetensors"
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(WeightsError, match=r"vae\.safetensors"):
        Engine(device="cpu", cards=[card]).load("painter")


@pytest.mark.parametrize("text", ["", "{}", "<html>", '{"model": {"type": "BPE", "vocab": {}, "merges": []}}'])
def test_a_tokenizer_file_that_is_none_is_a_sentence(card, folder, text):
    (folder / "bpe.json").write_text(text)
    with pytest.raises(WeightsError, match=r"bpe\.json is no tokenizer file"):
        Engine(device="cpu", cards=[card]).load("painter")


@pytest.mark.parametrize("name", ["vae.safetensors", "bpe.json"])
def test_a_file_that_is_not_there_is_a_sentence_with_its_own_exit_code(card, folder, name):
    (folder / name).unlink()
    with pytest.raises(WeightsMissing, match=name) as caught:
        Engine(device="cpu", cards=[card]).generate(Request(prompt="x", model="painter"))
    assert caught.value.exit_code == 3 and caught.value.hint


def test_loading_does_not_wake_the_compiler(folder):
    code = (
        "import sys\nfrom pathlib import Path\n"
        "from mindseye.engine.engine import Engine\nfrom mindseye.zoo import File\n"
        f"folder = Path({str(folder)!r})\n"
        "for name in ('vae', 'clip'): Engine(device='cpu').parts.get(File(folder / f'{name}.safetensors'))\n"
        "heavy = {'torch._dynamo', 'sympy', 'diffusers', 'transformers', 'accelerate', 'scipy'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
