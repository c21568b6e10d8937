"""Keys and values that are kept."""

import pytest
import torch

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
        held = cache.append(k[:, at : at + size], v[:, at : at + size])
        steps.append(attend(q[:, at : at + size], *held, heads=3, causal=True))
        at += size
        assert cache.filled == at
    assert torch.allclose(torch.cat(steps, 1), whole, atol=1e-6)


def test_memory_is_taken_once():
    cache = KeyValues(1, 2, 5, 4, like=torch.zeros(1))
    first = cache.append(drawn(1, 1, 8), drawn(1, 1, 8))
    for _ in range(4):
        last = cache.append(drawn(1, 1, 8), drawn(1, 1, 8))
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
    assert torch.allclose(attend(q, *KeyValues.of(k, v, heads=2).held, heads=2, mask=mask), expected, atol=1e-6)
