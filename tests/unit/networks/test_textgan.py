"""The text-conditional generator: it hears noise, sentence and words, and nothing of its batch."""

import pytest
import torch

from mindseye.networks.textgan import POCKET, Config, TextGenerator

TINY = Config(z_dim=6, vector=10, tokens=8, length=5, mixed=12, widths=(16, 12, 8), attention=(1,), heads=2)


@pytest.fixture
def network():
    """What starts at zero, away from it."""
    torch.manual_seed(0)
    made = TextGenerator(TINY).eval()
    for parameter in made.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.3)
    return made


def test_noise_sentence_and_words_are_heard(network):
    """Each of the three changes the picture; each picture is its own."""
    z, vector, tokens = torch.randn(3, 6), torch.randn(3, 10), torch.randn(3, 5, 8)
    with torch.no_grad():
        plain = network(z, vector, tokens)
        assert plain.shape == (3, 3, TINY.size, TINY.size) and plain.abs().max() <= 1
        for other in ((-z, vector, tokens), (z, -vector, tokens), (z, vector, -tokens)):
            assert (network(*other) - plain).abs().amax((1, 2, 3)).min() > 1e-4
        assert torch.allclose(network(z[1:2], vector[1:2], tokens[1:2]), plain[1:2], atol=1e-5)


def test_fusing_before_doubling_is_fusing_after(network):
    """Nearest-neighbour doubling commutes with what works on each place alone."""
    block, told, x = network.blocks[1], torch.randn(2, 12), torch.randn(2, 16, 4, 4)
    with torch.no_grad():
        up = torch.nn.functional.interpolate(x, scale_factor=2.0)
        h = block.first(block.fuse_first(up, told))
        later = (block.shortcut(up) + block.second(block.fuse_second(h, told))) * 0.5**0.5
        assert torch.allclose(block(x, told), later, atol=1e-5)


def test_gradients_reach_every_weight(network):
    """Nothing in it is idle."""
    network(torch.randn(2, 6), torch.randn(2, 10), torch.randn(2, 5, 8)).square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in network.parameters())


def test_the_size_that_travels():
    """64x64, below four million parameters."""
    with torch.device("meta"):
        network = TextGenerator(POCKET)
    assert POCKET.size == 64 and sum(p.numel() for p in network.parameters()) < 4_000_000
