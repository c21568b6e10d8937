"""torch's linear and convolution layers, with two freedoms on top; the networks are built from these.

Names, shapes and starting values of their parameters are torch's, and so is what they compute.

- A convolution is run by the kernel that suits its shape (`mindseye.nn.convolution`).
- Weights may be stored in a narrower dtype than the layer computes in: a layer works in the dtype of what comes in and
  widens its own weight for the time of the call. A half-precision file then costs half-precision memory and loses
  nothing, on processors that compute fastest in float32. The cost is one pass over the weights a call.
- Or they are widened once, when the layer is first called (`Later`): what is never called, such as the encoder of an
  autoencoder that only decodes, never leaves its file. Whatever is done to a layer as a whole (`.to()`, a copy, a
  pickle) is done to what it would have become.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from mindseye.nn.casting import convert
from mindseye.nn.convolution import convolve

__all__ = ["Conv2d", "Later", "Linear", "added", "settle", "silu"]


@final
@dataclass(frozen=True, kw_only=True)
class Later:
    """What a layer's parameters become when it is first called.

    Attributes:
        dtype: The dtype it computes in.
        memory_format: Of filters.
        release: Told each tensor that is no longer needed.
    """

    dtype: torch.dtype
    memory_format: torch.memory_format
    release: Callable[[Tensor], None]


def settle(network: nn.Module) -> None:
    """Do at once what its layers would do when they are first called; for whoever works on their parameters."""
    for layer in network.modules():
        if isinstance(layer, (Conv2d, Linear)) and layer.later is not None:
            _settle(layer)


def _settle(layer: "Conv2d | Linear") -> None:
    later = layer.later
    if later is None:
        return
    # Weights outlive the call, whose caller may be in inference mode.
    with torch.inference_mode(False), torch.no_grad():
        for parameter in layer.parameters(recurse=False):
            old = parameter.data
            parameter.data = convert(old, later.dtype, later.memory_format)
            if parameter.data_ptr() != old.data_ptr():
                later.release(old)
    layer.later = None


class _Waiting(nn.Module):
    """A layer that may wait for its first call."""

    later: Later | None = None

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "_Waiting":
        # Below ``.to()``, ``.float()`` and their like, which the first call would undo.
        settle(self)
        return super()._apply(fn, recurse)

    def __getstate__(self) -> dict[str, Any]:
        # Copies and pickles: nothing of the file goes with them.
        settle(self)
        return super().__getstate__()


@final
class Linear(_Waiting, nn.Linear):
    """`torch.nn.Linear`."""

    def forward(self, input: Float[Tensor, "*B C"]) -> Float[Tensor, "*B D"]:
        """In the dtype of ``input``."""
        if self.later is not None:
            _settle(self)
        return F.linear(input, _as(self.weight, input), None if self.bias is None else _as(self.bias, input))


@final
class Conv2d(_Waiting, nn.Conv2d):
    """`torch.nn.Conv2d`."""

    def forward(self, input: Float[Tensor, "B C H W"]) -> Float[Tensor, "B D H2 W2"]:
        """In the dtype of ``input``."""
        if self.later is not None:
            _settle(self)
        return self._conv_forward(input, _as(self.weight, input), None if self.bias is None else _as(self.bias, input))

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        plain = self.padding_mode == "zeros" and self.groups == 1 and self.dilation == (1, 1)
        if not plain or isinstance(self.padding, str):
            return super()._conv_forward(input, weight, bias)
        stride, padding = self.stride, self.padding
        return convolve(input, weight, bias, stride=(stride[0], stride[1]), padding=(padding[0], padding[1]))


def silu(x: Float[Tensor, "*S"]) -> Float[Tensor, "*S"]:
    """x sigmoid(x), in the memory of ``x`` unless a gradient needs it: for what nobody else holds."""
    return F.silu(x, inplace=not torch.is_grad_enabled())


def added(new: Float[Tensor, "*S"], old: Tensor) -> Float[Tensor, "*S"]:
    """``old + new``, in the memory of ``new`` unless a gradient needs it: for what nobody else holds.

    A large map that is made anew costs more in fresh pages from the system than in sums.
    """
    if torch.is_grad_enabled() or new.dtype != old.dtype:
        return old + new
    return new.add_(old)


def _as(parameter: Tensor, x: Tensor) -> Tensor:
    """The parameter in the dtype of ``x``: itself, as a rule. Autocast does its own casting."""
    if parameter.dtype == x.dtype or torch.is_autocast_enabled(x.device.type):
        return parameter
    return parameter.to(x.dtype)
