"""SSIM against the paper's formula, window by window, in numpy."""

import numpy as np
import pytest
import torch

from mindseye.evaluation.ssim import ssim


def picture(seed, height=17, width=14):
    smooth = torch.nn.functional.interpolate(
        torch.rand(1, 3, 4, 4, generator=torch.Generator().manual_seed(seed)), (height, width), mode="bilinear"
    )
    return smooth * 2 - 1


def window_by_window(a, b):
    """Wang et al. 2004, equations 13 and 17, on pixels in [0, 255]: a loop over places and channels."""
    a, b = ((each[0].double().numpy() + 1) * 127.5 for each in (a, b))
    at = np.arange(11) - 5
    weight = np.exp(-(at[:, None] ** 2 + at[None] ** 2) / (2 * 1.5**2))
    weight /= weight.sum()
    one, two = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    found = []
    for x, y in zip(a, b, strict=True):
        for row in range(x.shape[0] - 10):
            for column in range(x.shape[1] - 10):
                u, v = (each[row : row + 11, column : column + 11] for each in (x, y))
                mu, nu = (weight * u).sum(), (weight * v).sum()
                var_u, var_v = (weight * (u - mu) ** 2).sum(), (weight * (v - nu) ** 2).sum()
                both = (weight * (u - mu) * (v - nu)).sum()
                found.append((2 * mu * nu + one) * (2 * both + two) / ((mu**2 + nu**2 + one) * (var_u + var_v + two)))
    return np.mean(found)


@pytest.mark.parametrize("seed", range(3))
def test_it_is_the_papers(seed):
    a, b = picture(seed), (picture(seed) + 0.5 * picture(seed + 10)).clamp(-1, 1)
    assert ssim(a, b).item() == pytest.approx(window_by_window(a, b), abs=1e-6)
    assert ssim(a, b).item() == pytest.approx(ssim(b, a).item(), abs=1e-6)


def test_the_same_is_one_and_flat_greys_compare_by_light_alone():
    a = picture(1)
    assert ssim(a, a).item() == pytest.approx(1)
    dark, light = torch.full_like(a, -0.5), torch.full_like(a, 0.5)
    c = (0.01 * 255) ** 2
    x, y = 0.25 * 255, 0.75 * 255
    assert ssim(dark, light).item() == pytest.approx((2 * x * y + c) / (x * x + y * y + c), abs=1e-6)


def test_the_negative_of_a_pattern_is_below_nothing():
    stripes = torch.tensor([0.5, -0.5]).repeat(1, 3, 16, 8)
    assert ssim(stripes, -stripes).item() < -0.9


def test_each_pair_of_a_batch_is_its_own():
    a, b = torch.cat([picture(1), picture(2)]), torch.cat([picture(3), picture(2)])
    both = ssim(a, b)
    assert both.shape == (2,) and both[1].item() == pytest.approx(1)
    assert both[0].item() == pytest.approx(ssim(a[:1], b[:1]).item())


def test_pictures_that_cannot_be_compared():
    with pytest.raises(ValueError, match="11 pixels a side"):
        ssim(picture(1, 10, 14), picture(2, 10, 14))
