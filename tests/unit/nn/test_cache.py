"""Keys and values that are kept."""

import pytest
import torch

from mindseye.nn import cache as cache_module
from mindseye.nn.attention import attend
from mindseye.nn.cache import KeyValues

G = torch.Generator().manual_seed(3)


def drawn(*shape):
    return torch.randn(shape, generator=G)


def test_attention_over_what_is_kept_is_attention_over_all_of_it():
    """Token by token, and a few at once, against one causal pass."""
    q, k, v = (drawn(2, 7, 12) for _ in range(3))
    whole = attend(q, k, v, heads=3, causal=True)
    cache = KeyValues(2, 3, 7, 4, like=q)
    steps, at = [], 0
    for size in (3, 1, 1, 2):
        cache.append(k[:, at : at + size], v[:, at : at + size])
        steps.append(cache.look(q[:, at : at + size], causal=True))
        at += size
        assert cache.filled == at
    assert torch.allclose(torch.cat(steps, 1), whole, atol=1e-6)


def test_memory_is_taken_once():
    cache = KeyValues(1, 2, 5, 4, like=torch.zeros(1))
    first = cache.append(drawn(1, 1, 8), drawn(1, 1, 8)).held
    for _ in range(4):
        last = cache.append(drawn(1, 1, 8), drawn(1, 1, 8)).held
    assert all(a.data_ptr() == b.data_ptr() for a, b in zip(first, last, strict=True))
    with pytest.raises(ValueError, match="room for 5"):
        cache.append(drawn(1, 1, 8), drawn(1, 1, 8))


def test_selected_rows_go_their_own_way():
    cache = KeyValues(2, 2, 5, 4, like=torch.zeros(1))
    cache.append(drawn(2, 3, 8), drawn(2, 3, 8))
    before = [each.clone() for each in cache.held]
    more = cache.select(torch.tensor([1, 1, 0]))
    assert all(torch.equal(a[[1, 1, 0]], b) for a, b in zip(before, more.held, strict=True))
    more.append(drawn(3, 1, 8), drawn(3, 1, 8))
    assert cache.filled == 3 and more.filled == 4
    assert all(torch.equal(a, b) for a, b in zip(before, cache.held, strict=True))


def test_what_cross_attention_looks_at_is_computed_once():
    q, k, v = drawn(2, 1, 8), drawn(2, 6, 8), drawn(2, 6, 8)
    mask = torch.tensor([[True] * 6, [True] * 4 + [False] * 2])
    expected = attend(q, k, v, heads=2, mask=mask)
    assert torch.allclose(KeyValues.of(k, v, heads=2).look(q, mask=mask), expected, atol=1e-6)


@pytest.fixture
def columns(monkeypatch):
    """Keys as columns in whatever dtype, so that only the order of the sums differs."""
    monkeypatch.setattr(cache_module, "_sums_are_faster", lambda like: True)


@pytest.mark.parametrize("sizes", [(1,) * 70, (31, 1, 1, 32, 1, 4), (40, 30), (70,)])
@torch.no_grad()
def test_sums_of_rows_are_attention(columns, sizes):
    """Across the borders of blocks; several places at once, and one by one."""
    q, k, v = (drawn(2, 70, 12) for _ in range(3))
    cache, steps, at = KeyValues(2, 3, 75, 4, like=q), [], 0
    for size in sizes:
        steps.append(cache.append(k[:, at : at + size], v[:, at : at + size]).look(q[:, at : at + size], causal=True))
        at += size
    assert torch.allclose(torch.cat(steps, 1), attend(q, k, v, heads=3, causal=True), atol=1e-6)
    whole = zip(cache.held, (k, v), strict=True)
    assert all(torch.equal(kept, given.unflatten(-1, (3, 4)).transpose(1, 2)) for kept, given in whole)


@pytest.mark.parametrize("kind", ["rows", "heads", "shared", "added"])
@torch.no_grad()
def test_sums_of_rows_under_a_mask(columns, kind):
    q, k, v = drawn(2, 1, 12), drawn(2, 37, 12), drawn(2, 37, 12)
    shape = {"rows": (2, 37), "heads": (2, 3, 1, 37), "shared": (1, 1, 1, 37), "added": (1, 3, 1, 37)}[kind]
    mask = drawn(*shape) if kind == "added" else drawn(*shape) > 0
    expected = attend(q, k, v, heads=3, mask=mask)
    assert torch.allclose(KeyValues.of(k, v, heads=3).look(q, mask=mask), expected, atol=1e-6)


@torch.no_grad()
def test_selected_columns_go_their_own_way(columns):
    q, k, v = drawn(3, 1, 12), drawn(2, 34, 12), drawn(2, 34, 12)
    rows = torch.tensor([1, 1, 0])
    cache = KeyValues(2, 3, 40, 4, like=q).append(k[:, :33], v[:, :33])
    more = cache.select(rows).append(k[rows, 33:], v[rows, 33:])
    assert (cache.filled, more.filled, more.rows) == (33, 34, 3)
    assert torch.allclose(more.look(q), attend(q, k[rows], v[rows], heads=3), atol=1e-6)
    assert torch.allclose(cache.look(q[:2]), attend(q[:2], k[:, :33], v[:, :33], heads=3), atol=1e-6)


@torch.no_grad()
def test_in_bfloat16_what_is_seen_is_as_near_as_that_dtype_is():
    """Scores of a spread of three, as trained heads have them, against attention in float32."""
    q, k, v = 3 * drawn(4, 1, 64), drawn(4, 100, 64), drawn(4, 100, 64)
    q, k, v = (each.bfloat16() for each in (q, k, v))
    seen = KeyValues.of(k, v, heads=4).look(q)
    assert seen.dtype == torch.bfloat16
    exact = attend(q.float(), k.float(), v.float(), heads=4)
    assert (seen.float() - exact).square().mean() < 1e-4 * exact.square().mean()
