"""Convolution by four more algorithms than torch has on a CPU, all of them exact to rounding.

torch (oneDNN 3) convolves float32 directly, at the speed of the machine's multiply-adds, and re-orders the weights at
every call. Two shapes of a U-Net and an autoencoder can do better, and `convolve` picks:

- *Wide maps*: Winograd's minimal filtering F(4x4, 3x3) (Lavin and Gray 2016, arXiv:1509.09308) needs 36 products where
  the direct sum needs 144. Everything is a matrix product over blocks of tiles that stay in the cache. We deviate in
  the interpolation points: 0, +-5/8, +-3/2 and infinity instead of 0, +-1, +-2 and infinity, found by trying small
  fractions; they cost nothing and halve the error. It is 0.6e-6 to 1.6e-6 of the result's norm at 64 to 320 channels,
  where oneDNN's direct sum in float32 has 0.2e-6; a whole U-Net then differs from diffusers' by 3e-6, which is what
  another memory format alone makes. Not for half precision, whose error it would multiply as well.
- *Small maps with many channels*: unfold the patches and multiply once. The patches are small there, and the weights,
  which are not, are read as they lie (``channels_last``) instead of re-ordered. In bfloat16 as well, for the smallest
  maps. Not with AVX2, where it gains nothing.
- *1x1*: a matrix product over places.
- *A map that was doubled first*, nearest neighbour: every other pixel of the answer sees the same four pixels of the
  small map, through sums of filters; 16 products instead of 36. In bfloat16, where it halves the time; the sums are
  rounded as the filters were. Float32 has Winograd there.

Where pictures are painted by the gradient of frozen networks, Winograd serves as well: the gradient on what came in is
a convolution of the same shape, its filters turned and transposed. Everything else, and every gradient on weights, is
torch's own.
"""

from fractions import Fraction
from functools import lru_cache
from typing import Any, Literal, cast, final

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

__all__ = ["Kernel", "by_patches", "by_phases", "convolve", "convolve_doubled", "kernel_for", "winograd"]

Kernel = Literal["winograd", "patches", "torch"]

_POINTS = (Fraction(0), Fraction(5, 8), Fraction(-5, 8), Fraction(3, 2), Fraction(-3, 2))
_OUT, _IN = 4, 6
"""Sides of a tile, out and in."""
_BLOCK = 7_000_000
"""Numbers of one block of transformed tiles: 28 MB, for which glibc still reuses memory."""


def convolve(
    x: Float[Tensor, "B C H W"],
    weight: Float[Tensor, "D C kh kw"],
    bias: Float[Tensor, "D"] | None = None,
    *,
    stride: tuple[int, int] = (1, 1),
    padding: tuple[int, int] = (0, 0),
) -> Float[Tensor, "B D H2 W2"]:
    """`torch.nn.functional.conv2d` without groups or dilation, by the kernel that suits the shape."""
    kernel = kernel_for(x, weight, stride=stride, padding=padding)
    if torch.is_grad_enabled():
        learns = weight.requires_grad or (bias is not None and bias.requires_grad)
        # Autocast has dtypes of its own on the way there, and none on the way back.
        if learns or (x.requires_grad and torch.is_autocast_enabled(x.device.type)):
            return F.conv2d(x, weight, bias, stride, padding)
        if x.requires_grad:
            return cast(Tensor, Frozen.apply(x, weight, bias, stride, padding, kernel))
    return _by(kernel, x, weight, bias, stride, padding)


def _by(
    kernel: Kernel,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: tuple[int, int],
    padding: tuple[int, int],
) -> Tensor:
    if kernel == "winograd":
        return winograd(x, weight, bias)
    if kernel == "patches":
        return by_patches(x, weight, bias, stride=stride, padding=padding)
    return F.conv2d(x, weight, bias, stride, padding)


def kernel_for(x: Tensor, weight: Tensor, *, stride: tuple[int, int], padding: tuple[int, int]) -> Kernel:
    """Which kernel; the rules were measured on two AVX-512 cores and, where they differ, on two with AVX2 (Zen 3)."""
    if x.device.type != "cpu" or x.dtype != weight.dtype or x.dtype not in (torch.float32, torch.bfloat16):
        return "torch"
    follows = torch.is_grad_enabled() and x.requires_grad
    if torch.is_grad_enabled() and weight.requires_grad:
        return "torch"
    (batch, channels, height, width), (out, _, *side) = x.shape, weight.shape
    places, short = batch * height * width // (stride[0] * stride[1]), _capability() == "AVX2"
    if x.dtype == torch.bfloat16:
        # Bound by reading filters: 1.5 to 1.8 times as fast at 32 places (Zen 4), nothing gained at 128.
        small = places <= 64 and weight.numel() >= 2**20
        return "patches" if small and not follows and not short else "torch"
    if side == [1, 1]:
        last = x.is_contiguous(memory_format=torch.channels_last) and not follows
        return "patches" if last and stride == (1, 1) and padding == (0, 0) else "torch"
    if min(channels, out) < 64 or side != [3, 3]:
        return "torch"
    tiles = batch * -(-height // _OUT) * -(-width // _OUT)
    # Below, the transformed weights (four times the weights) would be more work than the tiles.
    if stride == (1, 1) and padding == (1, 1) and tiles >= 64 and 8 * tiles > min(channels, out) - short:
        # There and back again, with filters transformed for each: smaller maps are faster directly (AVX2, one core).
        return "torch" if follows and (tiles < 256 or min(channels, out) < 128) else "winograd"
    if short:  # oneDNN's convolutions there are as fast as its products, or faster
        return "torch"
    return "patches" if not follows and places <= 1024 and weight.numel() >= 2**18 else "torch"


@final
class Frozen(torch.autograd.Function):
    """A convolution with a gradient on what comes in, which it does not keep as torch does, and none on weights."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        stride: tuple[int, int],
        padding: tuple[int, int],
        kernel: Kernel,
    ) -> Tensor:
        """Convolve."""
        ctx.save_for_backward(weight)
        ctx.how = x.shape[2:], stride, padding, kernel
        return _by(kernel, x, weight, bias, stride, padding)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor | None, ...]:
        """Convolve back; this, too, may be followed."""
        (weight,) = ctx.saved_tensors
        sides, stride, padding, kernel = ctx.how
        if kernel == "winograd":
            back = convolve(grads[0], weight.flip(2, 3).transpose(0, 1), padding=(1, 1))
        else:
            left = tuple(
                side - ((out - 1) * step - 2 * pad + reach)
                for side, out, step, pad, reach in zip(
                    sides, grads[0].shape[2:], stride, padding, weight.shape[2:], strict=True
                )
            )
            back = F.conv_transpose2d(grads[0], weight, None, stride, padding, left)
        return back, None, None, None, None, None


@lru_cache(maxsize=1)
def _capability() -> str:
    """The vector instructions that torch uses here."""
    return torch.backends.cpu.get_cpu_capability()


def by_patches(
    x: Float[Tensor, "B C H W"],
    weight: Float[Tensor, "D C kh kw"],
    bias: Float[Tensor, "D"] | None = None,
    *,
    stride: tuple[int, int] = (1, 1),
    padding: tuple[int, int] = (0, 0),
) -> Float[Tensor, "B D H2 W2"]:
    """Convolution as one matrix product over all patches; answers in ``channels_last``."""
    out, channels, kh, kw = weight.shape
    flat = weight.permute(0, 2, 3, 1).reshape(out, -1)  # a view in channels_last
    places = x.permute(0, 2, 3, 1)
    if (kh, kw) != (1, 1) or stride != (1, 1) or padding != (0, 0):
        padded = _padded(x, *padding, *padding)
        batch, height, width, _ = padded.shape
        rows, columns = (height - kh) // stride[0] + 1, (width - kw) // stride[1] + 1
        b, h, w, c = padded.stride()
        patches = padded.as_strided(
            (batch, rows, columns, kh, kw, channels), (b, h * stride[0], w * stride[1], h, w, c)
        )
        places = patches.reshape(batch, rows, columns, -1)
    return F.linear(places, flat, bias).permute(0, 3, 1, 2)


def winograd(
    x: Float[Tensor, "B C H W"], weight: Float[Tensor, "D C 3 3"], bias: Float[Tensor, "D"] | None = None
) -> Float[Tensor, "B D H W"]:
    """3x3 convolution of stride 1 and padding 1 by F(4x4, 3x3); answers in ``channels_last``.

    In the papers' letters: ``Y = A^T [(G g G^T) * (B^T d B)] A``, with each pair of outer matrices folded into one over
    the 36 (9, 16) places of a tile, and the products over channels done for all tiles of a block at once.
    """
    to_weight, to_tile, from_tile = (matrix.to(x) for matrix in _matrices())
    batch, channels, height, width = x.shape
    out = weight.shape[0]
    down, across = -(-height // _OUT), -(-width // _OUT)
    padded = _padded(x, 1, 1, _OUT * down + 1 - height, _OUT * across + 1 - width)
    taps = weight.permute(2, 3, 0, 1).reshape(9, -1)
    products = torch.mm(to_weight, taps).view(_IN**2, out, channels).transpose(1, 2)

    answer = x.new_empty(batch, down, _OUT, across, _OUT, out)
    most = max(64, _BLOCK // (_IN**2 * max(channels, out)))  # tiles of one block
    images = max(1, min(batch, most // (down * across)))
    rows = max(1, min(down, most // across))
    b, h, w, c = padded.stride()
    for image in range(0, batch, images):
        for row in range(0, down, rows):
            many, high = min(images, batch - image), min(rows, down - row)
            tiles = padded.as_strided(
                (_IN, _IN, many, high, across, channels),
                (h, w, b, _OUT * h, _OUT * w, c),
                padded.storage_offset() + image * b + row * _OUT * h,
            )
            block = torch.mm(to_tile, tiles.reshape(_IN**2, -1))
            block = torch.bmm(block.view(_IN**2, -1, channels), products)
            block = torch.mm(from_tile, block.view(_IN**2, -1)).view(_OUT, _OUT, many, high, across, out)
            target = answer[image : image + many, row : row + high]
            if bias is None:
                target.copy_(block.permute(2, 3, 0, 4, 1, 5))
            else:
                torch.add(block.permute(2, 3, 0, 4, 1, 5), bias, out=target)
    whole = answer.view(batch, down * _OUT, across * _OUT, out)
    return whole[:, :height, :width].permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last)


def convolve_doubled(
    x: Float[Tensor, "B C H W"], weight: Float[Tensor, "D C kh kw"], bias: Float[Tensor, "D"] | None = None
) -> Float[Tensor, "B D H2 W2"]:
    """`convolve` of ``x`` at twice its size, nearest neighbour, padded by half of a filter whose sides are odd."""
    places, narrow = x.shape[0] * x.shape[2] * x.shape[3], x.dtype == weight.dtype == torch.bfloat16
    # Below, summing filters takes longer than is gained.
    if narrow and x.device.type == "cpu" and places >= 512 and weight.shape[2:] == (3, 3):
        if not torch.is_grad_enabled():
            return by_phases(x, weight, bias)
    half = (weight.shape[2] // 2, weight.shape[3] // 2)
    return convolve(F.interpolate(x, scale_factor=2.0, mode="nearest"), weight, bias, padding=half)


def by_phases(
    x: Float[Tensor, "B C H W"], weight: Float[Tensor, "D C 3 3"], bias: Float[Tensor, "D"] | None = None
) -> Float[Tensor, "B D H2 W2"]:
    """3x3 convolution of a doubled map as four 2x2 convolutions of the map; answers in ``channels_last``."""
    (batch, channels, height, width), out = x.shape, weight.shape[0]
    # Of even and odd rows: which of three taps fall on the upper and on the lower of the two rows they see.
    phases = torch.tensor([[[1, 0, 0], [0, 1, 1]], [[1, 1, 0], [0, 0, 1]]]).to(x)
    sums = torch.einsum("atk,bul->abtukl", phases, phases).reshape(16, 9)
    filters = torch.mm(sums, weight.permute(2, 3, 0, 1).reshape(9, -1)).view(2, 2, 2, 2, out, channels)
    padded = _padded(x, 1, 1, 1, 1).permute(0, 3, 1, 2)
    answer = x.new_empty(batch, height, 2, width, 2, out)
    for down in (0, 1):
        for right in (0, 1):
            taps = filters[down, right].permute(2, 3, 0, 1).contiguous(memory_format=torch.channels_last)
            seen = padded[:, :, down : down + height + 1, right : right + width + 1]
            answer[:, :, down, :, right] = F.conv2d(seen, taps, bias).permute(0, 2, 3, 1)
    return answer.view(batch, 2 * height, 2 * width, out).permute(0, 3, 1, 2)


def _padded(x: Tensor, top: int, left: int, bottom: int, right: int) -> Float[Tensor, "B H W C"]:
    """Zeros around a picture, its channels last."""
    batch, channels, height, width = x.shape
    padded = x.new_zeros(batch, top + height + bottom, left + width + right, channels)
    padded[:, top : top + height, left : left + width] = x.permute(0, 2, 3, 1)
    return padded


@lru_cache(maxsize=1)
def _matrices() -> tuple[Float[Tensor, "36 9"], Float[Tensor, "36 36"], Float[Tensor, "16 36"]]:
    """What turns taps, tiles and products into points, points and answers, by the Toom-Cook construction.

    A tile's polynomial and the filter's are evaluated at the points, multiplied there, and the product is interpolated;
    that is the transpose of the convolution that is wanted, so the matrices change places.
    """
    evaluate = [[point**power for power in range(_OUT)] for point in _POINTS]
    answers = [list(column) for column in zip(*evaluate, [Fraction(0)] * (_OUT - 1) + [Fraction(1)], strict=True)]
    taps, tiles = [], []
    for point in _POINTS:
        others, scale = [Fraction(1)], Fraction(1)
        for other in _POINTS:
            if other != point:
                others, scale = _times(others, other), scale * (point - other)
        taps.append([point**power / scale for power in range(3)])
        tiles.append([*others, Fraction(0)])
    every = [Fraction(1)]
    for point in _POINTS:
        every = _times(every, point)
    taps.append([Fraction(0), Fraction(0), Fraction(1)])
    tiles.append(every)
    exact = (torch.tensor([[float(x) for x in row] for row in rows], dtype=torch.float64) for rows in (taps, tiles))
    first = torch.tensor([[float(x) for x in row] for row in answers], dtype=torch.float64)
    return *(torch.kron(each, each) for each in exact), torch.kron(first, first)  # type: ignore[return-value]


def _times(polynomial: list[Fraction], root: Fraction) -> list[Fraction]:
    """The polynomial (lowest power first) times ``x - root``."""
    return [
        shifted - root * own
        for shifted, own in zip([Fraction(0), *polynomial], [*polynomial, Fraction(0)], strict=True)
    ]
