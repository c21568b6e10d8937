"""The loop, a story and a mask, with judges in closed form."""

import gc
import weakref

import pytest
import torch

from mindseye.ascent.canvas import Canvas
from mindseye.ascent.held import Held
from mindseye.ascent.loop import ascend
from mindseye.ascent.pixels import PixelCanvas
from mindseye.ascent.story import Story, split
from mindseye.critique.judge import Judge, Opinion
from mindseye.noise import Noise
from mindseye.request import drain


class Wants:
    """A judge who wants one colour, and notes what it is shown."""

    def __init__(self, colour):
        self.colour, self.shares, self.noises = colour, [], []

    def opinion(self, pixels, noise, share):
        """Half the squared distance."""
        assert not pixels.requires_grad
        self.shares.append(share)
        self.noises.append(noise.uniform(1))
        apart = pixels - self.colour
        return Opinion(apart.square().sum((1, 2, 3)) / 2, apart, {})


class Numbers:
    """A canvas of one number a picture with a wish of its own; counts what happens to it."""

    def __init__(self, count, wish=None):
        self.number = torch.zeros(count).requires_grad_()
        self.wish, self.rendered, self.settled = wish, 0, 0

    def parameters(self):
        """The numbers."""
        return [self.number]

    def render(self):
        """Grey pictures."""
        self.rendered += 1
        return self.number[:, None, None, None].expand(-1, 3, 2, 2)

    def settle(self):
        """Counted."""
        assert not torch.is_grad_enabled()
        self.settled += 1

    def terms(self):
        """Squared distance from the wish."""
        return None if self.wish is None else (self.number - self.wish).square() * 6

    def final(self):
        """Without gradients."""
        return self.render().detach()


def test_it_ends_where_judge_and_canvas_agree():
    # Twelve numbers a picture want 1 with weight 1/2 each, the canvas wants 0 with weight 6: halfway.
    canvas = Numbers(2, wish=0.0)
    got = drain(ascend(canvas, Wants(1.0), Noise([1, 2]), steps=300, lr=0.05, decay=0.0))
    assert torch.allclose(got, torch.full_like(got, 0.5), atol=1e-3)
    assert canvas.rendered == 301 and canvas.settled == 300


@pytest.mark.parametrize("enabled", [True, False])
def test_grad_mode_is_its_own_business(enabled):
    seen = []
    with torch.set_grad_enabled(enabled):
        steps = ascend(Numbers(1), Wants(1.0), Noise([1]), steps=3, lr=0.1)
        for _ in range(3):
            next(steps)
            seen.append(torch.is_grad_enabled())
        with pytest.raises(StopIteration) as stop:
            next(steps)
    assert seen == [enabled] * 3 and stop.value.value.mean() > 0.2


def test_steps_and_shares_are_told():
    judge, told = Wants(1.0), []
    canvas = Numbers(1)
    drain(ascend(canvas, judge, Noise([1]), steps=4, lr=0.1, stage="x"), lambda now: told.append(now))
    assert judge.shares == [0, 0.25, 0.5, 0.75]
    assert [(now.stage, now.step, now.total) for now in told] == [("x", step, 4) for step in range(1, 5)]
    rendered = canvas.rendered
    assert told[-1].peek()[0].size == (2, 2) and canvas.rendered == rendered + 1


def test_no_steps_show_what_is_there():
    canvas = PixelCanvas(torch.full((1, 3, 2, 2), 0.3))
    assert torch.allclose(drain(ascend(canvas, Wants(1.0), Noise([1]), steps=0, lr=1.0)), torch.tensor(0.3))


def test_the_rate_falls_along_half_a_cosine():
    steps = []

    class Constant:
        def opinion(self, pixels, noise, share):
            return Opinion(torch.zeros(1), torch.ones_like(pixels), {})

    canvas = Numbers(1)
    before = 0.0
    for _ in ascend(canvas, Constant(), Noise([1]), steps=4, lr=0.1, decay=0.5):
        steps.append(before - canvas.number.item())
        before = canvas.number.item()
    # Adam steps by the rate exactly under a constant gradient.
    want = [
        0.1 * (0.5 + 0.25 * (1 + torch.cos(torch.tensor(torch.pi * share)).item())) for share in (0, 0.25, 0.5, 0.75)
    ]
    assert steps == pytest.approx(want, rel=1e-4)


def test_pixels_stay_in_their_range_and_are_a_copy():
    start = torch.zeros(1, 3, 2, 2)
    got = drain(ascend(PixelCanvas(start), Wants(5.0), Noise([1]), steps=40, lr=0.1))
    assert torch.equal(got, torch.ones_like(got)) and start.abs().sum() == 0
    assert isinstance(PixelCanvas(start), Canvas)


def test_closing_frees_the_canvas():
    canvas = Numbers(1)
    gone = weakref.ref(canvas)
    steps = ascend(canvas, Wants(1.0), Noise([1]), steps=9, lr=0.1)
    progress = next(steps)
    del canvas
    assert gone() is not None
    steps.close()
    del progress, steps
    gc.collect()
    assert gone() is None


def test_a_story_shares_the_run_or_goes_round():
    judges = [Wants(float(number)) for number in range(3)]
    whole = Story(judges, steps=9)
    assert isinstance(whole, Judge)
    assert [whole.turn(step / 9) for step in range(9)] == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert [Story(judges, 7, every=1).turn(step / 7) for step in range(7)] == [0, 1, 2, 0, 1, 2, 0]
    assert [Story(judges, 10, every=3).turn(step / 10) for step in range(10)] == [0, 0, 0, 1, 1, 1, 2, 2, 2, 0]
    drain(ascend(PixelCanvas(torch.zeros(1, 3, 1, 1)), whole, Noise([1]), steps=9, lr=0.1))
    assert [len(judge.shares) for judge in judges] == [3, 3, 3] and judges[1].shares == [3 / 9, 4 / 9, 5 / 9]
    with pytest.raises(ValueError, match="one scene"):
        Story([], 3)


def test_prompts_are_parted_by_carets():
    assert split("a ^ b^c") == ["a", "b", "c"] and split("a^") == ["a"] and split("a") == ["a"]
    assert split(" ^ ") == [" ^ "]


def test_behind_a_mask_the_picture_stays_to_the_last_bit():
    picture = torch.rand(1, 3, 4, 4, generator=torch.Generator().manual_seed(0)) * 2 - 1
    mask = torch.zeros(1, 1, 4, 4)
    mask[..., 2:] = 1
    canvas = Held(PixelCanvas(torch.zeros(2, 3, 4, 4)), picture, mask)
    got = drain(ascend(canvas, Wants(0.7), Noise([1, 2]), steps=100, lr=0.05))
    assert torch.equal(got[..., :2], picture.expand(2, -1, -1, -1)[..., :2])
    assert torch.allclose(got[..., 2:], torch.tensor(0.7), atol=0.02)
    assert isinstance(canvas, Canvas) and canvas.terms() is None
