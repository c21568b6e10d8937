"""BigGAN-deep's generator: sites, rows of statistics, training. What it computes is in tests/parity/test_biggan.py."""

from copy import deepcopy
from dataclasses import replace

import pytest
import torch

from mindseye.adversarial.standing import measure
from mindseye.checkpoints.save import load_part, save_part
from mindseye.networks.biggan import BIGGAN_DEEP_128, BIGGAN_DEEP_256, BIGGAN_DEEP_512, BigGAN, Config, truncated

TINY = Config(
    z_dim=6,
    class_dim=4,
    num_classes=3,
    width=8,
    layers=((False, 4, 4), (True, 4, 2), (True, 2, 1)),
    attention=2,
    rows=3,
)


@pytest.fixture
def network():
    """Small and random, its gain not at the start."""
    torch.manual_seed(0)
    made = BigGAN(TINY).eval()
    torch.nn.init.constant_(made.attention.gain, 0.5)
    return made


@pytest.mark.parametrize(
    ("config", "millions", "sites", "size"),
    [(BIGGAN_DEEP_128, 50.4, 11, 128), (BIGGAN_DEEP_256, 55.9, 13, 256), (BIGGAN_DEEP_512, 56.2, 15, 512)],
)
def test_the_published_sizes(config, millions, sites, size):
    """Parameters as published, less those of the last convolution that are never shown; Big Sleep's numbers of rows."""
    with torch.device("meta"):
        network = BigGAN(config)
    last = 9 * config.width * (config.width - 3) + config.width - 3
    count = sum(parameter.numel() for parameter in network.parameters()) + last
    assert abs(count / 1e6 - millions) < 0.06
    assert (config.sites, config.size) == (sites, size)


def test_each_site_hears_its_own_row(network):
    """The same row everywhere is one vector; another row anywhere changes the picture; too few are refused."""
    z, classes = torch.randn(2, 6), torch.eye(3)[:2]
    rows = z[:, None].expand(-1, TINY.sites, -1)
    with torch.no_grad():
        plain = network(z, classes)
        assert torch.allclose(network(rows, classes), plain, atol=1e-6)
        assert torch.allclose(network(z, classes[:, None].expand(-1, TINY.sites, -1)), plain, atol=1e-6)
        for site in range(TINY.sites):
            other = rows.clone()
            other[:, site] += 1
            assert (network(other, classes) - plain).abs().max() > 1e-4
    with pytest.raises(ValueError, match="3 rows for 4 sites"):
        network(rows[:, :3], classes)


def test_gradients_reach_noise_and_classes(network):
    """What Big Sleep paints with."""
    z, classes = torch.randn(1, 4, 6, requires_grad=True), torch.full((1, 3), 0.3, requires_grad=True)
    network(z, classes).square().sum().backward()
    assert (z.grad.abs().amax(2) > 0).all() and (classes.grad != 0).all()


def test_rows_of_statistics_follow_truncation(network):
    """Between two rows, a share of each; one row serves all; nothing beyond 1."""
    for norm in [module for module in network.modules() if hasattr(module, "means")]:
        norm.means[1] += 0.3
        norm.means[2] -= 0.4
    z, classes = torch.randn(1, 6), torch.eye(3)[:1]
    with torch.no_grad():
        between = network(z, classes, 0.75)
        for norm in [module for module in network.modules() if hasattr(module, "means")]:
            norm.means[0] = norm.means[1:].mean(0)
        assert torch.allclose(network(z, classes, 0.0), between, atol=1e-6)
    with pytest.raises(ValueError, match="within 0 and 1"):
        network(z, classes, 1.5)


def test_training_normalises_by_the_batch_and_measuring_fills_the_table():
    """In training each channel of the last map has mean 0, deviation 1; measured, eval mode paints nearly the same."""
    torch.manual_seed(1)
    network = BigGAN(TINY)
    z, classes = torch.randn(256, 6), torch.eye(3)[torch.arange(256) % 3]
    seen = {}
    network.norm.register_forward_hook(lambda module, args, out: seen.update(out=out))
    network(z, classes)
    assert seen["out"].mean((0, 2, 3)).abs().max() < 1e-4
    assert (seen["out"].var((0, 2, 3)) - 1).abs().max() < 1e-2
    assert network.norm.means.abs().max() > 0
    measure(network, TINY.rows, lambda truncation, number: network(truncation * z, classes, truncation), batches=2)
    assert not network.training
    with torch.no_grad():
        for truncation in (0.5, 1.0):
            settled = network(truncation * z, classes, truncation)
            fresh = deepcopy(network).train()(truncation * z, classes, truncation)
            assert (settled - fresh).abs().max() < 0.02
        # Other truncations, other statistics: what is measured is not one row three times.
        assert (network.norm.variances[0] - network.norm.variances[2]).abs().max() > 1e-3


def test_a_picture_is_the_same_alone_and_in_a_batch(network):
    """Nothing of the batch enters in eval mode."""
    z, classes = torch.randn(3, 6), torch.eye(3)
    with torch.no_grad():
        assert torch.allclose(network(z, classes)[1:2], network(z[1:2], classes[1:2]), atol=1e-6)


def test_saved_with_its_labels(network, tmp_path):
    """Labels travel in the header; a wrong number of them is refused."""
    network.config = replace(TINY, labels=("cat", "dog", "moon"))
    save_part(tmp_path / "g.safetensors", network)
    again = load_part(tmp_path / "g.safetensors")
    assert again.config == network.config
    with torch.no_grad():
        z = torch.randn(1, 6)
        # Where in memory weights begin may decide how a product is summed; the weights themselves are the same.
        torch.testing.assert_close(again(z, torch.eye(3)[:1]), network(z, torch.eye(3)[:1]), rtol=1e-6, atol=1e-6)
    assert all(torch.equal(value, again.state_dict()[key]) for key, value in network.state_dict().items())
    with pytest.raises(ValueError, match="2 labels for 3"):
        replace(TINY, labels=("cat", "dog"))


def test_truncated_noise():
    """Within -2 and 2, in order, and distributed as a normal cut off there (variance 0.7737)."""
    normal = torch.randn(200_000, generator=torch.Generator().manual_seed(0)).sort().values
    cut = truncated(normal)
    assert cut.abs().max() <= 2 and (cut.diff() >= 0).all()
    assert abs(float(cut.var()) - 0.7737) < 0.01
