"""Networks as pictures."""

import math

import pytest
import torch

from mindseye.ascent import siren as module
from mindseye.ascent.canvas import Canvas
from mindseye.ascent.siren import SirenCanvas
from mindseye.networks.siren import Config, Siren, grid
from mindseye.noise import Noise


def canvas(seeds, size=(6, 8), **settings):
    """A small one."""
    network = Siren(Config(pictures=len(seeds), hidden=8, layers=3))
    return SirenCanvas.of_noise(network, Noise(seeds), size, **settings)


def test_a_seed_is_a_seed_in_any_batch():
    together, alone = canvas([3, 4, 5]), canvas([4])
    assert torch.allclose(together.final()[1], alone.final()[0], atol=1e-6)
    assert not torch.allclose(together.final()[0], together.final()[1], atol=1e-2)
    together.render().square().sum().backward()
    alone.render().square().sum().backward()
    for one, other in zip(together.parameters(), alone.parameters(), strict=True):
        assert torch.allclose(one.grad[1], other.grad[0], atol=1e-5)


def test_bands_that_are_computed_again_change_nothing(monkeypatch):
    plain, banded = canvas([1, 2]), canvas([1, 2])
    plain.render().square().sum().backward()
    monkeypatch.setattr(module, "_KEPT", 2 * 3 * 8 * 2 * 7)  # seven places at a time
    assert torch.allclose(banded.final(), plain.final(), atol=1e-6)
    banded.render().square().sum().backward()
    for one, other in zip(plain.parameters(), banded.parameters(), strict=True):
        assert torch.allclose(one.grad, other.grad, rtol=1e-4, atol=1e-6)


def test_the_grid_is_square_pixels():
    places = grid(4, 4).view(4, 4, 2)
    assert torch.allclose(places[:, 0, 0], torch.linspace(-1, 1, 4)) and torch.allclose(
        places[0, :, 1], places[:, 0, 0]
    )
    wide = grid(3, 5).view(3, 5, 2)
    assert torch.allclose(wide[0, 1] - wide[0, 0], torch.tensor([0.0, 1.0]))
    assert torch.allclose(wide[1, 0] - wide[0, 0], torch.tensor([1.0, 0.0]))
    assert grid(1, 3).shape == (3, 2)


def test_initial_weights_lie_within_the_published_bounds():
    network = Siren(Config(pictures=2, hidden=64, layers=3, w0=20.0))
    network.fill(Noise([0, 1]))
    for layer, bound in zip((*network.layers, network.last_layer), [1 / 2] + [math.sqrt(6 / 64) / 20] * 3, strict=True):
        most = layer.weight.abs().max().item()
        assert 0.9 * bound < most <= bound and layer.bias.abs().max() <= bound
    with pytest.raises(ValueError, match="seeds"):
        network.fill(Noise([0]))


def test_beyond_the_range_only_the_way_back_has_a_gradient():
    for hard, back in ((False, 3.0), (True, 0.0)):
        one = canvas([1], hard=hard)
        with torch.no_grad():
            one.siren.last_layer.bias.copy_(torch.tensor([[9.0, 9.0, -9.0]]))
            one.siren.last_layer.weight.zero_()
        assert torch.equal(one.final().amax((0, 2, 3)), torch.tensor([1.0, 1.0, -1.0]))
        grad = torch.zeros(1, 3, 6, 8)
        # Red is too bright and should fall, green is too bright and should rise, blue too dark and should rise.
        grad[:, :, 0, :3] = torch.tensor([1.0, -1.0, -1.0])[:, None]
        one.render().backward(grad)
        assert torch.equal(one.siren.last_layer.bias.grad, torch.tensor([[back, 0.0, -back]]))


def test_it_is_a_canvas():
    assert isinstance(canvas([1]), Canvas)
    assert canvas([1], (5, 3)).final().shape == (1, 3, 5, 3)


@pytest.mark.parametrize("wrong", [{"pictures": 0}, {"hidden": 0}, {"layers": 0}])
def test_a_network_of_nothing_is_refused(wrong):
    with pytest.raises(ValueError, match="at least one"):
        Config(**wrong)
