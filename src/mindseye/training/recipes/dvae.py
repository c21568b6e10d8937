"""dvae-pocket: the discrete VAE that DALL-E's tokens are, 128x128 pictures to 16x16 of 1024 codes.

As DALL-E's (Ramesh et al. 2021, arXiv:2102.12092, appendix A): codes are drawn by their likelihoods, relaxed by the
Gumbel-softmax; the decoder is to tell the picture as likely as it can, by the logit-Laplace distribution; and the
likelihoods of codes are pulled towards equal ones, which keeps codes in use. At first draws are mixtures of many codes,
and the pull is weak, or no code would ever come to mean anything; the temperature falls while the run goes on, until a
draw is one code in all but name.

Where we deviate: in a run as short as ours few codes would ever be used, since the first that mean anything win. So the
information that a code carries (how sure the likelihoods are at a place, less how uneven they are on the average of a
batch: Krause et al. 2010, Hu et al. 2017, arXiv:1702.08720) has a weight of its own; codes begin as what the encoder
sees at places of some pictures (`seeded`); and there is a smallest scale.

Both schedules are in the run's share of time, where the paper counts updates: its temperature falls from 1 to 1/16 in
150,000 of three million, its pull grows to 6.6 in 5,000. A run of some thousand steps needs a larger share for either.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Final, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import Parameter
from torch.nn import functional as F

from mindseye.networks.discrete_vae import DiscreteVAE
from mindseye.networks.dvae import DVAE, POCKET, squeezed
from mindseye.nn.quantize import divergence, perplexity, relaxed
from mindseye.objective import Batch, Loss, Objective
from mindseye.request import drain
from mindseye.shapes import Pixels
from mindseye.training.feeds import to_pixels
from mindseye.training.pictures import training_pictures
from mindseye.training.recipe import Optimizer, Recipe, Workshop
from mindseye.training.recipes.vqgan import codec_recipe

__all__ = ["Relaxing", "begun", "by_laplace", "dvae_pocket", "falling", "logit_laplace", "rising"]

Codes = TypeVar("Codes", DVAE, DiscreteVAE)

FLOOR: Final = -2.0
"""Logarithm of the smallest scale that counts, reached softly. Pictures of flat colours could be told to any precision,
and what is told exactly would drown what is not."""


def logit_laplace(
    target: Float[Tensor, "B 3 H W"], mean: Float[Tensor, "B 3 H W"], log_scale: Float[Tensor, "B 3 H W"]
) -> Float[Tensor, "B 3 H W"]:
    """How unlikely values are, in nats each: of a number in (0, 1) whose logit has a Laplace distribution.

    Args:
        target: The numbers.
        mean: Of their logits.
        log_scale: The logarithm of the distribution's scale.
    """
    logit = target.logit()
    within = (target * (1 - target)).log()
    return (logit - mean).abs() * (-log_scale).exp() + log_scale + math.log(2) + within


def falling(share: float, low: float, over: float) -> float:
    """From 1 to ``low`` along half a cosine, in the first ``over`` of a run; then it stays."""
    done = min(share / over, 1.0) if over > 0 else 1.0
    return low + (1 - low) * (1 + math.cos(math.pi * done)) / 2


def rising(share: float, over: float) -> float:
    """From 0 to 1 along half a cosine, in the first ``over`` of a run; then it stays."""
    return 1 - falling(share, 0.0, over)


def unevenness(logits: Float[Tensor, "B K h w"]) -> Float[Tensor, ""]:
    """How far the likelihoods are from equal ones on the average of all places, in nats: 0 where no code is idle."""
    # The logarithm of the average is taken of logarithms: of a code that nowhere is likely, it is a number this way.
    likely = logits.log_softmax(1).logsumexp((0, 2, 3)) - math.log(logits[:, 0].numel())
    return (likely.exp() * likely).sum() + math.log(len(likely))


def by_laplace(
    network: DVAE, shares: Float[Tensor, "B K h w"], pixels: Pixels
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """How unlikely pictures are by what the decoder tells of them, in nats a number, and the squared error."""
    mean, log_scale = network.heads(shares)
    target = squeezed(pixels)
    log_scale = FLOOR + F.softplus(log_scale.float() - FLOOR)
    unlikely = logit_laplace(target, mean.float(), log_scale).mean()
    return unlikely, 4 * (mean.detach().float().sigmoid() - target).square().mean() / 0.64


class Relaxing(Objective):
    """The evidence lower bound of relaxed draws.

    Args:
        network: What is trained.
        name: Of the part it becomes.
        error: How badly it paints from shares of codes: the loss, and the squared error beside it.
        kl: Weight of the pull towards equal likelihoods, as the paper counts: against the sum over a picture's numbers.
        inform: Weight of the information that a code carries, in nats.
        warm: Share of the run in which that weight grows to its full.
        coldest: The lowest temperature.
        cooling: Share of the run in which it is reached.
        hard: Whether the decoder sees one code a place, with the mixture's gradient (straight-through).
    """

    def __init__(
        self,
        network: DVAE | DiscreteVAE,
        *,
        name: str = "dvae-pocket",
        error: Callable[..., tuple[Tensor, Tensor]] = by_laplace,
        kl: float = 6.6,
        inform: float = 0.1,
        warm: float = 0.1,
        coldest: float = 1 / 16,
        cooling: float = 0.7,
        hard: bool = False,
    ) -> None:
        super().__init__()
        self.network = network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        self.name, self.error = name, error
        self.kl, self.inform, self.hard = kl, inform, hard
        self.warm, self.coldest, self.cooling = warm, coldest, cooling

    def parts(self) -> Mapping[str, nn.Module]:
        """The network."""
        return {self.name: self.network}

    def tables(self) -> Iterable[Parameter]:
        """The codes, as they are found and as they are painted."""
        return self.network.tables()

    def forward(self, batch: Batch, turn: str) -> Loss:
        """``batch["pixels"]``: ``B 3 H W`` in [-1, 1]."""
        pixels: Pixels = batch["pixels"]
        temperature = falling(self.share, self.coldest, self.cooling)
        logits = self.network.logits(pixels).float()
        shares = relaxed(logits, temperature=temperature, generator=self.generator, hard=self.hard)
        error, square = self.error(self.network, shares, pixels)
        kl = divergence(logits)
        information = kl - unevenness(logits)
        # The bound is of a whole picture, the loss a mean over its numbers; a grid has this many fewer places.
        weight = self.kl * rising(self.share, self.warm) / (3 * self.network.factor**2)
        parts = {
            "error": error.item(),
            "kl": kl.item(),
            "information": information.item(),
            "temperature": temperature,
            "mse": square.item(),
            "perplexity": perplexity(logits.detach().argmax(1), self.network.config.codes),
        }
        return Loss(error + weight * kl - self.inform * information, parts)


@torch.no_grad()
def seeded(network: Codes, pixels: Pixels, generator: torch.Generator) -> Codes:
    """The same network, its codes at first what it sees at places of some pictures, each far from the others.

    Codes drawn apart for either tower mean nothing: the decoder is told nothing by them, so the encoder does not hear
    that it matters which it says, and the first few that come to mean something are all that are ever used. Chosen so
    (as k-means++ does: Arthur and Vassilvitskii 2007) all are in use from the first step on.

    Args:
        network: Untrained.
        pixels: Of pictures, with many more places than there are codes; where there are fewer, some codes are alike.
        generator: Of the choice, on the CPU.
    """
    seen = torch.cat([network.features(each) for each in pixels.split(16)]).movedim(1, -1).flatten(0, 2)
    found, painted = network.to_logits, network.tables()[1]
    painted = painted if painted.ndim == 2 else painted[:, :, 0, 0].T
    chosen = [int(torch.randint(len(seen), (1,), generator=generator))]
    far = (seen - seen[chosen[0]]).square().sum(1)
    while len(chosen) < len(painted):
        chosen.append(int(torch.multinomial(far.clamp_min(1e-20), 1, generator=generator)))
        far = torch.minimum(far, (seen - seen[chosen[-1]]).square().sum(1))
    codes, middle = seen[chosen], seen.mean(0)
    gap = torch.maximum(far.mean() / 2, 1e-3 * (seen - middle).square().sum(1).mean()).clamp_min(1e-6)
    # The nearest is the likeliest: logits are less than its by half of what squared distances are more, in units in
    # which places are some 2 from their code.
    found.weight[:, :, 0, 0] = (codes - middle) / gap
    if found.bias is not None:
        found.bias.copy_((middle.square().sum() - codes.square().sum(1)) / (2 * gap))
    mixed = (codes - middle) @ torch.randn(codes.shape[1], painted.shape[1], generator=generator)
    painted.copy_(mixed / mixed.std().clamp_min(1e-6))
    return network


def begun(network: Codes, workshop: Workshop) -> Codes:
    """`seeded` with the first of the pictures that it will be trained on."""
    pixels = to_pixels(drain(training_pictures(workshop)).pictures[:64])
    return seeded(network, pixels, torch.Generator().manual_seed(0))


def dvae_pocket() -> Recipe:
    """Needs nothing; held-out figures as recorded in the part's provenance."""
    return codec_recipe(
        "dvae-pocket",
        "discrete VAE, 128x128 pictures to 16x16 tokens of 1024 codes",
        lambda workshop: Relaxing(begun(DVAE(POCKET), workshop)),
        steps=12_000,
        optimizer=Optimizer(kind="muon", lr=2e-3, betas=(0.9, 0.99), weight_decay=1e-4, warmup=30),
    )
