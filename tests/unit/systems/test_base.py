from dataclasses import dataclass, fields

import pytest
import torch
from PIL import Image

from mindseye.diffusion.samplers import Estimate
from mindseye.request import Request, drain
from mindseye.systems.base import Start, known, option, remaining, watched


def halve(pixels):
    """A codec of factor 4 whose latents are the mean colour."""
    return torch.nn.functional.avg_pool2d(pixels, 4)


def request(**more):
    return Request(prompt="a", size=(16, 12), **more)


def test_start_takes_the_picture_at_the_size_that_is_drawn():
    image = Image.new("RGB", (32, 24), (255, 0, 127))
    start = Start.of(request(image=image), halve, torch.zeros(()))
    assert start.pixels.shape == (1, 3, 12, 16)
    assert start.latents.shape == (1, 3, 3, 4)
    assert start.mask is None
    assert start.latent_mask is None
    torch.testing.assert_close(start.latents[0, :, 0, 0], torch.tensor([1.0, -1.0, -1 / 255]))
    drawn = torch.zeros(2, 3, 12, 16)
    assert start.paste(drawn) is drawn
    assert Start.of(request(), halve, torch.zeros(())) is None


def test_a_latent_is_repainted_if_any_of_its_pixels_is():
    mask = Image.new("L", (16, 12), 0)
    mask.putpixel((5, 3), 255)
    mask.putpixel((15, 11), 100)  # less than half does not count
    start = Start.of(request(image=Image.new("RGB", (16, 12)), mask=mask), halve, torch.zeros(()))
    assert start.latent_mask.nonzero().tolist() == [[0, 0, 0, 1]]


def test_kept_pixels_are_the_pictures_own():
    image = Image.effect_noise((16, 12), 90).convert("RGB")
    mask = Image.new("L", (16, 12), 0)
    mask.paste(255, (0, 0, 8, 12))
    start = Start.of(request(image=image, mask=mask), halve, torch.zeros(()))
    pasted = start.paste(torch.full((2, 3, 12, 16), 0.5))
    assert (pasted[..., :8] == 0.5).all()
    assert torch.equal(pasted[..., 8:], start.pixels[..., 8:].expand(2, -1, -1, -1))


@pytest.mark.parametrize(
    ("steps", "strength", "left"),
    [(10, 0.8, 8), (10, 1.0, 10), (10, 0.0, 0), (100, 0.29, 29), (7, 0.5, 3), (3, 0.1, 0)],
)
def test_strength_leaves_the_last_steps(steps, strength, left):
    sigmas = torch.linspace(5, 0, steps + 1, dtype=torch.float64)
    got = remaining(sigmas, strength)
    assert len(got) == left + 1
    assert torch.equal(got, sigmas[steps - left :])


def sampler(closed):
    try:
        for step in range(1, 4):
            yield Estimate(step, 3, torch.full((1, 3, 2, 2), step / 3))
        return torch.ones(1)
    finally:
        closed.append(True)


def test_watching_costs_only_when_somebody_looks():
    looked, seen = [], []

    def look(x0):
        looked.append(float(x0.max()))
        return x0

    result = drain(watched("draw", sampler([]), look), seen.append)
    assert torch.equal(result, torch.ones(1))
    assert [each[:3] for each in seen] == [("draw", 1, 3), ("draw", 2, 3), ("draw", 3, 3)]
    assert looked == []
    assert seen[0].peek()[0].size == (2, 2)  # each progress keeps its own estimate
    assert looked == pytest.approx([1 / 3])


def test_closing_reaches_the_sampler():
    closed = []
    steps = watched("draw", sampler(closed), lambda x0: x0)
    next(steps)
    steps.close()
    assert closed == [True]


def test_an_open_field_is_a_mistake_of_the_caller():
    assert known(0, "steps") == 0
    with pytest.raises(ValueError, match="steps is open"):
        known(None, "steps")


def test_options_carry_their_help_and_bounds():
    @dataclass(frozen=True)
    class Options:
        a: float = option(0.5, "how much", low=0, high=1)
        b: str = option("x", "which", choices=("x", "y"))

    a, b = fields(Options)
    assert a.metadata == {"help": "how much", "low": 0, "high": 1}
    assert b.metadata == {"help": "which", "choices": ("x", "y")}
    assert Options() == Options(a=0.5, b="x")
