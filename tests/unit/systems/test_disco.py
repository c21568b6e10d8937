"""Disco Diffusion: what it adds, and the slips that compat brings back."""

import dataclasses

import pytest
import torch
from tests.unit.ascent.tiny import critic, likeness, tokenizer
from tests.unit.systems.test_clip_guided import TINY, network

from mindseye.critique.cuts import Cuts
from mindseye.engine.options import build
from mindseye.errors import OptionError
from mindseye.networks.adm import ADM
from mindseye.networks.secondary import Config, Secondary
from mindseye.noise import Noise
from mindseye.request import Request, drain
from mindseye.systems import disco as module
from mindseye.systems import steering
from mindseye.systems.base import System
from mindseye.systems.disco import Disco
from mindseye.systems.perlin import gradient_noise, perlin


@pytest.fixture(scope="module")
def system():
    return Disco(unet=network(), clip=critic(), tokenizer=tokenizer(), prediction="v", schedule="cosine")


FEW = {"overview": "[2]*400+[1]*600", "inner": "[1]*400+[2]*600", "batches": 1, "range": 0.0}


def ask(system, prompt="a red apple", *, options=None, seeds=(1,), on_progress=None, **request):
    filled = {"size": (32, 32), "steps": 6, "guidance": 1.0, "sampler": "ddim", **request}
    wanted = Request(prompt=prompt, seed=seeds[0], count=len(seeds), **filled)
    settings = build(system.Options, {**FEW, **(options or {})}, owner="it")
    with torch.no_grad():
        return drain(system.synthesize(wanted, settings, Noise(seeds)), on_progress)


def test_it_is_a_system(system):
    assert isinstance(system, System) and system.multiple == 4
    small = Secondary(Config(channels=(4, 4, 4, 4), planes=4))
    assert dataclasses.replace(system, secondary=small).multiple == 8


def test_the_critics_come_to_like_what_they_asked_for(system):
    blank = ADM(TINY).requires_grad_(False)
    both = dataclasses.replace(system, unet=blank, clip_2=critic(1, 24), tokenizer_2=tokenizer())
    plain, pulled = (ask(both, guidance=scale, steps=12, options={"clamp": 0.5}) for scale in (0.0, 1.0))
    assert len(both.critics) == 2
    assert likeness(both, pulled, "a red apple") > likeness(both, plain, "a red apple") + 0.03


def test_a_seed_is_a_seed_in_any_batch(system):
    options = {"perlin": "mixed", "symmetry": "x", "mirror_at": "0.5"}
    alone = ask(system, seeds=(6,), options=options)
    both = ask(system, seeds=(5, 6), options=options)
    assert torch.allclose(both[1], alone[0], atol=2e-4)
    assert not torch.allclose(both[0], both[1], atol=1e-2)


def test_the_secondary_model_is_what_the_critics_see(system):
    torch.manual_seed(0)
    small = Secondary(Config(channels=(6, 8), planes=4)).requires_grad_(False)
    helped = dataclasses.replace(system, secondary=small)
    through = [ask(helped, options={"through": way}) for way in ("secondary", "network")]
    assert not torch.allclose(through[0], through[1], atol=1e-3)
    assert torch.equal(through[1], ask(system))


def test_cut_schedules_follow_the_thousandths_of_the_denoising(system, monkeypatch):
    shown = []
    real = module.disco

    def spied(**settings):
        scheme = real(**settings)

        def plan(height, width, size, share, noise):
            cuts = scheme.plan(height, width, size, share, noise)
            shown.append((share, len(cuts)))
            return cuts

        return dataclasses.replace(scheme, plan=plan)

    monkeypatch.setattr(module, "disco", spied)
    ask(system, steps=10, options={"overview": "[3]*400+[1]*600", "inner": "[0]*1000", "spacing": "leading"})
    assert [count for _, count in shown] == [3] * 4 + [1] * 6
    assert [share for share, _ in shown] == pytest.approx([0.099 + 0.1 * step for step in range(10)])


@pytest.mark.parametrize("text", ["__import__('os').system('x')", "[12]*400+", "[1]*(2+3)", "[-1]*1000", "[9999]*1000"])
def test_schedules_with_code_in_them_are_a_sentence(system, text):
    with pytest.raises(OptionError) as caught:
        ask(system, options={"overview": text})
    assert len(caught.value.message) < 300


def test_pieces_are_needed(system):
    with pytest.raises(OptionError, match="show the critic nothing"):
        ask(system, options={"overview": "[0]*1000", "inner": "[0]*1000"})


def test_symmetry_mirrors_what_has_been_drawn(system):
    options = {"symmetry": "xy", "mirror_at": "1.0", "eta": 0.0}
    drawn = ask(system, steps=8, guidance=0.0, options=options)
    plain = ask(system, steps=8, guidance=0.0, options={"eta": 0.0})
    broken = (drawn - drawn.flip(3)).abs().mean() / (plain - plain.flip(3)).abs().mean()
    assert broken < 0.5
    totals = []
    ask(system, steps=8, options=options, on_progress=lambda now: totals.append((now.step, now.total)))
    assert totals == [(step, 8) for step in range(1, 9)]


def test_clouds_are_a_start(system):
    clouds = perlin(Noise([1]), 32, 32, "colour")
    drawn = ask(system, strength=0.2, steps=10, guidance=0.0, options={"perlin": "colour"})
    other = ask(system, strength=0.2, steps=10, guidance=0.0, options={"perlin": "grey"})
    assert (drawn - clouds).square().mean() < (other - clouds).square().mean()


def test_fuzzy_prompts_are_a_seeds_own(system):
    both = dataclasses.replace(system, clip_2=critic(1, 24), tokenizer_2=tokenizer())
    options = {"fuzz": 0.5, "clamp": 0.3}
    alone, pair = (ask(both, seeds=seeds, options=options) for seeds in ((6,), (5, 6)))
    assert torch.allclose(pair[1], alone[0], atol=2e-4)
    assert not torch.allclose(alone, ask(both, seeds=(6,), options={**options, "fuzz": 0.0}), atol=1e-2)
    # Where nobody pulls, it is the same picture: what makes prompts fuzzy is drawn after the noise it starts from.
    still = [ask(both, guidance=0.0, options={"fuzz": fuzz, "eta": 0.0, "range": 0.0}) for fuzz in (0.0, 0.5)]
    assert torch.equal(*still)


def test_grey_is_a_start(system):
    drawn, free = (
        ask(system, seeds=(4, 5), strength=0.2, steps=10, guidance=0.0, options={"start": start})
        for start in ("grey", "noise")
    )
    assert drawn.square().mean() < 0.2 * free.square().mean()
    assert torch.allclose(ask(system, seeds=(5,), strength=0.2, steps=10, guidance=0.0, options={"start": "grey"})[0],
                          drawn[1], atol=2e-4)  # fmt: skip
    # Nothing is drawn over it: the grey itself. Clouds come before it.
    assert torch.equal(ask(system, strength=0.0, options={"start": "grey"}), torch.zeros(1, 3, 32, 32))
    clouds = (ask(system, strength=0.5, options={"start": start, "perlin": "colour"}) for start in ("grey", "noise"))
    assert torch.equal(*clouds)


@pytest.mark.parametrize("colouring", ["mixed", "colour", "grey"])
def test_perlins_noise(colouring):
    one = perlin(Noise([3]), 24, 40, colouring)
    assert one.shape == (1, 3, 24, 40) and one.min() >= -1 and one.max() <= 1 and one.std() > 0.1
    assert torch.equal(perlin(Noise([2, 3]), 24, 40, colouring)[1:], one)
    assert (one[:, 0] == one[:, 1]).all() == (colouring == "grey")
    # Neighbours are alike: it is no white noise.
    assert (one[..., 1:] - one[..., :-1]).square().mean() < 0.5 * one.var()


def test_gradient_noise_is_perlins_formula_in_one_cell():
    slopes = Noise([5]).normal(1, 2, 2, 2)[0, 0]
    found = gradient_noise(Noise([5]), 4, 4, 1, 1)[0, 0]
    for row in range(4):
        for column in range(4):
            v, u = (row + 0.5) / 4, (column + 0.5) / 4
            fade = [3 * w**2 - 2 * w**3 for w in (v, u)]
            total = sum(
                (slopes[0, i, j] * (v - i) + slopes[1, i, j] * (u - j))
                * (fade[0] if i else 1 - fade[0])
                * (fade[1] if j else 1 - fade[1])
                for i in (0, 1)
                for j in (0, 1)
            )
            assert found[row, column].item() == pytest.approx(total.item(), abs=1e-6)


def recorded(system, monkeypatch, compat, **more):
    """What a run makes of its settings."""
    kept = {}
    of, guided, embed = steering.Steering.of.__func__, steering.Steering.guided, steering.embed

    def spy_of(cls, *args, **named):
        kept["steering"] = of(cls, *args, **named)
        return kept["steering"]

    def spy_guided(self, judge, **named):
        kept["range"] = named["range_scale"]
        return guided(self, judge, **named)

    def spy_embed(critics, found, **named):
        kept["words"] = [wish.text for wish in found]
        kept["weights"] = [wish.weight for wish in found]
        kept["fuzz"] = named["fuzz"]
        return embed(critics, found, **named)

    monkeypatch.setattr(steering.Steering, "of", classmethod(spy_of))
    monkeypatch.setattr(steering.Steering, "guided", spy_guided)
    monkeypatch.setattr(steering, "embed", spy_embed)
    ask(system, "a red apple:5|a green tree:-1", negative="a table:2", options={"compat": compat, **more}, steps=3)
    return kept


def test_compat_brings_the_slips_back(system, monkeypatch):
    own = recorded(system, monkeypatch, False, range=150.0, fuzz=0.1)
    assert own["words"] == ["a red apple", "a green tree", "a table"] and own["range"] == 150.0
    monkeypatch.undo()
    theirs = recorded(system, monkeypatch, True, range=150.0, fuzz=0.1)
    assert theirs["words"] == ["a red apple:5", "a green tree:-1", "a table"] and theirs["range"] == 0.0
    assert own["weights"] == theirs["weights"] == [5.0, -1.0, -2.0]
    assert [(told["fuzz"].amount, told["fuzz"].compat) for told in (own, theirs)] == [(0.1, False), (0.1, True)]


def test_compat_shortens_the_table_as_steps_divide_it(system, monkeypatch):
    linear = dataclasses.replace(system, schedule="linear")
    seen = []
    real = steering.PixelDenoiser

    def spy(*args, **named):
        made = real(*args, **named)
        seen.append(made)
        return made

    monkeypatch.setattr(steering, "PixelDenoiser", spy)
    wanted = Request(prompt="a red apple", seed=1, size=(32, 32), steps=150, guidance=1.0, sampler="ddim")
    for compat, entries in ((True, 900), (False, 1000)):
        options = build(Disco.Options, {**FEW, "compat": compat}, owner="it")
        steered = steering.Steering.of(
            wanted, options, Noise([1]), unet=linear.unet, prediction="eps", schedule="linear",
            critics=linear.critics, shortened=compat,
        )  # fmt: skip
        assert (steered.schedule.steps, len(steered.knots) - 1) == (entries, 150)
    assert seen[0].rescale == pytest.approx(1000 / 900) and seen[1].rescale == 1
    # diffusion_steps = 900: betas from 1e-4 to 2e-2, each times 1000 / 900, every sixth kept.
    betas = torch.linspace(1e-4, 2e-2, 900, dtype=torch.float64) * 1000 / 900
    bars = (1 - betas).cumprod(0)[::6]
    options = build(Disco.Options, {**FEW, "compat": True}, owner="it")
    steered = steering.Steering.of(
        wanted, options, Noise([1]), unet=linear.unet, prediction="eps", schedule="linear", critics=linear.critics,
        shortened=True,
    )  # fmt: skip
    torch.testing.assert_close(1 / (1 + steered.knots[:-1].flip(0) ** 2), bars, rtol=1e-10, atol=1e-12)


def test_compat_shows_one_grey_piece_too_many(system):
    def greys(compat):
        options = build(Disco.Options, {**FEW, "grey": "[0]*1000", "compat": compat}, owner="it")
        cuts: Cuts = module._cuts(options).plan(48, 48, 16, 0.9, Noise([1]))
        return int(cuts.grey.sum())

    assert (greys(False), greys(True)) == (0, 1)


def test_the_range_is_minded_again(system):
    loud = dataclasses.replace(system, unet=ADM(TINY).requires_grad_(False))
    options = {"clamp": 0.0, "through": "network", "overview": "[1]*1000", "inner": "[0]*1000"}
    free = ask(loud, guidance=0.0, steps=5, options={**options, "range": 0.0})
    kept = ask(loud, guidance=0.0, steps=5, options={**options, "range": 3e3})
    beyond = [((x - x.clamp(-1, 1)) ** 2).mean().item() for x in (free, kept)]
    assert beyond[1] < 0.7 * beyond[0]
    same = ask(loud, guidance=0.0, steps=5, options={**options, "range": 3e3, "compat": True})
    none = ask(loud, guidance=0.0, steps=5, options={**options, "range": 0.0, "compat": True})
    assert torch.equal(same, none)
