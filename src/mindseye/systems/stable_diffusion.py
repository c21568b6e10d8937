"""Stable Diffusion: a picture grows out of noise in the latents of an autoencoder, told by CLIP what it shows.

Rombach et al. 2022 (arXiv:2112.10752), as released in 2022 (1, 2), 2023 (XL, arXiv:2307.01952) and as shipped here in
miniature: the pocket system predicts a rectified flow (Esser et al. 2024, arXiv:2403.03206) and is given CLIP's pooled
vector beside its tokens. How each of them reads a text is in `mindseye.systems.towers`.

From noise it draws; from a picture it starts part of the way (Meng et al. 2021, arXiv:2108.01073); with a mask it keeps
the rest by knowing it (`mindseye.diffusion.guidance.Masked`), or by being shown it where the network was trained for
that (nine channels); and the kept pixels are the picture's own to the last bit. A second, larger pass starts from the
first one's picture.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property, reduce
from typing import Any, ClassVar, cast, final

import torch
from jaxtyping import Float
from PIL.Image import Resampling
from torch import Tensor, nn

from mindseye.codec import Codec, Tiled
from mindseye.diffusion.composition import Composed, scheduled
from mindseye.diffusion.denoiser import Conditioning, Denoiser, NetDenoiser, Prediction
from mindseye.diffusion.guidance import Guided, Masked, Thresholded
from mindseye.diffusion.preview import LinearPreview, Sketch
from mindseye.diffusion.samplers import SAMPLERS, choose
from mindseye.diffusion.schedule import SCHEDULES, Knots, Schedule, longest, spacing
from mindseye.errors import OptionError, SizeError
from mindseye.networks.clip import CLIP
from mindseye.networks.unet import UNet
from mindseye.nn.seamless import Seamless
from mindseye.noise import Noise
from mindseye.pixels import from_image, to_images
from mindseye.request import Request, Steps
from mindseye.shapes import Latents, Pixels
from mindseye.systems import knobs, regions
from mindseye.systems.base import Start, known, remaining, watched
from mindseye.systems.frame import Frame, placed
from mindseye.systems.towers import Reader, Tower, Vector, Words
from mindseye.text.prompt import parse, split_networks
from mindseye.text.tokenizer import Tokenizer

__all__ = ["StableDiffusion"]


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class StableDiffusion:
    """Text to pictures by latent diffusion.

    Attributes:
        unet: Over the codec's normalised latents.
        codec: Pixels to latents and back.
        text: Its tokens are what the U-Net attends to; its pooled vector goes in too where the U-Net takes one.
        tokenizer: The text tower's.
        text_2: The second text tower of XL.
        tokenizer_2: Its tokenizer.
        prediction: What the U-Net was trained to predict.
        schedule: The noise levels it was trained on, a key of `mindseye.diffusion.schedule.SCHEDULES`.
        skip: Blocks left out at the end of every text tower.
        final_norm: Whether tokens pass the text tower's final LayerNorm.
        vector: What the U-Net's vector is made of; None = the pooled text where it takes one.
        silent: Whether no negative prompt is told as zeros.
        words: Learned words that prompts may use.
        linear: A cheap look at latents, for previews of large pictures; None = fitted when somebody looks.
        glance: A small codec of the same latents, for previews instead.
        tile: Pixels of the bands in which larger pictures are decoded where nobody asks for others; 0 = whole.
    """

    Options: ClassVar[type] = knobs.Options
    samplers: ClassVar[tuple[str, ...]] = tuple(SAMPLERS)

    unet: UNet
    codec: Codec
    text: Any
    tokenizer: Tokenizer
    text_2: CLIP | None = None
    tokenizer_2: Tokenizer | None = None
    prediction: Prediction = "flow"
    schedule: str = "rectified-flow"
    skip: int = 0
    final_norm: bool = True
    vector: Vector | None = None
    silent: bool = False
    words: Words = field(default_factory=dict)
    linear: LinearPreview | None = None
    glance: Codec | None = None
    tile: int = 0

    @property
    def multiple(self) -> int:
        """Sides that are multiples of this need no rounding anywhere in the U-Net."""
        return self.codec.factor * 2 ** (len(self.unet.config.channels) - 1)

    @property
    def adaptable(self) -> dict[str, nn.Module]:
        """The networks that adapters may change, by the names adapters call them."""
        networks = {"unet": self.unet, "text": self.text, "text_2": self.text_2}
        return {name: network for name, network in networks.items() if isinstance(network, nn.Module)}

    @property
    def towers(self) -> tuple[Tower, ...]:
        """The text encoders, in the order in which their tokens stand side by side."""
        first = Tower(
            name="text", network=self.text, tokenizer=self.tokenizer, skip=self.skip, final_norm=self.final_norm
        )
        if self.text_2 is None or self.tokenizer_2 is None:
            return (first,)
        second = Tower(
            name="text_2", network=self.text_2, tokenizer=self.tokenizer_2, skip=self.skip, final_norm=self.final_norm
        )
        return (first, second)

    def notices(self, request: Request) -> list[str]:
        """Nothing is cut: long texts are read in chunks. That is said, for the network was trained on one."""
        said = []
        emphasis: Any = request.options.get("emphasis", "mean")
        for name, text in (("prompt", request.prompt), ("negative prompt", request.negative)):
            plain, _ = (text, ()) if name != "prompt" else split_networks(text)
            chunks = self.towers[0].chunks(plain, emphasis, self.words)
            if chunks.count > 1:
                said.append(
                    f"the {name} is read in {chunks.count} chunks: the text encoder reads "
                    f"{self.tokenizer.length - 2} tokens at a time"
                )
        return said

    placed = staticmethod(placed)

    def reader(self, options: knobs.Options, size: tuple[int, int]) -> Reader:
        """What turns texts into conditioning for a picture of that width and height."""
        weights = next(self.unet.parameters())
        vector: Vector = self.vector or ("none" if self.unet.config.vector is None else "pooled")
        return Reader(
            towers=self.towers,
            vector=vector,
            silent=self.silent,
            like=weights,
            size=(size[1], size[0]),
            emphasis=options.emphasis,
            clip_skip=options.clip_skip,
            words=self.words,
        )

    def condition(self, texts: list[str]) -> Conditioning:
        """What the U-Net is told of texts, one row each, read as they stand; "" is how it is told nothing."""
        told = self.reader(knobs.Options(emphasis="none"), (1, 1)).read(texts, [])
        rows = [told[False, text] for text in texts]
        return reduce(Conditioning.cat, rows[1:], rows[0])

    def synthesize(self, request: Request, options: knobs.Options, noise: Noise) -> Steps[Pixels]:
        """Draw.

        Args:
            request: Resolved.
            options: The knobs of the method.
            noise: One seed a picture.

        Raises:
            UnknownName: No such sampler.
            OptionError: Knobs that contradict each other or the schedule.
            SizeError: Sides that are no multiples of the codec's factor.
        """
        if options.variation_strength and options.variation_of >= 0:
            noise = Noise([options.variation_of] * len(noise.seeds), variations=noise.seeds,
                          strength=options.variation_strength)  # fmt: skip
        elif options.variation_strength:
            # One for all pictures: a picture is then the same alone and in any batch.
            noise = noise.varied([options.variation_seed] * len(noise.seeds), options.variation_strength)
        if options.hires > 1 and request.image is not None:
            raise OptionError("hires draws a second pass over its own picture; it cannot be had beside a start picture")
        frame = Frame.of(request, options)
        run = _Run.of(self, frame.request, options, noise)
        latents = yield from run.draw()
        if options.hires > 1:
            latents = yield from run.enlarge(latents)
        pixels = run.decode(latents)
        return frame.finish(pixels if run.start is None or not options.paste else run.start.paste(pixels))


@dataclass(frozen=True, kw_only=True, eq=False)
class _Run:
    """One request at work: the networks as its options want them, and its prompts taken apart."""

    system: StableDiffusion
    request: Request
    options: knobs.Options
    noise: Noise
    network: Any
    codec: Codec
    schedule: Schedule
    start: Start | None

    @classmethod
    def of(cls, system: StableDiffusion, request: Request, options: knobs.Options, noise: Noise) -> "_Run":
        """Wrap the networks in what the options ask for."""
        network: Any = system.unet
        codec: Codec = system.codec
        if options.seamless:
            along = {"x": "x" in options.seamless, "y": "y" in options.seamless}
            network, codec = Seamless(network, **along), Seamless(cast("nn.Module", codec), **along)
        if tile := options.tile or system.tile:
            codec = Tiled(codec, tile=max(1, tile // codec.factor))
        encode = codec.encode
        return cls(
            system=system,
            request=request,
            options=options,
            noise=noise,
            network=network,
            codec=codec,
            schedule=SCHEDULES[system.schedule](),
            start=Start.of(request, encode, next(system.unet.parameters())),
        )

    @property
    def weights(self) -> Tensor:
        """A weight of the diffusion network: its device and dtype."""
        return next(self.system.unet.parameters())

    def draw(self) -> Steps[Latents]:
        """The first pass: from noise, or from the start picture."""
        request, start = self.request, self.start
        width, height = known(request.size, "size")
        sigmas = self._sigmas(known(request.steps, "steps"))
        drawn = self._noise(self.noise, height, width)
        planes = self._planes(start, (height, width))
        mask = None if start is None else start.latent_mask
        if start is None:
            x = self._first(drawn, sigmas)
        else:
            sigmas = remaining(sigmas, request.strength)
            x = start.latents + float(sigmas[0]) * drawn
            if mask is not None and request.strength == 1:  # what is repainted is forgotten altogether
                x = torch.lerp(x, self._first(drawn, sigmas), mask.expand_as(x))
            elif mask is not None and self.options.masked in ("noise", "nothing"):
                other = regions.refilled(
                    start.latents, mask, self.options.masked, self._noise(self.noise, height, width)
                )
                x = other + float(sigmas[0]) * drawn
        denoise = self._denoiser(sigmas, (width, height), planes, larger=False)
        if start is not None and mask is not None and planes is None:
            denoise = Masked(denoise, start.latents, mask)
        return (yield from self._walk("draw", denoise, x, sigmas, self.noise))

    def enlarge(self, latents: Latents) -> Steps[Latents]:
        """The second pass: the first one's picture, enlarged, as the start of a larger one.

        As AUTOMATIC1111 does it: sides are rounded down to whole latents, the noise is the seeds' own once more, at the
        new size, and all of the pass's steps are run, however short the way.
        """
        request, options, factor = self.request, self.options, self.system.codec.factor
        width, height = (max(1, int(side * options.hires) // factor) * factor for side in known(request.size, "size"))
        if options.hires_upscaler == "pixels":
            images = to_images(self.decode(latents))
            large = [from_image(image.resize((width, height), Resampling.LANCZOS)) for image in images]
            start = self._encode(torch.cat(large).to(latents.device))
        else:
            high, wide = self._latent_size(height, width)
            start = regions.enlarged(latents, (wide, high), options.hires_upscaler)
        sigmas = self._share(options.hires_steps or known(request.steps, "steps"), options.hires_strength)
        noise = self.noise.again()
        drawn = self._noise(noise, height, width)
        denoise = self._denoiser(sigmas, (width, height), self._planes(None, (height, width)), larger=True)
        return (yield from self._walk("enlarge", denoise, start + float(sigmas[0]) * drawn, sigmas, noise))

    @torch.no_grad()
    def decode(self, latents: Latents) -> Pixels:
        """Pictures in float32, whatever the codec runs in."""
        return self.codec.decode(latents.to(self.weights.dtype)).float()

    @cached_property
    def look(self) -> Callable[[Latents], Pixels]:
        """Previews."""
        return Sketch(self.decode, self.system.linear) if self.system.glance is None else self._glanced

    @torch.no_grad()
    def _glanced(self, latents: Latents) -> Pixels:
        codec = known(self.system.glance, "glance")
        return codec.decode(latents.to(self.weights.dtype)).float()

    @torch.no_grad()
    def _encode(self, pixels: Pixels) -> Latents:
        return self.codec.encode(pixels.to(self.weights.dtype)).float()

    def _walk(self, stage: str, denoise: Denoiser, x: Latents, sigmas: Knots, noise: Noise) -> Steps[Latents]:
        """From noise to latents, with pictures on the way."""
        sampler = choose(known(self.request.sampler, "sampler"), None if self.options.eta < 0 else self.options.eta)
        x = yield from watched(stage, sampler(denoise, x, sigmas, noise), self.look)
        return x * float(self.schedule.signal(sigmas[-1]))

    def _noise(self, noise: Noise, height: int, width: int) -> Latents:
        """Noise of a picture's latents, from each picture's own source."""
        drawn = noise.normal(self.system.unet.config.out_channels, *self._latent_size(height, width))
        return drawn.to(self.weights.device)

    def _sigmas(self, steps: int) -> Knots:
        options = self.options
        return spacing(
            options.spacing, self.schedule, steps, offset=options.offset, shift=options.shift, final=options.final
        )

    def _share(self, steps: int, share: float) -> Knots:
        """The last ``steps`` of a run so long that they are that share of it; fewer where none can be as long."""
        whole = int(steps / min(share, 0.999)) if share else steps
        most = longest(self.options.spacing, self.schedule)
        if whole > most:
            return remaining(self._sigmas(most), share)
        return self._sigmas(whole)[-1 - steps :] if share else self._sigmas(whole)[-1:]

    def _first(self, drawn: Latents, sigmas: Knots) -> Latents:
        """Where a run from nothing starts: unit noise in the network's own coordinates, or noise of the first sigma."""
        if self.options.noise_scale == "sigma":
            return drawn * float(sigmas[0])
        return drawn / float(self.schedule.signal(sigmas[0]))

    def _denoiser(
        self, sigmas: Knots, size: tuple[int, int], planes: Float[Tensor, "1 P h w"] | None, *, larger: bool
    ) -> Denoiser:
        """The network, guided by the prompts of each step and limited as asked."""
        denoise: Denoiser = scheduled(sigmas, self._stages(size, planes, larger=larger))
        if self.options.threshold:
            denoise = Thresholded(denoise, 0.995, lowest=self.options.threshold)
        return denoise

    def _stages(
        self, size: tuple[int, int], planes: Float[Tensor, "1 P h w"] | None, *, larger: bool
    ) -> list[tuple[int, Denoiser]]:
        """A denoiser for every stretch of steps with the same prompts, and the last step of each.

        The last step is AUTOMATIC1111's count, looked up with steps counted from 0: the first text of an edited prompt
        is drawn one step longer than it says, there and here.
        """
        request, options = self.request, self.options
        steps = known(request.steps, "steps")
        second = (options.hires_steps or steps) if options.hires > 1 else 0
        prompt = parse(request.prompt, steps=steps, hires_steps=second)
        (negative,) = parse(request.negative, steps=steps, hires_steps=second, negative=True).branches
        entries = [branch.hires_entries if larger else branch.entries for branch in (*prompt.branches, negative)]
        texts = [entry.text for each in entries[:-1] for entry in each]
        if options.toward_amount:
            texts.append(options.toward)
        told = self.system.reader(options, size).read(texts, [entry.text for entry in entries[-1]])

        stages: list[tuple[int, Denoiser]] = []
        for until in sorted({entry.until for each in entries for entry in each}):
            now = [next((entry.text for entry in each if entry.until >= until), each[-1].text) for each in entries]
            conds = [self._all(told[False, text], planes) for text in now[:-1]]
            if options.toward_amount:
                toward = self._all(told[False, options.toward], planes)
                conds = [cond.lerp(toward, options.toward_amount) for cond in conds]
            weighed = [(cond, branch.weight) for cond, branch in zip(conds, prompt.branches, strict=True)]
            stages.append((until, self._guided(weighed, self._all(told[True, now[-1]], planes))))
        return stages

    def _all(self, told: Conditioning, planes: Float[Tensor, "1 P h w"] | None) -> Conditioning:
        """One row for every picture."""
        return replace(told, planes=planes).expand(len(self.noise.seeds))

    def _guided(self, conds: list[tuple[Conditioning, float]], null: Conditioning) -> Denoiser:
        """The network under guidance by one prompt or several."""
        options, schedule = self.options, self.schedule
        times = (options.guidance_low, options.guidance_high)
        low, high = (float(schedule.sigma(torch.tensor(each * schedule.steps))) for each in times)
        # The ends of the range mean "always", also where the schedule's own ends are met.
        interval = (low if times[0] > 0 else 0.0, high if times[1] < 1 else float("inf"))
        net = NetDenoiser(self.network, schedule, self.system.prediction)
        scale = known(self.request.guidance, "guidance")
        if len(conds) == 1 and conds[0][1] == 1:
            return Guided(net, cond=conds[0][0], null=null, scale=scale, rescale=options.rescale, interval=interval)
        return Composed(net, conds, null, scale, options.rescale, interval)

    def _latent_size(self, height: int, width: int) -> tuple[int, int]:
        factor = self.system.codec.factor
        if width % factor or height % factor:
            raise SizeError(f"{width}x{height}: sides must be multiples of {factor}")
        return height // factor, width // factor

    def _planes(self, start: Start | None, size: tuple[int, int]) -> Float[Tensor, "1 P h w"] | None:
        """What an inpainting network is shown beside the noise: the mask, and the picture without what is masked."""
        unet = self.system.unet.config
        if unet.in_channels == unet.out_channels:
            return None
        if start is None or start.mask is None:
            pixels = torch.zeros(1, 3, *size, device=self.weights.device) if start is None else start.pixels
            mask = torch.ones(1, 1, *size, device=self.weights.device)
        else:
            pixels, mask = start.pixels, start.mask
        return regions.inpaint_planes(pixels, mask, self._encode)
