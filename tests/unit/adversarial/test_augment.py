"""Differentiable augmentation: what each policy does to pixels whose place is known."""

import pytest
import torch

from mindseye.adversarial.augment import POLICIES, Changes, augment, draw


def drawn(policies, count=64, side=16, seed=0):
    """Changes for a batch."""
    return draw(policies, (count, 3, side, side), torch.Generator().manual_seed(seed))


def test_colours():
    """Brightness is added; grey has no saturation to change; contrast turns about the mean."""
    pixels = torch.rand(2, 3, 4, 4)
    assert torch.allclose(Changes(colour=torch.tensor([[0.3, 1, 1]] * 2))(pixels), pixels + 0.3)
    grey = Changes(colour=torch.tensor([[0.0, 0, 1]] * 2))(pixels)
    assert torch.allclose(grey, pixels.mean(1, keepdim=True).expand_as(pixels), atol=1e-6)
    flat = Changes(colour=torch.tensor([[0.0, 1, 0]] * 2))(pixels)
    assert torch.allclose(flat, pixels.mean((1, 2, 3), keepdim=True).expand_as(pixels), atol=1e-6)


def test_moving():
    """Down and right by what was drawn, grey coming in; never further than an eighth of the side, and all of that."""
    pixels = torch.rand(2, 3, 6, 6) + 0.5
    moved = Changes(shift=torch.tensor([[1, -2], [0, 0]]))(pixels)
    assert torch.equal(moved[0, :, 1:, :4], pixels[0, :, :-1, 2:])
    assert not moved[0, :, 0].any() and not moved[0, :, :, 4:].any()
    assert torch.equal(moved[1], pixels[1])
    shifts = drawn(("translation",), count=400).shift
    assert set(shifts.flatten().tolist()) == {-2, -1, 0, 1, 2}


def test_holes():
    """A quarter of the picture where the hole is inside; less at the edge; elsewhere the picture."""
    pixels = torch.ones(2, 3, 8, 8)
    cut = Changes(hole=torch.tensor([[4, 4], [0, 0]]))(pixels)
    assert float((cut[0] == 0).float().mean()) == 0.25 and not cut[0, :, 2:6, 2:6].any()
    assert float((cut[1] == 0).float().sum()) == 3 * 4


def test_gradients_pass():
    """What is moved back takes its gradient along."""
    pixels = torch.rand(3, 3, 16, 16, requires_grad=True)
    augment(pixels, POLICIES, torch.Generator().manual_seed(1)).square().sum().backward()
    assert pixels.grad.abs().amax((1, 2, 3)).min() > 0


def test_draws_can_be_used_again_and_do_not_hear_each_other():
    """The same generator, the same changes; one policy more or less leaves the others' numbers."""
    whole, part = drawn(POLICIES), drawn(("cutout",))
    assert torch.equal(whole.hole, part.hole) and part.shift is None and part.colour is None
    pixels = torch.rand(64, 3, 16, 16)
    assert torch.equal(whole(pixels), drawn(POLICIES)(pixels))
    assert augment(pixels, (), torch.Generator()) is pixels


@pytest.mark.parametrize("policy", POLICIES)
def test_each_policy_changes_most_pictures(policy):
    """And no two of them alike."""
    pixels = torch.rand(1, 3, 16, 16).expand(64, -1, -1, -1)
    changed = drawn((policy,))(pixels)
    assert ((changed - pixels).abs().amax((1, 2, 3)) > 1e-3).float().mean() > 0.9
