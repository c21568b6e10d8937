"""Adversarial generators: one pass from noise to a picture (Goodfellow et al. 2014, arXiv:1406.2661).

Three ways to be told what to paint:
- `GAN` is told nothing. Of several candidates (`Request.candidates`) CLIP says which one goes with the prompt.
- `ClassGAN` (BigGAN, arXiv:1809.11096) is told a class, or a mixture: the ones the prompt names, or else the ones
  of which it names the kind, or else the ones whose names CLIP finds nearest to it.
- `TextGAN` is told the text itself (Reed et al. 2016, arXiv:1605.05396), as CLIP's text tower reads it.

Noise is a picture's first draw, so a seed is a place, and `mindseye morph --to-seed` goes from one to another.
Truncation draws it towards the middle: more typical, less varied.
A start picture is searched for in the noise; under a mask only what is kept must be found again, and is put back.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, final

import torch
from jaxtyping import Float
from torch import Tensor

from mindseye.critique.critic import ClipCritic
from mindseye.diffusion.denoiser import pooled_vector
from mindseye.errors import OptionError, UnknownName
from mindseye.networks.biggan import BigGAN, truncated
from mindseye.networks.clip import CLIP
from mindseye.networks.textgan import TextGenerator
from mindseye.noise import Noise
from mindseye.request import Request, Steps
from mindseye.shapes import Pixels
from mindseye.systems.base import option
from mindseye.systems.one_pass import beginnings, draw, resized
from mindseye.text.classes import known_as, likely, named, place_of, title, told
from mindseye.text.tokenizer import Tokenizer

__all__ = ["GAN", "ClassGAN", "TextGAN"]


@dataclass(frozen=True, kw_only=True)
class PlainOptions:
    """The knobs of a generator that names no classes."""

    variation_seed: int = option(0, "seed to go towards", low=0, high=2**63 - 1)
    variation_strength: float = option(0.0, "how far to go there", low=0, high=1)
    truncation: float = option(1.0, "how far from the middle noise is drawn; less is more typical", low=0, high=1)


_CHOOSER = "a CLIP of your library to choose by in place of its own: NAME; pocket is ours"


@dataclass(frozen=True, kw_only=True)
class ChosenOptions(PlainOptions):
    """The same, with a chooser of one's own."""

    critics: str = option("", _CHOOSER)


@dataclass(frozen=True, kw_only=True)
class ClassOptions:
    """The knobs of a generator that names classes."""

    variation_seed: int = option(0, "seed to go towards", low=0, high=2**63 - 1)
    variation_strength: float = option(0.0, "how far to go there", low=0, high=1)
    truncation: float = option(0.7, "how far from the middle noise is drawn; less is more typical", low=0, high=1)
    classes: str = option("", "paint these, as 'cat' or '3' or 'cat:2, dog:1'; empty = what the prompt says")
    critics: str = option("", _CHOOSER)
    mix: int = option(1, "how many of the nearest classes are mixed where the prompt names none", low=1, high=100)
    compat: bool = option(False, "between two rows of norm statistics, do as the release does")


@final
@dataclass(frozen=True, eq=False)
class GAN:
    """A generator that is told nothing.

    Attributes:
        generator: From ``B Z`` to pictures; its config has ``z_dim`` and ``size``.
        clip: Who chooses among candidates.
        tokenizer: The CLIP's.
    """

    Options: ClassVar[type] = ChosenOptions

    generator: Any
    clip: CLIP | None = None
    tokenizer: Tokenizer | None = None

    def notices(self, request: Request) -> list[str]:
        """A size that is not its own; nobody there to read the prompt."""
        alone = request.candidates in (None, 1)
        unread = ["this generator draws what it likes: nobody reads the prompt of one candidate"] if alone else []
        return unread + resized(request, self.generator.config.size)

    def synthesize(self, request: Request, options: PlainOptions, noise: Noise) -> Steps[Pixels]:
        """Draw one picture a seed."""
        z = options.truncation * beginnings(request, noise, options, self.generator)
        return (yield from draw(request, self.generator, z))


@final
@dataclass(frozen=True, eq=False)
class ClassGAN:
    """A generator that is told classes.

    Attributes:
        generator: A BigGAN.
        clip: Who finds the class, and chooses among candidates; None = classes must be named.
        tokenizer: The CLIP's.
    """

    Options: ClassVar[type] = ClassOptions

    generator: BigGAN
    clip: CLIP | None = None
    tokenizer: Tokenizer | None = None

    @property
    def labels(self) -> tuple[str, ...]:
        """What its classes are called; nothing where that is not known."""
        config = self.generator.config
        return known_as(config.labels, config.num_classes)

    def notices(self, request: Request) -> list[str]:
        """What the prompt was taken for, where it names no class; a size that is not its own."""
        said = resized(request, self.generator.config.size)
        labels = self.labels
        if request.options.get("classes") or not labels or named(request.prompt, labels):
            return said
        weights = self.classes(request, ClassOptions(mix=int(request.options.get("mix", 1))))
        order = weights.argsort(descending=True).tolist()
        taken = [f"{title(labels[i])} ({weights[i]:.0%})" for i in order if weights[i]]
        return [*said, f"the prompt names no class of this generator; painted as {', '.join(taken)}"]

    def classes(self, request: Request, options: ClassOptions) -> Float[Tensor, "N"]:
        """The weight of each class.

        Raises:
            UnknownName: A class that there is not.
            OptionError: Nothing says what to paint.
        """
        count, labels = self.generator.config.num_classes, self.labels
        if options.classes.strip():
            return _parsed(options.classes, labels, count)
        if found := named(request.prompt, labels) or likely(request.prompt, labels)[: options.mix]:
            weights = torch.zeros(count)
            weights[found] = 1 / len(found)
            return weights
        if not labels or self.clip is None or self.tokenizer is None:
            raise OptionError(
                f"this generator knows {count} classes, and nothing says which one the prompt means",
                hint="--set classes=207 paints the class of that number",
            )
        critic = ClipCritic(self.clip, self.tokenizer)
        texts = critic.embed_text([request.prompt, *(told(label) for label in labels)])
        near = (texts[1:] @ texts[0]).cpu()
        top = near.topk(min(options.mix, len(near)))
        return torch.zeros(count).index_put((top.indices,), (top.values * 50).softmax(0))

    def synthesize(self, request: Request, options: ClassOptions, noise: Noise) -> Steps[Pixels]:
        """Draw one picture a seed.

        Raises:
            UnknownName: A class that there is not.
            OptionError: Nothing says what to paint.
        """
        weight = self.generator.embeddings.weight
        classes = self.classes(request, options).to(weight)[None]
        z = options.truncation * truncated(beginnings(request, noise, options, self.generator))

        def paint(z: Float[Tensor, "B Z"]) -> Pixels:
            return self.generator(z, classes.expand(len(z), -1), options.truncation, compat=options.compat)

        return (yield from draw(request, paint, z))


@final
@dataclass(frozen=True, eq=False)
class TextGAN:
    """A generator that is told the text.

    Attributes:
        generator: What paints.
        text: The CLIP whose text tower it was trained with.
        words: That CLIP's tokenizer, of the length that the generator reads.
        clip: Who chooses among candidates.
        tokenizer: Its tokenizer.
    """

    Options: ClassVar[type] = ChosenOptions

    generator: TextGenerator
    text: CLIP
    words: Tokenizer
    clip: CLIP | None = None
    tokenizer: Tokenizer | None = None

    def notices(self, request: Request) -> list[str]:
        """A size that is not its own."""
        return resized(request, self.generator.config.size)

    def synthesize(self, request: Request, options: PlainOptions, noise: Noise) -> Steps[Pixels]:
        """Draw one picture a seed."""
        weight = self.generator.mix.weight
        with torch.no_grad():
            ids, _ = self.words.encode([request.prompt])
            tokens, pooled = self.text.text(ids.to(weight.device))
            tokens, vector = tokens.to(weight), pooled_vector(pooled.float()).to(weight)
        z = options.truncation * beginnings(request, noise, options, self.generator)

        def paint(z: Float[Tensor, "B Z"]) -> Pixels:
            return self.generator(z, vector.expand(len(z), -1), tokens.expand(len(z), -1, -1))

        return (yield from draw(request, paint, z))


def _parsed(text: str, labels: Sequence[str], count: int) -> Float[Tensor, "N"]:
    """The weights in ``cat:2, dog:1`` or ``207``, made to sum to 1."""
    weights = torch.zeros(count)
    for piece in filter(None, (each.strip() for each in text.split(","))):
        name, _, weight = piece.partition(":")
        place = place_of(name, labels, count)
        if place is None:
            raise UnknownName("class", name.strip(), [title(label) for label in labels] or map(str, range(count)))
        try:
            weights[place] += float(weight or 1)
        except ValueError:
            raise OptionError(f"the weight of class {name} is no number: {weight.strip()!r:.40}") from None
    if not (torch.isfinite(weights).all() and (weights >= 0).all() and weights.sum() > 0):
        raise OptionError(f"classes={text!r:.80} says no class", hint="weights are 0 or more, and not all 0")
    return weights / weights.sum()
