"""Boxes of a picture at a critic's size, all boxes in two matrix products.

Every resampling the families use is linear and separable: the pixels of a row of a cut are weighted sums of the
picture's. So a cut is ``W_y X W_x^T`` with two small matrices made from its box, and all cuts of a picture are one
product with the stacked ``W_y`` and one batched product with the ``W_x``; so is the way back of their gradient. Nothing
loops over cuts, and nothing is gathered or scattered pixel by pixel.

The kernels, each exactly what its family's published code computes:

    bilinear          two taps, pixel centres at halves, no prefilter
    nearest           one tap, rounded down
    lanczos-bicubic   shrinking: a Lanczos-2 prefilter reflected at the crop's edge; then cubic (a = -0.75) with aligned
                      corners, and clamped to the range with Crowson's gradient
                      (`mindseye.nn.quantize.clamp_with_gradient`)
    average           adaptive average pooling
    cubic             Keys' cubic (a = -0.5), stretched when shrinking, black beyond the crop (ResizeRight)
    pooled            the mean of adaptive average and adaptive maximum pooling; whole pictures only, for a maximum is
                      not linear
"""

import math
from collections.abc import Callable, Mapping
from typing import Literal, NamedTuple, TypeAlias

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from mindseye.nn.quantize import clamp_with_gradient

__all__ = ["KERNELS", "Kernel", "matrices", "take"]

Kernel: TypeAlias = Literal["bilinear", "nearest", "lanczos-bicubic", "average", "cubic", "pooled"]
KERNELS: tuple[Kernel, ...] = ("bilinear", "nearest", "lanczos-bicubic", "average", "cubic", "pooled")
"""All there are."""


class Taps(NamedTuple):
    """Which pixels of a line each pixel of the cut is a sum of.

    Attributes:
        places: Counted from the crop's start, `N S T`; may lie outside of it, where all is black.
        weight: Of each.
    """

    places: Tensor
    weight: Tensor


def take(
    pixels: Float[Tensor, "B 3 H W"],
    boxes: Float[Tensor, "B K 4"],
    size: int,
    kernel: Kernel,
    flip: Tensor | None = None,
) -> Float[Tensor, "B K 3 size size"]:
    """The pixels of K boxes of each picture, differentiable in the pixels.

    Args:
        pixels: In [-1, 1].
        boxes: Left, top, width, height in whole pixels; what lies outside the picture is black.
        size: Side of the cuts.
        kernel: How pixels become cuts.
        flip: `B K`, which cuts are mirrored left to right.

    Raises:
        ValueError: "pooled", and a box that is not the whole picture.
    """
    rows, count = boxes.shape[:2]
    height, width = pixels.shape[-2:]
    boxes = boxes.round().long()
    beyond = (boxes[..., :2] < 0) | (boxes[..., :2] + boxes[..., 2:] > boxes.new_tensor([width, height]))
    # Black is -1: with black as nothing, what a matrix leaves out is black.
    dark = kernel == "cubic" or bool(beyond.any())
    boxes = boxes.to(pixels.device)
    if kernel == "pooled":
        if not bool((boxes == boxes.new_tensor([0, 0, width, height])).all()):
            raise ValueError("'pooled' cuts show the whole picture: these boxes do not")
        whole = (F.adaptive_avg_pool2d(pixels, size) + F.adaptive_max_pool2d(pixels, size)) / 2
        cuts = whole[:, None].expand(-1, count, -1, -1, -1)
        return cuts if flip is None else torch.where(flip.to(cuts.device)[:, :, None, None, None], cuts.flip(-1), cuts)
    left, top, wide, high = boxes.flatten(0, 1).unbind(1)
    down = matrices(kernel, top, high, height, size, pixels.dtype)
    across = matrices(kernel, left, wide, width, size, pixels.dtype)
    if flip is not None:
        across = torch.where(flip.to(across.device).flatten()[:, None, None], across.flip(1), across)
    lines = (pixels + 1 if dark else pixels).transpose(1, 2).flatten(2)
    drawn = down.view(rows, count * size, height) @ lines
    drawn = drawn.view(rows * count, size * 3, width) @ across.transpose(1, 2)
    cuts = drawn.view(rows, count, size, 3, size).transpose(2, 3)
    cuts = cuts - 1 if dark else cuts
    return clamp_with_gradient(cuts, -1.0, 1.0) if kernel == "lanczos-bicubic" else cuts


def matrices(
    kernel: Kernel, start: Int[Tensor, "N"], length: Int[Tensor, "N"], total: int, size: int, dtype: torch.dtype
) -> Float[Tensor, "N size total"]:
    """For N crops of a line of ``total`` pixels, what makes ``size`` pixels of each.

    Args:
        kernel: Any but "pooled".
        start: First pixel of each crop; may be below 0.
        length: Pixels of each.
        total: Pixels of the line.
        size: Pixels of the answer.
        dtype: Of the answer; it is worked out in float64.
    """
    taps = _TAPS[kernel](length.clamp(min=1), size)
    index = taps.places + start[:, None, None]
    weight = taps.weight.masked_fill((index < 0) | (index >= total), 0.0)
    found = torch.zeros(len(start), size, total, dtype=dtype, device=start.device)
    return found.scatter_add_(2, index.clamp(0, total - 1), weight.to(dtype))


def _places(size: int, like: Tensor) -> Float[Tensor, "1 S"]:
    return torch.arange(size, dtype=torch.float64, device=like.device)[None]


def _bilinear(length: Int[Tensor, "N"], size: int) -> Taps:
    n = length[:, None]
    at = ((_places(size, length) + 0.5) * n / size - 0.5).clamp(min=0)
    low = at.floor()
    index = torch.stack([low, torch.minimum(low + 1, n - 1.0)], dim=2)
    return Taps(index.long(), torch.stack([1 - (at - low), at - low], dim=2))


def _nearest(length: Int[Tensor, "N"], size: int) -> Taps:
    # In float32, as torch rounds: where the exact place is a whole number, that decides.
    at = (_places(size, length).float() * (length[:, None].float() / size)).floor().long()
    index = torch.minimum(at, length[:, None] - 1)[..., None]
    return Taps(index, torch.ones_like(index, dtype=torch.float64))


def _average(length: Int[Tensor, "N"], size: int) -> Taps:
    n, i = length[:, None], torch.arange(size, device=length.device)[None]
    first, last = i * n // size, -((-(i + 1) * n) // size)
    most = int(length.max()) // size + 2
    index = first[..., None] + torch.arange(most, device=length.device)
    weight = (index < last[..., None]) / (last - first)[..., None].double()
    return Taps(index, weight)


def _cubic_at(x: Tensor, a: float) -> Tensor:
    """Keys' cubic convolution (1981), zero beyond 2."""
    x = x.abs()
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = ((a * x - 5 * a) * x + 8 * a) * x - 4 * a
    return torch.where(x <= 1, near, torch.where(x < 2, far, 0.0))


def _cubic(length: Int[Tensor, "N"], size: int) -> Taps:
    n = length[:, None]
    # One beyond: the kernel is stretched, its weights still sum to one, those of the crop's outside included.
    stretch = (n / size).double().clamp(min=1.0)[..., None]
    at = ((_places(size, length) + 0.5) * n / size - 0.5)[..., None]
    reach = 2 * stretch
    first = (at - reach - _EPSILON).ceil()
    most = math.ceil(4 * float(stretch.max())) + 1
    index = first + torch.arange(most, device=length.device)
    weight = _cubic_at((index - at) / stretch, -0.5)
    weight = weight / weight.sum(2, keepdim=True)
    outside = (index < 0) | (index >= n[..., None])
    return Taps(index.long(), weight.masked_fill(outside, 0.0))


_EPSILON = torch.finfo(torch.float32).eps
"""ResizeRight's allowance for rounding where a kernel begins."""


def _lanczos_bicubic(length: Int[Tensor, "N"], size: int) -> Taps:
    n = length[:, None, None].double()
    at = _places(size, length)[..., None] * (n - 1) / max(size - 1, 1)
    middle = at.floor()
    near = middle + torch.arange(-1, 3, device=length.device)
    cubic = _cubic_at(at - near, -0.75)
    near = torch.minimum(near.clamp(min=0), n - 1)
    # The prefilter around each of the four: at distances t, in the answer's pixels t * ratio.
    ratio = (size / n).clamp(max=1.0)
    reach = max(math.ceil(2 * int(length.max()) / size) - 1, 0)
    t = torch.arange(-reach, reach + 1, device=length.device, dtype=torch.float64)
    x = t * ratio
    lanczos = torch.where(x.abs() < 2, torch.sinc(x) * torch.sinc(x / 2), 0.0)
    lanczos = torch.where(ratio < 1, lanczos, (t == 0).double())
    lanczos = lanczos / lanczos.sum(2, keepdim=True)
    index = _reflected(near[..., None] + t, n[..., None])
    weight = cubic[..., None] * lanczos[:, :, None]
    return Taps(index.flatten(2).long(), weight.flatten(2))


def _reflected(index: Tensor, n: Tensor) -> Tensor:
    """Mirrored at the first and the last pixel, which are not repeated."""
    round_trip = (2 * (n - 1)).clamp(min=1)
    index = index.remainder(round_trip)
    return torch.minimum(index, round_trip - index).clamp(min=0).minimum(n - 1)


_TAPS: Mapping[str, Callable[[Tensor, int], Taps]] = {
    "bilinear": _bilinear,
    "nearest": _nearest,
    "average": _average,
    "cubic": _cubic,
    "lanczos-bicubic": _lanczos_bicubic,
}
