"""CLIP-guided diffusion: a network that paints anything, bent at every step by one that knows words.

Katherine Crowson's notebooks of 2021, on the unconditional models of Dhariwal and Nichol (arXiv:2105.05233). Step by
step: the network expects a clean picture; random pieces of it, blended with the noisy one, are shown to CLIP; CLIP says
how far they are from the words, and which way is nearer; the gradient goes back through the network, and the next
noise level is approached a little to that side.

Guidance is in thousands of the notebooks' ``clip_guidance_scale``. Sampler "ancestral" is theirs; any other of
`mindseye.diffusion.samplers` will do, and with DDIM a tenth of their thousand steps does as well.
"""

from dataclasses import dataclass
from typing import ClassVar, final

from mindseye.critique.cuts import FAMILIES, scheme
from mindseye.diffusion.denoiser import Prediction
from mindseye.networks.adm import ADM
from mindseye.noise import Noise
from mindseye.request import Request, Steps
from mindseye.shapes import Pixels
from mindseye.systems import steering
from mindseye.systems.base import known, option
from mindseye.systems.listening import Listening
from mindseye.systems.steering import Steering

__all__ = ["CLIPGuided", "Knobs"]


@final
@dataclass(frozen=True, kw_only=True)
class Knobs(steering.Knobs):
    """The knobs of CLIP-guided diffusion."""

    cuts: int = option(16, "pieces of the picture that the critics look at in every step", low=1, high=4096)
    family: str = option("guided", "whose way of cutting", choices=tuple(FAMILIES))
    power: float = option(1.0, "above 1 more small pieces, below 1 more large ones", low=0.01, high=100)
    augment: str = option("family", "whether pieces are turned, tilted and recoloured", choices=("family", "yes", "no"))
    through: str = option(
        "network", "the critics' gradient goes back through the network, or straight to the picture",
        choices=("network", "straight"),
    )  # fmt: skip


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class CLIPGuided(Listening):
    """Text to pictures by a steered diffusion model.

    Attributes:
        unet: Over pixels, with or without a learned variance and classes.
        prediction: What the U-Net was trained to predict.
        schedule: The noise levels it was trained on, a key of `mindseye.diffusion.schedule.SCHEDULES`.
    """

    Options: ClassVar[type] = Knobs
    samplers: ClassVar[tuple[str, ...]] = steering.samplers

    unet: ADM
    prediction: Prediction = "eps"
    schedule: str = "linear"

    @property
    def multiple(self) -> int:
        """Sides are multiples of this."""
        return self.unet.config.multiple

    def notices(self, request: Request) -> list[str]:
        """Words that a critic does not read; which class the prompt was taken for."""
        return steering.notices(self.critics, request, self.unet)

    def synthesize(self, request: Request, options: Knobs, noise: Noise) -> Steps[Pixels]:
        """Draw.

        Args:
            request: Resolved.
            options: The knobs of the method.
            noise: One seed a picture.

        Raises:
            PromptError: Nothing to aim for.
            OptionError: Knobs that contradict each other or the schedule.
        """
        steered = Steering.of(
            request, options, noise,
            unet=self.unet, prediction=self.prediction, schedule=self.schedule, critics=self.critics,
        )  # fmt: skip
        changed = {"yes": True, "no": False}.get(options.augment)
        cuts = scheme(options.family, count=options.cuts, power=options.power, augment=changed)
        judge = steered.judge(cuts, scale=1000 * known(request.guidance, "guidance"))
        return (yield from steered.walk(steered.guided(judge, through=options.through)))
