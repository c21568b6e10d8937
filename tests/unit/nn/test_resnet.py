"""Blocks against the sums they stand for, done by hand on small maps."""

import pytest
import torch
from torch.nn import functional as F

from mindseye.nn.resnet import Downsample, ResBlock, Upsample
from mindseye.nn.seamless import circular


def random(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


def identity(conv):
    """Make a 3x3 convolution pass its input's centre through."""
    with torch.no_grad():
        conv.weight.zero_()
        for channel in range(conv.out_channels):
            conv.weight[channel, channel, 1, 1] = 1.0
        conv.bias.zero_()


def normalised(x, groups, eps):
    """GroupNorm without weights, from its definition."""
    parts = x.unflatten(1, (groups, -1)).flatten(2)
    spread = parts.var(dim=2, unbiased=False, keepdim=True)
    return ((parts - parts.mean(dim=2, keepdim=True)) / (spread + eps).sqrt()).view_as(x)


@torch.no_grad()
def test_residual_block_is_its_formula():
    block = ResBlock(4, 4, groups=2, eps=0.1, embedding=3)
    identity(block.conv1)
    identity(block.conv2)
    x, embedding = random(2, 4, 5, 5), random(2, 3)
    h = F.silu(normalised(x, 2, 0.1)) + (embedding @ block.embedding.weight.T + block.embedding.bias)[:, :, None, None]
    torch.testing.assert_close(block(x, embedding), x + F.silu(normalised(h, 2, 0.1)))


@torch.no_grad()
def test_shortcut_where_the_width_changes():
    block = ResBlock(4, 6, groups=2)
    block.conv2.weight.zero_()
    block.conv2.bias.zero_()
    x = random(1, 4, 3, 3)
    truth = torch.einsum("oc,bchw->bohw", block.shortcut.weight[:, :, 0, 0], x) + block.shortcut.bias[:, None, None]
    torch.testing.assert_close(block(x), truth)


def test_embedding_is_needed_where_built():
    with pytest.raises(ValueError, match="needs one"):
        ResBlock(4, 4, groups=2, embedding=3)(random(1, 4, 3, 3))


@torch.no_grad()
@pytest.mark.parametrize(("asymmetric", "first"), [(True, 1), (False, 0)])
def test_which_pixels_downsampling_centres_on(asymmetric, first):
    """Padded on the right and bottom only, windows are centred on odd places; padded all around, on even ones."""
    down = Downsample(1, asymmetric=asymmetric)
    identity(down.conv)
    x = torch.arange(36.0).view(1, 1, 6, 6)
    assert torch.equal(down(x), x[:, :, first::2, first::2])


@torch.no_grad()
def test_upsampling_repeats_and_meets_odd_sizes():
    up = Upsample(2)
    identity(up.conv)
    x = random(1, 2, 2, 3)
    assert torch.equal(up(x), x.repeat_interleave(2, 2).repeat_interleave(2, 3))
    assert torch.equal(up(x, torch.Size((3, 5))), x.repeat_interleave(2, 2).repeat_interleave(2, 3)[:, :, :3, :5])


@torch.no_grad()
def test_upsampling_in_half_precision_and_on_a_torus():
    torch.manual_seed(0)
    up = Upsample(8)
    x = random(1, 8, 32, 32)
    plain = up(x)
    with circular(up):
        round_ = up(x)
    up.bfloat16()
    assert (up(x.bfloat16()).float() - plain).norm() < 0.01 * plain.norm()
    with circular(up):
        assert (up(x.bfloat16()).float() - round_).norm() < 0.01 * round_.norm()
    assert (round_ - plain)[:, :, 0].norm() > 0.1 * plain[:, :, 0].norm()
