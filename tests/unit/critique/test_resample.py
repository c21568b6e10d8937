"""Boxes to cuts: what must hold whatever the kernel (what each computes exactly is a parity test)."""

import pytest
import torch

from mindseye.critique.resample import KERNELS, take

LINEAR = [kernel for kernel in KERNELS if kernel != "pooled"]


def picture(height=24, width=30, rows=2):
    return torch.rand(rows, 3, height, width, generator=torch.Generator().manual_seed(0)) * 1.6 - 0.8


def box(*values, rows=2, count=1):
    return torch.tensor(values).float().expand(rows, count, 4)


@pytest.mark.parametrize("kernel", LINEAR)
@pytest.mark.parametrize("size", [6, 8, 17])
def test_a_plain_colour_stays_itself_inside(kernel, size):
    colour = torch.tensor([0.5, -0.25, 1.0])[None, :, None, None]
    found = take(colour.expand(2, 3, 24, 30).contiguous(), box(3, 2, 20, 20), size, kernel)
    # The cubic's edge mixes with the black around the crop.
    inner = found[..., 3:-3, 3:-3] if kernel == "cubic" else found
    torch.testing.assert_close(inner, colour[:, None].expand_as(inner).clone(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kernel", LINEAR)
def test_a_box_of_the_critics_size_is_its_pixels(kernel):
    x = picture()
    torch.testing.assert_close(take(x, box(5, 3, 12, 12), 12, kernel)[:, 0], x[:, :, 3:15, 5:17], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kernel", KERNELS)
def test_flip(kernel):
    x = picture(24, 24)
    found = take(x, box(0, 0, 24, 24, count=2), 9, kernel, torch.tensor([[False, True]] * 2))
    torch.testing.assert_close(found[:, 1], found[:, 0].flip(-1))
    assert not torch.allclose(found[:, 1], found[:, 0])


@pytest.mark.parametrize("kernel", LINEAR)
def test_each_picture_has_its_own_boxes(kernel):
    x = picture()
    boxes = torch.tensor([[[0.0, 0, 10, 10], [4, 4, 16, 16]], [[7, 2, 20, 20], [1, 1, 9, 9]]])
    every = take(x, boxes, 8, kernel)
    for row in range(2):
        for place in range(2):
            alone = take(x[row : row + 1], boxes[row : row + 1, place : place + 1], 8, kernel)
            torch.testing.assert_close(every[row, place], alone[0, 0], rtol=1e-5, atol=1e-5)


def test_outside_the_picture_is_black():
    x = torch.ones(1, 3, 8, 8)
    found = take(x, box(-8, 0, 16, 8, rows=1), 16, "nearest")[0, 0]
    assert (found[..., :8] == -1).all() and (found[..., 8:] == 1).all()
    cubic = take(x, box(-8, -8, 24, 24, rows=1), 24, "cubic")[0, 0]
    expected = -torch.ones(3, 24, 24)
    expected[:, 8:16, 8:16] = 1
    torch.testing.assert_close(cubic, expected)


def test_pooled_cuts_show_the_whole():
    with pytest.raises(ValueError, match="whole picture"):
        take(picture(), box(0, 0, 8, 8), 4, "pooled")


def test_a_cut_larger_than_the_picture():
    assert take(picture(5, 4), box(0, 0, 4, 4), 32, "lanczos-bicubic").isfinite().all()


def test_a_gradient_leads_back_into_the_range():
    x = torch.full((1, 3, 8, 8), 2.0, requires_grad=True)
    cut = take(x, box(0, 0, 8, 8, rows=1), 8, "lanczos-bicubic")
    assert (cut == 1).all()
    (up,) = torch.autograd.grad(cut.sum(), x, retain_graph=True)  # descent lowers: back
    (down,) = torch.autograd.grad(-cut.sum(), x)  # descent raises: further out
    assert (up > 0).all() and (down == 0).all()
