"""torch's linear and convolution layers, with three freedoms on top; the networks are built from these.

Names, shapes and starting values of their parameters are torch's, and so is what they compute.

- A convolution is run by the kernel that suits its shape (`mindseye.nn.convolution`).
- Weights may be stored in a narrower dtype than the layer computes in: a layer works in the dtype of what comes in and
  widens its own weight for the time of the call. A half-precision file then costs half-precision memory and loses
  nothing, on processors that compute fastest in float32. The cost is one pass over the weights a call.
- Or they are widened once, when the layer is first called (`Later`): what is never called, such as the encoder of an
  autoencoder that only decodes, never leaves its file. Whatever is done to a layer as a whole (`.to()`, a copy, a
  pickle) is done to what it would have become.
- A product of a weight that lies packed (`mindseye.nn.packed`) may take with it what comes after: GELU, a sum.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast, final

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from mindseye.nn.casting import convert
from mindseye.nn.convolution import convolve, convolve_doubled

__all__ = ["Conv2d", "Later", "Linear", "added", "normed_silu", "settle", "silu"]


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

    packed: Tensor | None = None
    """The weight as oneDNN lays it out, while `mindseye.nn.packed` says so."""

    def forward(self, input: Float[Tensor, "*B C"]) -> Float[Tensor, "*B D"]:
        """In the dtype of ``input``."""
        if self.later is not None:
            _settle(self)
        if self._lies_packed(input):
            return torch.ops.mkldnn._linear_pointwise.default(input, self.packed, self.bias, "none", [], "")
        return F.linear(input, _as(self.weight, input), None if self.bias is None else _as(self.bias, input))

    def activated(self, input: Float[Tensor, "*B C"], activate: Callable[[Tensor], Tensor]) -> Float[Tensor, "*B D"]:
        """``activate`` of `forward`; GELU of one piece with the product where the weight lies packed."""
        if activate is F.gelu and self._lies_packed(input):
            return torch.ops.mkldnn._linear_pointwise.default(input, self.packed, self.bias, "gelu", [], "none")
        return activate(self(input))

    def onto(self, x: Float[Tensor, "*B D"], input: Float[Tensor, "*B C"]) -> Float[Tensor, "*B D"]:
        """``x`` plus `forward`; of one piece with the product where the weight lies packed."""
        if self._lies_packed(input) and x.dtype == input.dtype and x.is_contiguous():
            return torch.ops.mkldnn._linear_pointwise.binary(input, x, self.packed, self.bias, "add")
        return x + self(input)

    def _lies_packed(self, input: Tensor) -> bool:
        return self.packed is not None and input.dtype == self.weight.dtype and not torch.is_grad_enabled()


@final
class Conv2d(_Waiting, nn.Conv2d):
    """`torch.nn.Conv2d`."""

    def forward(self, input: Float[Tensor, "B C H W"]) -> Float[Tensor, "B D H2 W2"]:
        """In the dtype of ``input``."""
        if self.later is not None:
            _settle(self)
        return self._conv_forward(input, _as(self.weight, input), None if self.bias is None else _as(self.bias, input))

    def doubled(self, input: Float[Tensor, "B C H W"]) -> Float[Tensor, "B D H2 W2"]:
        """`forward` of ``input`` at twice its size, nearest neighbour."""
        if self.later is not None:
            _settle(self)
        half = tuple(side // 2 for side in self.kernel_size)
        # Whoever has its own way of padding (`mindseye.nn.seamless`) has put it in the place of the method.
        if not self._plain or self.stride != (1, 1) or self.padding != half or "_conv_forward" in vars(self):
            return self(F.interpolate(input, scale_factor=2.0, mode="nearest"))
        bias = None if self.bias is None else _as(self.bias, input)
        return convolve_doubled(input, _as(self.weight, input), bias)

    @property
    def _plain(self) -> bool:
        return self.padding_mode == "zeros" and self.groups == 1 and self.dilation == (1, 1)

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if not self._plain or isinstance(self.padding, str):
            return super()._conv_forward(input, weight, bias)
        stride, padding = self.stride, self.padding
        return convolve(input, weight, bias, stride=(stride[0], stride[1]), padding=(padding[0], padding[1]))


def silu(x: Float[Tensor, "*S"]) -> Float[Tensor, "*S"]:
    """x sigmoid(x), in the memory of ``x`` unless a gradient needs it: for what nobody else holds."""
    return F.silu(x, inplace=not torch.is_grad_enabled())


def normed_silu(norm: nn.GroupNorm, x: Float[Tensor, "B C *S"]) -> Float[Tensor, "B C *S"]:
    """``silu(norm(x))``.

    Where a gradient is wanted and the norm does not learn, only ``x`` is kept for it, and what the norm made of ``x``
    is made again: an autoencoder that is painted with then holds half as many maps.
    """
    learns = norm.weight.requires_grad or norm.bias.requires_grad
    # In half precision it would not be the same again: the kernel rounds once, and two factors twice.
    exact = norm.weight.dtype == x.dtype and x.dtype in (torch.float32, torch.float64)
    if exact and torch.is_grad_enabled() and x.requires_grad and not learns:
        return cast(Tensor, _NormedSilu.apply(x, norm.weight, norm.bias, norm.num_groups, norm.eps))
    narrow = x.dtype == torch.bfloat16 and norm.weight.dtype == torch.float32
    if narrow and learns and torch.is_grad_enabled() and x.device.type == "cpu" and x.numel() <= _SMALL:
        return F.silu(norm(x.float())).to(x.dtype)
    return silu(norm(x))


_SMALL = 1 << 23
"""Numbers of a map up to which a CPU trains a norm twice as fast in float32 as in bfloat16; beyond, memory rules."""


_BLOCK = 1 << 18
"""Numbers of a piece of a map: a megabyte. Measured with 2 MB of cache a core; half of it is 5 % slower."""


@final
class _NormedSilu(torch.autograd.Function):
    """`normed_silu` with a gradient on what comes in, and none on the norm."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float) -> Tensor:
        x = x.contiguous(memory_format=_layout(x))
        batch, channels, *sides = x.shape
        ctx.sizes = batch, channels, math.prod(sides), groups
        y, mean, spread = torch.ops.aten.native_group_norm(x, weight, bias, *ctx.sizes, eps)
        ctx.save_for_backward(x, weight, bias, mean, spread)
        return F.silu(y, inplace=True)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor, None, None, None, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        x, weight, bias, mean, spread = ctx.saved_tensors
        grad = grads[0].contiguous(memory_format=_layout(x))
        per_group = (*mean.shape, -1)
        gain = (spread[..., None] * weight.view(per_group[1:])).flatten(1)
        shift = bias - (mean[..., None] * gain.view(per_group)).flatten(1)
        if _layout(x) == torch.contiguous_format:
            gain, shift = (each[(..., *(None,) * (x.ndim - 2))] for each in (gain, shift))
            grad = torch.ops.aten.silu_backward(grad, torch.addcmul(shift, x, gain))
            only = [True, False, False]
            grad, _, _ = torch.ops.aten.native_group_norm_backward(grad, x, mean, spread, weight, *ctx.sizes, only)
            return grad, None, None, None, None
        answer = torch.empty_like(x)
        for picture in range(len(x)):
            rows = [each[picture].permute(1, 2, 0).flatten(0, 1) for each in (x, grad, answer)]
            blocks = list(zip(*(each.split(max(1, _BLOCK // x.shape[1])) for each in rows), strict=True))
            sums = x.new_zeros(2, x.shape[1])
            # Whatever is made of a block is made while it lies in the cache: 1.6 times as fast as map after map.
            for some, come, back in blocks:
                torch.ops.aten.silu_backward.grad_input(
                    come, torch.addcmul(shift[picture], some, gain[picture]), grad_input=back
                )
                sums += torch.stack([back.sum(0), (back * some).sum(0)])
            one, other = (sums * weight).view(2, *per_group[1:]).sum(2) / (x[0].numel() // mean.shape[1])
            slope = spread[picture].square() * (mean[picture] * one - other) * spread[picture]
            offset = -spread[picture] * one - slope * mean[picture]
            slope, offset = (each.repeat_interleave(x.shape[1] // len(each)) for each in (slope, offset))
            for some, _, back in blocks:
                torch.addcmul(torch.addcmul(offset, some, slope), back, gain[picture], out=back)
        return answer, None, None, None, None


def _layout(x: Tensor) -> torch.memory_format:
    """How it lies in memory."""
    last = x.ndim == 4 and x.is_contiguous(memory_format=torch.channels_last)
    return torch.channels_last if last else torch.contiguous_format


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
