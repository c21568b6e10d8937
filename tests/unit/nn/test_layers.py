"""torch's layers with our freedoms: the same numbers, whatever the weights are stored in."""

import copy
import pickle

import pytest
import torch
from torch import nn

from mindseye.nn import layers
from mindseye.nn.layers import Conv2d, Later, Linear, added, normed_silu, settle, silu


def random(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


def pair(ours, theirs):
    theirs.load_state_dict(ours.state_dict(), strict=True)
    return ours, theirs


@torch.no_grad()
@pytest.mark.parametrize(
    "options",
    [
        {"padding": 1},
        {"padding": 1, "stride": 2},
        {"padding": "same"},
        {"padding": 1, "padding_mode": "circular"},
        {"groups": 2},
        {"dilation": 2},
        {"bias": False},
    ],
)
def test_convolutions_are_torchs(options):
    ours, theirs = pair(Conv2d(4, 6, 3, **options), nn.Conv2d(4, 6, 3, **options))
    x = random(2, 4, 9, 8)
    torch.testing.assert_close(ours(x), theirs(x))


@torch.no_grad()
def test_wide_convolutions_are_torchs():
    ours, theirs = pair(Conv2d(64, 64, 3, padding=1), nn.Conv2d(64, 64, 3, padding=1))
    x = random(1, 64, 32, 32)
    torch.testing.assert_close(ours(x), theirs(x), rtol=0, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("layer", [Linear(5, 7), Conv2d(5, 7, 3), Linear(5, 7, bias=False)])
@pytest.mark.parametrize("narrow", [torch.float16, torch.bfloat16])
def test_narrow_weights_are_widened_for_a_call_only(layer, narrow):
    layer = layer.to(narrow)
    x = random(2, 5, 6, 6) if isinstance(layer, Conv2d) else random(2, 3, 5)
    got = layer(x)
    assert got.dtype == torch.float32
    assert {p.dtype for p in layer.parameters()} == {narrow}
    torch.testing.assert_close(layer.float()(x), got)


def test_gradients_reach_everything():
    layers = nn.Sequential(Conv2d(64, 64, 3, padding=1), Conv2d(64, 64, 1))
    x = random(1, 64, 32, 32).requires_grad_()
    layers(x).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in (x, *layers.parameters()))


def test_autocast_casts_by_itself():
    layer = Linear(4, 4)
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(random(2, 4)).dtype == torch.bfloat16


def test_in_place_only_without_gradients():
    x, y = random(3), random(3) + 1
    truth = x + y
    assert added(x, y) is not x
    with torch.no_grad():
        assert added(x, y) is x
        half = y.bfloat16()
        assert added(half, truth).dtype == torch.float32  # never rounded to the narrower of the two
        z = random(4)
        assert silu(z) is z
    torch.testing.assert_close(x, truth)
    leaf = random(3).requires_grad_()
    before = leaf.detach().clone()
    silu(leaf).sum().backward()
    assert torch.equal(leaf.detach(), before)
    assert leaf.grad is not None


@pytest.mark.parametrize("form", [torch.contiguous_format, torch.channels_last])
def test_a_norm_and_its_silu_keep_only_what_came_in(form, monkeypatch):
    monkeypatch.setattr(layers, "_BLOCK", 100)  # eight places at a time, and three at the end
    norm = nn.GroupNorm(3, 12, eps=0.1).requires_grad_(False)
    norm.weight.copy_(random(12)), norm.bias.copy_(random(12) / 2)
    x, weight = random(2, 12, 5, 7).contiguous(memory_format=form), random(2, 12, 5, 7)
    kept = []
    for run in (lambda x: normed_silu(norm, x), lambda x: nn.functional.silu(norm(x))):
        leaf = x.clone(memory_format=torch.preserve_format).requires_grad_()
        large = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t, to=large: (to.append(t.numel()), t)[1], lambda t: t):
            got = run(leaf)
        (gradient,) = torch.autograd.grad((got * weight).sum(), leaf)
        kept.append((got.detach(), gradient, sum(size >= x.numel() for size in large)))
    torch.testing.assert_close(kept[0][:2], kept[1][:2], rtol=1e-5, atol=1e-6)
    assert (kept[0][2], kept[1][2]) == (1, 2)
    # A norm that learns, and numbers that round: as torch does it.
    assert normed_silu(nn.GroupNorm(3, 12), x.clone().requires_grad_()).grad_fn.name() == "SiluBackward0"
    half = norm.bfloat16()
    assert normed_silu(half, x.bfloat16().requires_grad_()).grad_fn.name() == "SiluBackward0"


def test_a_norm_that_learns_in_bfloat16_is_computed_in_float32():
    norm, x, weight = nn.GroupNorm(3, 12), random(2, 12, 5, 7).bfloat16(), random(2, 12, 5, 7)
    got, truth = normed_silu(norm, x), nn.functional.silu(norm(x.float()))
    assert got.dtype == torch.bfloat16
    assert torch.equal(got, truth.bfloat16())
    grads = [torch.autograd.grad((y.float() * weight).sum(), norm.weight)[0] for y in (got, truth.bfloat16())]
    assert torch.equal(*grads)


@pytest.mark.parametrize("stored", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_layers_widened_at_their_first_call_are_as_if_widened_before(stored, dtype):
    let_go = []
    later = Later(dtype=dtype, memory_format=torch.channels_last, release=let_go.append)
    network = nn.Sequential(Conv2d(4, 6, 3).to(stored), Conv2d(6, 3, 1).to(stored), Linear(4, 5).to(stored))
    with torch.no_grad():
        wide = [network[0].weight.to(dtype), network[2].weight.to(dtype)]
    for layer in network:
        layer.later = later
    with torch.inference_mode():
        network[0](random(1, 4, 5, 5).to(dtype))
    assert torch.equal(network[0].weight, wide[0]) and network[0].weight.dtype == dtype
    assert network[0].weight.is_contiguous(memory_format=torch.channels_last)
    assert network[2].weight.dtype == stored and network[2].later is later
    assert [tuple(x.shape) for x in let_go] == [(6, 4, 3, 3)] + ([] if stored == dtype else [(6,)])
    settle(network)
    assert torch.equal(network[2].weight, wide[1]) and all(layer.later is None for layer in network)
    # Made in inference mode, and good for gradients afterwards.
    x = random(1, 4, 5, 5).to(dtype).requires_grad_()
    network[0](x).float().sum().backward()
    assert x.grad is not None


@pytest.mark.parametrize("way", ["deepcopy", "pickle", "to", "state_dict"])
def test_what_is_done_to_a_waiting_network_is_done_to_what_it_will_be(way):
    """Not undone by the first call; and the open file that `release` belongs to is neither copied nor pickled."""

    class File:
        def __init__(self):
            self.mapped = (nothing for nothing in ())  # as little to be copied as a memory map

        def release(self, old):
            pass

    later = Later(dtype=torch.float32, memory_format=torch.channels_last, release=File().release)
    network = nn.Sequential(Conv2d(4, 6, 3), Linear(5, 6)).half()
    wide = [layer.weight.detach().float() for layer in network]
    for layer in network:
        layer.later = later
    if way == "deepcopy":
        made = copy.deepcopy(network)
    elif way == "pickle":
        made = pickle.loads(pickle.dumps(network))
    elif way == "to":
        made, wide = network.to(torch.bfloat16), [weight.bfloat16() for weight in wide]
    else:  # what is stored goes out as it is stored, to the bit
        made, wide = nn.Sequential(Conv2d(4, 6, 3), Linear(5, 6)).half(), [weight.half() for weight in wide]
        made.load_state_dict(network.state_dict())
    if way != "state_dict":
        made[0](random(1, 4, 5, 5).to(wide[0].dtype))
    assert all(torch.equal(layer.weight, weight) for layer, weight in zip(made, wide, strict=True))
    assert all(layer.later is None for layer in made)
