"""The ADM U-Net against a straight-line account of it, its variants, and the published parameter counts."""

import dataclasses
import math

import pytest
import torch
from torch.nn import functional as F

from mindseye.networks.adm import ADM, KALIYUGA, POCKET, UNCOND_256, UNCOND_512, Config, SelfAttention

TINY = Config(
    width=8,
    channels=(8, 16),
    blocks=1,
    attention=SelfAttention(levels=(False, True), head_dim=4),
    groups=4,
)


def randomised(config, dtype=torch.float64):
    network = ADM(config).to(dtype)
    generator = torch.Generator().manual_seed(0)
    for parameter in network.parameters():
        parameter.data = 0.2 * torch.randn(parameter.shape, generator=generator, dtype=dtype)
    return network.requires_grad_(False).eval()


def straight(state, x, t, config, y=None):
    """The paper's network written out, from a flat state."""

    def conv(name, x, stride=1):
        weight = state[f"{name}.weight"]
        return F.conv2d(x, weight, state[f"{name}.bias"], stride=stride, padding=weight.shape[-1] // 2)

    def norm(name, x):
        grouped = x.reshape(len(x), config.groups, -1)
        mean, var = grouped.mean(2, keepdim=True), grouped.var(2, unbiased=False, keepdim=True)
        flat = ((grouped - mean) / (var + 1e-5).sqrt()).view_as(x)
        return flat * state[f"{name}.weight"][:, None, None] + state[f"{name}.bias"][:, None, None]

    def silu(x):
        return x * torch.sigmoid(x)

    def linear(name, x):
        return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]

    def change(x, how):
        if how == "down":
            return (x[..., ::2, ::2] + x[..., 1::2, ::2] + x[..., ::2, 1::2] + x[..., 1::2, 1::2]) / 4
        return x.repeat_interleave(2, 2).repeat_interleave(2, 3) if how == "up" else x

    def residual(name, x, emb, how=None):
        h = conv(f"{name}.conv1", change(silu(norm(f"{name}.norm1", x)), how))
        told = linear(f"{name}.embedding", silu(emb))[:, :, None, None]
        if config.film:
            scale, shift = told.chunk(2, 1)
            h = norm(f"{name}.norm2", h) * (1 + scale) + shift
        else:
            h = norm(f"{name}.norm2", h + told)
        h = conv(f"{name}.conv2", silu(h))
        x = change(x, how)
        return h + (conv(f"{name}.shortcut", x) if f"{name}.shortcut.weight" in state else x)

    def attention(name, x):
        b, c, height, width = x.shape
        heads = config.attention.heads_at(c)
        flat = norm(f"{name}.norm", x).reshape(b, c, -1)
        qkv = torch.einsum("oc,bcn->bon", state[f"{name}.qkv.weight"][..., 0], flat)
        qkv = qkv + state[f"{name}.qkv.bias"][:, None]
        if config.attention.order == "legacy":
            q, k, v = qkv.reshape(b * heads, 3 * c // heads, -1).split(c // heads, dim=1)
        else:
            q, k, v = (each.reshape(b * heads, c // heads, -1) for each in qkv.chunk(3, dim=1))
        scores = torch.einsum("bct,bcs->bts", q, k) / math.sqrt(c // heads)
        h = torch.einsum("bts,bcs->bct", scores.softmax(-1), v).reshape(b, c, -1)
        h = torch.einsum("oc,bcn->bon", state[f"{name}.out.weight"][..., 0], h) + state[f"{name}.out.bias"][:, None]
        return x + h.reshape(b, c, height, width)

    def stage(name, x, emb):
        x = residual(f"{name}.residual", x, emb)
        return attention(f"{name}.attention", x) if f"{name}.attention.norm.weight" in state else x

    def resample(name, x, emb, how):
        if config.residual:
            return residual(name, x, emb, how)
        return conv(f"{name}.conv", x, 2) if how == "down" else conv(f"{name}.conv", change(x, "up"))

    half = config.width // 2
    angles = t[:, None] * torch.exp(-math.log(10000) * torch.arange(half) / half).double()
    emb = torch.cat([angles.cos(), angles.sin()], 1)
    emb = linear("time.2", silu(linear("time.0", emb)))
    if y is not None:
        emb = emb + state["label.weight"][y]
    h = conv("conv_in", x)
    skips = [h]
    last = len(config.channels) - 1
    for level in range(last + 1):
        for place in range(config.blocks):
            h = stage(f"down.{level}.stages.{place}", h, emb)
            skips.append(h)
        if level < last:
            h = resample(f"down.{level}.resample", h, emb, "down")
            skips.append(h)
    h = residual("after", stage("before", h, emb), emb)
    for level in range(last, -1, -1):
        for place in range(config.blocks + 1):
            h = stage(f"up.{level}.stages.{place}", torch.cat([h, skips.pop()], 1), emb)
        if level:
            h = resample(f"up.{level}.resample", h, emb, "up")
    return conv("conv_out", silu(norm("norm_out", h)))


VARIANTS = {
    "adm": TINY,
    "deep": dataclasses.replace(
        TINY, channels=(8, 8, 16), blocks=2, attention=SelfAttention(levels=(False, True, True), heads=2, order="new")
    ),
    "kaliyuga": dataclasses.replace(
        TINY, film=False, residual=False, attention=SelfAttention(levels=(False, True), heads=1)
    ),
    "classes": dataclasses.replace(TINY, classes=5, out_channels=3),
}


@pytest.mark.parametrize("name", VARIANTS)
@torch.no_grad()
def test_it_is_the_papers_network(name):
    config = VARIANTS[name]
    network = randomised(config)
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(2, 3, 8, 16, generator=generator, dtype=torch.float64)
    t = torch.tensor([3.0, 987.5], dtype=torch.float64)
    y = None if config.classes is None else torch.tensor([4, 0])
    wanted = straight(network.state_dict(), x, t, config, y)
    found = network(x, t, y)
    assert found.shape == (2, config.out_channels, 8, 16)
    assert found.std() > 1e-3
    # The sinusoids are float32 on purpose.
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("config", "parameters", "tensors"),
    [(UNCOND_256, 552_814_086, 566), (UNCOND_512, 557_973_638, 644), (POCKET, 3_906_104, None)],
)
def test_published_counts(config, parameters, tensors):
    with torch.device("meta"):
        network = ADM(config)
    assert sum(each.numel() for each in network.parameters()) == parameters
    assert tensors is None or len(network.state_dict()) == tensors


def test_the_pocket_network_fits_eight_megabytes():
    with torch.device("meta"):
        network = ADM(POCKET)
    assert 2 * sum(each.numel() for each in network.parameters()) < 8_000_000


def test_a_fresh_network_says_nothing():
    assert not ADM(TINY)(torch.randn(1, 3, 8, 8), torch.zeros(1)).any()


@torch.no_grad()
def test_patches_are_space_to_depth_and_back():
    config = dataclasses.replace(TINY, patch=2)
    network = randomised(config)
    inner = dataclasses.replace(TINY, in_channels=12, out_channels=24)
    plain = ADM(inner).double()
    plain.load_state_dict(network.state_dict())
    x, t = torch.randn(1, 3, 16, 16, dtype=torch.float64), torch.tensor([7.0], dtype=torch.float64)
    wanted = F.pixel_shuffle(plain(F.pixel_unshuffle(x, 2), t), 2)
    torch.testing.assert_close(network(x, t), wanted)
    assert config.multiple == 4 and TINY.multiple == 2 and POCKET.multiple == 8


def test_gradients_reach_the_picture_through_frozen_weights():
    network = randomised(TINY)
    x = torch.randn(1, 3, 8, 8, dtype=torch.float64, requires_grad=True)
    t = torch.tensor([500.0], dtype=torch.float64)
    found = torch.autograd.grad(network(x, t).sum(), x)[0]
    step = torch.zeros_like(x)
    step[0, 1, 3, 4] = 1e-6
    with torch.no_grad():
        slope = (network(x + step, t).sum() - network(x - step, t).sum()) / 2e-6
    assert found[0, 1, 3, 4].item() == pytest.approx(slope.item(), rel=1e-4)


def test_mistakes_are_named():
    x, t = torch.zeros(1, 3, 8, 8), torch.zeros(1)
    with pytest.raises(ValueError, match="takes no classes"):
        ADM(TINY)(x, t, torch.tensor([1]))
    with pytest.raises(ValueError, match="needs classes"):
        ADM(VARIANTS["classes"])(x, t)
    with pytest.raises(ValueError, match="either heads or head_dim"):
        SelfAttention(levels=(True,), heads=2, head_dim=4)
    with pytest.raises(ValueError, match="cannot be split"):
        SelfAttention(levels=(True,), head_dim=5).heads_at(16)
    with pytest.raises(ValueError, match="each of 2 levels"):
        dataclasses.replace(TINY, attention=SelfAttention(levels=(True,), heads=1))
    assert KALIYUGA.multiple == 32
