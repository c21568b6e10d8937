"""Big Sleep: BigGAN dreams of what CLIP is told.

Ryan Murdock and Phil Wang, January 2021 (lucidrains/big-sleep). A generator that knows a thousand classes is given
other noise and another mixture of classes at every layer (`mindseye.ascent.biggan`); crops of what it draws are shown
to CLIP, and noise and classes climb the cosine.

Repaired: any number of classes will do, not a thousand only, and the crops come from the picture's seed.
"""

from dataclasses import dataclass
from typing import ClassVar, final

from mindseye.ascent.biggan import BigGANCanvas, Wishes, first_logits
from mindseye.ascent.loop import ascend
from mindseye.critique.augment import NERDY
from mindseye.critique.cuts import FAMILIES, Scheme, big_sleep
from mindseye.critique.terms import Likeness
from mindseye.networks.biggan import BigGAN
from mindseye.noise import Noise
from mindseye.request import Request, Steps
from mindseye.shapes import Pixels
from mindseye.systems import painting
from mindseye.systems.base import known, option
from mindseye.systems.listening import Listening
from mindseye.systems.painting import Scene, toward

__all__ = ["BigSleep"]


@final
@dataclass(frozen=True, kw_only=True)
class Knobs(painting.Knobs):
    """The knobs of the method."""

    lr: float = option(0.07, "size of a step", low=1e-7, high=10)
    cuts: int = option(128, "pieces of the picture that the critic looks at in every step", low=1, high=4096)
    family: str = option("big-sleep", "whose way of cutting", choices=tuple(FAMILIES))
    loss: str = option("cosine", "how far a piece is from the words", choices=("spherical", "cosine"))
    kernel: str = option(
        "nearest", "how big-sleep's pieces are resized", choices=("nearest", "bilinear", "lanczos-bicubic")
    )
    centre: float = option(0.0, "above 0, pieces keep to the middle; 2 is usual", low=0, high=100)

    mixture: str = option(
        "sigmoid", "how classes are mixed: each by itself, or as shares", choices=("sigmoid", "softmax")
    )
    max_classes: int = option(0, "how many classes may be mixed; 0 is all", low=0, high=100_000)
    class_temperature: float = option(2.0, "above 1 softens shares of classes", low=0.01, high=100)
    truncation: float = option(1.0, "how ordinary what the generator draws is, near 0 most", low=0.02, high=1)
    latent_weight: float = option(1.0, "how strongly noise is held to be normal", low=0, high=1000)
    class_weight: float = option(1.0, "how strongly classes are held to be few", low=0, high=1000)
    ema: float = option(
        0.99, "what is shown averages this share of what came before; 0 shows the last", low=0, high=0.9999
    )
    prime: int = option(60, "steps in which noise and classes are sought that show a start picture", low=0, high=10_000)


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class BigSleep(Listening):
    """Text to pictures by what a class-conditional generator hears.

    Attributes:
        generator: What draws.
    """

    Options: ClassVar[type] = Knobs

    generator: BigGAN

    def notices(self, request: Request) -> list[str]:
        """What will not be done to the letter: the generator has one size."""
        said = painting.notices(self.critics, request)
        own = self.generator.config.size
        width, height = known(request.size, "size")
        if (width, height) != (own, own):
            said.append(f"the generator draws {own}x{own}, resized to {width}x{height}: no detail is added by that")
        return said

    def synthesize(self, request: Request, options: Knobs, noise: Noise) -> Steps[Pixels]:
        """Paint.

        Args:
            request: Resolved.
            options: The knobs of the method.
            noise: One seed a picture.

        Raises:
            PromptError: Nothing to aim for.
            OptionError: Knobs that contradict each other.
        """
        critics = self.critics
        scene = Scene.of(critics, request, options, self._cutting(options))
        canvas = self._canvas(request, options, noise)
        if scene.start is not None and options.prime:
            seen = Likeness(critics[0], scene.start, 20.0)
            yield from ascend(
                canvas, toward(scene.start, seen), noise, steps=options.prime, lr=options.lr, stage="search"
            )
            canvas = canvas.restarted()
        return (yield from scene.paint(canvas, noise, options.lr))

    def _canvas(self, request: Request, options: Knobs, noise: Noise) -> BigGANCanvas:
        """Noise and classes at random."""
        config, weights = self.generator.config, self.generator.embeddings.weight
        width, height = known(request.size, "size")
        wishes = Wishes(
            mixture=options.mixture,  # type: ignore[arg-type]  (the option's choices are the type's)
            most=options.max_classes, temperature=options.class_temperature, latents=options.latent_weight,
            classes=options.class_weight, decay=options.ema, truncation=options.truncation,
        )  # fmt: skip
        latents = noise.normal(config.sites, config.z_dim)
        logits = first_logits(noise, config.sites, config.num_classes, kind=wishes.mixture)
        return BigGANCanvas(
            self.generator, latents.to(weights.device), logits.to(weights.device), (height, width), wishes=wishes,
            dtype=weights.dtype,
        )  # fmt: skip

    def _cutting(self, options: Knobs) -> Scheme:
        """Where critics look."""
        if options.family != "big-sleep":
            return painting.cutting(options)
        return big_sleep(
            options.cuts,
            centre=options.centre,
            kernel=options.kernel,  # type: ignore[arg-type]  (the option's choices are kernels)
            augment=NERDY if options.augment == "yes" else None,
        )
