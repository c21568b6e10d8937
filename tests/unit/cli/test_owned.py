"""What somebody brings along: pasted settings and the files they call; and files that nobody can draw with."""

import io
import os
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from tests.unit.checkpoints.conftest import Tiny

from mindseye import zoo
from mindseye.checkpoints.adapters import save_adapter
from mindseye.checkpoints.hashes import early
from mindseye.checkpoints.library import Library
from mindseye.checkpoints.save import load_part
from mindseye.cli import owned
from mindseye.cli.main import main
from mindseye.engine.engine import Engine
from mindseye.errors import MindseyeError, WeightsError
from mindseye.metadata import read, read_text, to_request
from mindseye.request import Request, drain

MODULE = "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn2_to_k"


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """Every test draws into a folder of its own, with a library of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MINDSEYE_HOME", str(tmp_path / "home"))
    return tmp_path


@pytest.fixture(scope="module")
def bold(tmp_path_factory):
    """A LoRA for the packaged U-Net."""
    path = tmp_path_factory.mktemp("loras") / "bold.safetensors"
    unet = load_part(zoo.Pocket("unet").path)
    name, weight = next((n, w) for n, w in unet.named_parameters() if n.endswith("value.weight"))
    generator = torch.Generator().manual_seed(0)
    down, up = (torch.randn(*shape, generator=generator) for shape in ((2, weight.shape[1]), (weight.shape[0], 2)))
    save_adapter(path, {"unet": unet}, {"unet": {name: (down, up)}}, alpha=2)
    return path


def paste(monkeypatch, text, *more):
    monkeypatch.setattr("sys.stdin", io.StringIO(text))
    return main(["generate", "--like", "-", *more])


TEXT = """a red apple, goodword, <lora:bold:0.8>, (shiny:1.2) [day:night:0.5]
Negative prompt: blurry
Steps: 2, Sampler: Euler, Schedule type: Automatic, CFG scale: 3, Seed: 7, Size: 128x128, Model hash: 0123456789, \
Model: stable-diffusion-pocket, VAE: myvae.safetensors, Denoising strength: 0.5, RNG: CPU, Variation seed: 9, \
Variation seed strength: 0.1, Hires upscale: 1.5, Hires steps: 1, Hires upscaler: Latent (nearest-exact), \
Hires prompt: "a pear, ripe", Lora hashes: "bold: 0123456789ab", TI hashes: "goodword: 0123456789ab", Version: v1.9.4"""


def test_pasted_settings_are_drawn_and_what_cannot_be_is_said(bold, monkeypatch, capsys):
    library = Library()
    drain(library.add(str(bold)))
    drain(library.add(str(zoo.Pocket("vae").path), name="myvae"))
    assert paste(monkeypatch, TEXT, "-o", "a.png") == 0
    said = capsys.readouterr().err
    for sentence in (
        "LoRA bold was another file (0123456789ab) than the one here",
        "learned word goodword is not among yours: it is read as plain text",
        "nothing here does what these say: Hires prompt 'a pear, ripe'",
    ):
        assert said.count(sentence) == 1, said
    assert "VAE" not in said
    with Image.open("a.png") as image:
        assert image.size == (192, 192)
        text = image.text["parameters"]
    request = read(Path("a.png")).account.request
    assert (request["prompt"], request["negative"], request["seed"]) == (TEXT.splitlines()[0], "blurry", 7)
    wanted = {
        "vae": "myvae", "hires": 1.5, "hires_steps": 1, "hires_strength": 0.5, "hires_upscaler": "latent-nearest-exact",
        "variation_seed": 9, "variation_strength": 0.1,
    }  # fmt: skip
    assert request["options"].items() >= wanted.items()
    # What was called is in the picture, by the digits that A1111 writes.
    assert f'Lora hashes: "bold: {library.hashes(bold).tensors[:12]}"' in text
    save_file({key: value + 0.1 for key, value in load_file(bold).items()}, bold)
    assert main(["generate", "--like", "a.png", "-o", "b.png"]) == 0
    assert "the weights of lora:bold are not those it was drawn with" in capsys.readouterr().err
    assert Image.open("a.png").tobytes() != Image.open("b.png").tobytes()


def test_models_are_found_by_the_digits_in_the_text(here):
    library = Library()
    path = Tiny("sd1").file(here / "dreamy.safetensors")
    drain(library.add(str(path)))
    settings = "x\nSteps: 1, Seed: 2, Size: 512x512, Model: Another Name, Model hash: "

    def chosen(digest):
        return to_request(read_text(settings + digest), cards=owned.drawers(library))[0].model

    assert early(path) and chosen(early(path)) == "dreamy"
    assert library.known(path) is None and chosen("0123456789") == zoo.DEFAULT
    digest = library.hashes(path).sha256
    assert chosen(digest[:10]) == "dreamy"
    # By its name alone it may be another file: that is told once its own digits are known.
    found = read_text(f"x\nSteps: 1, Seed: 2, Size: 512x512, Model: Dreamy, Model hash: {digest[:10]}")
    assert owned.weights(Request(prompt="x", model="dreamy"), found, library) == {"unet": digest[:10]}
    assert owned.weights(Request(prompt="x", model="other"), found, library) == {}


def test_models_told_apart_by_their_folders_can_be_asked_for(here):
    for name in ("cats", "dogs"):
        (here / "all" / name).mkdir(parents=True)
        Tiny("sd1").file(here / "all" / name / "style.safetensors")
    library = Library()
    drain(library.add(str(here / "all")))
    assert [entry.name for entry in library.entries("model")] == ["dogs/style", "style"]
    assert zoo.find("dogs/style").name == "dogs/style"
    assert {"style", "dogs/style"} <= {each.name for each in owned.drawers(library)}
    with pytest.raises(MindseyeError, match="is not there"):
        zoo.find("mice/style")


class Bomb:
    """Makes a folder when it is unpickled."""

    def __reduce__(self):
        return os.mkdir, ("ran",)


def nan(path):
    tensors = Tiny("sd1").single()
    tensors["first_stage_model.decoder.conv_in.bias"][0] = float("nan")
    save_file(tensors, path)


def cut(path):
    Tiny("sd1").file(path)
    path.write_bytes(path.read_bytes()[:-1000])


POINTER = "version https://git-lfs.github.com/spec/v1\n"
BAD = {
    "lfs.safetensors": (lambda path: path.write_text(POINTER), "Git LFS pointer"),
    "page.safetensors": (lambda path: path.write_text("<!DOCTYPE html><html>404"), "web page"),
    "cut.safetensors": (cut, "cut short"),
    "nan.safetensors": (nan, r"decoder\.conv_in\.bias holds NaN"),
    "t5.safetensors": (
        lambda path: save_file({"encoder.block.0.layer.0.SelfAttention.q.weight": torch.zeros(2)}, path), "T5 text",
    ),
    "lora.safetensors": (
        lambda path: save_file({f"{MODULE}.lora_up.weight": torch.zeros(2, 2)}, path), "a LoRA, not a model",
    ),
    "word.safetensors": (lambda path: save_file({"emb_params": torch.zeros(2, 768)}, path), "textual inversion"),
    "code.ckpt": (lambda path: torch.save({"state_dict": {}, "x": Bomb()}, path), "code in it"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_a_file_nobody_can_draw_with_is_one_sentence_at_either_door(here, name, capsys):
    make, said = BAD[name]
    make(here / name)
    before = sorted(path.name for path in here.iterdir())
    with pytest.raises(WeightsError, match=said) as caught:
        Engine(device="cpu").generate(Request(prompt="a fox", model=str(here / name), steps=1))
    assert "\n" not in caught.value.message
    assert main(["a fox", "-m", str(here / name), "--steps", "1"]) == 1
    out, err = capsys.readouterr()
    assert (
        out == "" and caught.value.message in err and "Traceback" not in err and "should not have happened" not in err
    )
    # Nothing was run, and nothing half-made is left.
    assert sorted(path.name for path in here.iterdir() if path.name != "home") == before


def test_adapters_and_words_nobody_can_use(here, bold, capsys):
    """Of another base, of another width, damaged, or no such thing: refused by name, and the model is as it was."""
    zeros = {"lora_down.weight": torch.zeros(4, 2048), "lora_up.weight": torch.zeros(640, 4)}
    save_file({f"{MODULE}.{end}": value for end, value in zeros.items()}, here / "xl.safetensors")
    spoiled = load_file(bold)
    next(value for key, value in spoiled.items() if key.endswith("lora_up.weight"))[0, 0] = float("inf")
    save_file(spoiled, here / "spoiled.safetensors")
    save_file({"emb_params": torch.zeros(2, 768)}, here / "oneword.safetensors")
    (here / "Lora").mkdir()
    (here / "Lora" / "pointer.safetensors").write_text(POINTER)
    save_file(load_file(bold), here / "Lora" / "good.safetensors")
    library = Library()
    for name in ("xl.safetensors", "spoiled.safetensors", "oneword.safetensors", "Lora"):
        drain(library.add(str(here / name)))
    engine = Engine(device="cpu")

    def draw(prompt):
        return engine.generate(Request(prompt=prompt, seed=1, steps=1)).images[0].tobytes()

    before = draw("a cat")
    for prompt, said in (
        ("a cat <lora:xl:1>", "the adapter xl was made for SDXL, and this is another network: 0 of its 1 modules fit"),
        ("a cat <lora:good:1> <lora:spoiled:1>", "holds NaN or infinity"),
        ("a cat <lora:pointer:1>", "pointer cannot be used: "),
        ("a cat, oneword", "the embedding oneword has vectors of 768 numbers, as Stable Diffusion 1 reads them"),
    ):
        with pytest.raises(WeightsError) as caught:
            draw(prompt)
        assert said in caught.value.message and "\n" not in caught.value.message
        if "xl" in prompt or "oneword" in prompt:
            assert main([prompt, "--steps", "1"]) == 1
            out, err = capsys.readouterr()
            assert out == "" and said in err and "Traceback" not in err
    assert draw("a cat") == before
