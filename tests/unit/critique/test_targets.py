"""Wishes as directions: words, pictures through cuts, noise."""

import math

import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from mindseye.critique.cuts import crowson, pooling
from mindseye.critique.grammar import wishes
from mindseye.critique.targets import embed, parse
from mindseye.errors import ImageError, OptionError


class Eye:
    """A critic that sees the mean colour of each quarter."""

    size = 8

    def __init__(self, width=12):
        self.width = width

    def embed_text(self, prompts):
        rows = [torch.randn(self.width, generator=torch.Generator().manual_seed(len(text))) for text in prompts]
        return F.normalize(torch.stack(rows), dim=1)

    def embed_image(self, pixels):
        return F.normalize(F.adaptive_avg_pool2d(pixels, 2).flatten(1)[:, : self.width] + 1e-3, dim=1)


@pytest.fixture
def picture(tmp_path):
    path = tmp_path / "a.png"
    Image.linear_gradient("L").convert("RGB").resize((60, 40)).save(path)
    return path


def test_words():
    eyes = [Eye(), Eye(5)]
    found = embed(eyes, wishes("a castle:2:0.3", "fog"))
    for eye, aims in zip(eyes, found.aims, strict=True):
        torch.testing.assert_close(aims.vectors, eye.embed_text(["a castle", "fog"]))
        assert aims.weights.tolist() == [2, -1] and aims.wish == (0, 1)
        assert aims.stops[0].item() == pytest.approx(0.3) and aims.stops[1] == -math.inf


def test_weights_are_made_comparable():
    assert embed([Eye()], parse("a:3|b:-1"), normal="sum").aims[0].weights.tolist() == [1.5, -0.5]
    with pytest.raises(OptionError, match="about zero"):
        embed([Eye()], parse("a|b:-1"), normal="sum")


def test_a_picture_whole(picture):
    found = embed([Eye()], wishes("", images=f"{picture}:0.5"))
    assert found.aims[0].vectors.shape == (1, 12) and found.aims[0].weights.tolist() == [0.5]


def test_a_picture_through_cuts(picture):
    spec = wishes("castle", images=f"{picture}:0.5:0.2")
    once, again = (embed([Eye()], spec, cuts=crowson(4), size=(32, 32)) for _ in range(2))
    aims = once.aims[0]
    assert aims.vectors.shape == (5, 12) and aims.wish == (0, 1, 1, 1, 1)
    torch.testing.assert_close(aims.weights, torch.tensor([1, *[0.125] * 4]))
    torch.testing.assert_close(aims.stops[1:], torch.full((4,), 0.2))
    assert torch.equal(aims.vectors, again.aims[0].vectors)
    assert not torch.allclose(aims.vectors[1], aims.vectors[2])


@pytest.mark.parametrize(
    ("size", "seen"), [((30, 20), (30, 20)), ((24, 25), (30, 20)), ((999, 999), (60, 40)), (None, (60, 40))]
)
def test_a_picture_has_the_area_of_what_is_made(picture, size, seen):
    areas = []

    class Watching:
        def __init__(self, plan):
            self.plan = plan

        def __call__(self, height, width, *rest):
            areas.append((width, height))
            return self.plan(height, width, *rest)

    from dataclasses import replace

    scheme = pooling(1, augment=None)
    embed([Eye()], parse(str(picture), "image"), cuts=replace(scheme, plan=Watching(scheme.plan)), size=size)
    assert areas == [seen]


def test_noise():
    first, second = (embed([Eye()], parse(f"{seed}:0.5", "noise")).aims[0].vectors for seed in (7, 8))
    again = embed([Eye()], parse("7", "noise")).aims[0].vectors
    assert first.shape == (1, 12) and torch.equal(first, again) and not torch.allclose(first, second)
    assert first.norm().item() == pytest.approx(1, abs=1e-5)


def test_pictures_that_cannot_be_had(tmp_path):
    with pytest.raises(ImageError, match="an address"):
        embed([Eye()], parse("https://a.b:80/c.png:2", "image"))
    with pytest.raises(ImageError, match="no file"):
        embed([Eye()], parse(str(tmp_path / "none.png"), "image"))
    found = embed([Eye()], parse("https://a.b/c.png", "image"), look=lambda _: Image.new("RGB", (9, 9)))
    assert len(found.aims[0].vectors) == 1
