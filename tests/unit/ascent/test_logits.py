"""Likelihoods as paint."""

import torch
from torch.nn import functional as F

from mindseye.ascent.canvas import Canvas
from mindseye.ascent.logits import LogitCanvas, evened

CODES = torch.tensor([[0.0, 0.0, 0.0], [1.0, 0.0, 0.5], [0.0, 1.0, -2.0]])


class Mixing:
    """A decoder: shares of three colours, four pixels each."""

    def decode(self, shares):
        """Twice as large."""
        return F.interpolate(torch.einsum("bkhw,kc->bchw", shares, CODES), scale_factor=2.0, mode="nearest")


START = torch.tensor([0.1, 0.9, 0.4]).view(1, 3, 1, 1)


def test_one_code_is_decoded_and_the_gradient_is_the_mixtures():
    hard, soft = (
        LogitCanvas(Mixing(), START, temperature=0.5),
        LogitCanvas(Mixing(), START, temperature=0.5, hard=False),
    )
    assert isinstance(hard, Canvas)
    shown = hard.render()
    assert torch.equal(shown[0, :, 0, 0], CODES[1])
    shares = (START.flatten() / 0.5).softmax(0)
    mixed = soft.render()
    torch.testing.assert_close(mixed[0, :, 1, 1], shares @ CODES)
    pull = torch.tensor([1.0, -2.0, 0.5]).view(1, 3, 1, 1)
    for picture in (shown, mixed):
        (picture * pull).sum().backward()
    worth = 4 * CODES @ pull.flatten()
    wanted = shares * (worth - shares @ worth) / 0.5
    torch.testing.assert_close(soft.logits.grad.flatten(), wanted)
    torch.testing.assert_close(hard.logits.grad, soft.logits.grad)


def test_a_pixel_out_of_range_may_only_come_back():
    canvas = LogitCanvas(Mixing(), torch.tensor([0.0, 0.0, 9.0]).view(1, 3, 1, 1))
    assert canvas.final()[0, 2].min() == -1
    canvas.render()[0, 2].sum().backward()
    assert canvas.logits.grad.abs().max() == 0
    (-canvas.render()[0, 2].sum()).backward()
    assert canvas.logits.grad.abs().max() > 0


def test_a_part_of_the_grid_can_be_held():
    free = torch.tensor([[1.0, 0.0]]).view(1, 1, 1, 2)
    canvas = LogitCanvas(Mixing(), torch.zeros(2, 3, 1, 2), free=free)
    with torch.no_grad():
        canvas.logits.add_(0.25)
    canvas.settle()
    assert canvas.logits[:, 0, 0].tolist() == [[0.25, 0.0]] * 2


def test_the_pull_to_the_start_is_half_the_mean_square():
    canvas = LogitCanvas(Mixing(), torch.zeros(2, 3, 1, 1), pull=3.0)
    with torch.no_grad():
        canvas.logits[1].fill_(0.5)
    assert canvas.terms().tolist() == [0, 0.375]
    assert LogitCanvas(Mixing(), START).terms() is None


def test_evened_is_as_loud_as_noise_and_keeps_the_order():
    logits = torch.randn(2, 30, 3, 4, generator=torch.Generator().manual_seed(0)) * 40 + 7
    found = evened(logits)
    torch.testing.assert_close(found.mean(1), torch.zeros(2, 3, 4), atol=1e-5, rtol=0)
    torch.testing.assert_close(found.std(1, unbiased=False), torch.ones(2, 3, 4))
    assert torch.equal(found.argsort(1), logits.argsort(1))
