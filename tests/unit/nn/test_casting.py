"""Conversions are torch's, number for number, whatever way they go."""

import pytest
import torch

from mindseye.nn import casting
from mindseye.nn.casting import convert

DTYPES = (torch.float32, torch.float16, torch.bfloat16)


@pytest.mark.parametrize("stored", DTYPES)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(), (0, 3), (5,), (7, 9), (6, 5, 3, 3), (6, 5, 1, 1)])
def test_in_pieces_and_turned(monkeypatch, stored, dtype, shape):
    monkeypatch.setattr(casting, "CHUNK", 4)
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(stored)
    got = convert(x, dtype, torch.channels_last)
    assert got.dtype == dtype and torch.equal(got, x.to(dtype))
    if x.ndim == 4:
        assert got.is_contiguous(memory_format=torch.channels_last)


def test_nothing_is_done_where_nothing_changes():
    x = torch.randn(3, 4)
    assert convert(x, torch.float32, torch.channels_last) is x
    x = torch.randn(3, 4, 2, 2)
    assert convert(x, torch.float32) is x and convert(x, torch.float32, torch.channels_last) is not x
