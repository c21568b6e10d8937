import pytest
import torch

from mindseye.noise import Noise, slerp


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


def test_again_is_from_the_beginning_whatever_was_drawn():
    for noise in (Noise([3, 4]), Noise([3, 4]).varied([5, 6], 0.3, drawn_at=(2, 3))):
        first, second = noise.normal(2, 4, 4), noise.normal(5)
        again = noise.again()
        assert torch.equal(again.normal(2, 4, 4), first) and torch.equal(again.normal(5), second)


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


def column_arc(a, b, t):
    """The arc between columns, from its definition: in the plane of both, at t times their angle."""
    result = torch.empty_like(a)
    for channel in range(a.shape[0]):
        for column in range(a.shape[2]):
            p, q = a[channel, :, column].double(), b[channel, :, column].double()
            angle = torch.acos(p @ q / p.norm() / q.norm())
            result[channel, :, column] = (torch.sin((1 - t) * angle) * p + torch.sin(t * angle) * q) / torch.sin(angle)
    return result


def test_a_variation_is_on_the_arc_between_two_seeds_column_by_column():
    varied = Noise([7, 3], variations=[8, 4], strength=0.3).normal(2, 6, 5)
    ends = Noise([7, 8]).normal(2, 6, 5)
    torch.testing.assert_close(varied[0], column_arc(ends[0], ends[1], 0.3), rtol=1e-5, atol=1e-5)
    alone = Noise([7], variations=[8], strength=0.3)
    assert torch.equal(alone.normal(2, 6, 5)[0], varied[0])
    # Neither fainter nor stronger than noise.
    assert 0.9 < float(Noise([1], variations=[2], strength=0.5).normal(4, 64, 64).std()) < 1.1


def test_its_ends_are_the_two_seeds():
    for strength, seed in ((0.0, 7), (1.0, 8)):
        drawn = Noise([7], variations=[8], strength=strength).normal(3, 4, 5)
        torch.testing.assert_close(drawn, Noise([seed]).normal(3, 4, 5))
    same = Noise([7], variations=[7], strength=0.5).normal(3, 4, 5)
    torch.testing.assert_close(same, Noise([7]).normal(3, 4, 5))


def test_only_the_first_draw_is_varied():
    plain, varied = Noise([7]), Noise([7]).varied([8], 0.5)
    assert not torch.equal(plain.normal(2, 4, 4), varied.normal(2, 4, 4))
    for _ in range(2):
        assert torch.equal(plain.normal(2, 4, 4), varied.normal(2, 4, 4))
        assert torch.equal(plain.uniform(3), varied.uniform(3))


def test_noise_of_another_size_lies_in_the_middle():
    small, fresh = Noise([5]).normal(2, 3, 4)[0], Noise([5]).normal(2, 7, 8)[0]
    larger = Noise([5], drawn_at=(3, 4)).normal(2, 7, 8)[0]
    assert torch.equal(larger[:, 2:5, 2:6], small)
    assert torch.equal(larger[:, :2], fresh[:, :2]) and torch.equal(larger[:, :, 6:], fresh[:, :, 6:])
    smaller = Noise([5], drawn_at=(7, 8)).normal(2, 3, 4)[0]
    assert torch.equal(smaller, fresh[:, 2:5, 2:6])
    varied = Noise([5], variations=[6], strength=1, drawn_at=(3, 4)).normal(2, 7, 8)[0]
    torch.testing.assert_close(varied[:, 2:5, 2:6], Noise([6]).normal(2, 3, 4)[0])
    # What is drawn later is of the size that is asked for, and the seed's own.
    noise, own = Noise([5], drawn_at=(3, 4)), Noise([5])
    noise.normal(2, 7, 8), own.normal(2, 7, 8)
    assert torch.equal(noise.normal(2, 7, 8), own.normal(2, 7, 8))


def test_an_arc_keeps_its_length_and_a_short_one_is_straight():
    a, b = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])
    torch.testing.assert_close(slerp(a, b, 1 / 3), torch.tensor([[3**0.5 / 2, 0.5]]))
    torch.testing.assert_close(slerp(a, 2 * a, 0.25), 1.25 * a)
    torch.testing.assert_close(slerp(a, 0 * a, 0.25), 0.75 * a)
    rows = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    torch.testing.assert_close(slerp(rows, rows.flip(0), 0.5, axis=1), torch.full((2, 2), 0.5**0.5))


def test_variations_say_what_is_wrong_with_them():
    with pytest.raises(ValueError, match="1 variation seeds for 2 seeds"):
        Noise([1, 2], variations=[3], strength=0.5)
    with pytest.raises(ValueError, match="within 0 and 1, not 1.5"):
        Noise([1], variations=[3], strength=1.5)
