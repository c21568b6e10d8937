"""The adversarial recipes: classes from captions, feeds, and short runs on a user's own pictures."""

from dataclasses import replace
from functools import cache, partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mindseye.checkpoints.save import load_part
from mindseye.data.colours import COLOURS
from mindseye.data.kinds import CLASSES, class_of
from mindseye.errors import DataError
from mindseye.networks import biggan, clip, discriminator, textgan
from mindseye.networks import gan as dcgan
from mindseye.request import drain
from mindseye.training.classes import classified
from mindseye.training.recipe import Workshop, override
from mindseye.training.recipes import gan, translator
from mindseye.training.trainer import train

POCKET = Path(__file__).parents[3] / "src" / "mindseye" / "pocket"
RECIPES = (
    gan.dcgan_pocket,
    gan.biggan_pocket,
    gan.textgan_pocket,
    translator.pix2pix_pocket,
    translator.cyclegan_pocket,
)


def shipped(name):
    """A part's file."""
    return POCKET / f"{name}{'.json' if name == 'bpe-pocket' else '.safetensors'}"


@cache
def part(name):
    """A shipped CLIP; the judge, who is shown hundreds of pictures, is a small one with an eye of the same kind."""
    if name != "clip-rn-pocket":
        return load_part(shipped(name))
    torch.manual_seed(0)
    text = replace(clip.POCKET_TEXT, width=16, layers=1, heads=2)
    eye = replace(clip.POCKET_RESNET.image, size=32, width=4)
    return clip.CLIP(clip.Config(text=text, image=eye, embed=16)).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def workshop(tmp_path_factory):
    """Forty-four squares in two colours, captioned, and CLIPs."""
    home = tmp_path_factory.mktemp("workshop")
    folder = home / "own"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(44):
        colour = ("red", "blue")[number % 2]
        picture = Image.new("RGB", (128, 128), "white")
        left, top = (int(each) for each in rng.integers(0, 64, 2))
        picture.paste(COLOURS[colour], (left, top, left + 60, top + 60))
        picture.save(folder / f"{number}.png")
        (folder / f"{number}.txt").write_text(f"a {colour} square")
    return Workshop(
        corpus=home,
        data=folder,
        cache=home / "cache",
        parts=part,
        part_files=shipped,
    )


@pytest.mark.parametrize(
    ("caption", "label"),
    [
        ("a purple triangle on a pink background", "triangle"),
        ("blue heart", "heart"),
        ("a red heart, noto style", "heart"),
        ("a cat face", "cat"),
        ("a grinning face with sweat, glossy 3d", "face"),
        ("a full moon face, outlined", "moon"),
        ("an oncoming bus, flat on a red background", "car"),
        ("a woman dancing with dark skin", "person"),
        ("two white diamonds on a brown background", None),
        ("a red circle left of a blue square", None),
        ("a cat next to a dog", None),
        ("kitchen knife, chef, cooking", None),
    ],
)
def test_the_class_of_a_caption(caption, label):
    """One thing of a known kind, whatever its style, colour and company of tags."""
    place = class_of(caption)
    assert (None if place is None else tuple(CLASSES)[place]) == label


def test_classes_of_a_users_own(workshop):
    """Captions are classes, as long as they are few."""
    labels, found = classified(workshop, ["cat", "dog ", "cat"])
    assert labels == ("cat", "dog") and found.tolist() == [0, 1, 0]
    assert classified(workshop, ["cat", "fox"], labels)[1].tolist() == [0, -1]
    for captions in (["cat"] * 3, [f"picture {i}" for i in range(65)]):
        with pytest.raises(DataError, match="different captions"):
            classified(workshop, captions)


def test_shrinking_is_the_mean():
    """Of the pixels that one stands for, rounded."""
    pictures = np.random.default_rng(0).integers(0, 256, (3, 128, 128, 3), dtype=np.uint8)
    means = pictures.reshape(3, 64, 2, 64, 2, 3).mean((2, 4))
    assert np.abs(gan.shrunk(pictures) - means).max() <= 0.5


def test_feeds_are_functions_of_the_step(workshop):
    """The same batch whenever it is asked, with what each recipe needs in it."""
    keys = {
        gan.dcgan_pocket: {"pixels"},
        gan.biggan_pocket: {"pixels", "classes"},
        gan.textgan_pocket: {"pixels", "vector", "tokens"},
        translator.pix2pix_pocket: {"pixels", "source"},
        translator.cyclegan_pocket: {"pixels", "source"},
    }
    for recipe, wanted in keys.items():
        feed = drain(recipe().feed(workshop))
        batch = feed.batch(3, 5)
        assert set(batch) == wanted and all(len(value) == 5 for value in batch.values())
        assert batch["pixels"].shape == (5, 3, 64, 64) and batch["pixels"].abs().max() <= 1
        assert all(torch.equal(value, feed.batch(3, 5)[key]) for key, value in batch.items())
    # The last feed's two kinds are the two colours: red's middle channel is darker than its first, blue's is not.
    first, second = batch["source"], batch["pixels"]
    blue, red = (first, second) if first[:, 2].mean() > first[:, 0].mean() else (second, first)
    assert (blue[:, 2].amin((1, 2)) > blue[:, 0].amin((1, 2))).all()
    assert (red[:, 0].amin((1, 2)) > red[:, 2].amin((1, 2))).all()


def test_classes_in_a_batch_belong_to_its_pictures(workshop):
    """Blue is the first class by name, and its pictures have more blue."""
    batch = drain(gan.biggan_pocket().feed(workshop)).batch(0, 8)
    darkest = batch["pixels"].amin((2, 3))
    assert torch.equal(batch["classes"].argmax(1) == 0, darkest[:, 2] > darkest[:, 0])


def test_classes_are_heard_from_the_first_step(workshop):
    """Half as loud as the noise beside them, and a CLIP that knows the names has a say against the wrong ones."""
    objective = gan.biggan_pocket().objective(workshop)
    assert abs(float(objective.painter.embeddings.weight.detach().std()) - 0.5) < 0.1
    for head in objective.judge.heads:
        assert abs(float(head.projection.weight.detach().std()) - 1) < 0.2
    batch = drain(gan.biggan_pocket().feed(workshop)).batch(0, 8)
    right = objective.guide(batch["pixels"], batch).detach()
    wrong = objective.guide(batch["pixels"], {"classes": batch["classes"].flip(1)})
    assert right < wrong - 1
    assert objective.rules.guidance > 0 and objective.rules.mismatched > 0


@pytest.mark.parametrize("recipe", RECIPES)
def test_each_is_as_small_as_it_ought_to_be(workshop, recipe):
    """In half precision, as it is shipped."""
    for network in recipe().objective(workshop).parts().values():
        assert sum(tensor.numel() for tensor in network.state_dict().values()) * 2 < 8_000_000


def test_the_shipped_judge_sees_pictures_of_any_size_alike():
    judge = load_part(shipped("clip-rn-pocket"))
    pixels = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    seen = gan.features(judge, pixels)
    torch.testing.assert_close(seen.norm(dim=1), torch.ones(2))
    larger = gan.features(judge, pixels.repeat_interleave(2, 2).repeat_interleave(2, 3))
    torch.testing.assert_close(larger, seen, rtol=0, atol=1e-5)


@pytest.fixture
def thin(monkeypatch):
    """Networks of a few channels in place of the pocket ones."""
    monkeypatch.setattr(dcgan, "POCKET", replace(dcgan.POCKET, widths=(16, 8, 8, 4)))
    monkeypatch.setattr(biggan, "POCKET", replace(biggan.POCKET, width=4, rows=2))
    monkeypatch.setattr(textgan, "POCKET", replace(textgan.POCKET, mixed=8, widths=(16, 16, 8, 8)))
    monkeypatch.setattr(discriminator, "Config", partial(discriminator.Config, widths=(8, 8, 8, 16)))
    monkeypatch.setattr(translator, "UNetConfig", partial(translator.UNetConfig, width=4))
    monkeypatch.setattr(translator, "ResNetConfig", partial(translator.ResNetConfig, width=4, blocks=1))
    config = translator.PatchConfig
    monkeypatch.setattr(translator, "PatchConfig", lambda **said: config(**{**said, "width": 8}))


@pytest.mark.parametrize("recipe", RECIPES)
def test_two_steps_of_each(workshop, tmp_path, recipe, thin):
    """It runs, measures, and saves what can be loaded."""
    # Not "auto": it measures, and one process of accelerate has one precision.
    short = override(recipe(), [("precision", "fp32"), ("steps", "2"), ("batch", "4"), ("every.log", "1")])
    files = drain(train(short, tmp_path / "run", workshop))
    assert set(files) == set(recipe().objective(workshop).parts())
    assert not any(load_part(path).training for path in files.values())
    assert (tmp_path / "run" / "metrics.jsonl").read_text().count("discriminator/loss") == 2
