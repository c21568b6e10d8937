"""Translators: sizes, what crosses, what noise changes."""

import pytest
import torch

from mindseye.networks.translator import ResNetConfig, ResNetTranslator, UNetConfig, UNetTranslator


def test_the_u_net_hands_outlines_across():
    """A single pixel's change is felt next to it more than far away, and the answer has the source's size."""
    torch.manual_seed(0)
    network = UNetTranslator(UNetConfig(size=32, width=8, levels=3, noise=4)).eval()
    pixels = torch.rand(1, 3, 32, 64) * 2 - 1
    with torch.no_grad():
        plain = network(pixels)
        assert plain.shape == pixels.shape and plain.abs().max() <= 1
        changed = pixels.clone()
        changed[:, :, 8, 8] *= -1
        off = (network(changed) - plain).abs().mean(1)[0]
        assert off[6:11, 6:11].mean() > 3 * off[24:, 48:].mean()
        z = torch.randn(1, 4)
        assert (network(pixels, z) - plain).abs().max() > 1e-5
        assert torch.equal(network(pixels, torch.zeros(1, 4)), plain)


def test_the_u_net_learns_a_translation():
    """A few steps bring it nearer to the negative of what it is shown: gradients pass through all of it."""
    torch.manual_seed(0)
    network = UNetTranslator(UNetConfig(size=16, width=8, levels=2, noise=0))
    pixels = torch.rand(4, 3, 4, 4).repeat_interleave(4, 2).repeat_interleave(4, 3) * 1.6 - 0.8
    optimizer = torch.optim.Adam(network.parameters(), 1e-2)
    losses = []
    for _ in range(15):
        loss = (network(pixels) + pixels).abs().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.7 * losses[0]
    assert all(parameter.grad is not None for parameter in network.parameters())


def test_the_residual_translator():
    """Any multiple of four; noise changes nothing; pictures do not hear each other."""
    torch.manual_seed(0)
    network = ResNetTranslator(ResNetConfig(width=8, blocks=2)).eval()
    pixels = torch.rand(2, 3, 16, 24) * 2 - 1
    with torch.no_grad():
        drawn = network(pixels)
        assert drawn.shape == pixels.shape and drawn.abs().max() <= 1
        assert torch.equal(network(pixels, torch.randn(2, 3)), drawn)
        assert torch.allclose(network(pixels[1:]), drawn[1:], atol=1e-5)


def test_depths_that_cannot_be():
    """Halvings that leave half a pixel."""
    with pytest.raises(ValueError, match="halvings"):
        UNetConfig(size=48, levels=5)
