"""Pictures that continue on their own other side: textures and wallpapers.

A network made of convolutions, norms and attention without positions treats a picture as a torus once its convolutions
see, beyond each edge, what lies at the opposite one (circular padding). `Seamless` is the network with that done while
it runs. Nothing in the network is changed for longer than one call, so the same network serves every other caller.

For a texture, the U-Net and the codec must both be seamless. Sides must divide evenly all the way down.
"""

import contextlib
from collections.abc import Iterator
from typing import Any, final

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from mindseye.nn.resnet import Downsample

__all__ = ["Seamless", "circular"]


@final
class Seamless(nn.Module):
    """A network on a torus; stands wherever the network stands.

    Args:
        network: Any network whose convolutions are `torch.nn.Conv2d`.
        x: Whether left and right edge meet.
        y: Whether top and bottom edge meet.
    """

    def __init__(self, network: nn.Module, *, x: bool = True, y: bool = True) -> None:
        super().__init__()
        self.network = network
        self.x, self.y = x, y

    def forward(self, *arguments: Any) -> Any:
        """As the network, and shaped like it."""
        with circular(self.network, x=self.x, y=self.y):
            return self.network(*arguments)

    def encode(self, pixels: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B C h w"]:
        """As the codec."""
        with circular(self.network, x=self.x, y=self.y):
            return self.network.encode(pixels)  # type: ignore[operator]

    def decode(self, latents: Float[Tensor, "B C h w"]) -> Float[Tensor, "B 3 H W"]:
        """As the codec."""
        with circular(self.network, x=self.x, y=self.y):
            return self.network.decode(latents)  # type: ignore[operator]

    @property
    def factor(self) -> int:
        """The codec's."""
        return self.network.factor  # type: ignore[return-value]


@contextlib.contextmanager
def circular(network: nn.Module, *, x: bool = True, y: bool = True) -> Iterator[None]:
    """Within, the convolutions of a network pad circularly along the chosen axes; afterwards as they always did.

    Not to be held over a ``yield``: others would find the network changed. `Seamless` holds it for one call at a time.
    """
    changed: list[tuple[nn.Module, str]] = []
    try:
        for module in network.modules() if x or y else ():
            if isinstance(module, nn.Conv2d) and any(_reach(module)):
                name, method = "_conv_forward", _wrapping(module, x=x, y=y)
            elif isinstance(module, Downsample) and module.asymmetric:
                name, method = "forward", _halving(module, x=x, y=y)
            else:
                continue
            # On the object, where it hides the method of its class until it is deleted again.
            module.__dict__[name] = method
            changed.append((module, name))
        yield
    finally:
        for module, name in changed:
            module.__dict__.pop(name, None)


def _reach(conv: nn.Conv2d) -> tuple[int, int]:
    """How far a convolution pads, horizontally and vertically."""
    if isinstance(conv.padding, str):
        return (0, 0) if conv.padding == "valid" else (conv.kernel_size[1] // 2, conv.kernel_size[0] // 2)
    return int(conv.padding[1]), int(conv.padding[0])


def _wrapping(conv: nn.Conv2d, *, x: bool, y: bool) -> Any:
    """``conv._conv_forward`` with its padding done beforehand."""
    across, down = _reach(conv)

    def forward(input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        padded = _pad(input, (across, across, down, down), x=x, y=y)
        return F.conv2d(padded, weight, bias, conv.stride, 0, conv.dilation, conv.groups)

    return forward


def _halving(down: Downsample, *, x: bool, y: bool) -> Any:
    """``forward`` of a `Downsample` that pads right and bottom only."""

    def forward(input: Tensor) -> Tensor:
        return down.conv(_pad(input, (0, 1, 0, 1), x=x, y=y))

    return forward


def _pad(image: Tensor, by: tuple[int, int, int, int], *, x: bool, y: bool) -> Tensor:
    """Circular along the chosen axes, zeros along the other."""
    left, right, top, bottom = by
    image = F.pad(image, (left, right, 0, 0), mode="circular" if x else "constant")
    return F.pad(image, (0, 0, top, bottom), mode="circular" if y else "constant")
