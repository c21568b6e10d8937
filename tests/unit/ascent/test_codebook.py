"""Codes as paint."""

import torch
from torch.nn import functional as F

from mindseye.ascent.canvas import Canvas
from mindseye.ascent.codebook import CodebookCanvas, random_codes
from mindseye.noise import Noise

CODES = torch.tensor([[0.0, 0.0, 0.0], [1.0, 0.0, 0.5], [0.0, 1.0, -2.0]])


class Doubling:
    """A decoder: every code's three numbers are four pixels' colour."""

    def decode(self, latents):
        """Twice as large."""
        return F.interpolate(latents, scale_factor=2.0, mode="nearest")


def test_what_is_decoded_are_codes_and_gradients_go_through():
    start = torch.tensor([0.9, 0.1, 0.4]).view(1, 3, 1, 1)
    canvas = CodebookCanvas(Doubling(), CODES, start)
    shown = canvas.render()
    assert torch.equal(shown[0, :, 0, 0], CODES[1])
    shown.sum().backward()
    assert canvas.z.grad.flatten().tolist() == [4, 4, 4]


def test_latents_stay_in_the_box_of_the_codes():
    canvas = CodebookCanvas(Doubling(), CODES, torch.full((1, 3, 2, 2), 5.0))
    canvas.settle()
    assert canvas.z[0, :, 0, 0].tolist() == [1, 1, 0.5]
    with torch.no_grad():
        canvas.z.fill_(-5)
    canvas.settle()
    assert canvas.z[0, :, 0, 0].tolist() == [0, 0, -2]


def test_a_pixel_out_of_range_may_only_come_back():
    canvas = CodebookCanvas(Doubling(), CODES, CODES[2].view(1, 3, 1, 1))
    assert canvas.final()[0, 2].min() == -1
    canvas.render()[0, 2].sum().backward()
    assert canvas.z.grad[0, 2].item() == 0
    canvas.z.grad = None
    (-canvas.render()[0, 2].sum()).backward()
    assert canvas.z.grad[0, 2].item() == -4


def test_a_part_of_the_grid_can_be_held():
    free = torch.tensor([[1.0, 0.0]]).view(1, 1, 1, 2)
    canvas = CodebookCanvas(Doubling(), CODES, torch.zeros(2, 3, 1, 2), free=free)
    with torch.no_grad():
        canvas.z.add_(0.25)
    canvas.settle()
    assert canvas.z[:, 0, 0].tolist() == [[0.25, 0.0]] * 2


def test_the_pull_to_the_start_is_half_the_mean_square():
    canvas = CodebookCanvas(Doubling(), CODES, torch.zeros(2, 3, 1, 1), pull=3.0)
    with torch.no_grad():
        canvas.z[1].fill_(0.5)
    assert canvas.terms().tolist() == [0, 0.375]
    assert CodebookCanvas(Doubling(), CODES, torch.zeros(1, 3, 1, 1)).terms() is None


def test_random_grids_belong_to_their_seed_and_use_all_codes():
    grids = random_codes(CODES, Noise([1, 2]), (8, 9))
    assert grids.shape == (2, 3, 8, 9)
    assert torch.equal(random_codes(CODES, Noise([2]), (8, 9))[0], grids[1])
    used = {tuple(each) for each in grids.movedim(1, -1).flatten(0, 2).tolist()}
    assert used == {tuple(each) for each in CODES.tolist()}
    assert isinstance(CodebookCanvas(Doubling(), CODES, grids), Canvas)
