"""A canvas of noise and classes: BigGAN's, a row of each for every place in the generator that listens.

Murdock and Wang 2021, Big Sleep (lucidrains/big-sleep). BigGAN was trained to hear one vector of noise and one class;
its layers each hear a row of their own here, classes may be mixtures, and so it draws what no class is. Two losses keep
the rows where the generator knows its way: noise that is standard normal by its first four moments, and classes that
are few. What is shown is an average of the rows over the last steps, corrected for its short beginning.

Where we deviate: any number of classes (the original's loss counts to 999, and its first mixture is set for a
thousand; both follow the generator here, and are the original's for a thousand), and mixtures by softmax, for
generators of so few classes that a tenth of each is already a class of its own.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias, final, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from mindseye.noise import Noise
from mindseye.shapes import Pixels

__all__ = [
    "Average",
    "BigGANCanvas",
    "Generator",
    "Mixture",
    "Wishes",
    "class_loss",
    "first_logits",
    "latent_loss",
    "mixture",
]

Mixture: TypeAlias = Literal["sigmoid", "softmax"]

_THOUSAND = 1 / (1 + math.exp(3.9))
"""Big Sleep's first weight of each of a thousand classes."""


@runtime_checkable
class Generator(Protocol):
    """Noise and classes, a row of each a site, to pictures: `mindseye.networks.biggan.BigGAN`."""

    def __call__(
        self, z: Float[Tensor, "B R Z"], classes: Float[Tensor, "B R N"], truncation: float = 1.0
    ) -> Float[Tensor, "B 3 S S"]:
        """Draw, in [-1, 1]."""
        ...


@dataclass(frozen=True, kw_only=True)
class Wishes:
    """How a `BigGANCanvas` mixes classes, and what it would rather be.

    Attributes:
        mixture: How logits become weights of classes: each by itself, or shares of one whole.
        most: How many classes may be mixed; 0 = all.
        temperature: Of the softmax, also of the one that picks the ``most``.
        latents: Weight of the loss on the noise.
        classes: Weight of the loss on the classes.
        decay: Of the average that is shown; 0 shows the last step.
        truncation: What the generator is told it is; the noise is not changed by it.
    """

    mixture: Mixture = "sigmoid"
    most: int = 0
    temperature: float = 2.0
    latents: float = 1.0
    classes: float = 1.0
    decay: float = 0.99
    truncation: float = 1.0


@final
class Average:
    """An exponential average, corrected for starting at nothing: exact from the first value on.

    Args:
        decay: Weight of what was; 0 keeps the last value only.
        values: The first.
    """

    def __init__(self, decay: float, values: Iterable[Tensor]) -> None:
        self.decay, self.left = decay, 1.0
        first = list(values)
        self.biased = [torch.zeros_like(each) for each in first]
        self.add(first)

    @torch.no_grad()
    def add(self, values: Iterable[Tensor]) -> None:
        """Take in the next values."""
        self.left *= self.decay
        for biased, value in zip(self.biased, values, strict=True):
            biased.lerp_(value, 1 - self.decay)

    @property
    def values(self) -> list[Tensor]:
        """The averages."""
        return [biased / (1 - self.left) for biased in self.biased]


@final
class BigGANCanvas:
    """Pictures by what the generator hears.

    Args:
        generator: Its weights are not changed.
        latents: Where the noise starts; copied.
        logits: Where the classes start; copied.
        size: Height and width of the pictures; the generator's own are resized to it.
        wishes: How classes are mixed, and what is preferred.
        dtype: The generator's.
    """

    def __init__(
        self,
        generator: Generator,
        latents: Float[Tensor, "B R Z"],
        logits: Float[Tensor, "B R N"],
        size: tuple[int, int],
        *,
        wishes: Wishes = Wishes(),  # noqa: B008 (frozen)
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.generator, self.size, self.wishes, self.dtype = generator, size, wishes, dtype
        self.latents = latents.detach().float().clone().requires_grad_()
        self.logits = logits.detach().float().clone().requires_grad_()
        self.average = Average(wishes.decay, self.parameters())

    def parameters(self) -> list[Tensor]:
        """Noise and classes."""
        return [self.latents, self.logits]

    def render(self) -> Pixels:
        """What the generator draws of them as they are now."""
        return self._draw(self.latents, self.logits)

    def settle(self) -> None:
        """Average."""
        self.average.add(self.parameters())

    def terms(self) -> Float[Tensor, "B"]:
        """The losses of noise and classes."""
        noise, classes = latent_loss(self.latents), class_loss(mixture(self.logits, self.wishes))
        return noise * self.wishes.latents + classes * self.wishes.classes

    @torch.no_grad()
    def final(self) -> Pixels:
        """What the generator draws of the averages."""
        return self._draw(*self.average.values)

    def restarted(self) -> "BigGANCanvas":
        """The same noise and classes, without the memory of how they came about."""
        return BigGANCanvas(self.generator, self.latents, self.logits, self.size, wishes=self.wishes, dtype=self.dtype)

    def _draw(self, latents: Tensor, logits: Tensor) -> Pixels:
        classes = mixture(logits, self.wishes).to(self.dtype)
        drawn = self.generator(latents.to(self.dtype), classes, self.wishes.truncation).float()
        if drawn.shape[-2:] == self.size:
            return drawn
        return F.interpolate(drawn, size=self.size, mode="bilinear", align_corners=False, antialias=True)


def first_logits(noise: Noise, rows: int, classes: int, *, kind: Mixture = "sigmoid") -> Float[Tensor, "B R N"]:
    """Logits to start from: Big Sleep's, N(-3.9, 0.3), for a thousand classes.

    For other numbers the mean is such that the classes' vectors, taken as independent, add up to as long a one. Under
    a softmax the mean has no meaning and is 0.

    Args:
        noise: One seed a picture.
        rows: Of the generator's sites.
        classes: How many there are.
        kind: How they will be mixed.
    """
    share = min(_THOUSAND * math.sqrt(1000 / classes), 0.5)
    mean = math.log(share / (1 - share)) if kind == "sigmoid" else 0.0
    return mean + 0.3 * noise.normal(rows, classes)


def mixture(logits: Float[Tensor, "B R N"], wishes: Wishes) -> Float[Tensor, "B R N"]:
    """Weights of the classes.

    With a limit, classes are picked one by one, each weighing what a softmax over those not yet picked gives it (so
    that the weights need not add up to 1); gradients reach the others through its denominator.
    """
    if not wishes.most:
        return logits.sigmoid() if wishes.mixture == "sigmoid" else (logits / wishes.temperature).softmax(-1)
    found = torch.zeros_like(logits)
    picked = torch.zeros_like(logits, dtype=torch.bool)
    for _ in range(min(wishes.most, logits.shape[-1])):
        shares = (logits / wishes.temperature).masked_fill(picked, -torch.inf).softmax(-1)
        best = torch.zeros_like(picked).scatter_(-1, shares.argmax(-1, keepdim=True), value=True)
        found = found + shares * best
        picked = picked | best
    return found


def latent_loss(latents: Float[Tensor, "B R Z"]) -> Float[Tensor, "B"]:
    """How far noise is from standard normal, by mean, deviation, mean square, skewness and kurtosis of its rows."""
    mean, deviation = latents.mean(-1), latents.std(-1)
    apart = latents - latents.mean(-1, keepdim=True)
    unit = apart / apart.square().mean(-1, keepdim=True).sqrt()
    skewness, kurtosis = unit.pow(3).mean(-1), unit.pow(4).mean(-1) - 3
    rows = (1 - deviation).abs() + mean.abs() + kurtosis.abs() + skewness.abs()
    return rows.mean(-1) + 4 * latents.square().mean((-2, -1)).clamp(min=1)


def class_loss(classes: Float[Tensor, "B R N"]) -> Float[Tensor, "B"]:
    """How much weight lies on other classes than each row's greatest: 2500 times their mean square; 0 for one class."""
    if classes.shape[-1] == 1:
        return classes.new_zeros(len(classes))
    others = classes.topk(classes.shape[-1] - 1, largest=False).values
    return (50 * others).square().mean((-2, -1))
