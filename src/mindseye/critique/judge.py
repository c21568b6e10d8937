"""How an opinion becomes a gradient on pixels.

The picture in the making is cut out of whatever graph made it, shown to the critics a chunk of cuts at a time, and the
gradients of the chunks are summed on the picture (Disco Diffusion's scheme, of use to all): memory holds one chunk's
worth of a critic's activations however many cuts there are, and the generator's graph is walked back once.

All that is random, boxes and changes alike, is drawn for all cuts before the first pixel is touched: chunks change
nothing but the order of a sum.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, final, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from mindseye.critique.critic import Critic
from mindseye.critique.cuts import Cuts, Scheme
from mindseye.critique.losses import DISTANCES, LossName, stopped
from mindseye.critique.targets import Aims, Targets
from mindseye.critique.terms import Term
from mindseye.noise import Noise
from mindseye.shapes import Pixels

__all__ = ["Judge", "Opinion", "judge"]


@dataclass(frozen=True)
class Opinion:
    """What is thought of some pictures.

    Attributes:
        score: One a picture, lower is better.
        gradient: Of each score with respect to its picture.
        parts: What the scores are made of, means over the pictures, and "cosine": of cuts and prompts, by weight.
    """

    score: Float[Tensor, "B"]
    gradient: Float[Tensor, "B 3 H W"]
    parts: dict[str, float]


@runtime_checkable
class Judge(Protocol):
    """Critics, aims and cuts, closed over."""

    def opinion(self, pixels: Pixels, noise: Noise, share: float) -> Opinion:
        """What is thought of pictures in [-1, 1] or a little beyond.

        Args:
            pixels: The pictures; no gradient flows through them, it is in the answer.
            noise: Of the pictures.
            share: How far the run has come, 0 to 1.
        """
        ...


def judge(
    critics: Sequence[Critic],
    targets: Targets,
    *,
    cuts: Scheme,
    loss: LossName = "spherical",
    terms: Sequence[Term] = (),
    scale: float = 1.0,
    weights: Sequence[float] | None = None,
    average: float = 0.0,
    chunk: int = 32,
    on_cuts: Callable[[int, Cuts], object] | None = None,
) -> Judge:
    """A judge of pictures.

    Args:
        critics: Who looks.
        targets: What for; made for these critics.
        cuts: What they are shown.
        loss: How distance is measured.
        terms: What else is to be kept small.
        scale: Factor on all that critics say.
        weights: Factor on what each of them says; 1 each when None, as Disco Diffusion has it.
        average: Deep Daze's share of the distance of the mean of all cuts in the mean of their distances (it uses 0.3).
        chunk: Cuts that a critic sees at a time, of all pictures together.
        on_cuts: Told which cuts each critic is shown, by its number: to keep them.
    """
    if len(targets.aims) != len(critics):
        raise ValueError(f"targets for {len(targets.aims)} critics, but there are {len(critics)}")
    if weights is not None and len(weights) != len(critics):
        raise ValueError(f"{len(weights)} weights for {len(critics)} critics")
    if chunk < 1 or not 0 <= average <= 1:
        raise ValueError(f"chunks of {chunk} cuts, a share of {average}")
    factors = tuple(scale * weight for weight in (weights or [1.0] * len(critics)))
    return CutJudge(tuple(critics), targets, cuts, loss, tuple(terms), factors, average, chunk, on_cuts)


@final
@dataclass(frozen=True, eq=False)
class CutJudge:
    """What `judge` makes; its arguments, the factors multiplied out."""

    critics: tuple[Critic, ...]
    targets: Targets
    cuts: Scheme
    loss: LossName
    terms: tuple[Term, ...]
    factors: tuple[float, ...]
    average: float
    chunk: int
    on_cuts: Callable[[int, Cuts], object] | None = None

    def opinion(self, pixels: Pixels, noise: Noise, share: float) -> Opinion:
        """See `Judge`."""
        # An innermost loop owns its grad mode: the engine may have turned gradients off.
        with torch.enable_grad():
            return self._opinion(pixels.detach().float().requires_grad_(), noise, min(max(share, 0.0), 1.0))

    def _opinion(self, x: Pixels, noise: Noise, share: float) -> Opinion:
        score, gradient = torch.zeros(len(x), device=x.device), torch.zeros_like(x)
        parts: dict[str, float] = {}
        for term in self.terms:
            value = term(x)
            gradient += torch.autograd.grad(value.sum(), x)[0]
            score += value.detach()
            parts[term.name] = parts.get(term.name, 0.0) + float(value.detach().mean())
        cosines = []
        for number, (critic, aims, factor) in enumerate(
            zip(self.critics, self.targets.aims, self.factors, strict=True)
        ):
            said = self._listen(number, critic, aims, factor, x, noise, share)
            score += said.score
            gradient += said.gradient
            parts["critics"] = parts.get("critics", 0.0) + said.parts["critics"]
            cosines.append(said.parts["cosine"])
        if cosines:
            parts["cosine"] = sum(cosines) / len(cosines)
        return Opinion(score, gradient, parts)

    def _listen(
        self, number: int, critic: Critic, aims: Aims, factor: float, x: Pixels, noise: Noise, share: float
    ) -> Opinion:
        """One critic's opinion."""
        cuts, changes = self.cuts.draw(x.shape[-2], x.shape[-1], critic.size, share, noise)
        if self.on_cuts is not None:
            self.on_cuts(number, cuts)
        count, step = len(cuts), max(1, self.chunk // len(x))

        def looks() -> Iterator[Float[Tensor, "B k D"]]:
            for start in range(0, count, step):
                some = None if changes is None else changes.part(start, start + step)
                pieces = self.cuts.show(x, cuts.part(start, start + step), some, critic.size)
                yield critic.embed_image(pieces.flatten(0, 1)).unflatten(0, pieces.shape[:2])

        others: Tensor | float = 0.0
        if self.average and count > step:
            # The mean of all cuts has a gradient in every chunk: its value must be known before.
            with torch.no_grad():
                others = torch.stack([seen.sum(1) for seen in looks()]).sum(0)
        score, gradient = torch.zeros(len(x), device=x.device), torch.zeros_like(x)
        together, cosine = torch.zeros_like(score), 0.0
        for seen in looks():
            alone = self._distance(seen, aims).sum(1) / count * (1 - self.average)
            value = alone
            if self.average:
                middle = seen.sum(1) if isinstance(others, float) else others - seen.detach().sum(1) + seen.sum(1)
                whole = self._distance(F.normalize(middle, dim=1), aims) * self.average
                value, together = alone + whole, whole.detach()
            gradient += torch.autograd.grad(value.sum() * factor, x)[0]
            score += alone.detach().to(score.device)
            cosine += float((aims.measured(lambda x, y: x @ y.T, seen.detach()) * aims.weights).sum())
        score = (score + together.to(score.device)) * factor
        cosine /= count * len(x) * max(float(aims.weights.abs().sum()), 1e-9)
        return Opinion(score, gradient, {"critics": float(score.mean()), "cosine": cosine})

    def _distance(self, seen: Float[Tensor, "B *S D"], aims: Aims) -> Float[Tensor, "B *S"]:
        """To all aims, weighted and summed."""
        return stopped(aims.measured(DISTANCES[self.loss], seen), aims.weights, aims.stops).sum(-1)
