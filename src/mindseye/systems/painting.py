"""What the systems that paint by ascent share: their knobs, and a request made ready for the brush.

Deep Daze, Big Sleep and VQGAN-CLIP differ in what they paint on. What they listen to, where they start from somebody's
picture, what of it they keep and how a story goes on is the same and said here once.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mindseye.ascent.canvas import Canvas
from mindseye.ascent.held import Held
from mindseye.ascent.loop import ascend
from mindseye.ascent.optimizers import OPTIMIZERS
from mindseye.ascent.story import Story, split
from mindseye.critique.critic import ClipCritic
from mindseye.critique.cuts import FAMILIES, Scheme, scheme
from mindseye.critique.grammar import Wish, wishes
from mindseye.critique.judge import Judge, judge
from mindseye.critique.losses import LOSSES
from mindseye.critique.targets import GIVEN, Targets, embed, given_or_opened
from mindseye.critique.terms import Nearness, Smoothness, Term
from mindseye.errors import OptionError
from mindseye.noise import Noise
from mindseye.pixels import from_image, mask_from_image
from mindseye.request import Request, Steps
from mindseye.shapes import Pixels
from mindseye.systems.base import known, option

__all__ = ["Knobs", "Scene", "cutting", "device_of", "notices", "toward"]


@dataclass(frozen=True, kw_only=True)
class Knobs:
    """The knobs they share; abstract."""

    # How a step is taken.
    optimizer: str = option("adam", "how a step is made of a gradient", choices=tuple(OPTIMIZERS))
    decay: float = option(1.0, "size of the last step as a share of the first one's; 1 keeps it", low=0, high=1)

    # Where the critic looks.
    cuts: int = option(32, "pieces of the picture that the critic looks at in every step", low=1, high=4096)
    family: str = option("crowson", "whose way of cutting", choices=tuple(FAMILIES))
    power: float = option(1.0, "above 1 more small pieces, below 1 more large ones", low=0.01, high=100)
    augment: str = option("family", "whether pieces are turned, tilted and recoloured", choices=("family", "yes", "no"))
    chunk: int = option(16, "pieces it looks at in one go; fewer need less memory", low=1, high=4096)

    critics: str = option("", "CLIPs of your library to listen to in place of its own: NAME, NAME; pocket is ours")

    # What it says.
    loss: str = option("spherical", "how far a piece is from the words", choices=LOSSES)
    smooth: float = option(0.0, "how strongly neighbouring pixels hold together", low=0, high=1e6)
    images: str = option("", "pictures to paint towards, by their files: rose.png:0.5|sky.png")
    noises: str = option("", "directions at random to paint towards, by their seeds: 42:0.5|7")
    every: int = option(0, "steps of a scene where prompts are parted by ^; 0 shares the run", low=0, high=100_000)

    # What is made of a picture.
    picture: str = option(
        "start", "the picture is where to start, what to paint towards, or both", choices=("start", "aim", "both")
    )
    likeness: float = option(1.0, "weight of the picture beside the words where it is an aim", low=-100, high=100)
    pull: float = option(
        0.0, "how strongly it stays like the start, at strength 0; at strength 1 not at all", low=0, high=1e6
    )


@final
@dataclass(frozen=True, eq=False)
class Scene:
    """A request made ready: whom to please, where to start, what to keep.

    Attributes:
        judge: Of all that was asked for, scene after scene.
        steps: How many are taken: fewer from a picture, by the request's strength.
        picture: The picture given, fitted to the size that is drawn; None = there is none, or it is an aim only.
        start: The same where painting starts from it; None = it starts from nothing.
        mask: 1 = painted, 0 = kept; None = all is painted.
        options: As given.
    """

    judge: Judge
    steps: int
    picture: Float[Tensor, "1 3 H W"] | None
    start: Float[Tensor, "1 3 H W"] | None
    mask: Float[Tensor, "1 1 H W"] | None
    options: Knobs

    @classmethod
    def of(
        cls,
        critics: Sequence[ClipCritic],
        request: Request,
        options: Knobs,
        cuts: Scheme,
        *,
        average: float = 0.0,
        terms: Sequence[Term] = (),
        pull: float | None = None,
    ) -> "Scene":
        """Make ready.

        Args:
            critics: Who looks.
            request: Resolved.
            options: The system's.
            cuts: Where they look.
            average: Deep Daze's share of the mean of all pieces.
            terms: What else is to be kept small.
            pull: Weight of the pixels' distance from the start; as the options say when None.

        Raises:
            PromptError: Nothing to aim for, or a prompt that cannot be read.
            OptionError: A mask where the picture is an aim only, or weights that come to nothing.
        """
        size, device = known(request.size, "size"), critics[0].device
        image, steps = request.image, known(request.steps, "steps")
        if image is not None and options.picture == "aim" and request.mask is not None:
            raise OptionError(
                "the mask says what to repaint of the picture, but with picture=aim the picture is only looked at",
                hint="--set picture=both",
            )
        picture = start = mask = None
        if image is not None and options.picture != "aim":
            picture = from_image(image, size).to(device)
            mask = None if request.mask is None else mask_from_image(request.mask, size).to(device)
            if request.strength < 1:
                start = picture
                steps = int(steps * request.strength + 1e-6)  # 0.29 of 100 are 29, not 28
        kept = (options.pull if pull is None else pull) * (1 - request.strength)
        wanted = [*terms, *([Smoothness(options.smooth)] if options.smooth else [])]
        if start is not None and kept:
            wanted.append(Nearness(start, kept))
        judges = [
            judge(
                critics,
                _targets(critics, scene, request, options, cuts),
                cuts=cuts,
                loss=options.loss,  # type: ignore[arg-type]  (one of LOSSES: the option's choices)
                terms=wanted,
                average=average,
                chunk=options.chunk,
            )
            for scene in split(request.prompt)
        ]
        whole = judges[0] if len(judges) == 1 else Story(judges, steps, options.every)
        return cls(whole, steps, picture, start, mask, options)

    def held(self, canvas: Canvas) -> Canvas:
        """The canvas, behind the mask where there is one."""
        if self.picture is None or self.mask is None:
            return canvas
        return Held(canvas, self.picture, self.mask)

    def paint(self, canvas: Canvas, noise: Noise, lr: float) -> Steps[Pixels]:
        """Paint on it, the mask minded."""
        options = self.options
        return ascend(
            self.held(canvas), self.judge, noise, steps=self.steps, lr=lr, optimizer=options.optimizer,
            decay=options.decay,
        )  # fmt: skip


def toward(picture: Pixels, *terms: Term, weight: float = 100.0) -> Judge:
    """A judge with a picture in mind, who needs no critic: how a canvas is brought to show one.

    Args:
        picture: One for all, or one each.
        terms: What else counts.
        weight: Of the mean squared distance; 100 is on the scale of the cosine loss.
    """
    unused = scheme("crowson", count=1)
    return judge((), Targets((), ()), cuts=unused, terms=(Nearness(picture, weight), *terms))


def cutting(options: Knobs, *, compat: bool = False) -> Scheme:
    """Where critics look, by the options."""
    changed = {"yes": True, "no": False}.get(options.augment)
    return scheme(options.family, count=options.cuts, power=options.power, augment=changed, compat=compat)


def device_of(network: nn.Module) -> torch.device:
    """Where a network lives."""
    return next(network.parameters()).device


def _targets(critics: Sequence[ClipCritic], scene: str, request: Request, options: Knobs, cuts: Scheme) -> Targets:
    """What one scene aims for."""
    found = wishes(scene, request.negative, images=options.images, noises=options.noises)
    image = None if options.picture == "start" else request.image
    if image is not None:
        found = (*found, Wish(text=GIVEN, weight=options.likeness, kind="image"))
    return embed(critics, found, cuts=cuts, size=request.size, look=given_or_opened(image))


def notices(critics: Sequence[ClipCritic], request: Request) -> list[str]:
    """What ascent does not do to the letter: numbers that mean nothing to it, words that a critic does not read."""
    said = []
    if request.guidance not in (None, 1):
        said.append(
            f"guidance {request.guidance:g} changes nothing: a picture painted by ascent follows its critic altogether"
        )
    if request.sampler:
        said.append(f"sampler {request.sampler!r} changes nothing: ascent has optimizers (--set optimizer=...)")
    texts = [wish.text for scene in split(request.prompt) for wish in wishes(scene, request.negative)]
    for number, critic in enumerate(critics, start=1):
        _, cut = critic.tokenizer.encode(texts)
        which = f"critic {number}" if len(critics) > 1 else "the critic"
        said += [
            f"{which} does not read {words!r:.80}: the prompt is too long for it"
            for words in dict.fromkeys(cut)
            if words
        ]
    return said
