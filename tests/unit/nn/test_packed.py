"""Weights laid out for a few rows: the same products, and nothing left behind."""

import pytest
import torch
from torch import nn

from mindseye.nn.layers import Linear
from mindseye.nn.packed import _dtypes, packed

DTYPES = [torch.float32, torch.bfloat16]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(1, 96), (4, 1, 96), (2, 77, 96), (3, 2, 5, 96)])
def test_the_same_products(dtype, bias, shape):
    if dtype not in _dtypes():
        pytest.skip("this processor lays out no such weights")
    torch.manual_seed(0)
    layer = Linear(96, 200, bias=bias).to(dtype).requires_grad_(False)
    x = torch.randn(shape).to(dtype)
    with torch.no_grad():
        expected, strided = layer(x), layer(x.transpose(0, -2))
        with packed(nn.Sequential(layer)):
            assert layer.packed is not None
            exact = {"rtol": 1.3e-6, "atol": 1e-5} if dtype == torch.float32 else {"rtol": 0.01, "atol": 2e-3}
            torch.testing.assert_close(layer(x), expected, **exact)
            torch.testing.assert_close(layer(x.transpose(0, -2)), strided, **exact)
    assert layer.packed is None


@pytest.mark.parametrize("dtype", DTYPES)
def test_curve_and_sum_of_one_piece_with_the_product(dtype):
    if dtype not in _dtypes():
        pytest.skip("this processor lays out no such weights")
    torch.manual_seed(0)
    layer = Linear(96, 200).to(dtype).requires_grad_(False)
    x, stream = torch.randn(4, 1, 96).to(dtype), torch.randn(4, 1, 200).to(dtype)
    strided = torch.randn(4, 1, 400).to(dtype)[..., ::2]
    before = stream.clone()
    with torch.no_grad():
        expected = [layer.activated(x, nn.functional.gelu), layer.onto(stream, x), layer.onto(strided, x)]
        torch.testing.assert_close(expected[0], nn.functional.gelu(layer(x)), rtol=0, atol=0)
        torch.testing.assert_close(expected[1], stream + layer(x), rtol=0, atol=0)
        with packed(layer):
            exact = {"rtol": 1.3e-6, "atol": 1e-5} if dtype == torch.float32 else {"rtol": 0.01, "atol": 1e-2}
            for made, plain in zip(
                [layer.activated(x, nn.functional.gelu), layer.onto(stream, x), layer.onto(strided, x)],
                expected,
                strict=True,
            ):
                torch.testing.assert_close(made, plain, **exact)
    torch.testing.assert_close(stream, before, rtol=0, atol=0)


def test_whoever_learns_or_is_of_another_dtype_multiplies_as_ever():
    torch.manual_seed(0)
    layer = Linear(8, 4)
    with packed(layer):
        layer(torch.randn(2, 8)).sum().backward()
        with torch.no_grad():
            assert layer(torch.randn(2, 8).bfloat16()).dtype == torch.bfloat16
    assert layer.weight.grad is not None


def test_the_inner_of_two_leaves_the_layout_to_the_outer():
    layer = Linear(8, 4).requires_grad_(False)
    with packed(layer):
        with packed(layer):
            pass
        assert layer.packed is not None or not _dtypes()
    assert layer.packed is None
