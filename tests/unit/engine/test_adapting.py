"""Adapters, learned words and other autoencoders that a prompt calls by name, through the engine."""

import pytest
import torch
from safetensors.torch import save_file

from mindseye.checkpoints.adapters import save_adapter
from mindseye.checkpoints.library import Library
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
