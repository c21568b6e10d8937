"""What the systems that steer a diffusion model by critics share: their knobs, and a request made ready for the walk.

CLIP-guided diffusion and Disco Diffusion differ in which cuts they show their critics and in what they are used to. How
a run starts, who bends it, what is kept of a picture, which colours are allowed and when a picture is mirrored is the
same and said here once, on the samplers and schedules that Stable Diffusion uses.
"""

from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from typing import Any, final

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mindseye.critique.critic import ClipCritic
from mindseye.critique.cuts import Scheme
from mindseye.critique.fuzzy import Fuzz
from mindseye.critique.grammar import Wish, parse, wishes
from mindseye.critique.judge import Judge, judge
from mindseye.critique.losses import LOSSES
from mindseye.critique.targets import GIVEN, embed, given_or_opened
from mindseye.critique.terms import Likeness, Saturation, Smoothness, Term
from mindseye.diffusion.critic_guidance import CriticGuided
from mindseye.diffusion.denoiser import Denoiser, Prediction
from mindseye.diffusion.learned_variance import Classes, MaskedBelief, PixelDenoiser, learned_ancestral, respaced
from mindseye.diffusion.samplers import SAMPLERS, Estimate, choose
from mindseye.diffusion.schedule import SCHEDULES, SPACINGS, Knots, Schedule, Tabulated, linear, spacing
from mindseye.errors import OptionError, UnknownName
from mindseye.networks.adm import ADM
from mindseye.noise import Noise
from mindseye.pixels import from_image, mask_from_image
from mindseye.request import Request, Steps
from mindseye.shapes import Pixels
from mindseye.systems.base import known, option, remaining, watched
from mindseye.systems.palette import Palette, Paletted, read_palette
from mindseye.text.classes import known_as, named, place_of, title

__all__ = ["ANCESTRAL", "Knobs", "Steering", "notices", "samplers"]

ANCESTRAL = "ancestral"
"""The sampler that only these systems have: guided-diffusion's own, with the variance that the network learned."""

samplers: tuple[str, ...] = (ANCESTRAL, *SAMPLERS)


@dataclass(frozen=True, kw_only=True)
class Knobs:
    """The knobs they share; abstract."""

    # How noise falls.
    spacing: str = option("trailing", "which noise levels the steps visit", choices=tuple(SPACINGS))
    respacing: str = option(
        "", 'the levels as guided-diffusion names them, in place of steps and spacing: "250", "ddim50", "10,15,20"'
    )
    eta: float = option(-1.0, "fresh noise at every step, 0 to 1; -1 leaves it to the sampler", low=-1, high=1)
    clip: bool = option(False, "keep what the network expects within the range of pixels")
    label: str = option(
        "", "class that a class-conditional network is told, by name or number; any is another one at every step; "
        "empty = what the prompt names, or else any",
    )  # fmt: skip

    # How the critics pull.
    critics: str = option("", "CLIPs of your library to listen to in place of its own: NAME, NAME; pocket is ours")
    reads: str = option(
        "blend", "what they see: the expected picture blended with the noisy one, or alone", choices=("blend", "x0")
    )
    clamp: float = option(0.0, "most that they may pull, as root mean square a step; 0 is no limit", low=0, high=1e6)
    guidance_low: float = option(0.0, "ask critics only at times above this, 0 being clean", low=0, high=1)
    guidance_high: float = option(1.0, "ask critics only at times up to this, 1 being noise", low=0, high=1)
    loss: str = option("spherical", "how far a piece is from the words", choices=LOSSES)
    chunk: int = option(16, "pieces they look at in one go; fewer need less memory", low=1, high=4096)
    images: str = option("", "pictures to go towards, by their files: rose.png:0.5|sky.png")
    noises: str = option("", "directions at random to go towards, by their seeds: 42:0.5|7")

    # What else counts.
    smooth: float = option(150.0, "how strongly neighbouring pixels hold together", low=0, high=1e6)
    range: float = option(50.0, "how strongly values beyond black and white are minded", low=0, high=1e6)
    saturation: float = option(0.0, "the same in proportion to how far beyond, on what is seen", low=0, high=1e6)

    # What is made of a picture.
    picture: str = option(
        "start", "the picture is where to start, what to go towards, or both", choices=("start", "aim", "both")
    )
    start: str = option(
        "noise", "where to start without a picture: noise alone, or mid-grey, as far as strength leaves it",
        choices=("noise", "grey"),
    )  # fmt: skip
    weight: float = option(1.0, "weight of the picture beside the words where it is an aim", low=-100, high=100)
    likeness: float = option(0.0, "how strongly critics hold the picture to its start", low=0, high=1e6)

    # Which colours.
    palette: str = option("", "the only colours allowed, as in: navy, #ffcc00, white")
    palette_amount: float = option(1.0, "how far colours are moved to the palette", low=0, high=1)


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class Steering:
    """A request made ready.

    Attributes:
        request: Resolved.
        options: As given.
        noise: One seed a picture.
        drawn: What it drew first: the noise that the walk starts from, whatever is drawn besides.
        unet: The network.
        denoise: The network in the samplers' coordinates.
        schedule: Its noise levels.
        knots: The ones that are visited.
        critics: Who looks.
        start: The picture to start from, which may be all grey; None = noise.
        mask: 1 = repainted, 0 = kept; None = all is.
        palette: The colours allowed; None = all are.
    """

    request: Request
    options: Knobs
    noise: Noise
    drawn: Float[Tensor, "B 3 H W"]
    unet: ADM
    denoise: PixelDenoiser
    schedule: Schedule
    knots: Knots
    critics: Sequence[ClipCritic]
    start: Float[Tensor, "#B 3 H W"] | None
    mask: Float[Tensor, "1 1 H W"] | None
    palette: Palette | None

    @classmethod
    def of(
        cls,
        request: Request,
        options: Knobs,
        noise: Noise,
        *,
        unet: ADM,
        prediction: Prediction,
        schedule: str,
        critics: Sequence[ClipCritic],
        start: Pixels | None = None,
        shortened: bool = False,
    ) -> "Steering":
        """Make ready.

        Args:
            request: Resolved.
            options: The system's.
            noise: One seed a picture.
            unet: The network.
            prediction: What it predicts.
            schedule: The name of its noise levels.
            critics: Who looks.
            start: Pictures to start from where the request has none.
            shortened: Disco's table, which has as many entries as the steps divide 1000 into.

        Raises:
            OptionError: Knobs that contradict each other.
        """
        device, size = next(unet.parameters()).device, known(request.size, "size")
        mask = None
        if request.image is not None and options.picture != "aim":
            start = from_image(request.image, size)
            mask = None if request.mask is None else mask_from_image(request.mask, size).to(device)
        elif request.mask is not None:
            raise OptionError(
                "the mask says what to repaint of the picture, but with picture=aim the picture is only looked at",
                hint="--set picture=both",
            )
        if start is None and options.start == "grey":
            start = torch.zeros(1, 3, size[1], size[0])
        table, rescale, steps = SCHEDULES[schedule](), 1.0, known(request.steps, "steps")
        if shortened and schedule == "linear" and steps <= 1000:
            entries = 1000 // steps * steps
            table, rescale = linear(entries, 0.1 / entries, 20 / entries), 1000 / entries
        return cls(
            request=request,
            options=options,
            noise=noise,
            drawn=noise.normal(3, size[1], size[0]).to(device),
            unet=unet,
            denoise=PixelDenoiser(
                unet, table, prediction, classes=_classes(unet, request, options, noise), rescale=rescale
            ),
            schedule=table,
            knots=_knots(table, options, f"ddim{steps}" if shortened and not options.respacing else "", steps),
            critics=critics,
            start=None if start is None else start.to(device),
            mask=mask,
            palette=read_palette(options.palette) if options.palette else None,
        )

    @property
    def walked(self) -> Knots:
        """The levels that are left when it starts from a picture."""
        return self.knots if self.start is None else remaining(self.knots, self.request.strength)

    def judge(
        self,
        scheme: Scheme,
        *,
        scale: float,
        terms: Sequence[Term] = (),
        verbatim: bool = False,
        fuzz: Fuzz | None = None,
    ) -> Judge:
        """Who bends the walk.

        Args:
            scheme: Which cuts the critics are shown.
            scale: Factor on what they say.
            terms: What else is to be kept small.
            verbatim: Have critics read prompts with their weights, as Disco Diffusion does.
            fuzz: Scatters what is aimed for.

        Raises:
            PromptError: Nothing to aim for, or a prompt that cannot be read.
            OptionError: Weights that come to nothing.
        """
        request, options = self.request, self.options
        image = None if options.picture == "start" else request.image
        found = wishes(request.prompt, request.negative, images=options.images, noises=options.noises)
        if verbatim:
            found = (*_as_written(request.prompt, found), *found[len(parse(request.prompt)) :])
        if image is not None:
            found = (*found, Wish(text=GIVEN, weight=options.weight, kind="image"))
        look = given_or_opened(image)
        aimed = embed(self.critics, found, normal="sum", cuts=scheme, size=request.size, look=look, fuzz=fuzz)
        wanted = [*terms]
        if options.smooth:
            wanted.append(Smoothness(options.smooth))
        if options.saturation:
            wanted.append(Saturation(options.saturation))
        if options.likeness and self.start is not None:
            wanted.append(Likeness(self.critics[0], self.start, options.likeness))
        loss: Any = options.loss
        return judge(self.critics, aimed, cuts=scheme, loss=loss, terms=wanted, scale=scale, chunk=options.chunk)

    def guided(
        self,
        judge: Judge,
        *,
        through: Any = "network",
        secondary: Denoiser | None = None,
        range_scale: float | None = None,
    ) -> CriticGuided:
        """The network, listening.

        Args:
            judge: To whom.
            through: Which way the judge's gradient goes.
            secondary: The secondary model.
            range_scale: How much values out of range are minded; as the options say when None.
        """
        options = self.options
        times = (options.guidance_low, options.guidance_high)
        low, high = (float(self.schedule.sigma(torch.tensor(each * self.schedule.steps))) for each in times)
        inner: Denoiser = _Within(self.denoise) if options.clip else self.denoise
        reads: Any = options.reads
        return CriticGuided(
            inner,
            judge,
            self.noise,
            self.schedule,
            reads=reads,
            through=through,
            secondary=secondary,
            clamp=options.clamp,
            range_scale=options.range if range_scale is None else range_scale,
            # The ends of the range mean "always", also where the schedule's own ends are met.
            interval=(low if times[0] > 0 else 0.0, high if times[1] < 1 else float("inf")),
        )

    def walk(self, guided: CriticGuided, mirrors: "Sequence[Mirror]" = ()) -> Steps[Pixels]:
        """From noise, or from the start, to pictures.

        Args:
            guided: The network, listening.
            mirrors: When to mirror what has been drawn so far.
        """
        denoise: Denoiser = guided
        if self.palette is not None:
            denoise = Paletted(denoise, self.palette, self.schedule, self.options.palette_amount)
        if self.start is not None and self.mask is not None:
            denoise = MaskedBelief(denoise, self.start, self.mask)
        knots = self.walked

        def look(x0: Tensor) -> Tensor:
            return x0 if guided.expected is None else guided.expected

        x = yield from watched(
            "paint", _staged(self._sampler(), denoise, self._first(knots), knots, mirrors, self.noise), look
        )
        if self.palette is not None:
            x = self.palette.move(x, self.options.palette_amount)
        if self.start is not None and self.mask is not None:
            x = torch.lerp(self.start.to(x).expand_as(x), x, self.mask.to(x).expand_as(x))
        return x.float()

    def _first(self, knots: Knots) -> Pixels:
        """Where the walk starts."""
        pure = self.drawn / float(self.schedule.signal(knots[0]))
        if self.start is None:
            return pure
        x = self.start + float(knots[0]) * self.drawn
        if self.mask is not None and self.request.strength == 1:  # what is repainted is forgotten altogether
            x = torch.lerp(x, pure, self.mask.expand_as(x))
        return x

    def _sampler(self) -> Any:
        name = known(self.request.sampler, "sampler")
        eta = None if self.options.eta < 0 else self.options.eta
        if name != ANCESTRAL:
            return choose(name, eta)
        if eta is not None:
            raise OptionError(
                f"sampler {name!r} has no eta: its noise is what the network learned", hint="--sampler ddim"
            )
        return learned_ancestral


@final
@dataclass(frozen=True)
class Mirror:
    """When and how what has been drawn so far is mirrored.

    Attributes:
        share: Of the steps that are done by then.
        across: The left half is mirrored to the right.
        down: The upper half is mirrored down.
    """

    share: float
    across: bool
    down: bool

    def step(self, total: int) -> int:
        """Steps that are done before it, as Disco's sampler counts: -1 = it does not happen."""
        return total - 1 - int(total * (1 - self.share))

    def __call__(self, x: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B 3 H W"]:
        """Mirror."""
        for axis, wanted in ((3, self.across), (2, self.down)):
            if wanted:
                length = x.shape[axis]
                half = x.narrow(axis, 0, length - length // 2)
                x = torch.cat([half, half.narrow(axis, 0, length // 2).flip(axis)], dim=axis)
        return x


def _staged(
    sampler: Any, denoise: Denoiser, x: Tensor, knots: Knots, mirrors: Sequence[Mirror], noise: Noise
) -> Generator[Estimate, None, Tensor]:
    """A walk, interrupted where it is mirrored; samplers with a memory forget there what they knew."""
    total = len(knots) - 1
    stops = {step: mirror for mirror in mirrors if 0 <= (step := mirror.step(total)) < total}
    edges = sorted({0, total, *stops})
    for low, high in zip(edges, edges[1:], strict=False):
        if low in stops:
            x = stops[low](x)
        part = sampler(denoise, x, knots[low : high + 1], noise)
        try:
            while True:
                now = next(part)
                yield Estimate(low + now.step, total, now.x0)
        except StopIteration as stop:
            x = stop.value
        finally:
            part.close()
    return x


@final
@dataclass(frozen=True, eq=False)
class _Within:
    """A denoiser whose x0 keeps within the range of pixels."""

    denoise: PixelDenoiser

    def __call__(self, x: Pixels, sigma: Float[Tensor, "B"]) -> Pixels:
        return self.denoise(x, sigma).clamp(-1, 1)

    def believe(self, x: Pixels, sigma: Float[Tensor, "B"]) -> Any:
        belief = self.denoise.believe(x, sigma)
        return belief._replace(x0=belief.x0.clamp(-1, 1))


def _knots(schedule: Schedule, options: Knobs, respacing: str, steps: int) -> Knots:
    """The levels that are visited."""
    respacing = options.respacing or respacing
    if not respacing:
        return spacing(options.spacing, schedule, steps)
    if not isinstance(schedule, Tabulated):
        raise OptionError("only a table of noise levels can be respaced, and this model has none")
    return respaced(schedule, respacing)


def _classes(unet: ADM, request: Request, options: Knobs, noise: Noise) -> Classes | None:
    """What a class-conditional network is told."""
    count = unet.config.classes
    if count is None:
        return None
    rows, told = len(noise.seeds), _told(count, request, options.label)

    def drawn() -> Int[Tensor, "B"]:
        if len(told) == 1:
            return torch.full((rows,), told[0])
        place = (noise.uniform(1)[:, 0] * len(told or range(count))).long()
        return torch.tensor(told)[place] if told else place

    return drawn


def _told(count: int, request: Request, label: str) -> list[int]:
    """The classes that are meant, one of them at every step; empty = any.

    Raises:
        UnknownName: No such class.
    """
    labels, label = known_as((), count), label.strip()
    if not label:
        wanted = (wish.text for wish in wishes(request.prompt) if wish.weight > 0)
        return named("\n".join(wanted), labels)
    if label in ("any", "-1"):
        return []
    place = place_of(label, labels, count)
    if place is None:
        raise UnknownName("class", label, map(title, labels) if labels else [f"0 to {count - 1}"])
    return [place]


def _as_written(prompt: str, found: Sequence[Wish]) -> list[Wish]:
    """Wishes of a prompt with their weights left in the words."""
    parts = [part.strip() for part in prompt.split("|") if part.strip()]
    return [replace(wish, text=part) for wish, part in zip(found, parts, strict=False)]


def notices(critics: Sequence[ClipCritic], request: Request, unet: ADM) -> list[str]:
    """Words that a critic does not read; which class the prompt was taken for."""
    found = wishes(request.prompt, request.negative)
    said = []
    for number, critic in enumerate(critics, start=1):
        _, cut = critic.tokenizer.encode([wish.text for wish in found])
        which = f"critic {number}" if len(critics) > 1 else "the critic"
        said += [
            f"{which} does not read {words!r:.80}: the prompt is too long" for words in dict.fromkeys(cut) if words
        ]
    if "^" in request.prompt:
        said.append("^ divides scenes for systems that paint by ascent only; here it is part of the prompt")
    count = unet.config.classes
    if count is not None and not str(request.options.get("label", "")).strip():
        classes = ", ".join(title(known_as((), count)[place]) for place in _told(count, request, ""))
        said.append(
            f"the network is told its class {classes}; --set label=any tells it another one at every step"
            if classes
            else "the prompt names no class of this network: it is told another one at every step"
        )
    return said
