"""torch's linear and convolution layers, with two freedoms on top; the networks are built from these.

Names, shapes and starting values of their parameters are torch's, and so is what they compute.

- A convolution is run by the kernel that suits its shape (`mindseye.nn.convolution`).
- Weights may be stored in a narrower dtype than the layer computes in: a layer works in the dtype of what comes in and
  widens its own weight for the time of the call. A half-precision file then costs half-precision memory and loses
  nothing, on processors that compute fastest in float32. The cost is one pass over the weights a call.
"""

from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from mindseye.nn.convolution import convolve

__all__ = ["Conv2d", "Linear", "added", "silu"]


@final
class Linear(nn.Linear):
    """`torch.nn.Linear`."""

    def forward(self, input: Float[Tensor, "*B C"]) -> Float[Tensor, "*B D"]:
        """In the dtype of ``input``."""
        return F.linear(input, _as(self.weight, input), None if self.bias is None else _as(self.bias, input))


@final
class Conv2d(nn.Conv2d):
    """`torch.nn.Conv2d`."""

    def forward(self, input: Float[Tensor, "B C H W"]) -> Float[Tensor, "B D H2 W2"]:
        """In the dtype of ``input``."""
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
