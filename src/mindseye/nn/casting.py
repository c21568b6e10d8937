"""Weights into another dtype and another order in memory, in the way that processors are fast at.

torch converts half precisions into each other one number at a time, but from and to float32 by the vector; and it turns
two-byte filters to ``channels_last`` one number at a time, which numpy does twice as fast. So a conversion goes through
float32, in pieces that stay in a core's own cache, and the turning is numpy's where numbers are two bytes wide.
"""

import numpy as np
import torch
from jaxtyping import Shaped
from torch import Tensor

__all__ = ["CHUNK", "cast", "convert", "place"]

CHUNK = 1 << 17
"""Numbers converted at a time: few enough to stay in a core's own cache between the passes over them."""


def cast(piece: Shaped[Tensor, "*S"], dtype: torch.dtype) -> Shaped[Tensor, "*S"]:
    """The numbers in another dtype, rounded once; itself where it has that dtype."""
    if piece.dtype == dtype:
        return piece
    if piece.is_floating_point() and piece.itemsize < 4:
        piece = piece.float()
    return piece.to(dtype)


def place(target: Shaped[Tensor, "*S"], piece: Shaped[Tensor, "*S"]) -> None:
    """Copy between tensors of one dtype, whatever order their numbers lie in."""
    if target.itemsize == 2 and target.device.type == "cpu" and not target.is_contiguous():
        np.copyto(target.view(torch.int16).numpy(), piece.view(torch.int16).numpy())
    else:
        target.copy_(piece)


def convert(
    tensor: Shaped[Tensor, "*S"], dtype: torch.dtype, memory_format: torch.memory_format = torch.contiguous_format
) -> Shaped[Tensor, "*S"]:
    """The tensor in a dtype and, where it has four axes, a memory format; itself where nothing changes."""
    dense = memory_format if tensor.ndim == 4 else torch.contiguous_format
    if tensor.dtype == dtype and tensor.is_contiguous(memory_format=dense):
        return tensor
    made = torch.empty(tensor.shape, dtype=dtype, device=tensor.device, memory_format=dense)
    if tensor.device.type != "cpu" or dtype == torch.float32 or not tensor.ndim:
        return made.copy_(tensor)  # one pass, on all threads
    rows = max(1, 8 * CHUNK * len(tensor) // max(1, tensor.numel()))
    for target, piece in zip(made.split(rows), tensor.split(rows), strict=True):
        place(target, cast(piece, dtype))
    return made
