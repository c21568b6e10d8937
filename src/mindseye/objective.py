"""What the training half of every method satisfies: a Module whose forward gives a loss, so that DDP's hooks fire."""

from abc import abstractmethod
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import Parameter

__all__ = ["Batch", "Loss", "Objective"]

Batch = Mapping[str, Tensor]
"""Named tensors with the same first axis."""


class Loss(NamedTuple):
    """What is minimised, and its parts for the log."""

    total: Tensor
    parts: dict[str, float]


class Objective(nn.Module):
    """A loss over a batch.

    Everything random that a loss needs is drawn from ``generator``, a CPU generator that the trainer reseeds before
    each step with a function of (seed, step, rank): that is what makes a resumed run the same run.

    Networks that are trained are attributes, and so submodules. Frozen helpers never are: they are encoded into the
    batch beforehand, or held in a tuple.
    """

    share: float = 0.0
    """How much of the run is done, 0 to 1; the trainer says so before every step."""

    def __init__(self) -> None:
        super().__init__()
        self.generator = torch.Generator()

    def reseed(self, seed: int) -> None:
        """Make the next forward a function of ``seed``."""
        self.generator.manual_seed(seed)

    def turns(self) -> Mapping[str, Iterable[Parameter]]:
        """Who is trained in which turn of a step: one turn here, two for adversaries."""
        return {"main": self.parameters()}

    def tables(self) -> Iterable[Parameter]:
        """Vocabularies, in and out: matrices of which a batch touches some rows, and which Muon leaves to AdamW."""
        return ()

    @abstractmethod
    def forward(self, batch: Batch, turn: str) -> Loss:
        """The loss of one batch in one turn."""

    @abstractmethod
    def parts(self) -> Mapping[str, nn.Module]:
        """What is averaged (EMA) and saved, by part name."""
