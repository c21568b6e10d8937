"""Each kernel against the direct sum in float64, and the rule that picks one."""

import pytest
import torch
from torch.nn import functional as F

from mindseye.nn import convolution
from mindseye.nn.convolution import by_patches, by_phases, convolve, convolve_doubled, kernel_for, winograd


def random(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


def error(got, truth):
    return float((got.double() - truth).norm() / truth.norm())


def last(x):
    return x.contiguous(memory_format=torch.channels_last)


SIZES = [(1, 4, 4), (2, 8, 8), (1, 5, 7), (3, 1, 9), (2, 13, 6)]


@pytest.mark.parametrize(("batch", "height", "width"), SIZES)
@pytest.mark.parametrize("block", [1, 10**7])
def test_winograd_is_the_direct_sum_to_rounding(batch, height, width, block, monkeypatch):
    """Whatever is left over at the edges, and however the tiles are cut into blocks."""
    monkeypatch.setattr(convolution, "_BLOCK", block)
    x, weight, bias = random(batch, 24, height, width), random(5, 24, 3, 3), random(5)
    truth = F.conv2d(x.double(), weight.double(), bias.double(), padding=1)
    assert error(winograd(x, weight, bias), truth) < 2e-6
    assert error(winograd(last(x), last(weight)), truth - bias.double()[:, None, None]) < 2e-6


def test_winograd_cuts_large_maps_into_blocks(monkeypatch):
    monkeypatch.setattr(convolution, "_BLOCK", 1)  # 64 tiles are the least: three rows of them here
    x, weight = random(2, 3, 40, 84), random(2, 3, 3, 3)
    assert error(winograd(x, weight), F.conv2d(x.double(), weight.double(), padding=1)) < 2e-6


def test_winograd_is_nearly_as_exact_as_float32_itself():
    """The claim of the module at a real width; with the usual points it is 2.7e-6 and more."""
    x, weight = random(1, 320, 16, 16), random(64, 320, 3, 3) / 50
    truth = F.conv2d(x.double(), weight.double(), padding=1)
    assert error(winograd(x, weight), truth) < 2e-6


@pytest.mark.parametrize("stride", [(1, 1), (2, 2), (1, 2)])
@pytest.mark.parametrize("padding", [(1, 1), (0, 0), (0, 2)])
@pytest.mark.parametrize("side", [(3, 3), (1, 1), (2, 3)])
def test_patches_are_the_direct_sum(stride, padding, side):
    x, weight, bias = random(2, 6, 7, 8), random(5, 6, *side), random(5)
    truth = F.conv2d(x.double(), weight.double(), bias.double(), stride, padding)
    for form in (torch.clone, last):
        assert error(by_patches(form(x), form(weight), bias, stride=stride, padding=padding), truth) < 1e-6
    narrow = [last(x).bfloat16(), last(weight).bfloat16(), bias.bfloat16()]
    assert error(by_patches(*narrow, stride=stride, padding=padding), truth) < 1e-2


def test_phases_are_the_direct_sum_over_the_doubled_map():
    x, weight, bias = random(2, 6, 5, 7), random(4, 6, 3, 3), random(4)
    truth = F.conv2d(F.interpolate(x.double(), scale_factor=2), weight.double(), bias.double(), padding=1)
    for form in (torch.clone, last):
        assert error(by_phases(form(x), form(weight), bias), truth) < 1e-6
    assert error(by_phases(x, weight), truth - bias.double()[:, None, None]) < 1e-6
    # In half precision, sums of filters are rounded as filters are.
    assert error(by_phases(x.bfloat16(), weight.bfloat16(), bias.bfloat16()), truth) < 6e-3


def test_when_a_doubled_map_goes_by_phases(monkeypatch):
    taken = []
    monkeypatch.setattr(convolution, "by_phases", lambda x, w, b: taken.append(x.dtype) or by_phases(x, w, b))
    x, weight, bias = random(1, 8, 32, 33), random(4, 8, 3, 3), random(4)
    truth = F.conv2d(F.interpolate(x.double(), scale_factor=2), weight.double(), bias.double(), padding=1)
    narrow = [each.bfloat16() for each in (x, weight, bias)]
    with torch.no_grad():
        assert error(convolve_doubled(x, weight, bias), truth) < 1e-6
        convolve_doubled(narrow[0][..., :15], *narrow[1:])  # too small to pay
        assert not taken
        assert error(convolve_doubled(*narrow), truth) < 6e-3
    assert taken == [torch.bfloat16]
    assert error(convolve_doubled(*narrow).detach(), truth) < 6e-3
    wide = convolve_doubled(narrow[0], random(4, 8, 5, 5).bfloat16())
    assert wide.shape == truth.shape and taken == [torch.bfloat16]


def chosen(x, weight, stride=1, padding=1):
    return kernel_for(x, weight, stride=(stride, stride), padding=(padding, padding))


@pytest.fixture
def long_vectors(monkeypatch):
    """A machine with AVX-512, whatever this one has."""
    monkeypatch.setattr(convolution, "_capability", lambda: "AVX512")


def test_which_kernel_with_short_vectors(monkeypatch):
    monkeypatch.setattr(convolution, "_capability", lambda: "AVX2")
    wide, deep = torch.empty(2, 320, 64, 64), torch.empty(2, 1280, 8, 8)
    assert chosen(wide, torch.empty(320, 320, 3, 3)) == "winograd"
    assert chosen(torch.empty(1, 512, 32, 32), torch.empty(512, 512, 3, 3)) == "winograd"
    assert (
        chosen(deep, torch.empty(1280, 1280, 3, 3)) == chosen(deep, torch.empty(1280, 1280, 3, 3), stride=2) == "torch"
    )
    assert chosen(last(wide), torch.empty(640, 320, 1, 1), padding=0) == "patches"


def test_which_kernel(long_vectors):
    with torch.device("meta"), torch.no_grad():
        wide, deep = torch.empty(2, 320, 64, 64), torch.empty(2, 1280, 8, 8)
    # `meta` is no processor: what is asked is only told by shapes and dtypes.
    assert chosen(wide, torch.empty(320, 320, 3, 3)) == "torch"
    wide, deep = torch.empty(2, 320, 64, 64), torch.empty(2, 1280, 8, 8)
    assert chosen(wide, torch.empty(320, 320, 3, 3)) == "winograd"
    assert chosen(deep, torch.empty(1280, 1280, 3, 3)) == "patches"
    assert chosen(deep, torch.empty(1280, 1280, 3, 3), stride=2) == "patches"
    assert chosen(last(wide), torch.empty(640, 320, 1, 1), padding=0) == "patches"
    assert chosen(wide, torch.empty(320, 320, 3, 3), stride=2) == "torch"
    assert chosen(wide[:, :4], torch.empty(320, 4, 3, 3)) == "torch"
    assert chosen(wide.bfloat16(), torch.empty(320, 320, 3, 3).bfloat16()) == "torch"
    small, filters = deep.bfloat16()[..., :4, :4], torch.empty(1280, 1280, 3, 3).bfloat16()
    assert chosen(small, filters) == "patches"
    assert chosen(deep.bfloat16(), filters) == chosen(small, filters[:64]) == chosen(small, filters.float()) == "torch"
    assert chosen(small.clone().requires_grad_(), filters) == "torch"
    assert chosen(wide, torch.empty(320, 320, 3, 3, requires_grad=True)) == "torch"
    with torch.no_grad():
        assert chosen(wide, torch.empty(320, 320, 3, 3, requires_grad=True)) == "winograd"
    followed = wide.requires_grad_()
    assert chosen(followed, torch.empty(320, 320, 3, 3)) == "winograd"
    assert chosen(followed[:, :64], torch.empty(64, 64, 3, 3)) == "torch"
    assert chosen(followed, torch.empty(320, 320, 3, 3, requires_grad=True)) == "torch"
    assert chosen(last(followed), torch.empty(640, 320, 1, 1), padding=0) == "torch"


@torch.no_grad()
@pytest.mark.parametrize(
    ("shape", "out", "side", "stride"),
    [((1, 64, 32, 33), 64, 3, 1), ((2, 192, 8, 8), 192, 3, 1), ((1, 64, 5, 5), 8, 1, 1), ((1, 192, 8, 8), 192, 3, 2)],
)
def test_convolve_is_torchs_whatever_it_picks(long_vectors, shape, out, side, stride):
    x, weight, bias = last(random(*shape)), last(random(out, shape[1], side, side)), random(out)
    padding = (side // 2, side // 2)
    assert kernel_for(x, weight, stride=(stride, stride), padding=padding) != "torch"
    truth = F.conv2d(x.double(), weight.double(), bias.double(), stride, padding)
    got = convolve(x, weight, bias, stride=(stride, stride), padding=padding)
    assert error(got, truth) < 2e-6
    assert got.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("height", [61, 64])
def test_frozen_filters_pass_the_gradient_on(height):
    """As torch's own, once and twice: gradient penalties follow gradients."""
    x, weight, bias = random(1, 128, height, 64), random(130, 128, 3, 3), random(130)
    leaf, exact = x.clone().requires_grad_(), x.double().requires_grad_()
    got = convolve(leaf, weight, bias, padding=(1, 1))
    truth = F.conv2d(exact, weight.double(), bias.double(), padding=1)
    assert type(got.grad_fn).__name__ == "FrozenBackward"
    (gradient,) = torch.autograd.grad(got.square().sum(), leaf, create_graph=True)
    (true,) = torch.autograd.grad(truth.square().sum(), exact, create_graph=True)
    assert error(got.detach(), truth.detach()) < 2e-6 and error(gradient.detach(), true.detach()) < 2e-6
    gradient.square().sum().backward()
    true.square().sum().backward()
    assert error(leaf.grad, exact.grad) < 4e-6


@pytest.mark.parametrize(
    ("side", "stride", "padding"), [((3, 3), 1, 1), ((1, 1), 1, 0), ((3, 3), 2, 0), ((4, 4), 2, 1), ((2, 3), 3, 2)]
)
def test_frozen_filters_of_any_shape_keep_nothing_of_what_came_in(side, stride, padding):
    x, weight, bias = random(2, 5, 13, 10), random(7, 5, *side), random(7)
    leaf, exact = x.clone().requires_grad_(), x.double().requires_grad_()
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: (kept.append(t), t)[1], lambda t: t):
        got = convolve(leaf, weight, bias, stride=(stride, stride), padding=(padding, padding))
    assert [tuple(each.shape) for each in kept] == [tuple(weight.shape)]
    truth = F.conv2d(exact, weight.double(), bias.double(), stride, padding)
    (gradient,) = torch.autograd.grad(got.square().sum(), leaf, create_graph=True)
    (true,) = torch.autograd.grad(truth.square().sum(), exact, create_graph=True)
    assert error(got.detach(), truth.detach()) < 1e-6 and error(gradient.detach(), true.detach()) < 1e-6
    gradient.square().sum().backward()
    true.square().sum().backward()
    assert error(leaf.grad, exact.grad) < 2e-6


def test_filters_and_biases_that_learn_are_torchs():
    x, weight, bias = random(1, 128, 64, 64).requires_grad_(), random(128, 128, 3, 3), random(128)
    with torch.autocast("cpu", torch.bfloat16):
        assert convolve(x, weight, bias, padding=(1, 1)).grad_fn.name() == "ConvolutionBackward0"
    for learns in (weight, bias):
        learns.requires_grad_()
        assert type(convolve(x, weight, bias, padding=(1, 1)).grad_fn).__name__ == "ConvolutionBackward0"
        learns.requires_grad_(False)
