"""Spectral norms: a judge whose every layer stretches nothing by more than 1.

Miyato et al. 2018 (arXiv:1802.05957). While it trains, each weight is divided by its largest singular value, found by
one step of power iteration a call; afterwards the quotient is just a weight.
"""

from typing import TypeVar

from torch import nn
from torch.nn.utils import parametrizations, parametrize

__all__ = ["folded", "normalised"]

M = TypeVar("M", bound=nn.Module)
KINDS = (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)


def normalised(network: M, eps: float = 1e-6) -> M:
    """The same network, every linear layer and convolution of it under its spectral norm from now on."""
    for module in network.modules():
        if isinstance(module, KINDS) and not parametrize.is_parametrized(module):
            parametrizations.spectral_norm(module, eps=eps)
    return network


def folded(network: M) -> M:
    """The same network with plain weights again, divided for good: what can be saved."""
    network.eval()
    for module in network.modules():
        if isinstance(module, KINDS) and parametrize.is_parametrized(module):
            parametrize.remove_parametrizations(module, "weight")
    return network
