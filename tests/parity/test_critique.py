"""Cuts and losses against straight-line code, one cut at a time, as the notebooks and packages of 2021 compute them.

Written anew from the formulas in the papers' and releases' own words; values and gradients, in float64.
"""

import math

import pytest
import torch
from torch.nn import functional as F

from mindseye.critique.cuts import crowson
from mindseye.critique.judge import judge
from mindseye.critique.losses import spherical
from mindseye.critique.resample import take
from mindseye.critique.targets import Aims, Targets
from mindseye.critique.terms import total_variation
from mindseye.noise import Noise

pytestmark = pytest.mark.parity

BOXES = torch.tensor(
    [[0, 0, 40, 40], [3, 7, 17, 17], [20, 1, 16, 16], [5, 5, 31, 31], [30, 20, 10, 20], [11, 0, 5, 40], [2, 3, 1, 1]]
).float()
SIZE = 16


def picture():
    return torch.randn(2, 3, 40, 44, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def bilinear(crop):
    return F.interpolate(crop, (SIZE, SIZE), mode="bilinear", align_corners=False)


def nearest(crop):
    return F.interpolate(crop, (SIZE, SIZE), mode="nearest")


def average(crop):
    return F.adaptive_avg_pool2d(crop, SIZE)


class Returning(torch.autograd.Function):
    """Clamp whose gradient passes unless it leads further out."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.clamp(-1, 1)

    @staticmethod
    def backward(ctx, gradient):
        (x,) = ctx.saved_tensors
        keep = torch.ones_like(x)
        keep[(x > 1) & (gradient < 0)] = 0
        keep[(x < -1) & (gradient > 0)] = 0
        return gradient * keep


def lanczos_bicubic(crop):
    for axis in (-2, -1):
        n = crop.shape[axis]
        if n > SIZE:
            ratio = SIZE / n
            taps = []
            for t in range(-n, n + 1):
                x = t * ratio
                if abs(x) < 2:
                    window = 1.0 if x == 0 else math.sin(math.pi * x) / (math.pi * x)
                    wider = 1.0 if x == 0 else math.sin(math.pi * x / 2) / (math.pi * x / 2)
                    taps.append(window * wider)
            kernel = torch.tensor(taps, dtype=crop.dtype) / sum(taps)
            reach = len(taps) // 2
            line = crop.transpose(axis, -1)
            shape = line.shape
            line = F.pad(line.reshape(-1, 1, n), (reach, reach), mode="reflect")
            crop = F.conv1d(line, kernel[None, None]).reshape(shape).transpose(axis, -1)
    return Returning.apply(F.interpolate(crop, (SIZE, SIZE), mode="bicubic", align_corners=True))


def cubic(crop):
    """ResizeRight's: a kernel per output pixel over a crop with nothing around it, which is black, which is -1."""
    crop = crop + 1
    for axis in (-2, -1):
        n = crop.shape[axis]
        scale = SIZE / n
        stretch = min(scale, 1.0)
        rows = []
        for i in range(SIZE):
            at = i / scale + (n - 1) / 2 - (SIZE - 1) / (2 * scale)
            weights = []
            for j in range(-4 * n, 5 * n):
                x = abs(at - j) * stretch
                near = 1.5 * x**3 - 2.5 * x**2 + 1
                far = -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
                weights.append(near if x <= 1 else far if x < 2 else 0.0)
            row = torch.tensor(weights, dtype=crop.dtype)
            rows.append((row / row.sum())[4 * n : 5 * n])
        crop = (torch.stack(rows) @ crop.transpose(axis, -2)).transpose(axis, -2)
    return crop - 1


@pytest.mark.parametrize(
    ("kernel", "reference"),
    [
        ("bilinear", bilinear),
        ("nearest", nearest),
        ("average", average),
        ("lanczos-bicubic", lanczos_bicubic),
        ("cubic", cubic),
    ],
)
def test_every_cut_of_every_family(kernel, reference):
    # The prefilter reflects, which a crop smaller than the kernel cannot: no family draws such crops.
    boxes = BOXES[:4] if kernel == "lanczos-bicubic" else BOXES
    x, y = (picture().requires_grad_() for _ in range(2))
    ours = take(x, boxes.expand(2, -1, -1), SIZE, kernel)
    theirs = [
        reference(y[:, :, int(top) : int(top + high), int(left) : int(left + wide)]) for left, top, wide, high in boxes
    ]
    theirs = torch.stack(theirs, dim=1)
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)
    weight = torch.randn(ours.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    (ours,), (theirs,) = torch.autograd.grad((ours * weight).sum(), x), torch.autograd.grad((theirs * weight).sum(), y)
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("side", range(1, 61, 7))
@pytest.mark.parametrize("size", [7, 32])
def test_nearest_rounds_as_torch_does(side, size):
    line = torch.arange(float(side)).expand(1, 3, side, side) / side
    box = torch.tensor([[[0.0, 0, side, side]]])
    assert torch.equal(take(line, box, size, "nearest")[0, 0], F.interpolate(line, (size, size), mode="nearest")[0])


def test_pooling():
    x, y = (picture().requires_grad_() for _ in range(2))
    ours = take(x, torch.tensor([0.0, 0, 44, 40]).expand(2, 3, 4), SIZE, "pooled")
    theirs = (F.adaptive_avg_pool2d(y, SIZE) + F.adaptive_max_pool2d(y, SIZE)) / 2
    torch.testing.assert_close(ours, theirs[:, None].expand_as(ours))
    (ours,), (theirs,) = (
        torch.autograd.grad((value**2).sum(), leaf)
        for value, leaf in ((ours, x), (theirs[:, None].repeat(1, 3, 1, 1, 1), y))
    )
    torch.testing.assert_close(ours, theirs)


def test_cubic_is_resize_rights():
    peer = pytest.importorskip("resize_right")
    methods = pytest.importorskip("resize_right.interp_methods")
    x, y = (picture().requires_grad_() for _ in range(2))
    for left, top, wide, high in BOXES[:5].int().tolist():
        ours = take(x, torch.tensor([left, top, wide, high]).float().expand(2, 1, 4), SIZE, "cubic")[:, 0]
        # What lies beyond a crop is 0 there; black is -1 here.
        crop = y[..., top : top + high, left : left + wide] + 1
        theirs = peer.resize(
            crop, out_shape=(*crop.shape[:2], SIZE, SIZE), interp_method=methods.cubic, pad_mode="constant"
        )
        torch.testing.assert_close(ours, theirs - 1, rtol=1e-5, atol=1e-5)
        (mine,), (wanted,) = (
            torch.autograd.grad((value**3).sum(), leaf) for value, leaf in ((ours, x), (theirs - 1, y))
        )
        torch.testing.assert_close(mine, wanted, rtol=1e-4, atol=1e-5)


def test_a_view_of_the_whole_is_a_padded_square():
    x, y = (picture().requires_grad_() for _ in range(2))
    ours = take(x, torch.tensor([0.0, -2, 44, 44]).expand(2, 1, 4), SIZE, "cubic")[:, 0]
    theirs = cubic(F.pad(y, (0, 0, 2, 2), value=-1.0))
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)
    (ours,), (theirs,) = (torch.autograd.grad((value**3).sum(), leaf) for value, leaf in ((ours, x), (theirs, y)))
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)


class Eye:
    """A critic that is one random layer."""

    size = SIZE

    def __init__(self, width=5):
        self.weight = torch.randn(width, 3 * SIZE * SIZE, generator=torch.Generator().manual_seed(2)) / 20

    def embed_text(self, prompts):
        return F.normalize(
            torch.randn(len(prompts), len(self.weight), generator=torch.Generator().manual_seed(3)), dim=1
        )

    def embed_image(self, pixels):
        return F.normalize(torch.tanh(pixels.flatten(1) @ self.weight.T), dim=1)


def notebook_loss(embeds, target, weight, stop):
    """One prompt of VQGAN+CLIP: its value, and the value whose gradient is taken."""
    distance = (embeds - target).norm(dim=-1).div(2).arcsin().pow(2).mul(2) * math.copysign(1, weight)
    value = abs(weight) * distance.mean()
    pulled = abs(weight) * torch.maximum(distance, torch.tensor(stop)).mean()
    return value, pulled


def test_the_judge_against_a_loop_over_cuts():
    eye, x = Eye(), picture()[:1].float().clamp(-1, 1)
    vectors = eye.embed_text(["a", "b", "c"])
    weights, stops = [1.0, -0.5, 2.0], [-math.inf, -math.inf, 1.2]
    targets = Targets((Aims(vectors, torch.tensor(weights), torch.tensor(stops), (0, 1, 2)),), ())
    kept = []
    said = judge([eye], targets, cuts=crowson(11), chunk=4, on_cuts=lambda _, cuts: kept.append(cuts)).opinion(
        x, Noise((5,)), 0.0
    )
    y = x.clone().requires_grad_()
    pieces = []
    for left, top, wide, high in kept[0].boxes[0].int().tolist():
        pieces.append(lanczos_bicubic(y[:, :, top : top + high, left : left + wide]))
    embeds = eye.embed_image(torch.cat(pieces))
    values, pulled = zip(
        *(notebook_loss(embeds, *each) for each in zip(vectors, weights, stops, strict=True)), strict=True
    )
    torch.testing.assert_close(said.score, sum(values).detach()[None], rtol=1e-5, atol=1e-6)
    (gradient,) = torch.autograd.grad(sum(pulled), y)
    assert gradient.abs().max() > 0
    torch.testing.assert_close(said.gradient, gradient, rtol=1e-4, atol=1e-6 * float(gradient.abs().max()))


def test_spherical_distance():
    x, y = (F.normalize(torch.randn(4, 9, generator=torch.Generator().manual_seed(seed)), dim=1) for seed in (0, 1))
    theirs = (x[:, None] - y[None]).norm(dim=-1).div(2).arcsin().pow(2).mul(2)
    torch.testing.assert_close(spherical(x, y), theirs)


def test_total_variation():
    x = picture()
    theirs = torch.zeros(2, dtype=torch.float64)
    for row in range(40):
        for column in range(44):
            right = x[:, :, row, min(column + 1, 43)] - x[:, :, row, column]
            down = x[:, :, min(row + 1, 39), column] - x[:, :, row, column]
            theirs += (right**2 + down**2).sum(1)
    torch.testing.assert_close(total_variation(x), theirs / (3 * 40 * 44))
