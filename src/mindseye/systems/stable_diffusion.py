"""Stable Diffusion: a picture grows out of noise in the latents of an autoencoder, told by CLIP what it shows.

Rombach et al. 2022 (arXiv:2112.10752), as released in 2022 and as shipped here in miniature: the pocket system predicts
a rectified flow (Esser et al. 2024, arXiv:2403.03206) and is given CLIP's pooled vector beside its tokens.

From noise it draws; from a picture it starts part of the way (Meng et al. 2021, arXiv:2108.01073); with a mask it keeps
the rest by knowing it (`mindseye.diffusion.guidance.Masked`), and the kept pixels are the picture's own to the last
bit.
"""

from dataclasses import dataclass
from functools import partial
from typing import ClassVar, final

import torch

from mindseye.diffusion.denoiser import Conditioning, Denoiser, NetDenoiser, Prediction, pooled_vector
from mindseye.diffusion.guidance import Guided, Masked, Thresholded
from mindseye.diffusion.preview import LinearPreview, preview
from mindseye.diffusion.samplers import SAMPLERS, choose
from mindseye.diffusion.schedule import SCHEDULES, SPACINGS, Schedule, spacing
from mindseye.errors import SizeError
from mindseye.networks.clip import CLIP
from mindseye.networks.unet import UNet
from mindseye.networks.vae import AutoencoderKL
from mindseye.noise import Noise
from mindseye.request import Request, Steps
from mindseye.shapes import Latents, Pixels
from mindseye.systems.base import Start, known, option, remaining, watched
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
        prediction: What the U-Net was trained to predict.
        schedule: The noise levels it was trained on, a key of `mindseye.diffusion.schedule.SCHEDULES`.
        linear: A cheap look at latents, for previews of large pictures.
    """

    @dataclass(frozen=True, kw_only=True)
    class Options:
        """The knobs of the method."""

        spacing: str = option("trailing", "which noise levels the steps visit", choices=tuple(SPACINGS))
        offset: int = option(
            0, "added to the timesteps of spacing 'leading'; Stable Diffusion 1 used 1", low=0, high=100
        )
        final: str = option("zero", "where the last step lands", choices=("zero", "minimum"))
        shift: float = option(1.0, "above 1 spends more steps on noise; rectified flows only", low=0.01, high=100)
        eta: float = option(-1.0, "fresh noise at every step, 0 to 1; -1 leaves it to the sampler", low=-1, high=1)
        rescale: float = option(0.0, "pulls contrast back under strong guidance", low=0, high=1)
        guidance_low: float = option(0.0, "guide only at times above this, 0 being clean", low=0, high=1)
        guidance_high: float = option(1.0, "guide only at times up to this, 1 being noise", low=0, high=1)
        threshold: float = option(
            0.0, "most a latent may reach, in standard deviations; 0 is no limit", low=0, high=100
        )
        paste: bool = option(True, "keep the start picture's own pixels outside the mask")

    samplers: ClassVar[tuple[str, ...]] = tuple(SAMPLERS)

    unet: UNet
    codec: AutoencoderKL
    text: CLIP
    tokenizer: Tokenizer
    prediction: Prediction = "flow"
    schedule: str = "rectified-flow"
    linear: LinearPreview | None = None

    @property
    def multiple(self) -> int:
        """Sides that are multiples of this need no rounding anywhere in the U-Net."""
        return self.codec.factor * 2 ** (len(self.unet.config.channels) - 1)

    def notices(self, request: Request) -> list[str]:
        """The words that the text tower will not read."""
        texts = {"prompt": request.prompt, "negative prompt": request.negative}
        _, cut = self.tokenizer.encode(list(texts.values()))
        return [
            f'the {name} is too long by: "{words}" (the text encoder reads {self.tokenizer.length} tokens)'
            for name, words in zip(texts, cut, strict=True)
            if words
        ]

    @torch.no_grad()
    def condition(self, texts: list[str]) -> Conditioning:
        """What the U-Net is told, one row a text; "" is how it is told nothing."""
        weights = next(self.unet.parameters())
        ids, _ = self.tokenizer.encode(texts)
        tokens, pooled = self.text.text(ids.to(weights.device))
        vector = None if self.unet.config.vector is None else pooled_vector(pooled).to(weights.dtype)
        return Conditioning(tokens=tokens.to(weights.dtype), vector=vector)

    def synthesize(self, request: Request, options: Options, noise: Noise) -> Steps[Pixels]:
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
        weights, count = next(self.unet.parameters()), len(noise.seeds)
        schedule = SCHEDULES[self.schedule]()
        sampler = choose(known(request.sampler, "sampler"), None if options.eta < 0 else options.eta)
        sigmas = spacing(
            options.spacing,
            schedule,
            known(request.steps, "steps"),
            offset=options.offset,
            shift=options.shift,
            final=options.final,
        )
        denoise = self._denoiser(request, options, schedule, count)

        start = Start.of(request, self.codec.encode, weights)
        drawn = noise.normal(self.unet.config.out_channels, *self._latent_size(request)).to(weights.device)
        if start is None:
            x = drawn / float(schedule.signal(sigmas[0]))  # unit noise, in the network's own coordinates
        else:
            sigmas = remaining(sigmas, request.strength)
            x = start.latents + float(sigmas[0]) * drawn
            if start.latent_mask is not None:
                if request.strength == 1:  # what is repainted is forgotten altogether
                    x = torch.lerp(x, drawn / float(schedule.signal(sigmas[0])), start.latent_mask.expand_as(x))
                denoise = Masked(denoise, start.latents, start.latent_mask)

        look = partial(preview, decode=self._decode, linear=self.linear)
        x = yield from watched("draw", sampler(denoise, x, sigmas, noise), look)
        pixels = self._decode(x * float(schedule.signal(sigmas[-1])))
        return pixels if start is None or not options.paste else start.paste(pixels)

    @torch.no_grad()
    def _decode(self, latents: Latents) -> Pixels:
        """Pictures in float32, whatever the codec runs in."""
        return self.codec.decode(latents.to(next(self.unet.parameters()).dtype)).float()

    def _denoiser(self, request: Request, options: Options, schedule: Schedule, count: int) -> Denoiser:
        """The U-Net, guided by the prompt and limited as asked."""
        told = self.condition([request.prompt, request.negative])
        times = (options.guidance_low, options.guidance_high)
        low, high = (float(schedule.sigma(torch.tensor(each * schedule.steps))) for each in times)
        denoise: Denoiser = Guided(
            NetDenoiser(self.unet, schedule, self.prediction),
            cond=told.row(0).expand(count),
            null=told.row(1).expand(count),
            scale=known(request.guidance, "guidance"),
            rescale=options.rescale,
            # The ends of the range mean "always", also where the schedule's own ends are met.
            interval=(low if times[0] > 0 else 0.0, high if times[1] < 1 else float("inf")),
        )
        if options.threshold:
            denoise = Thresholded(denoise, 0.995, lowest=options.threshold)
        return denoise

    def _latent_size(self, request: Request) -> tuple[int, int]:
        """Height and width of the latents."""
        width, height = known(request.size, "size")
        factor = self.codec.factor
        if width % factor or height % factor:
            raise SizeError(f"{width}x{height}: sides must be multiples of {factor}")
        return height // factor, width // factor
