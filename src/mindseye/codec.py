"""What turns pictures into something smaller and back; satisfied structurally by the autoencoders."""

from typing import Protocol, runtime_checkable

from jaxtyping import Float, Int
from torch import Tensor

from mindseye.shapes import Latents, Pixels

__all__ = ["Codec", "TokenCodec"]


@runtime_checkable
class Codec(Protocol):
    """Pixels to latents and back, each side smaller by ``factor``.

    Latents are normalised: roughly zero mean and unit variance over the training pictures, so a diffusion
    method never needs to know a scale factor.
    """

    factor: int

    def encode(self, pixels: Pixels) -> Latents:
        """The mode of the posterior, normalised."""
        ...

    def decode(self, latents: Latents) -> Pixels:
        """Pictures in [-1, 1], not clamped."""
        ...


@runtime_checkable
class TokenCodec(Codec, Protocol):
    """A codec whose latents are a grid of integers."""

    def to_ids(self, pixels: Pixels) -> Int[Tensor, "B N"]:
        """Raster-ordered code ids."""
        ...

    def from_ids(self, ids: Int[Tensor, "B N"]) -> Float[Tensor, "B 3 H W"]:
        """Pictures from raster-ordered code ids."""
        ...
