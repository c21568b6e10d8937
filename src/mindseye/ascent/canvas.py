"""What can be painted on: some numbers, a picture that depends on them smoothly, and house-keeping after each step.

Every number belongs to one picture: the first axis of each parameter counts pictures, so that pictures in a batch never
meet, and a picture drawn alone is the one drawn in company.
"""

from collections.abc import Iterable
from typing import Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from mindseye.shapes import Pixels

__all__ = ["Canvas"]


@runtime_checkable
class Canvas(Protocol):
    """Something to paint on."""

    def parameters(self) -> Iterable[Tensor]:
        """Leaf tensors that require gradients, pictures first; the same ones at every call."""
        ...

    def render(self) -> Pixels:
        """The pictures as the parameters have them now, in [-1, 1], differentiable."""
        ...

    def settle(self) -> None:
        """Clamp, project, average: called after each step, without gradients."""
        ...

    def terms(self) -> Float[Tensor, "B"] | None:
        """The canvas's own loss, one number a picture, differentiable; None = it has no wish."""
        ...

    def final(self) -> Pixels:
        """The pictures to show, in [-1, 1], without gradients: of averaged parameters where there are some."""
        ...
