"""Weights laid out for products of a few rows, for as long as a picture is written.

Writing token by token, every weight is read for a handful of rows, and reading is all that takes time. torch multiplies
so few rows by weights as they lie at a third of the speed at which memory could be read; oneDNN has a layout of its
own, in which it is two thirds. Laying weights out costs as much as some ten steps and as much memory again, so it is
done for a run and undone after it. The products are the same sums, to rounding.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache

import torch
from torch import nn

from mindseye.nn.layers import Linear, settle

__all__ = ["packed"]

ROWS = 8
"""How many rows the layout is made for; it serves others."""


@contextmanager
def packed(network: nn.Module) -> Iterator[None]:
    """Within, linear layers on the CPU multiply by weights that were laid out anew; nothing else changes.

    Weights that change in the meantime are not seen.
    """
    settle(network)
    mine = [layer for layer in network.modules() if isinstance(layer, Linear) and layer.packed is None and _fits(layer)]
    try:
        with torch.no_grad():
            for layer in mine:
                layer.packed = torch.ops.mkldnn._reorder_linear_weight(layer.weight.detach(), ROWS)
        yield
    finally:
        for layer in mine:
            layer.packed = None


def _fits(layer: Linear) -> bool:
    weight = layer.weight
    return weight.device.type == "cpu" and weight.is_contiguous() and weight.dtype in _dtypes()


@lru_cache(maxsize=1)
def _dtypes() -> tuple[torch.dtype, ...]:
    """What this torch, on this processor, lays out; the operators are those that its compiler uses."""
    operators = torch.ops.mkldnn
    if not torch.backends.mkldnn.is_available() or not hasattr(operators, "_reorder_linear_weight"):
        return ()
    narrow = operators._is_mkldnn_bf16_supported()
    return (torch.float32, torch.bfloat16) if narrow else (torch.float32,)
