"""Fuzzy prompts: Disco Diffusion's formula, other noise for every picture, and a judge who tells pictures apart."""

import pytest
import torch
from PIL import Image
from tests.unit.ascent.tiny import critic
from tests.unit.ascent.tiny import tokenizer as words
from torch.nn import functional as F

from mindseye.critique.critic import ClipCritic
from mindseye.critique.cuts import guided
from mindseye.critique.fuzzy import COPIES, Fuzz
from mindseye.critique.grammar import wishes
from mindseye.critique.judge import judge
from mindseye.critique.losses import LOSSES
from mindseye.critique.targets import embed
from mindseye.noise import Noise


@pytest.fixture(scope="module")
def eye():
    return ClipCritic(critic(), words())


def notebook(vector, draws, rand_mag, clamped):
    """Disco Diffusion's list of targets for one prompt, in one critic's space."""
    found = []
    for draw in draws:
        near = vector + draw * rand_mag
        found.append(near.clamp(0, 1) if clamped else near)
    return F.normalize(torch.stack(found), dim=-1)


@pytest.mark.parametrize("compat", [False, True])
def test_one_prompt_is_the_notebooks_list(eye, compat):
    found = embed([eye, eye], wishes("a red apple:3"), fuzz=Fuzz(0.3, Noise([7, 8]), compat))
    raw = eye.clip.text(eye.tokenizer.encode(["a red apple"])[0])[1][0]
    assert abs(raw.norm().item() - 1) > 0.05
    noise = Noise([7, 8])
    for aims in found.aims:
        draws = noise.normal(COPIES, len(raw))
        for row in range(2):
            torch.testing.assert_close(aims.vectors[row], notebook(raw, draws[row], 0.3, compat))
        torch.testing.assert_close(aims.weights, torch.full((COPIES,), 3 / COPIES))
        assert bool((aims.vectors >= 0).all()) == compat


def test_around_what_was_asked_for(eye):
    (alone,) = embed([eye], wishes("a red apple")).aims
    lengths = []
    for amount in (0.0, 0.05, 0.5):
        (aims,) = embed([eye], wishes("a red apple"), fuzz=Fuzz(amount, Noise([1]))).aims
        lengths.append((aims.vectors[0] - alone.vectors).norm(dim=1).mean().item())
    assert lengths[0] < 1e-6 < lengths[1] < lengths[2]


def test_pictures_are_fuzzy_and_noise_is_what_it_is(eye, tmp_path):
    path = tmp_path / "a.png"
    Image.linear_gradient("L").convert("RGB").resize((40, 30)).save(path)
    found = wishes("a tree", "fog", images=f"{path}:0.5", noises="42:0.25")
    (aims,) = embed([eye], found, cuts=guided(3), fuzz=Fuzz(0.1, Noise([1, 2]))).aims
    assert aims.vectors.shape == (2, 5 * COPIES + 1, 12)
    assert [aims.wish.count(place) for place in range(4)] == [COPIES, COPIES, 3 * COPIES, 1]
    weights = torch.stack([aims.weights[torch.tensor(aims.wish) == place].sum() for place in range(4)])
    torch.testing.assert_close(weights, torch.tensor([1.0, -1.0, 0.5, 0.25]))
    torch.testing.assert_close(aims.vectors.norm(dim=-1), torch.ones(2, 5 * COPIES + 1))
    (plain,) = embed([eye], found, cuts=guided(3)).aims
    assert torch.equal(aims.vectors[:, -1], plain.vectors[-1].expand(2, -1))
    seen = aims.vectors[0, 2 * COPIES : -1].unflatten(0, (COPIES, 3)).mean(0)
    assert F.cosine_similarity(seen, plain.vectors[2:5]).min() > 0.9


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("average", [0.0, 0.3])
def test_each_picture_is_judged_by_its_own(eye, loss, average):
    x = torch.rand(3, 3, 20, 26, generator=torch.Generator().manual_seed(4)) * 1.8 - 0.9

    def said(rows, chunk=32):
        seeds = [5, 6, 7][rows]
        targets = embed([eye], wishes("a red apple|a table:-0.5"), fuzz=Fuzz(0.4, Noise(seeds)))
        made = judge([eye], targets, cuts=guided(5), loss=loss, average=average, chunk=chunk)
        return made.opinion(x[rows], Noise(seeds), 0.2)

    every, alone, pieces = said(slice(0, 3)), said(slice(1, 2)), said(slice(0, 3), chunk=4)
    torch.testing.assert_close(alone.score, every.score[1:2], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(alone.gradient, every.gradient[1:2], rtol=1e-3, atol=1e-6)
    torch.testing.assert_close(pieces.gradient, every.gradient, rtol=1e-3, atol=1e-6)
    assert pieces.parts == pytest.approx(every.parts, rel=1e-3, abs=1e-5)
