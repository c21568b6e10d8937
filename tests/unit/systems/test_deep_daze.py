"""Deep Daze on a tiny critic; what all three painters share is tested here."""

import dataclasses

import pytest
import torch
from PIL import Image
from tests.unit.ascent.tiny import ask, critic, likeness, tokenizer

from mindseye.errors import OptionError, PromptError, UnknownName
from mindseye.pixels import from_image
from mindseye.request import Request
from mindseye.systems import painting
from mindseye.systems.base import System
from mindseye.systems.deep_daze import DeepDaze

SMALL = {"hidden": 8, "layers": 2}


@pytest.fixture(scope="module")
def system():
    return DeepDaze(clip=critic(), tokenizer=tokenizer(), rate=3e-3)


def paint(system, *arguments, options=None, **more):
    """With a small network."""
    return ask(system, *arguments, options={**SMALL, **(options or {})}, **more)


def picture(size=(32, 32)):
    """Half dark, half light red."""
    image = Image.new("RGB", size, (40, 30, 60))
    image.paste((220, 120, 100), (size[0] // 2, 0, size[0], size[1]))
    return image


@pytest.mark.parametrize("canvas", ["siren", "fourier", "pixels"])
def test_the_critic_comes_to_like_what_it_asked_for(system, canvas):
    options = {"canvas": canvas, "lr": 0.06 if canvas == "fourier" else 0.006}
    before = likeness(system, paint(system, steps=1, options={**options, "lr": 1e-7}), "a red apple")
    after = likeness(system, paint(system, steps=20, options=options), "a red apple")
    assert after > before + 0.03


@pytest.mark.parametrize("canvas", ["siren", "fourier", "pixels"])
def test_a_seed_is_a_seed_in_any_batch(system, canvas):
    alone = paint(system, seeds=(6,), options={"canvas": canvas})
    both = paint(system, seeds=(5, 6), options={"canvas": canvas})
    assert torch.allclose(both[1], alone[0], atol=1e-4)
    assert not torch.allclose(both[0], both[1], atol=1e-2)


@pytest.mark.parametrize("size", [(32, 32), (40, 24), (17, 31)])
def test_any_size_is_drawn(system, size):
    assert paint(system, size=size, steps=1).shape == (1, 3, size[1], size[0])


@pytest.mark.parametrize("canvas", ["siren", "fourier", "pixels"])
def test_a_start_picture_is_there_at_strength_nought(system, canvas):
    start = from_image(picture())
    options = {"canvas": canvas, "prime": 150, "prime_lr": 0.01}
    got = paint(system, image=picture(), strength=0.0, options=options)
    assert (got - start).square().mean() < 0.1 * start.var()


def test_a_primed_picture_has_its_own_range_and_the_originals_is_pale(system):
    options = {"prime": 150, "prime_lr": 0.01}
    start = from_image(picture())
    pale = paint(system, image=picture(), strength=0.0, options={**options, "compat": True})
    assert (pale - (start + 1) / 2).square().mean() < 0.1 * start.var()


def test_strength_is_how_many_steps_are_taken(system):
    for strength, steps in ((0.5, 5), (1.0, 10), (0.29, 2)):
        seen = []
        paint(
            system, image=picture(), strength=strength, steps=10, options={"canvas": "pixels"},
            on_progress=lambda now, seen=seen: seen.append((now.stage, now.step, now.total)),
        )  # fmt: skip
        assert seen == [("paint", step, steps) for step in range(1, steps + 1)]


def test_a_pull_keeps_it_near_the_start(system):
    start = from_image(picture())
    far, near = (
        paint(system, image=picture(), strength=0.8, steps=20, options={"canvas": "pixels", "pull": pull})
        for pull in (0.0, 1e4)
    )
    assert (near - start).square().mean() < 0.3 * (far - start).square().mean()


@pytest.mark.parametrize("strength", [0.7, 1.0])
@pytest.mark.parametrize("canvas", ["siren", "pixels"])
def test_what_the_mask_keeps_is_kept_to_the_bit(system, canvas, strength):
    mask = Image.new("L", (32, 32), 0)
    mask.paste(255, (0, 0, 16, 32))
    got = paint(system, image=picture(), mask=mask, strength=strength, steps=8, options={"canvas": canvas, "prime": 2})
    start = from_image(picture())
    assert torch.equal(got[..., 16:], start[..., 16:])
    assert (got[..., :16] - start[..., :16]).abs().max() > 0.02


def test_a_picture_can_be_an_aim(system):
    aim = picture()
    small = from_image(aim, (16, 16))
    (eye,) = system.critics
    told = []
    for options in ({"picture": "aim", "likeness": 50.0}, {}):
        request = {"image": aim, "strength": 0.5} if options else {}
        got = paint(system, steps=40, options={"canvas": "pixels", **options}, **request)
        seen = eye.embed_image(torch.nn.functional.interpolate(got, (16, 16), mode="area"))
        told.append((seen @ eye.embed_image(small).T).item())
    assert told[0] > told[1] + 0.02
    with pytest.raises(OptionError, match="picture=aim"):
        paint(system, image=aim, mask=aim, options={"picture": "aim"})


def test_a_story_ends_otherwise_than_it_began(system):
    options = {"canvas": "pixels"}
    got = paint(system, "a red apple ^ a green tree", steps=40, options=options)
    first = paint(system, "a red apple", steps=20, options=options)
    assert likeness(system, got, "a green tree") > likeness(system, first, "a green tree") + 0.02
    # Scene by scene is not both at once.
    assert not torch.allclose(got, paint(system, "a red apple | a green tree", steps=40, options=options), atol=1e-3)


def test_a_negative_prompt_pushes_away(system):
    options = {"canvas": "pixels"}
    toward, away = (
        likeness(system, paint(system, "a blue table", negative=negative, steps=30, options=options), "a green tree")
        for negative in ("", "a green tree:2")
    )
    assert away < toward - 0.02


def test_noise_can_be_an_aim(system):
    one, other = (paint(system, options={"noises": noises, "canvas": "pixels"}) for noises in ("", "42:5"))
    assert not torch.allclose(one, other, atol=1e-3)
    with pytest.raises(PromptError, match="seed"):
        paint(system, options={"noises": "forty"})


def test_colons_are_prompts(system):
    paint(system, "cat:dog", steps=1)
    paint(system, "https://example.org:8080/cat", steps=1)
    with pytest.raises(PromptError):
        paint(system, ":2", steps=1)


def test_several_critics_are_heard(system):
    both = dataclasses.replace(system, clip_2=critic(7, 24), tokenizer_2=tokenizer())
    assert len(both.critics) == 2
    one, other = (paint(each, options={"canvas": "pixels"}) for each in (system, both))
    assert not torch.allclose(one, other, atol=1e-3)


@pytest.mark.parametrize("family", ["deep-daze", "big-sleep", "crowson", "guided", "pooling", "disco"])
def test_every_way_of_cutting_serves(system, family):
    got = paint(system, steps=1, options={"family": family, "augment": "yes"})
    assert torch.isfinite(got).all()


def test_pieces_by_the_releases_knobs(system):
    plain = paint(system)
    for options in (
        {"saturate": True, "lower": 0.5},
        {"gauss": True},
        {"centre": 2.0},
        {"upper": 0.4},
        {"average": 0.9},
    ):
        assert not torch.equal(paint(system, options=options), plain), options


def test_chunks_change_nothing(system):
    one, other = (paint(system, options={"chunk": chunk}) for chunk in (1, 64))
    assert torch.allclose(one, other, atol=1e-4)


def test_what_means_nothing_is_said(system):
    request = Request(prompt="a red apple", size=(32, 32), steps=1, guidance=7.5, sampler="euler")
    said = system.notices(request)
    assert len(said) == 2 and "guidance 7.5" in said[0] and "euler" in said[1]
    quiet = Request(prompt="a red apple", size=(32, 32), steps=1, guidance=1.0, sampler="")
    assert system.notices(quiet) == []
    long = dataclasses.replace(quiet, prompt="apple " * 6 + "^ a tree and " * 2 + "table " * 30)
    assert any("does not read" in one for one in system.notices(long))


def test_options_have_help_and_bounds(system):
    assert isinstance(system, System)
    assert all(field.metadata.get("help") for field in dataclasses.fields(DeepDaze.Options))
    with pytest.raises(UnknownName, match="optimizer"):
        paint(system, options={"optimizer": "sgd"})
    assert issubclass(DeepDaze.Options, painting.Knobs)
