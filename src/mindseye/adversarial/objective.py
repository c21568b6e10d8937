"""The contest as an objective of two turns: the discriminator's, then the generator's.

In its own turn each side's weights get gradients and the other's get none. Everything that a loss needs at random
comes from the objective's generator, so a resumed run is the same run.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import Parameter

from mindseye.adversarial.augment import Policy, augment
from mindseye.adversarial.guides import Guide
from mindseye.adversarial.losses import CONTESTS, Kind
from mindseye.adversarial.penalties import gradient_penalty, matching_aware, r1
from mindseye.objective import Batch, Loss, Objective
from mindseye.shapes import Pixels

__all__ = ["Adversarial", "Rules", "frozen", "spread"]

DISCRIMINATOR, GENERATOR = "discriminator", "generator"
Paint = Callable[[nn.Module, Float[Tensor, "B Z"], Batch], Pixels]
"""How a generator is called: with noise, and with what the batch says beside its pictures."""


@dataclass(frozen=True, kw_only=True)
class Rules:
    """Of the contest.

    Attributes:
        kind: What each side wants.
        penalty: On the discriminator's slope.
        weight: Of the penalty: 1 to 10 for ``r1`` at this size, 10 for ``gradient``, 2 for ``matching``.
        every: The penalty is taken once in so many steps, drawn at random, and counts as many times; a penalty costs
            as much as two turns.
        policies: How what the judge sees is changed.
        mismatched: Share of real pictures with somebody else's text among the fakes; 0 = none, 0.5 in the paper.
        guidance: Weight of the guide, if there is one.
        seeking: Weight of painting something else from other noise where the same is told; 0 = none. Half of the batch
            is then told what the other half is, in the generator's turn.
    """

    kind: Kind = "hinge"
    penalty: Literal["none", "r1", "gradient", "matching"] = "none"
    weight: float = 1.0
    every: int = 16
    policies: tuple[Policy, ...] = ()
    mismatched: float = 0.0
    guidance: float = 0.0
    seeking: float = 0.0


class Adversarial(Objective):
    """A generator and a discriminator.

    Args:
        generator: What is averaged and saved.
        discriminator: Called with pictures, or with pictures and what they should show.
        rules: Of the contest.
        paint: How the generator is called.
        name: Of the generator's part.
        told: Key of the batch that says what a picture should show ("classes", "vector"); None = nothing is said.
        guide: A further opinion.
        z_dim: Numbers of noise; the generator's ``config.z_dim`` when None.
    """

    def __init__(
        self,
        generator: nn.Module,
        discriminator: nn.Module,
        rules: Rules,
        paint: Paint,
        *,
        name: str,
        told: str | None = None,
        guide: Guide | None = None,
        z_dim: int | None = None,
    ) -> None:
        super().__init__()
        self.painter, self.judge = generator, discriminator
        self.rules, self.paint, self.name, self.told, self.guide = rules, paint, name, told, guide
        config: Any = generator.config
        self.z_dim: int = config.z_dim if z_dim is None else z_dim

    def turns(self) -> Mapping[str, Iterable[Parameter]]:
        """The discriminator first, so that the generator hears a judge that has seen its last paintings."""
        return {DISCRIMINATOR: self.judge.parameters(), GENERATOR: self.painter.parameters()}

    def parts(self) -> Mapping[str, nn.Module]:
        """The generator; a judge is of no use once the contest is over."""
        return {self.name: self.painter}

    def forward(self, batch: Batch, turn: str) -> Loss:
        """``batch["pixels"]``: ``B 3 H W`` in [-1, 1], and what the painter and the judge are told of them."""
        z = torch.randn(len(batch["pixels"]), self.z_dim, generator=self.generator).to(batch["pixels"].device)
        return self._judge(z, batch) if turn == DISCRIMINATOR else self._paint(z, batch)

    def _paint(self, z: Tensor, batch: Batch) -> Loss:
        half = len(z) // 2 if self.rules.seeking else 0
        if half:
            z, batch = z[: 2 * half], {key: torch.cat([value[:half]] * 2) for key, value in batch.items()}
        with frozen(self.judge):
            painted = self.paint(self.painter, z, batch)
            logits = self._score(self._changed(painted), batch)
            total = CONTESTS[self.rules.kind].generator(logits.float())
        told = {"fooled": float((logits > 0).float().mean())}
        if self.guide is not None and self.rules.guidance:
            # The guide, too, sees changed pictures, or it is fooled by single pixels.
            opinion = self.guide(self._changed(painted), batch)
            total = total + self.rules.guidance * opinion
            told["guide"] = float(opinion.detach())
        if half:
            apart = spread(painted, z)
            total = total + self.rules.seeking / (apart + _LEAST)
            told["apart"] = float(apart.detach())
        return Loss(total, told)

    def _judge(self, z: Tensor, batch: Batch) -> Loss:
        rules, pixels = self.rules, batch["pixels"]
        contest = CONTESTS[rules.kind]
        with torch.no_grad():
            painted = self.paint(self.painter, z, batch)
        fake = self._score(self._changed(painted), batch).float()
        shown = self._changed(pixels)
        if rules.mismatched and self.told is not None:
            judge: Any = self.judge
            seen = judge.look(shown)
            real = judge.compare(seen, batch[self.told]).float()
            # Everybody gets the neighbour's text; who has the same one is left out.
            others = batch[self.told].roll(1, 0)
            different = (others != batch[self.told]).any(1)
            wrong = judge.compare(seen, others).float()[different]
            of_wrong = contest.fake(wrong) if len(wrong) else fake.new_zeros(())
            of_fakes = (1 - rules.mismatched) * contest.fake(fake) + rules.mismatched * of_wrong
            told = {"mismatched": float((wrong < real[different]).float().mean()) if len(wrong) else 1.0}
        else:
            real = self._score(shown, batch).float()
            of_fakes, told = contest.fake(fake), {}
        total = contest.real(real) + of_fakes
        told |= {"real": float((real > 0).float().mean()), "fake": float((fake < 0).float().mean())}
        if rules.penalty != "none" and float(torch.rand((), generator=self.generator)) < 1 / rules.every:
            penalty = self._penalty(shown, self._changed(painted), batch)
            total = total + rules.every * rules.weight * penalty
            told["penalty"] = float(penalty.detach()) * rules.every
        return Loss(total, told)

    def _score(self, pixels: Pixels, batch: Batch) -> Tensor:
        return self.judge(pixels) if self.told is None else self.judge(pixels, batch[self.told])

    def _changed(self, pixels: Pixels) -> Pixels:
        return augment(pixels, self.rules.policies, self.generator)

    def _penalty(self, real: Pixels, fake: Pixels, batch: Batch) -> Tensor:
        def score(pixels: Tensor) -> Tensor:
            return self._score(pixels, batch)

        # Slopes of slopes are too coarse in half precision.
        with torch.autocast(real.device.type, enabled=False):
            if self.rules.penalty == "gradient":
                return gradient_penalty(score, real, fake, torch.rand(len(real), generator=self.generator))
            if self.rules.penalty == "matching" and self.told is not None:
                return matching_aware(self.judge, real, batch[self.told])
            return r1(score, real)


_LEAST = 0.01
"""Added to `spread`, of which there may be none."""


def spread(painted: Pixels, z: Float[Tensor, "B Z"]) -> Float[Tensor, ""]:
    """How far paintings of the first half are from those of the second, by how far their noise is.

    Mode seeking (Mao et al. 2019, arXiv:1903.05628): where its inverse is a loss, noise is not ignored.
    """
    paintings, noises = ((one - other).abs().mean() for one, other in (painted.float().chunk(2), z.chunk(2)))
    return paintings / noises


@contextmanager
def frozen(*networks: nn.Module) -> Iterator[None]:
    """Within, gradients pass through these networks and stop nowhere in them."""
    weights: Sequence[Parameter] = [each for network in networks for each in network.parameters() if each.requires_grad]
    for each in weights:
        each.requires_grad_(False)
    try:
        yield
    finally:
        for each in weights:
            each.requires_grad_(True)
