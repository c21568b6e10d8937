"""VQGAN-CLIP: a codebook's words are arranged until CLIP reads the prompt in them.

Katherine Crowson, April 2021 (notebook; arXiv:2204.08583), and its many descendants (nerdyrodent/VQGAN-CLIP). A grid
of latents is quantised to a VQGAN's codes, decoded, cut to pieces and shown to CLIP; the gradient goes back through the
decoder and straight through the choice of codes to the latents (`mindseye.ascent.codebook`).

A discrete VAE in the VQGAN's place is Aleph2Image (Murdock 2021): the grid holds logits then, not vectors
(`mindseye.ascent.logits`), and all else stays as it is.

Repaired: the seed fixes the first grid too, and prompts may hold colons and addresses.
"""

from dataclasses import dataclass
from typing import ClassVar, TypeAlias, final

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from mindseye.ascent.canvas import Canvas
from mindseye.ascent.codebook import CodebookCanvas, random_codes
from mindseye.ascent.logits import LogitCanvas, evened
from mindseye.errors import SizeError
from mindseye.networks.discrete_vae import DiscreteVAE
from mindseye.networks.dvae import DVAE
from mindseye.networks.vit_vqgan import ViTVQGAN
from mindseye.networks.vqgan import VQGAN
from mindseye.nn.seamless import Seamless, circular
from mindseye.noise import Noise
from mindseye.request import Request, Steps
from mindseye.shapes import Latents, Pixels
from mindseye.systems import painting
from mindseye.systems.base import known, option
from mindseye.systems.listening import Listening
from mindseye.systems.painting import Scene

__all__ = ["VQGANCLIP"]

Vectors: TypeAlias = VQGAN | ViTVQGAN
"""Codecs whose codes lie in a space."""
Shares: TypeAlias = DVAE | DiscreteVAE
"""Codecs that mix codes by their shares."""


@final
@dataclass(frozen=True, kw_only=True)
class Knobs(painting.Knobs):
    """The knobs of the method."""

    lr: float = option(0.05, "size of a step", low=1e-7, high=10)
    cuts: int = option(64, "pieces of the picture that the critic looks at in every step", low=1, high=4096)
    pull_codes: float = option(
        0.0, "how strongly latents stay near the start's, at strength 0; at strength 1 not at all", low=0, high=1e6
    )
    shares: str = option(
        "one", "what a discrete VAE decodes at a place: the one likeliest code, or all by their shares",
        choices=("one", "all"),
    )  # fmt: skip
    temperature: float = option(
        1.0, "of a discrete VAE's shares: the lower, the more the likeliest code has", low=1e-3, high=1e3
    )
    seamless: str = option("", "edges that meet when tiled: x, y or xy", choices=("", "x", "y", "xy"))


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class VQGANCLIP(Listening):
    """Text to pictures by codes.

    Attributes:
        codec: Pixels to codes and back.
    """

    Options: ClassVar[type] = Knobs

    codec: Vectors | Shares

    @property
    def multiple(self) -> int:
        """Sides are multiples of this."""
        return self.codec.factor

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
            SizeError: Sides that are no multiples of the codec's factor.
        """
        width, height = known(request.size, "size")
        factor = self.multiple
        if width % factor or height % factor:
            raise SizeError(f"{width}x{height}: sides must be multiples of {factor}")
        scene = Scene.of(self.critics, request, options, painting.cutting(options))
        x, y = "x" in options.seamless, "y" in options.seamless
        codec = Seamless(self.codec, x=x, y=y) if options.seamless else self.codec
        grid = (height // factor, width // factor)
        free = None if scene.mask is None else _free(scene.mask, grid)
        pull = options.pull_codes * (1 - request.strength)
        codes = self.codec.codebook
        canvas: Canvas
        if isinstance(self.codec, Vectors):
            chance = random_codes(codes, noise, grid)
            own = None if scene.picture is None else _vectors(self.codec, codec, scene.picture.to(codes.dtype))
            canvas = CodebookCanvas(codec, codes, _start(scene, own, chance, free), pull=pull, free=free)
        else:
            chance = noise.normal(len(codes), *grid).to(codes.device)
            own = None if scene.picture is None else _logits(self.codec, scene.picture.to(codes.dtype), x=x, y=y)
            canvas = LogitCanvas(
                codec, _start(scene, own, chance, free), dtype=codes.dtype, temperature=options.temperature,
                hard=options.shares == "one", pull=pull, free=free,
            )  # fmt: skip
        return (yield from scene.paint(canvas, noise, options.lr))


@torch.no_grad()
def _vectors(network: Vectors, codec: Vectors | Shares | Seamless, picture: Pixels) -> Latents:
    """A picture's own codes."""
    return network.quantise(codec.encode(picture)).embeddings.float()


@torch.no_grad()
def _logits(network: Shares, picture: Pixels, *, x: bool, y: bool) -> Latents:
    """What a picture says of every code, as loud as chance."""
    with circular(network, x=x, y=y):
        return evened(network.logits(picture))


def _start(scene: Scene, own: Latents | None, chance: Latents, free: Float[Tensor, "1 1 h w"] | None) -> Latents:
    """The grid to start from: the picture's own, and one at random where it is not to be seen."""
    if own is None:
        return chance
    if scene.start is not None:
        return own.expand(len(chance), -1, -1, -1)
    return chance if free is None else torch.lerp(own, chance, free)


def _free(mask: Float[Tensor, "1 1 H W"], grid: tuple[int, int]) -> Float[Tensor, "1 1 h w"]:
    """Which latents may change: those with any pixel, at least half, that is painted."""
    return (F.adaptive_max_pool2d(mask, grid) >= 0.5).to(mask)
