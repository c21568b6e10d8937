"""Fréchet distance against closed forms and SciPy; precision and recall on sets whose answer is plain."""

import numpy as np
import pytest
import torch

from mindseye.evaluation.fid import frechet, frechet_gaussians, precision_recall


def random_covariance(d, rng, rank=None):
    a = rng.normal(size=(d, rank or d))
    return torch.from_numpy(a @ a.T / d)


def test_gaussians_with_commuting_covariances_have_a_closed_form():
    rng = np.random.default_rng(0)
    turn = torch.from_numpy(np.linalg.qr(rng.normal(size=(6, 6)))[0])
    u, v = torch.from_numpy(rng.uniform(0.1, 4, (2, 6)))
    m, n = torch.from_numpy(rng.normal(size=(2, 6)))
    expected = ((m - n) ** 2).sum() + ((u.sqrt() - v.sqrt()) ** 2).sum()
    got = frechet_gaussians(m, (turn * u) @ turn.T, n, (turn * v) @ turn.T)
    assert got == pytest.approx(expected.item(), rel=1e-10)


@pytest.mark.parametrize("rank", [None, 5])
def test_trace_of_the_root_equals_scipys(rank):
    linalg = pytest.importorskip("scipy.linalg")
    rng = np.random.default_rng(1)
    a, b = random_covariance(24, rng, rank), random_covariance(24, rng)
    zero = torch.zeros(24, dtype=torch.float64)
    root = linalg.sqrtm(a.numpy() @ b.numpy())
    expected = a.trace().item() + b.trace().item() - 2 * np.trace(root).real
    # SciPy's own root of a singular product is good to fewer digits than ours.
    assert frechet_gaussians(zero, a, zero, b) == pytest.approx(expected, rel=1e-9 if rank is None else 1e-5)


def test_of_features_it_is_zero_for_the_same_and_the_shift_for_shifted_ones():
    x = torch.from_numpy(np.random.default_rng(2).normal(size=(40, 64))).float()  # fewer pictures than features
    assert frechet(x, x) == pytest.approx(0, abs=1e-6)
    assert frechet(x, x + 2) == pytest.approx(4 * 64, rel=1e-5)
    assert frechet(x, x * 3) == pytest.approx(
        (x.mean(0) * 2).square().sum().item() + 4 * x.var(0).sum().item(), rel=1e-4
    )


def test_of_features_it_is_symmetric_and_uses_the_unbiased_covariance():
    rng = np.random.default_rng(3)
    a, b = torch.from_numpy(rng.normal(size=(50, 8))), torch.from_numpy(rng.normal(1, 2, (70, 8)))
    assert frechet(a, b) == pytest.approx(frechet(b, a), rel=1e-9)
    covariances = [torch.from_numpy(np.cov(x.numpy().T)) for x in (a, b)]
    assert frechet(a, b) == pytest.approx(frechet_gaussians(a.mean(0), covariances[0], b.mean(0), covariances[1]))


def test_one_picture_has_no_covariance():
    with pytest.raises(ValueError, match="at least 2"):
        frechet(torch.zeros(1, 3), torch.zeros(5, 3))


def test_precision_and_recall_of_a_model_that_knows_one_of_two_clusters():
    rng = np.random.default_rng(4)
    a, b = (torch.from_numpy(rng.normal(centre, 0.1, (300, 2))) for centre in (0, 10))
    made = torch.from_numpy(rng.normal(0, 0.1, (600, 2)))
    got = precision_recall(torch.cat([a, b]), made)
    assert got.precision > 0.95
    assert got.recall == pytest.approx(0.5, abs=0.03)
    far = precision_recall(a, b)
    assert far == (0, 0)


def test_balls_reach_to_the_kth_other_neighbour():
    real = torch.tensor([[0.0], [1.0], [2.0], [3.0], [4.0]])
    # With k = 2, the ball of 4.0 reaches to 2.0 and so to 6.0; the one of 0.0 to 2.0 and so to -2.0.
    inside = torch.tensor([[5.9], [-1.9], [2.5]])
    outside = torch.tensor([[6.1], [-2.1], [9.0]])
    assert precision_recall(real, inside, k=2).precision == 1
    assert precision_recall(real, outside, k=2).precision == 0
    with pytest.raises(ValueError, match="more than 3"):
        precision_recall(real, inside)
