"""Opinions: the gradient is that of the score, whatever the chunks; each picture is judged alone; memory stays flat."""

import math
from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from mindseye.critique import cuts as families
from mindseye.critique.augment import NERDY
from mindseye.critique.cuts import FAMILIES, scheme
from mindseye.critique.grammar import parse
from mindseye.critique.judge import Judge, judge
from mindseye.critique.losses import LOSSES, cosine
from mindseye.critique.targets import Targets, embed
from mindseye.critique.terms import Range, Smoothness
from mindseye.noise import Noise


class Eye:
    """A smooth random critic, in float64 inside so that differences tell a gradient."""

    def __init__(self, size=12, seed=0):
        self.size, self.batches = size, []
        generator = torch.Generator().manual_seed(seed)
        self.weight = torch.randn(7, 3 * size * size, generator=generator, dtype=torch.float64) / size
        self.words = torch.randn(40, 7, generator=generator)

    def embed_text(self, prompts):
        return F.normalize(torch.stack([self.words[len(text) % 40] for text in prompts]), dim=1)

    def embed_image(self, pixels):
        self.batches.append(len(pixels))
        return F.normalize(torch.tanh(pixels.double().flatten(1) @ self.weight.T), dim=1).float()


def pictures(rows=2, height=20, width=26):
    return torch.rand(rows, 3, height, width, generator=torch.Generator().manual_seed(4)) * 1.8 - 0.9


def opinion(eyes, x=None, seeds=None, share=0.4, prompts="a castle:2|fog:-0.5", **settings):
    x = pictures() if x is None else x
    made = judge(eyes, embed(eyes, parse(prompts)), **{"cuts": families.guided(6), **settings})
    assert isinstance(made, Judge)
    return made.opinion(x, Noise(range(len(x)) if seeds is None else seeds), share)


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("loss", LOSSES)
def test_the_gradient_is_that_of_the_score(name, loss):
    eye, x = Eye(), pictures(1)
    settings = {"cuts": scheme(name, count=5), "loss": loss, "terms": (Smoothness(0.5), Range(3.0))}
    said = opinion([eye], x, **settings)
    direction = torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
    step = 2e-4  # a maximum has corners: small enough to meet few of them
    ahead, behind = (opinion([eye], x + sign * step * direction, seeds=[0], **settings).score for sign in (1, -1))
    slope = float((said.gradient * direction).sum())
    assert slope == pytest.approx(float(ahead - behind) / (2 * step), rel=0.02, abs=1e-3 * float(said.gradient.norm()))


@pytest.mark.parametrize("average", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("augment", [None, NERDY])
def test_chunks_change_nothing(average, augment):
    eye = Eye()
    settings = {"cuts": families.guided(7, augment=augment), "average": average}
    whole, pieces = (opinion([eye], chunk=chunk, **settings) for chunk in (64, 4))
    assert max(eye.batches[-4:]) == 4
    torch.testing.assert_close(pieces.score, whole.score, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(pieces.gradient, whole.gradient, rtol=1e-3, atol=1e-6)
    assert pieces.parts == pytest.approx(whole.parts, rel=1e-3, abs=1e-5)


@pytest.mark.parametrize("augment", [None, NERDY])
def test_a_picture_is_judged_alone(augment):
    settings = {"cuts": families.crowson(5, augment=augment), "terms": (Smoothness(2.0),), "average": 0.3}
    x, eye = pictures(3), Eye()
    every = opinion([eye], x, seeds=[5, 6, 7], **settings)
    alone = opinion([eye], x[1:2], seeds=[6], **settings)
    torch.testing.assert_close(alone.score, every.score[1:2], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(alone.gradient, every.gradient[1:2], rtol=1e-3, atol=1e-6)


def test_the_score_is_what_the_parts_say():
    said = opinion([Eye(), Eye(9, 1)], terms=(Smoothness(2.0), Range(1.0)))
    assert set(said.parts) == {"smoothness", "range", "critics", "cosine"}
    total = sum(value for name, value in said.parts.items() if name != "cosine")
    assert float(said.score.mean()) == pytest.approx(total, rel=1e-5)


def test_several_critics_weighted():
    x, eyes = pictures(1), [Eye(), Eye(9, 1)]
    # The second critic's cuts are drawn after the first's: its share is what is left.
    both, twice = (opinion(eyes, x, weights=weights) for weights in ([1.0, 1.0], [1.0, 2.0]))
    first = opinion(eyes[:1], x)
    torch.testing.assert_close(twice.score - both.score, both.score - first.score, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(twice.gradient - both.gradient, both.gradient - first.gradient, rtol=1e-3, atol=1e-6)
    scaled = opinion(eyes, x, scale=5.0)
    torch.testing.assert_close(scaled.gradient, 5 * both.gradient, rtol=1e-4, atol=1e-6)


def test_below_its_stop_a_prompt_reports_and_does_not_pull():
    eye, x = Eye(), pictures(1)
    free, stopped = (opinion([eye], x, prompts=prompts) for prompts in ("castle", "castle:1:9"))
    torch.testing.assert_close(stopped.score, free.score)
    assert free.gradient.abs().max() > 0 and stopped.gradient.abs().max() == 0


def test_deep_daze_averages():
    eye, x = Eye(), pictures(1)
    kept = []
    said = opinion([eye], x, loss="cosine", average=0.3, prompts="castle", on_cuts=lambda _, cuts: kept.append(cuts))
    pieces = families.guided(6).show(x, kept[0], None, eye.size)[0]
    seen, text = eye.embed_image(pieces), eye.embed_text(["castle"])
    expected = 0.3 * cosine(F.normalize(seen.mean(0, keepdim=True), dim=1), text) + 0.7 * cosine(seen, text).mean()
    torch.testing.assert_close(said.score, expected[0], rtol=1e-4, atol=1e-4)
    assert said.parts["cosine"] == pytest.approx(float((seen @ text.T).mean()), abs=1e-5)


def test_a_run_replays_and_kept_cuts_redraw_it():
    x, eye, kept = pictures(), Eye(), []
    first = opinion([eye], x, on_cuts=lambda _, cuts: kept.append(cuts))
    again = opinion([eye], x)
    assert torch.equal(first.gradient, again.gradient)
    replayed = replace(families.guided(6), plan=lambda *_: kept[0])
    assert torch.equal(opinion([eye], x, seeds=[80, 81], cuts=replayed).gradient, first.gradient)


def test_whoever_calls_gradients_are_there_and_none_leak():
    x = pictures().requires_grad_()
    with torch.no_grad():
        said = opinion([Eye()], x)
    assert said.gradient.abs().max() > 0
    for tensor in (said.score, said.gradient):
        assert not tensor.requires_grad
    assert x.grad is None


def test_the_loop_reaches_its_aim():
    eye = Eye()
    x = pictures(1)
    made = judge([eye], embed([eye], parse("castle")), cuts=families.guided(8))
    noise, scores = Noise((0,)), []
    for step in range(60):
        said = made.opinion(x, noise, step / 60)
        scores.append(float(said.score))
        x = (x - 0.05 * said.gradient / said.gradient.abs().mean()).clamp(-1, 1)
    assert sum(scores[-5:]) < 0.5 * sum(scores[:5])


def test_activations_do_not_grow_with_the_number_of_cuts():
    """What autograd holds at once, counted by the bytes it is asked to save."""

    def most_held(count):
        held = most = 0

        def pack(tensor):
            nonlocal held, most
            size = tensor.numel()
            held += size
            most = max(most, held)

            class Kept:
                def __init__(self):
                    self.tensor = tensor

                def __del__(self):
                    nonlocal held
                    held -= size

            return Kept()

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda kept: kept.tensor):
            opinion([Eye()], pictures(1), cuts=families.guided(count), chunk=8)
        return most

    assert most_held(64) <= 1.2 * most_held(8)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"weights": [1.0, 2.0]}, "2 weights for 1 critics"),
        ({"chunk": 0}, "chunks of 0"),
        ({"average": 1.5}, "share of 1.5"),
        ({"average": math.nan}, "share of nan"),
    ],
)
def test_settings_that_fit_nothing(changes, said):
    with pytest.raises(ValueError, match=said):
        opinion([Eye()], **changes)
    with pytest.raises(ValueError, match="targets for 0 critics"):
        judge([Eye()], Targets((), ()), cuts=families.guided(1))
