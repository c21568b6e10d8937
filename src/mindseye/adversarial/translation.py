"""Pictures to pictures by contest: with pairs (pix2pix), and without (CycleGAN).

Isola et al. 2016 (arXiv:1611.07004): of a pair, the painted target must not be told from the true one when the source
is shown beside it, and must lie near it. Zhu et al. 2017 (arXiv:1703.10593): without pairs, going there and back must
give the picture one came from.

CycleGAN's judges are shown paintings of the past beside this step's, so that they do not forget what they once saw
through (Shrivastava et al. 2016, arXiv:1612.07828). The fifty that are remembered are part of the objective's state: a
resumed run remembers the same.
"""

from collections.abc import Iterable, Mapping
from itertools import chain
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import Parameter
from torch.nn import functional as F

from mindseye.adversarial.augment import Policy, augment
from mindseye.adversarial.losses import CONTESTS, Kind
from mindseye.adversarial.objective import DISCRIMINATOR, GENERATOR, frozen
from mindseye.objective import Batch, Loss, Objective

__all__ = ["Cycling", "Pairing", "Past"]


class Pairing(Objective):
    """pix2pix.

    Args:
        translator: Source and noise to target.
        judge: Of six channels, source and target.
        name: Of the part.
        kind: Of the contest; "non-saturating" in the paper.
        near: Weight of the mean absolute difference; 100 in the paper.
        z_dim: Numbers of noise.
    """

    def __init__(
        self,
        translator: nn.Module,
        judge: nn.Module,
        *,
        name: str,
        kind: Kind = "non-saturating",
        near: float = 100.0,
        z_dim: int = 0,
    ) -> None:
        super().__init__()
        self.translator, self.judge = translator, judge
        self.kind: Kind = kind
        self.name, self.near, self.z_dim = name, near, z_dim

    def turns(self) -> Mapping[str, Iterable[Parameter]]:
        """Judge, then translator."""
        return {DISCRIMINATOR: self.judge.parameters(), GENERATOR: self.translator.parameters()}

    def parts(self) -> Mapping[str, nn.Module]:
        """The translator."""
        return {self.name: self.translator}

    def forward(self, batch: Batch, turn: str) -> Loss:
        """``batch["source"]`` and ``batch["pixels"]``: pairs, ``B 3 H W``."""
        source, target = batch["source"], batch["pixels"]
        z = torch.randn(len(source), self.z_dim, generator=self.generator).to(source.device) if self.z_dim else None
        contest = CONTESTS[self.kind]
        if turn == DISCRIMINATOR:
            with torch.no_grad():
                painted = self.translator(source, z)
            # The paper halves it: the judge learns at half the pace.
            real = self.judge(torch.cat([source, target], 1)).float()
            fake = self.judge(torch.cat([source, painted], 1)).float()
            told = {"real": float((real > 0).float().mean()), "fake": float((fake < 0).float().mean())}
            return Loss(0.5 * (contest.real(real) + contest.fake(fake)), told)
        with frozen(self.judge):
            painted = self.translator(source, z)
            fooled = contest.generator(self.judge(torch.cat([source, painted], 1)).float())
        distance = F.l1_loss(painted, target)
        return Loss(fooled + self.near * distance, {"l1": float(distance.detach()), "fooled": float(fooled.detach())})


@final
class Past(nn.Module):
    """Paintings that are remembered; saved and loaded with whatever holds it.

    Args:
        most: How many; 0 remembers none.
    """

    def __init__(self, most: int) -> None:
        super().__init__()
        self.most = most
        self.kept: list[Tensor] = []

    def exchange(self, pixels: Float[Tensor, "B 3 H W"], generator: torch.Generator) -> Float[Tensor, "B 3 H W"]:
        """Each picture, or half of the time one of the past, whose place it takes; all of them until there are enough.

        Args:
            pixels: Without a gradient.
            generator: Decides.
        """
        if not self.most:
            return pixels
        shown = []
        for picture in pixels.detach():
            stays, place = torch.rand((2,), generator=generator).tolist()
            if len(self.kept) < self.most:
                self.kept.append(picture.clone())
            elif stays < 0.5:
                place = int(place * self.most)
                picture, self.kept[place] = self.kept[place].to(picture), picture.clone()
            shown.append(picture)
        return torch.stack(shown)

    def get_extra_state(self) -> Tensor:
        """The pictures."""
        return torch.stack(self.kept) if self.kept else torch.empty(0)

    def set_extra_state(self, state: Tensor) -> None:
        """Remember these."""
        self.kept = list(state.clone())


class Cycling(Objective):
    """CycleGAN.

    Args:
        there: From the first kind of picture to the second.
        back: From the second to the first.
        judge_there: Of the second kind.
        judge_back: Of the first.
        names: Of the parts ``there`` and ``back``.
        cycle: Weight of the way there and back; 10 in the paper.
        identity: Weight of leaving alone what is of the kind already, as a share of ``cycle``; 0.5 in the paper.
        policies: How what the judges see is changed.
        past: How many paintings of each kind are remembered for the judges; 50 in the paper.
    """

    def __init__(
        self,
        there: nn.Module,
        back: nn.Module,
        judge_there: nn.Module,
        judge_back: nn.Module,
        *,
        names: tuple[str, str],
        cycle: float = 10.0,
        identity: float = 0.5,
        policies: tuple[Policy, ...] = (),
        past: int = 50,
    ) -> None:
        super().__init__()
        self.past_there, self.past_back = Past(past), Past(past)
        self.there, self.back, self.judge_there, self.judge_back = there, back, judge_there, judge_back
        self.names, self.cycle, self.identity, self.policies = names, cycle, identity, policies

    def turns(self) -> Mapping[str, Iterable[Parameter]]:
        """Both judges, then both translators."""
        judges = chain(self.judge_there.parameters(), self.judge_back.parameters())
        return {DISCRIMINATOR: list(judges), GENERATOR: [*self.there.parameters(), *self.back.parameters()]}

    def parts(self) -> Mapping[str, nn.Module]:
        """Both translators."""
        return dict(zip(self.names, (self.there, self.back), strict=True))

    def forward(self, batch: Batch, turn: str) -> Loss:
        """``batch["source"]`` and ``batch["pixels"]``: pictures of the two kinds, not paired."""
        first, second = batch["source"], batch["pixels"]
        contest = CONTESTS["least-squares"]

        def look(judge: nn.Module, pixels: Tensor) -> Tensor:
            return judge(augment(pixels, self.policies, self.generator)).float()

        if turn == DISCRIMINATOR:
            with torch.no_grad():
                to_second = self.past_there.exchange(self.there(first), self.generator)
                to_first = self.past_back.exchange(self.back(second), self.generator)
            total = first.new_zeros(())
            for judge, real, fake in ((self.judge_there, second, to_second), (self.judge_back, first, to_first)):
                total = total + 0.5 * (contest.real(look(judge, real)) + contest.fake(look(judge, fake)))
            return Loss(total, {})
        with frozen(self.judge_there, self.judge_back):
            to_second, to_first = self.there(first), self.back(second)
            fooled = contest.generator(look(self.judge_there, to_second))
            fooled = fooled + contest.generator(look(self.judge_back, to_first))
        again = F.l1_loss(self.back(to_second), first) + F.l1_loss(self.there(to_first), second)
        total = fooled + self.cycle * again
        if self.identity:
            alone = F.l1_loss(self.there(second), second) + F.l1_loss(self.back(first), first)
            total = total + self.cycle * self.identity * alone
        return Loss(total, {"cycle": float(again.detach()), "fooled": float(fooled.detach())})
