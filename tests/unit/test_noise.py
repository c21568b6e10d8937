import pytest
import torch

from mindseye.noise import Noise


def test_a_row_depends_on_its_own_seed_only():
    alone, batch = Noise([7]), Noise([3, 7, 2**63 - 1])
    for _ in range(3):
        assert torch.equal(alone.normal(4, 5)[0], batch.normal(4, 5)[1])
        assert torch.equal(alone.uniform(2)[0], batch.uniform(2)[1])


def test_seeds_differ_and_draws_go_on():
    noise = Noise([0, 1])
    first, second = noise.normal(8), noise.normal(8)
    assert not torch.equal(first[0], first[1])
    assert not torch.equal(first, second)


def test_the_global_generator_is_left_alone():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    Noise([5]).normal(10)
    assert torch.equal(torch.get_rng_state(), before)


def test_normal_like_takes_shape_and_dtype_but_not_precision():
    x = torch.zeros(2, 3, 4, dtype=torch.float64)
    drawn = Noise([1, 2]).normal_like(x)
    assert drawn.dtype == torch.float64
    assert torch.equal(drawn, Noise([1, 2]).normal(3, 4).double())


def test_normal_like_wants_a_row_a_seed():
    with pytest.raises(ValueError, match="3 rows cannot share 2 seeds"):
        Noise([1, 2]).normal_like(torch.zeros(3, 1))


def test_numbers_are_what_they_are_called():
    noise = Noise([11])
    normal, uniform = noise.normal(100_000), noise.uniform(100_000)
    assert normal.dtype == torch.float32
    assert abs(float(normal.mean())) < 0.02
    assert abs(float(normal.std()) - 1) < 0.02
    assert 0 <= float(uniform.min()) < 0.001
    assert 0.999 < float(uniform.max()) < 1


def test_what_seed_zero_draws_never_changes():
    # A stored seed is a promise: these are what torch has always drawn for it.
    torch.testing.assert_close(Noise([0]).normal(3), torch.tensor([[1.5410, -0.2934, -2.1788]]), rtol=0, atol=1e-4)
