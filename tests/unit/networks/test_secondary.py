"""The secondary model against a straight-line account of it, and its published size."""

import math

import pytest
import torch
from torch.nn import functional as F

from mindseye.checkpoints.layout import restore
from mindseye.checkpoints.layouts.guided_diffusion import secondary_rules
from mindseye.networks.secondary import IMAGENET_2, Config, Secondary


def straight(theirs, x, t, depth):
    """Nested as published, by the published names."""
    planes = 2 * math.pi * t[:, None] @ theirs["timestep_embed.weight"].T
    planes = torch.cat([planes.cos(), planes.sin()], 1)[:, :, None, None].expand(-1, -1, *x.shape[2:])

    def conv(name, x):
        return F.relu(F.conv2d(x, theirs[f"{name}.0.weight"], theirs[f"{name}.0.bias"], padding=1))

    def level(prefix, x, left):
        x = F.avg_pool2d(x, 2)
        x = conv(f"{prefix}.2", conv(f"{prefix}.1", x))
        if left:
            inner = level(f"{prefix}.3.main", x, left - 1)
            x = torch.cat([inner, x], 1)
            x = conv(f"{prefix}.5", conv(f"{prefix}.4", x))
        else:
            x = conv(f"{prefix}.4", conv(f"{prefix}.3", x))
        return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)

    x = conv("net.1", conv("net.0", torch.cat([x, planes], 1)))
    x = torch.cat([level("net.2.main", x, depth - 1), x], 1)
    return F.conv2d(conv("net.3", x), theirs["net.4.weight"], theirs["net.4.bias"], padding=1)


@pytest.mark.parametrize("channels", [(8, 12), (8, 12, 16), (8, 8, 12, 12, 16, 20)])
@torch.no_grad()
def test_it_is_the_published_network(channels):
    torch.manual_seed(0)
    network = Secondary(Config(channels=channels, planes=4)).double()
    theirs = restore(network.state_dict(), list(secondary_rules(network.config)))
    x, t = torch.randn(2, 3, 32, 64, dtype=torch.float64), torch.tensor([0.1, 0.9], dtype=torch.float64)
    torch.testing.assert_close(network(x, t), straight(theirs, x, t, len(channels) - 1), rtol=1e-10, atol=1e-10)


def test_published_size():
    with torch.device("meta"):
        network = Secondary(IMAGENET_2)
    assert sum(each.numel() for each in network.parameters()) == 13_841_547
    assert len(network.state_dict()) == 49
