"""Adapters, learned words and other autoencoders that a prompt calls by name, through the engine."""

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from mindseye.checkpoints.adapters import save_adapter
from mindseye.checkpoints.library import Library
from mindseye.engine.adapting import Adapting
from mindseye.engine.engine import Engine
from mindseye.errors import PromptError, UnknownName, WeightsError
from mindseye.request import Request, drain
from mindseye.zoo import POCKET


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    """The default card, with a LoRA, a learned word and its own autoencoder in the library."""
    folder = tmp_path_factory.mktemp("things")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINDSEYE_HOME", str(tmp_path_factory.getbasetemp() / "home-adapting"))
        engine, library = Engine(device="cpu"), Library()
        system = engine.load()
        generator = torch.Generator().manual_seed(0)
        changes = {}
        for name, weight in system.unet.named_parameters():
            if name.endswith("query.weight") or name.endswith("value.weight"):
                down, up = (
                    torch.randn(2, weight.shape[1], generator=generator),
                    torch.randn(weight.shape[0], 2, generator=generator),
                )
                changes[name] = (down, up / 8)
        save_adapter(folder / "bold.safetensors", {"unet": system.unet}, {"unet": changes}, alpha=2)
        save_file({"emb_params": torch.randn(2, 768)}, folder / "foreignword.safetensors")
        for what in ("bold.safetensors", "foreignword.safetensors"):
            drain(library.add(str(folder / what)))
        drain(library.add(str(POCKET / "vae-pocket.safetensors"), name="myvae"))
        engine = Engine(device="cpu")
        yield engine


def draw(engine, prompt, **options):
    image = engine.generate(Request(prompt=prompt, seed=1, steps=2, options=options)).images[0]
    return image.tobytes()


def test_an_adapter_is_merged_while_it_is_asked_for_and_not_longer(engine):
    plain = draw(engine, "a red apple")
    bold = draw(engine, "a red apple<lora:bold:0.8>")
    assert bold != plain
    assert draw(engine, "a red apple") == plain
    assert draw(engine, "a red apple<lora:bold:0.8>") == bold
    assert draw(engine, "a red apple<lora:bold:0.2>") not in (plain, bold)
    assert draw(engine, "a red apple<lora:bold:0>") == plain


def test_what_fits_of_an_adapter_for_something_else_is_merged_when_asked_for(engine, tmp_path):
    library = Library(engine._adapting._library.folder)
    tensors = load_file(library.find("bold", "lora").path)
    tensors |= {
        f"lora_unet_nowhere_{n}.lora_{end}.weight": torch.ones(4, 4) for n in range(30) for end in ("up", "down")
    }
    save_file(tensors, tmp_path / "half.safetensors")
    drain(library.add(str(tmp_path / "half.safetensors")))
    with pytest.raises(WeightsError, match=r"the adapter half does not fit this model") as caught:
        draw(engine, "a red apple<lora:half:0.8>")
    assert "<lora:half:1:partial=yes>" in caught.value.hint
    asked = Request(prompt="a red apple<lora:half:0.8:partial=yes>", seed=1, steps=2)
    result = engine.generate(asked)
    assert any("30 of" in notice and "modules are left out" in notice for notice in result.notices)
    assert result.images[0].tobytes() == draw(engine, "a red apple<lora:bold:0.8>")


def test_unloading_takes_it_out_first(engine):
    bold = draw(engine, "a red apple<lora:bold:1>")
    engine.unload()
    assert draw(engine, "a red apple<lora:bold:1>") == bold


def test_what_cannot_be_called(engine):
    with pytest.raises(UnknownName) as caught:
        draw(engine, "a cat <lora:bald:1>")
    assert caught.value.nearest == "bold"
    with pytest.raises(PromptError, match="kind"):
        draw(engine, "a cat <hypernet:bold:1>")
    with pytest.raises(PromptError, match="no number"):
        draw(engine, "a cat <lora:bold:much>")
    with pytest.raises(WeightsError, match="768"):
        draw(engine, "a cat, foreignword")
    with pytest.raises(UnknownName):
        draw(engine, "a cat", vae="no-such")
    draw(engine, "a cat")  # nothing is left behind


def test_another_autoencoder(engine):
    # The same one under another name: the same picture.
    assert draw(engine, "a red apple", vae="myvae") == draw(engine, "a red apple")
    assert draw(engine, "a red apple", preview="myvae") == draw(engine, "a red apple")
    with pytest.raises(UnknownName):
        draw(engine, "a cat", preview="no-such")


def test_what_was_called_is_in_the_result(engine):
    """By the digits that galleries compare: of a LoRA's tensors, of an autoencoder's file."""
    library = Library(engine._adapting._library.folder)
    wanted = {"lora:bold": library.hashes(library.find("bold", "lora").path).tensors,
              "vae": library.hashes(library.find("myvae", "vae").path).sha256}  # fmt: skip
    asked = Request(prompt="a red apple<lora:bold:0.5>", seed=1, steps=1, options={"vae": "myvae"})
    called = engine.generate(asked).weights
    assert {name: called[name] for name in wanted} == wanted
    assert not {"lora:bold", "vae"} & set(engine.generate(Request(prompt="a red apple", seed=1, steps=1)).weights)


@dataclass(frozen=True)
class Encoders:
    """As much of a system as learned words are fitted to."""

    widths: tuple[int, ...]
    words: dict[str, Any] = field(default_factory=dict)

    @property
    def adaptable(self):
        return {"unet": None}

    @property
    def towers(self):
        return [
            SimpleNamespace(name=name, width=width)
            for name, width in zip(("text", "text_2"), self.widths, strict=False)
        ]


def test_learned_words_by_all_their_names_for_whichever_base(tmp_path):
    for folder, width in (("first", 768), ("second", 1024)):
        (tmp_path / "words" / folder).mkdir(parents=True)
        save_file({"emb_params": torch.full((2, width), 1.0)}, tmp_path / "words" / folder / "Easy (v2).safetensors")
    save_file({"<cat-toy>": torch.zeros(768)}, tmp_path / "words" / "cat_learned_embeds.safetensors")
    save_file({"emb_params": torch.zeros(1, 1024)}, tmp_path / "words" / "app.safetensors")
    (tmp_path / "words" / "broken.safetensors").write_bytes(b"<html>")
    library = Library(tmp_path / "home")
    drain(library.add(str(tmp_path / "words")))
    adapting = Adapting(library)

    def called(prompt, *widths, negative=""):
        system, _ = adapting.fit(Encoders(widths), Request(prompt=prompt, negative=negative))
        return {name: tuple(vectors["text"].shape) for name, vectors in system.words.items()}

    # Of two files of one name the one that fits; brackets are written with backslashes in prompts.
    for width, folder in ((768, "Easy (v2)"), (1024, "second/Easy (v2)")):
        assert called("x", width, negative=r"EASY \(v2\), blurry") == {"easy (v2)": (2, width)}
        assert list(adapting.fingerprints()) == [f"embedding:{folder}"]
    # By the name it was given in training, by its file's, and not inside of other words.
    assert called("a <cat-toy> <lora-like", 768) == {"<cat-toy>": (1, 768)}
    assert called("a cat_learned_embeds", 768) == {"cat_learned_embeds": (1, 768)}
    assert called("an apple, happy apps", 768) == {}
    with pytest.raises(WeightsError, match="the embedding app has vectors of 1024 .* this model reads 768"):
        called("an app", 768)
