"""Disco Diffusion: CLIP-guided diffusion grown into an art tool (Somnai, gandamu and others, 2021 to 2022).

As `mindseye.systems.clip_guided`, with what two years of users added: several critics; views of the whole picture at
first and crops of details later, by schedules over the thousandths of the denoising; a small second model that makes
the picture the critics see, so that no gradient goes through the large one; a limit on how far they may pull; clouds to
start from; fuzzy prompts; symmetry. Moving pictures are in `mindseye.systems.motion`, settings files in
`mindseye.metadata.disco`.

Upstream's slips are repaired unless ``compat`` is set: its penalty on values out of range never had an effect; critics
read ":5" as part of a prompt that was weighted so; fuzzy prompts lost every number below zero; one piece more than
asked for was shown without colour, and all pieces of a batch were turned alike; and steps that do not divide 1000
shortened the table of noise levels.

Guidance is in thousands of ``clip_guidance_scale``: 5 is its default.
"""

from dataclasses import dataclass
from typing import Any, ClassVar, final

from mindseye.critique.augment import DISCO
from mindseye.critique.cuts import Scheme, disco
from mindseye.critique.fuzzy import COPIES, Fuzz
from mindseye.diffusion.critic_guidance import SecondaryDenoiser
from mindseye.diffusion.denoiser import Prediction
from mindseye.networks.adm import ADM
from mindseye.networks.secondary import Secondary
from mindseye.noise import Noise
from mindseye.request import Request, Steps
from mindseye.shapes import Pixels
from mindseye.systems import steering
from mindseye.systems.base import known, option
from mindseye.systems.listening import Listening
from mindseye.systems.perlin import perlin
from mindseye.systems.steering import Mirror, Steering
from mindseye.text.keyframes import read_schedule

__all__ = ["Disco", "Knobs"]


@final
@dataclass(frozen=True, kw_only=True)
class Knobs(steering.Knobs):
    """The knobs of Disco Diffusion, its own names in brackets."""

    spacing: str = option("leading", "which noise levels the steps visit", choices=tuple(steering.SPACINGS))
    eta: float = option(0.8, "fresh noise at every step, 0 to 1; -1 leaves it to the sampler", low=-1, high=1)
    clamp: float = option(0.05, "most that critics may pull [clamp_max], 0 is no limit", low=0, high=1e6)
    smooth: float = option(0.0, "how strongly neighbouring pixels hold together [tv_scale]", low=0, high=1e6)
    range: float = option(150.0, "how strongly values beyond black and white are minded", low=0, high=1e6)
    secondary: str = option("", "the second model of your library, by name, in place of its own")
    through: str = option(
        "secondary", "the critics' gradient goes back through this; the network itself where there is no second one",
        choices=("secondary", "network", "straight"),
    )  # fmt: skip

    # What the critics want.
    fuzz: float = option(
        0.0, f"every prompt as {COPIES} around it, so far away; 0 is the prompt alone [fuzzy_prompt, rand_mag]",
        low=0, high=100,
    )  # fmt: skip

    # Where the critics look: schedules over the run.
    overview: str = option("[12]*400+[4]*600", "views of the whole picture [cut_overview]")
    inner: str = option("[4]*400+[12]*600", "crops [cut_innercut]")
    power: str = option("[1]*1000", "above 1 more small crops, below 1 more large ones [cut_ic_pow]")
    grey: str = option("[0.2]*400+[0]*600", "share of the crops without colour [cut_icgray_p]")
    batches: int = option(4, "how often they look in every step [cutn_batches]", low=1, high=256)
    augment: bool = option(True, "pieces are turned, shifted and recoloured [skip_augs]")

    # Where it starts, and symmetry.
    perlin: str = option(
        "no",
        "start from clouds, as far as strength leaves them [perlin_mode]",
        choices=("no", "mixed", "colour", "grey"),
    )
    symmetry: str = option("", "mirror left to right (x), top to bottom (y) or both", choices=("", "x", "y", "xy"))
    mirror_at: str = option("0.09", "when: shares of the run, as in 0.09,0.2 [transformation_percent]")
    compat: bool = option(False, "the original's picture, slips and all")


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class Disco(Listening):
    """Text to pictures by a steered diffusion model.

    Attributes:
        unet: Over pixels.
        secondary: Makes what the critics see, cheaply; None = the U-Net does.
        prediction: What the U-Net was trained to predict.
        schedule: The noise levels it was trained on, a key of `mindseye.diffusion.schedule.SCHEDULES`.
    """

    Options: ClassVar[type] = Knobs
    samplers: ClassVar[tuple[str, ...]] = steering.samplers

    unet: ADM
    secondary: Secondary | None = None
    prediction: Prediction = "eps"
    schedule: str = "linear"

    @property
    def multiple(self) -> int:
        """Sides are multiples of this."""
        halvings = 0 if self.secondary is None else len(self.secondary.config.channels) - 1
        return max(self.unet.config.multiple, 2**halvings)

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
            OptionError: Knobs that contradict each other or the schedule, or a schedule that is none.
        """
        cuts, mirrors = _cuts(options), _mirrors(options)
        width, height = known(request.size, "size")
        clouds: Any = options.perlin
        steered = Steering.of(
            request, options, noise,
            unet=self.unet, prediction=self.prediction, schedule=self.schedule, critics=self.critics,
            start=None if clouds == "no" else perlin(noise, height, width, clouds), shortened=options.compat,
        )  # fmt: skip
        judge = steered.judge(
            cuts, scale=1000 * known(request.guidance, "guidance"), verbatim=options.compat,
            fuzz=Fuzz(options.fuzz, noise, options.compat) if options.fuzz else None,
        )  # fmt: skip
        small = None if self.secondary is None else SecondaryDenoiser(self.secondary)
        through = "network" if options.through == "secondary" and small is None else options.through
        range_scale = 0.0 if options.compat else options.range
        guided = steered.guided(judge, through=through, secondary=small, range_scale=range_scale)
        return (yield from steered.walk(guided, mirrors))


def _cuts(options: Knobs) -> Scheme:
    """Where the critics look."""
    return disco(
        overview=read_schedule(options.overview, low=0, high=1024),
        inner=read_schedule(options.inner, low=0, high=1024),
        power=read_schedule(options.power, low=0.01, high=100),
        grey=read_schedule(options.grey, low=0, high=1),
        batches=options.batches,
        augment=DISCO if options.augment else None,
        compat=options.compat,
    )


def _mirrors(options: Knobs) -> list[Mirror]:
    """When it is mirrored."""
    if not options.symmetry:
        return []
    shares = read_schedule(f"[{options.mirror_at.strip().strip('[]')}]", low=0, high=1)
    across, down = "x" in options.symmetry, "y" in options.symmetry
    return [Mirror(share, across, down) for values, _ in shares.runs for share in values]
