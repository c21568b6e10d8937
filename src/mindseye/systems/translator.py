"""A picture in, a picture out: pix2pix (arXiv:1611.07004) and CycleGAN (arXiv:1703.10593).

No words: the translator does the one thing that it was trained for, sketch to picture or one style to another. With a
mask only what is white becomes the translation.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, final

import torch

from mindseye.adversarial.sketch import sketch
from mindseye.errors import ImageError
from mindseye.noise import Noise
from mindseye.pixels import from_image, mask_from_image, to_images
from mindseye.request import Progress, Request, Steps
from mindseye.shapes import Pixels
from mindseye.systems.base import known, option

__all__ = ["Translator"]


@dataclass(frozen=True, kw_only=True)
class TranslatorOptions:
    """The knobs of a translator."""

    sketch: bool = option(False, "make a sketch of the picture first: for translators that were trained on sketches")
    lines: float = option(1.0, "how dark the lines of that sketch are", low=0.1, high=10)


@final
@dataclass(frozen=True, eq=False)
class Translator:
    """One translator.

    Attributes:
        network: From a picture and noise to a picture; its config has ``size`` and ``multiple``.
    """

    Options: ClassVar[type] = TranslatorOptions

    network: Any

    @property
    def multiple(self) -> int:
        """Sides are multiples of this."""
        return self.network.config.multiple

    def notices(self, request: Request) -> list[str]:
        """Nobody reads."""
        return ["a translator reads no words: the prompt changes nothing"]

    def synthesize(self, request: Request, options: TranslatorOptions, noise: Noise) -> Steps[Pixels]:
        """Translate the request's picture, once a seed.

        Raises:
            ImageError: There is none.
        """
        if request.image is None:
            raise ImageError("a translator makes a picture of a picture, but none was given", hint="add --image")
        size = known(request.size, "size")
        weight = next(self.network.parameters())
        source = from_image(request.image, size).to(weight)
        with torch.no_grad():
            shown = sketch(source, options.lines) if options.sketch else source
            count = getattr(self.network.config, "noise", 0)
            z = noise.normal(count).to(weight) if count else None
            pixels = self.network(shown.expand(len(noise.seeds), -1, -1, -1), z).float()
            if request.mask is not None:
                pixels = torch.lerp(source.float(), pixels, mask_from_image(request.mask, size).to(pixels))
        yield Progress("translate", 1, 1, partial(to_images, pixels))
        return pixels
