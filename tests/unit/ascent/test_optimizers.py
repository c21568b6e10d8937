"""AdamP and DiffGrad against their papers' formulas, written out a picture at a time."""

import math

import pytest
import torch

from mindseye.ascent.optimizers import OPTIMIZERS, choose
from mindseye.errors import UnknownName


def draws(count, *shape, seed=0):
    """Gradients."""
    return torch.randn(count, *shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def run(name, start, grads, lr=0.1):
    """A parameter after it was given these gradients."""
    param = start.clone().requires_grad_()
    stepper = choose(name, [param], lr)
    for grad in grads:
        param.grad = grad.clone()
        stepper.step()
    return param.detach()


def adam_moments(grads, count):
    """Adam's two corrected averages after ``count`` gradients."""
    mean, square = torch.zeros_like(grads[0]), torch.zeros_like(grads[0])
    for grad in grads[:count]:
        mean = 0.9 * mean + 0.1 * grad
        square = 0.999 * square + 0.001 * grad**2
    return mean / (1 - 0.9**count), square / (1 - 0.999**count)


def cosine(a, b):
    """Of two flat vectors."""
    return float((a * b).sum() / (a.norm() * b.norm()))


def adamp(start, grads, lr):
    """One picture's matrix, by the paper's algorithm 2."""
    weight = start.clone()
    for count in range(1, len(grads) + 1):
        grad = grads[count - 1]
        mean, square = adam_moments(grads, count)
        step = mean / (square.sqrt() + 1e-8)
        by_row = max(abs(cosine(grad[row], weight[row])) for row in range(len(weight)))
        if by_row < 0.1 / math.sqrt(weight.shape[1]):
            for row in range(len(weight)):
                unit = weight[row] / weight[row].norm()
                step[row] -= (step[row] @ unit) * unit
        elif abs(cosine(grad.flatten(), weight.flatten())) < 0.1 / math.sqrt(weight.numel()):
            unit = weight / weight.norm()
            step = step - (step * unit).sum() * unit
        weight = weight - lr * step
    return weight


def at_right_angles(weight, grad, whole):
    """``grad`` without what lies along ``weight``: of each row, or of all together."""
    if whole:
        return grad - (grad * weight).sum() / (weight * weight).sum() * weight
    return grad - (grad * weight).sum(1, keepdim=True) / (weight * weight).sum(1, keepdim=True) * weight


def test_adamp_is_the_papers_for_each_picture_alone():
    weights = draws(3, 4, 5, seed=1)
    raw = draws(3, 4, 5, seed=2)
    # One picture whose rows are free, one that is free only as a whole, one that is not.
    grads = torch.stack(
        [at_right_angles(weights[0], raw[0], False), at_right_angles(weights[1], raw[1], True), weights[2] + raw[2]]
    )
    got = run("adamp", weights, [grads])
    for picture in range(3):
        assert torch.allclose(got[picture], adamp(weights[picture], [grads[picture]], 0.1), atol=1e-12)
    plain = run("adam", weights, [grads])
    assert not torch.allclose(got[0], plain[0]) and not torch.allclose(got[1], plain[1])
    assert torch.allclose(got[2], plain[2])
    # Of a free picture, lengths are kept to first order.
    assert torch.allclose(((got[0] - weights[0]) * weights[0]).sum(1), torch.zeros(4, dtype=torch.float64), atol=1e-8)


def test_adamp_over_many_steps():
    weight, grads = draws(1, 6, 7, seed=3), draws(8, 6, 7, seed=4)
    got = run("adamp", weight, [grad[None] for grad in grads])
    assert torch.allclose(got[0], adamp(weight[0], list(grads), 0.1), atol=1e-10)


def test_diffgrad_is_the_papers():
    start, grads = draws(2, 3, seed=5), draws(6, 2, 3, seed=6)
    want, before = start.clone(), torch.zeros_like(start)
    for count in range(1, 7):
        mean, square = adam_moments(grads, count)
        friction = 1 / (1 + torch.exp(-(grads[count - 1] - before).abs()))
        want = want - 0.1 * friction * mean / (square.sqrt() + 1e-8)
        before = grads[count - 1]
    assert torch.allclose(run("diffgrad", start, list(grads)), want, atol=1e-12)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_picture_is_the_same_alone_and_in_company(name):
    start, grads = draws(3, 4, 5, seed=7), draws(5, 3, 4, 5, seed=8)
    together = run(name, start, list(grads))
    alone = run(name, start[1:2], [grad[1:2] for grad in grads])
    assert torch.allclose(together[1], alone[0], atol=1e-12)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_all_go_downhill(name):
    target = draws(1, 4, 4, seed=9)[0][None]
    param = torch.zeros_like(target).requires_grad_()
    stepper = choose(name, [param], 0.05)
    for _ in range(200):
        stepper.zero_grad()
        (param - target).square().sum().backward()
        stepper.step()
    assert (param - target).square().mean() < 0.1 * target.square().mean()


def test_the_nearest_name_is_told():
    with pytest.raises(UnknownName, match="adams") as raised:
        choose("adams", [torch.zeros(1, requires_grad=True)], 0.1)
    assert raised.value.nearest in ("adam", "adamp")
