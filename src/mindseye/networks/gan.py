"""The first two generations of adversarial networks: Goodfellow's perceptrons and the all-convolutional DCGAN.

Goodfellow et al. 2014 (arXiv:1406.2661): a picture is one vector, made and judged by perceptrons. Radford et al. 2015
(arXiv:1511.06434, "DCGAN"): strided convolutions with batch norms on both sides, which trained stably first.

Deviations:
    - The discriminators give logits; their sigmoid belongs to the loss.
    - Goodfellow's discriminator has maxout units, which the weights that are public do not have: leaky ReLU here.
    - ``grey`` networks have one channel inside; outside, as everywhere in mindseye, pictures have three.
"""

from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from mindseye.nn.layers import Conv2d, Linear
from mindseye.shapes import Pixels

__all__ = [
    "DCGAN_64",
    "MNIST_MLP",
    "POCKET",
    "Config",
    "DCGANDiscriminator",
    "DCGANGenerator",
    "MLPConfig",
    "MLPDiscriminator",
    "MLPGenerator",
]

Logit = Float[Tensor, "B"]
"""Above 0: taken for real."""


@dataclass(frozen=True, kw_only=True)
class MLPConfig:
    """Both perceptrons.

    Attributes:
        size: Side of the pictures.
        grey: Whether pictures have one channel.
        z_dim: Numbers of noise.
        hidden: Widths of the generator's hidden layers; of the discriminator's, in reverse.
    """

    size: int = 28
    grey: bool = True
    z_dim: int = 64
    hidden: tuple[int, ...] = (256, 256)

    @property
    def numbers(self) -> int:
        """Of a picture."""
        return self.size * self.size * (1 if self.grey else 3)


MNIST_MLP = MLPConfig()
"""The public weights of csinva/gan-vae-pretrained-pytorch: 280 thousand parameters, handwritten digits."""


@final
class MLPGenerator(nn.Module):
    """Noise to a picture through fully connected layers.

    Args:
        config: What to build.
    """

    def __init__(self, config: MLPConfig) -> None:
        super().__init__()
        self.config = config
        widths = (config.z_dim, *config.hidden, config.numbers)
        self.layers = nn.ModuleList(Linear(a, b) for a, b in zip(widths, widths[1:], strict=False))

    def forward(self, z: Float[Tensor, "B Z"]) -> Pixels:
        """Draw, in [-1, 1]."""
        for layer in self.layers[:-1]:
            z = F.relu(layer(z))
        size = self.config.size
        return torch.tanh(self.layers[-1](z)).view(len(z), -1, size, size).expand(-1, 3, -1, -1)


@final
class MLPDiscriminator(nn.Module):
    """A picture to a logit through fully connected layers.

    Args:
        config: What to build.
    """

    def __init__(self, config: MLPConfig) -> None:
        super().__init__()
        self.config = config
        widths = (config.numbers, *reversed(config.hidden), 1)
        self.layers = nn.ModuleList(Linear(a, b) for a, b in zip(widths, widths[1:], strict=False))

    def forward(self, pixels: Pixels) -> Logit:
        """Judge."""
        x = (pixels.mean(1) if self.config.grey else pixels).flatten(1)
        for layer in self.layers[:-1]:
            x = F.leaky_relu(layer(x), 0.2)
        return self.layers[-1](x)[:, 0]


@dataclass(frozen=True, kw_only=True)
class Config:
    """A DCGAN, generator or discriminator.

    Attributes:
        z_dim: Numbers of noise.
        widths: Channels of the maps, from 4x4 up, each of twice the side of the one before; the picture is twice the
            last. The discriminator's are the same.
        grey: Whether pictures have one channel.
        last: Kernel, stride and padding of the generator's last layer; (1, 1, 2) makes 28x28 of 24x24, as for digits.
        eps: Of the batch norms.
    """

    z_dim: int = 100
    widths: tuple[int, ...] = (512, 256, 128, 64)
    grey: bool = False
    last: tuple[int, int, int] = (4, 2, 1)
    eps: float = 1e-5

    @property
    def size(self) -> int:
        """Side of the pictures."""
        kernel, stride, padding = self.last
        return (4 * 2 ** (len(self.widths) - 1) - 1) * stride - 2 * padding + kernel


DCGAN_64 = Config()
"""pytorch/examples: 3.6M parameters, 64x64."""
POCKET = Config(z_dim=64, widths=(256, 128, 64, 32))
"""The small one that travels with the package: 64x64, 1.0M parameters."""


@final
class DCGANGenerator(nn.Module):
    """Noise to a picture through transposed convolutions.

    Args:
        config: What to build.
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        widths = (config.z_dim, *config.widths)
        self.convs = nn.ModuleList(
            nn.ConvTranspose2d(a, b, 4, *((1, 0) if place == 0 else (2, 1)), bias=False)
            for place, (a, b) in enumerate(zip(widths, widths[1:], strict=False))
        )
        self.norms = nn.ModuleList(nn.BatchNorm2d(width, eps=config.eps) for width in config.widths)
        kernel, stride, padding = config.last
        channels = 1 if config.grey else 3
        self.to_rgb = nn.ConvTranspose2d(config.widths[-1], channels, kernel, stride, padding, bias=False)
        _initial(self)

    def forward(self, z: Float[Tensor, "B Z"]) -> Pixels:
        """Draw, in [-1, 1]."""
        x = z[:, :, None, None]
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = F.relu(norm(conv(x)))
        return torch.tanh(self.to_rgb(x)).expand(-1, 3, -1, -1)


@final
class DCGANDiscriminator(nn.Module):
    """A picture to a logit through strided convolutions.

    Args:
        config: The generator's.
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        widths = (1 if config.grey else 3, *reversed(config.widths))
        self.convs = nn.ModuleList(
            Conv2d(a, b, 4, stride=2, padding=1, bias=False) for a, b in zip(widths, widths[1:], strict=False)
        )
        self.norms = nn.ModuleList(nn.BatchNorm2d(width, eps=config.eps) for width in widths[2:])
        self.judge = Conv2d(widths[-1], 1, 4, bias=False)
        _initial(self)

    def forward(self, pixels: Pixels) -> Logit:
        """Judge pictures of the generator's size; the first layer has no norm."""
        x = pixels.mean(1, keepdim=True) if self.config.grey else pixels
        for place, conv in enumerate(self.convs):
            x = conv(x)
            x = F.leaky_relu(self.norms[place - 1](x) if place else x, 0.2)
        return self.judge(x).flatten(1).mean(1)


def _initial(network: nn.Module) -> None:
    """The paper's starting values: N(0, 0.02) for filters, N(1, 0.02) for the norms' scales."""
    for module in network.modules():
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
            nn.init.normal_(module.weight, std=0.02)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight, 1.0, 0.02)
