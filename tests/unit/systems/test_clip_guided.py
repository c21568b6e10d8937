"""CLIP-guided diffusion on tiny networks; what it shares with Disco Diffusion is tested here."""

import dataclasses
import math

import pytest
import torch
from PIL import Image
from tests.unit.ascent.tiny import critic, likeness, tokenizer

from mindseye.engine.options import build
from mindseye.errors import LimitError, OptionError, PromptError, UnknownName
from mindseye.networks.adm import ADM, Config, SelfAttention
from mindseye.noise import Noise
from mindseye.pixels import from_image
from mindseye.request import Request, drain
from mindseye.systems.base import System
from mindseye.systems.clip_guided import CLIPGuided
from mindseye.systems.palette import read_palette
from mindseye.systems.steering import Mirror, samplers

TINY = Config(
    width=8, channels=(8, 16), blocks=1, attention=SelfAttention(levels=(False, True), head_dim=8), groups=4, patch=2
)


def network(config=TINY, spread=0.1):
    """Random weights; a v-prediction of about nothing shrinks the noise, so that runs end in range."""
    generator = torch.Generator().manual_seed(3)
    made = ADM(config)
    for parameter in made.parameters():
        parameter.data = spread * torch.randn(parameter.shape, generator=generator)
    return made.requires_grad_(False).eval()


@pytest.fixture(scope="module")
def system():
    return CLIPGuided(unet=network(), clip=critic(), tokenizer=tokenizer(), prediction="v", schedule="cosine")


def ask(system, prompt="a red apple", *, options=None, seeds=(1,), on_progress=None, **request):
    """Pictures, as the engine draws them: without gradients."""
    filled = {"size": (32, 32), "steps": 6, "guidance": 1.0, "sampler": "ddim", **request}
    wanted = Request(prompt=prompt, seed=seeds[0], count=len(seeds), **filled)
    settings = build(system.Options, {"cuts": 4, "smooth": 0.0, "range": 10.0, **(options or {})}, owner="it")
    with torch.no_grad():
        return drain(system.synthesize(wanted, settings, Noise(seeds)), on_progress)


def picture(size=(32, 32)):
    image = Image.new("RGB", size, (40, 30, 60))
    image.paste((220, 120, 100), (size[0] // 2, 0, size[0], size[1]))
    return image


def test_it_is_a_system(system):
    assert isinstance(system, System)
    assert system.samplers == samplers and "ancestral" in samplers and "ddim" in samplers
    assert system.multiple == 4
    assert system.notices(Request(prompt="a red apple")) == []
    said = system.notices(Request(prompt="a red apple on a blue table, a green tree on a red table, apple"))
    assert len(said) == 1 and "too long" in said[0]


@pytest.mark.parametrize("through", ["network", "straight"])
def test_the_critic_comes_to_like_what_it_asked_for(system, through):
    # A fresh network answers v = 0: it expects unit noise, and what it draws is that, moved by the critic.
    blank = dataclasses.replace(system, unet=ADM(TINY).requires_grad_(False))
    options = {"through": through, "range": 0.0, "clamp": 0.3, "cuts": 2}
    plain, pulled = (ask(blank, guidance=scale, steps=12, options=options) for scale in (0.0, 1.0))
    assert likeness(system, pulled, "a red apple") > likeness(system, plain, "a red apple") + 0.03
    assert 0.01 < (pulled - plain).square().mean().sqrt() < 1


@pytest.mark.parametrize("sampler", ["ddim", "ancestral", "plms", "dpm++-2m"])
def test_a_seed_is_a_seed_in_any_batch(system, sampler):
    options = {"clamp": 0.05, "eta": 0.5} if sampler == "ddim" else {"clamp": 0.05}
    alone = ask(system, seeds=(6,), sampler=sampler, options=options)
    both = ask(system, seeds=(5, 6), sampler=sampler, options=options)
    # Untrained networks take values far out of range: the difference is measured against these.
    assert (both[1] - alone[0]).abs().max() < 1e-5 * alone[0].abs().max()
    assert not torch.allclose(both[0], both[1], atol=1e-2)


def test_a_negative_prompt_is_fled(system):
    blank = dataclasses.replace(system, unet=ADM(TINY).requires_grad_(False))
    options = {"clamp": 0.3, "range": 0.0}
    toward = ask(blank, "a green tree|a red apple", steps=12, options=options)
    away = ask(blank, "a green tree:2", negative="a red apple", steps=12, options=options)
    assert likeness(system, away, "a red apple") < likeness(system, toward, "a red apple") - 0.02


def test_progress_shows_what_the_network_expects(system):
    seen = []
    ask(system, steps=3, on_progress=lambda now: seen.append((now.stage, now.step, now.total, now.peek()[0].size)))
    assert seen == [("paint", step, 3, (32, 32)) for step in (1, 2, 3)]


def test_a_picture_is_where_it_starts_and_strength_how_far_it_goes(system):
    start = from_image(picture())
    far = [
        (ask(system, image=picture(), strength=strength, steps=10) - start).square().mean().item()
        for strength in (0.0, 0.2, 1.0)
    ]
    assert far[0] == pytest.approx(0, abs=1e-9)
    assert far[0] < far[1] < far[2]


@pytest.mark.parametrize("sampler", ["ddim", "ancestral"])
def test_what_the_mask_keeps_is_kept(system, sampler):
    mask = Image.new("L", (32, 32), 0)
    mask.paste(255, (16, 0, 32, 32))
    drawn = ask(system, image=picture(), mask=mask, strength=1.0, sampler=sampler, options={"clamp": 0.05})
    start = from_image(picture())
    assert torch.equal(drawn[..., :16], start[..., :16])
    assert (drawn[..., 16:] - start[..., 16:]).abs().mean() > 0.05


def test_a_picture_may_be_what_to_go_towards(system, tmp_path):
    fresh = dataclasses.replace(system, unet=ADM(TINY).requires_grad_(False))
    options = {"clamp": 0.3, "range": 0.0}
    blank = ask(fresh, steps=12, options=options)
    aimed = ask(fresh, image=picture(), steps=12, options={**options, "picture": "aim", "weight": 20.0})
    eyes = system.critics[0]

    def like(pixels):
        small = torch.nn.functional.interpolate(torch.cat([pixels, from_image(picture())]), (16, 16), mode="area")
        seen = eyes.embed_image(small)
        return float(seen[0] @ seen[1])

    assert like(aimed) > like(blank)
    picture().save(tmp_path / "a.png")
    assert torch.equal(ask(fresh, steps=12, options={**options, "images": f"{tmp_path / 'a.png'}:20"}), aimed)
    with pytest.raises(OptionError, match="only looked at"):
        ask(system, image=picture(), mask=Image.new("L", (32, 32), 255), options={"picture": "aim"})


def test_a_palette_is_kept_to(system):
    system = dataclasses.replace(system, unet=ADM(TINY).requires_grad_(False))
    drawn = ask(system, options={"palette": "navy, #fc0, white"})
    allowed = read_palette("navy,#ffcc00,#ffffff").colours
    far = torch.cdist(drawn.permute(0, 2, 3, 1).flatten(0, 2), allowed).min(1).values
    assert far.max() < 1e-5
    half = ask(system, options={"palette": "navy", "palette_amount": 0.5})
    assert 0.01 < (half - allowed[0].view(3, 1, 1)).abs().mean() < 1
    with pytest.raises(OptionError, match="no colour"):
        ask(system, options={"palette": "navvy"})
    with pytest.raises(LimitError):
        read_palette(",".join(["red"] * 65))
    with pytest.raises(OptionError, match="at least one"):
        read_palette(" , ")


def test_respacing_replaces_steps(system):
    seen = []
    ask(system, steps=500, options={"respacing": "ddim4"}, on_progress=lambda now: seen.append(now.total))
    assert seen == [4] * 4
    with pytest.raises(OptionError, match="no whole stride"):
        ask(system, options={"respacing": "ddim333"})
    flow = dataclasses.replace(system, schedule="rectified-flow", prediction="flow")
    assert ask(flow, steps=2).shape == (1, 3, 32, 32)
    with pytest.raises(OptionError, match="only a table"):
        ask(flow, options={"respacing": "4"})


def test_classes_are_told(system):
    unet = network(dataclasses.replace(TINY, classes=5))
    told = []
    unet.label.register_forward_hook(lambda module, given, out: told.append(given[0].tolist()))
    classed = dataclasses.replace(system, unet=unet)
    ask(classed, seeds=(1, 2), options={"label": 3})
    assert told == [[3, 3]] * 6
    told.clear()
    ask(classed, seeds=(1, 2), steps=20)
    assert len({tuple(each) for each in told}) > 3 and {each for row in told for each in row} <= set(range(5))
    with pytest.raises(UnknownName, match="no class named '5'; known: 0 to 4"):
        ask(classed, options={"label": 5})


def test_the_class_that_the_prompt_names_is_told(system):
    """A thousand classes are ImageNet's."""
    unet = network(dataclasses.replace(TINY, classes=1000))
    told = []
    unet.label.register_forward_hook(lambda module, given, out: told.extend(given[0].tolist()))
    classed = dataclasses.replace(system, unet=unet)

    def heard(prompt, **options):
        told.clear()
        ask(classed, prompt, steps=4, options=options)
        return set(told)

    assert heard("a goldfish:2|a castle:-1") == {1}
    assert heard("a goldfish", label="castle") == heard("a goldfish", label="483") == {483}
    assert len(heard("a goldfish", label="any")) > 1 < len(heard("a red apple"))
    with pytest.raises(UnknownName) as caught:
        ask(classed, options={"label": "goldfsh"})
    assert "goldfish" in caught.value.hint and len(caught.value.message) < 2000
    for prompt, said in (("a goldfish", "its class goldfish"), ("a red apple", "names no class")):
        (notice,) = classed.notices(Request(prompt=prompt))
        assert said in notice
    assert classed.notices(Request(prompt="a goldfish", options={"label": "any"})) == []


def test_clip_keeps_expectations_in_range(system):
    seen = []
    loud = dataclasses.replace(system, unet=network(spread=0.4))

    def look(now):
        seen.append(max(pixel for band in now.peek()[0].getextrema() for pixel in band))

    drawn = ask(loud, guidance=0.0, options={"clip": True}, on_progress=look)
    assert drawn.abs().max() <= 1.0
    assert ask(loud, guidance=0.0).abs().max() > 1.0


def test_critics_are_asked_within_their_times(system):
    whole, none = ask(system, options={"clamp": 0.05}), ask(system, options={"guidance_high": 0.0})
    some = ask(system, options={"clamp": 0.05, "guidance_low": 0.3, "guidance_high": 0.9})
    assert not torch.allclose(some, whole, atol=1e-3) and not torch.allclose(some, none, atol=1e-3)
    assert not torch.allclose(whole, none, atol=1e-3)


def test_mistakes_are_named(system):
    with pytest.raises(PromptError):
        ask(system, "|")
    with pytest.raises(UnknownName):
        ask(system, sampler="dddim")
    with pytest.raises(OptionError, match="has no eta"):
        ask(system, sampler="ancestral", options={"eta": 0.5})
    with pytest.raises(OptionError, match="about zero"):
        ask(system, "a red apple:1|a green tree:-1")


def test_odd_settings_never_give_numbers_that_are_none(system):
    for options in ({"clamp": 0.05, "range": 1e6, "smooth": 1e6, "saturation": 1e6}, {"likeness": 1e4, "clamp": 0.05}):
        assert ask(system, options=options, image=picture()).isfinite().all()
    assert ask(system, guidance=1000.0, options={"clamp": 0.05}).isfinite().all()


def test_mirrors_fall_where_discos_do():
    for total, share in ((250, 0.09), (100, 0.5), (10, 0.0), (10, 1.0)):
        indices = list(range(total))[::-1]
        wanted = indices.index(int(total * (1 - share))) if share else -1
        assert Mirror(share, True, False).step(total) == wanted
    x = torch.arange(20.0).view(1, 1, 4, 5).expand(1, 3, 4, 5)
    across, down = Mirror(0.1, True, False)(x), Mirror(0.1, False, True)(x)
    assert torch.equal(across, across.flip(3)) and torch.equal(across[..., :3], x[..., :3])
    assert torch.equal(down, down.flip(2)) and torch.equal(down[:, :, :2], x[:, :, :2])


def test_an_option_that_is_no_number_is_refused(system):
    with pytest.raises(OptionError):
        build(system.Options, {"clamp": math.nan}, owner="it")
