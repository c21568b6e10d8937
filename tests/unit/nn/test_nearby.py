import itertools

import pytest
import torch

from mindseye.nn.nearby import Neighbourhood, near


def noise(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def brute(grid, reach):
    """Who sees what, from the words: the beginning, the code just written, and what was written within reach."""
    places = list(itertools.product(*map(range, grid)))
    mask = torch.zeros(len(places), len(places), dtype=torch.bool)
    for n, place in enumerate(places):
        for slot in range(n + 1):
            token = places[slot - 1]
            close = all(abs(a - b) <= r for a, b, r in zip(place, token, reach, strict=True))
            mask[n, slot] = slot in (0, n) or close
    return mask


GRIDS = [((1, 4, 5), (0, 1, 2)), ((3, 3, 2), (1, 1, 0)), ((2, 1, 6), (0, 0, 1)), ((1, 1, 1), (0, 0, 0))]


@pytest.mark.parametrize(("grid", "reach"), GRIDS)
def test_both_forms_are_dense_attention_under_a_mask(grid, reach):
    hood, mask = Neighbourhood(grid, reach), brute(grid, reach)
    count = len(mask)
    q, k, v = (noise(seed, 2, count, 6).double() for seed in range(3))
    heads = [each.view(2, count, 3, 2) for each in (q, k, v)]
    scores = torch.einsum("bnhd,bmhd->bhnm", *heads[:2]) / 2**0.5
    shares = scores.masked_fill(~mask, -torch.inf).softmax(-1)
    wanted = torch.einsum("bhnm,bmhd->bnhd", shares, heads[2]).flatten(2)
    for sparse in (True, False, None):
        torch.testing.assert_close(hood.looks(3, sparse=sparse)(q, k, v), wanted, atol=1e-12, rtol=1e-12)
    for place in range(count):
        assert hood.sees(place).tolist() == mask[place].nonzero()[:, 0].tolist()


@pytest.mark.parametrize("sparse", [True, False])
def test_a_beginning_sees_what_it_would_see_in_the_whole(sparse):
    look = Neighbourhood((2, 3, 3), (1, 1, 1)).looks(1, sparse=sparse)
    q, k, v = (noise(seed, 1, 18, 4) for seed in range(3))
    torch.testing.assert_close(look(q[:, :7], k[:, :7], v[:, :7]), look(q, k, v)[:, :7])


def test_cost_grows_with_the_grid_not_with_its_square():
    sizes = [Neighbourhood((1, side, side), (0, 1, 1)).table.shape for side in (4, 8, 16)]
    assert sizes == [(16, 5), (64, 5), (256, 5)]  # the beginning, and of the 3 x 3 places the four that are written


def test_no_grid_is_refused():
    with pytest.raises(ValueError, match="is none"):
        near((0, 3, 3), (1, 1, 1))
    with pytest.raises(ValueError, match="is none"):
        near((1, 3, 3), (1, -1, 1))
