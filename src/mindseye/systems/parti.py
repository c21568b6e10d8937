"""Parti: a text is read, a picture is written token by token, decoded, and made larger.

Yu et al. 2022 (arXiv:2206.10789). A `mindseye.networks.parti.Parti` writes the codes of a ViT-VQGAN, or of a VQGAN; its
decoder paints them; up to two networks double the picture's sides where a larger one is wanted.

Guidance is on logits, ``null + s (text - null)``; a negative prompt takes the place of no text. The paper's 16
candidates, of which a model of pictures and texts chooses one, are `--candidates 16`.

From a start picture the codes of its upper part are kept, and what is below is written anew: a token is only ever told
of what stands before it.
"""

from dataclasses import dataclass
from functools import partial
from typing import ClassVar, final

import torch

from mindseye.networks.parti import Parti as Network
from mindseye.networks.wdsr import WDSR
from mindseye.noise import Noise
from mindseye.pixels import to_images
from mindseye.request import Progress, Request, Steps
from mindseye.shapes import Ids, Pixels
from mindseye.systems import writing
from mindseye.systems.base import known
from mindseye.systems.writing import FromTheTop, Painter
from mindseye.text.tokenizer import Tokenizer

__all__ = ["Parti"]


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class Parti:
    """Text to tokens to pixels.

    Attributes:
        network: Writes.
        codec: Paints what is written.
        tokenizer: The network's.
        upsampler: Enlarges what is painted, where a larger picture is wanted.
        upsampler_2: Enlarges it again.

    Raises:
        WeightsError: They do not belong together.
    """

    Options: ClassVar[type] = FromTheTop

    network: Network
    codec: Painter
    tokenizer: Tokenizer
    upsampler: WDSR | None = None
    upsampler_2: WDSR | None = None

    def __post_init__(self) -> None:
        writing.reads(self.tokenizer, self.network.config.text)
        writing.paints(self.codec, self.network.codes)

    @property
    def native(self) -> tuple[int, int]:
        """Width and height of what is painted, before it is enlarged."""
        rows, columns = self.network.config.grid
        return columns * self.codec.factor, rows * self.codec.factor

    def notices(self, request: Request) -> list[str]:
        """Words that do not fit, a size that is not its own."""
        width, height = self.native
        for upsampler in self._enlargers(request):
            width, height = width * upsampler.config.factor, height * upsampler.config.factor
        return writing.unread(self.tokenizer, request) + writing.scaled(request, (width, height))

    def synthesize(self, request: Request, options: FromTheTop, noise: Noise) -> Steps[Pixels]:
        """Draw one picture a seed.

        Args:
            request: Resolved.
            options: The knobs of the method.
            noise: One seed a picture.

        Raises:
            OptionError: A mask; more rows to keep than there are.
            WeightsError: The network gave numbers that are not finite.
        """
        prime = writing.begun(request, self.codec, self.network.config.grid, options.prime)
        ids = yield from writing.written(
            self.network, self.codec, self.tokenizer, request, options, noise, prime=prime, look=self._paint
        )
        enlargers = self._enlargers(request)
        with torch.no_grad():
            pixels = self._paint(ids)
        for number, upsampler in enumerate(enlargers):
            yield Progress("enlarge", number, len(enlargers), partial(to_images, pixels))
            with torch.no_grad():
                pixels = upsampler(pixels.to(upsampler.head.weight)).float()
        return writing.fitted(pixels, known(request.size, "size"))

    def _enlargers(self, request: Request) -> list[WDSR]:
        """Those that are needed for the size that is wanted."""
        width, height = self.native
        asked, needed = known(request.size, "size"), []
        for upsampler in (self.upsampler, self.upsampler_2):
            if upsampler is not None and (width < asked[0] or height < asked[1]):
                needed.append(upsampler)
                width, height = width * upsampler.config.factor, height * upsampler.config.factor
        return needed

    def _paint(self, ids: Ids) -> Pixels:
        return self.codec.from_ids(ids, self.network.config.grid).float()
