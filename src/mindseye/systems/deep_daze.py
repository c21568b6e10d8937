"""Deep Daze: a network of sines paints what CLIP wants to see.

Ryan Murdock and Phil Wang, January 2021 (lucidrains/deep-daze). The first of its kind: no generator that was ever
trained on a picture. A SIREN (arXiv:2006.09661) is the picture; crops of it are shown to CLIP; the SIREN's weights
climb the cosine. Here waves or the plain pixels can be painted on instead.

Repaired: a start picture is primed in the range in which it is shown (the original's are washed out), sizes of cuts
asked to be Gaussian are, and each picture's crops come from its seed. ``compat=true`` brings the first two back.
"""

from dataclasses import dataclass
from typing import ClassVar, final

from mindseye.ascent.canvas import Canvas
from mindseye.ascent.fourier import FourierCanvas
from mindseye.ascent.loop import ascend
from mindseye.ascent.optimizers import OPTIMIZERS
from mindseye.ascent.pixels import PixelCanvas
from mindseye.ascent.siren import SirenCanvas
from mindseye.critique.augment import NERDY
from mindseye.critique.cuts import FAMILIES, Scheme, deep_daze
from mindseye.networks.siren import Config, Siren
from mindseye.noise import Noise
from mindseye.request import Request, Steps
from mindseye.shapes import Pixels
from mindseye.systems import painting
from mindseye.systems.base import known, option
from mindseye.systems.listening import Listening
from mindseye.systems.painting import Scene, toward

__all__ = ["DeepDaze"]

_RATES = {"fourier": 0.05, "pixels": 0.02}
"""Learning rates that suit the canvases that are no SIREN."""


@final
@dataclass(frozen=True, kw_only=True)
class Knobs(painting.Knobs):
    """The knobs of the method."""

    lr: float = option(0.0, "size of a step; 0 is what suits the canvas", low=0, high=10)
    optimizer: str = option("adamp", "how a step is made of a gradient", choices=tuple(OPTIMIZERS))
    cuts: int = option(16, "pieces of the picture that the critic looks at in every step", low=1, high=4096)
    family: str = option("deep-daze", "whose way of cutting", choices=tuple(FAMILIES))
    loss: str = option("cosine", "how far a piece is from the words", choices=("spherical", "cosine"))
    average: float = option(0.3, "how much the mean of all pieces counts beside each of them", low=0, high=1)

    canvas: str = option("siren", "what is painted on", choices=("siren", "fourier", "pixels"))
    hidden: int = option(256, "channels of the SIREN", low=1, high=4096)
    layers: int = option(16, "layers of the SIREN; more are stranger and slower", low=1, high=128)
    theta_initial: float = option(30.0, "frequency of the SIREN's first sines: how fine it begins", low=0.1, high=1000)
    theta_hidden: float = option(30.0, "frequency of its other sines", low=0.1, high=1000)
    prime: int = option(200, "steps in which the SIREN learns a start picture by heart", low=0, high=10_000)
    prime_lr: float = option(3e-4, "size of these steps", low=1e-7, high=1)

    lower: float = option(0.1, "smallest piece, of the picture's short side", low=0.01, high=1)
    upper: float = option(1.0, "largest piece", low=0.01, high=1)
    saturate: bool = option(False, "pieces grow from the smallest to three quarters over the run")
    gauss: bool = option(False, "sizes of pieces about 0.6 of the side instead of all alike")
    centre: float = option(0.0, "above 0, pieces keep to the middle; 2 is usual", low=0, high=100)
    compat: bool = option(False, "the original's picture: clipped colours forget, primed ones are pale, gauss is not")


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class DeepDaze(Listening):
    """Text to pictures by a network a picture.

    Attributes:
        rate: Learning rate of the SIREN where the options say none; 1e-5 was published for the size published and
            twenty thousand steps, small networks bear and need more.
    """

    Options: ClassVar[type] = Knobs

    rate: float = 1e-5

    def notices(self, request: Request) -> list[str]:
        """What will not be done to the letter."""
        return painting.notices(self.critics, request)

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
        scene = Scene.of(self.critics, request, options, self._cutting(options), average=options.average)
        canvas = yield from self._canvas(request, options, noise, scene)
        return (yield from scene.paint(canvas, noise, options.lr or _RATES.get(options.canvas, self.rate)))

    def _canvas(self, request: Request, options: Knobs, noise: Noise, scene: Scene) -> Steps[Canvas]:
        """Something to paint on, showing the start picture where there is one."""
        width, height = known(request.size, "size")
        device, count, start = painting.device_of(self.clip), len(noise.seeds), scene.start
        if options.canvas == "fourier":
            if start is None:
                return FourierCanvas.of_noise(noise, (height, width), device=device)
            return FourierCanvas.of_picture(start.expand(count, -1, -1, -1))
        if options.canvas == "pixels":
            if start is None:
                return PixelCanvas(0.1 * noise.normal(3, height, width).to(device))
            return PixelCanvas(start.expand(count, -1, -1, -1))
        siren = Siren(
            Config(
                pictures=count, hidden=options.hidden, layers=options.layers, w0=options.theta_hidden,
                w0_initial=options.theta_initial,
            )
        ).to(device)  # fmt: skip
        canvas = SirenCanvas.of_noise(siren, noise, (height, width), hard=options.compat)
        if start is not None and options.prime:
            # Upstream compares the raw output, whose middle grey is 0, with a picture whose black is 0.
            target = (start + 1) / 2 if options.compat else start
            yield from ascend(
                canvas, toward(target), noise, steps=options.prime, lr=options.prime_lr, optimizer="diffgrad",
                stage="prime",
            )  # fmt: skip
        return canvas

    def _cutting(self, options: Knobs) -> Scheme:
        """Where critics look."""
        if options.family != "deep-daze":
            return painting.cutting(options, compat=options.compat)
        return deep_daze(
            options.cuts, low=options.lower, high=options.upper, saturate=options.saturate, gauss=options.gauss,
            centre=options.centre, augment=NERDY if options.augment == "yes" else None, compat=options.compat,
        )  # fmt: skip
