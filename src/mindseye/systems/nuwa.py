"""NUWA: pictures and clips, and NUWA-Infinity: pictures of any size, grown patch by patch.

Wu et al. 2021 (arXiv:2111.12417) and 2022 (arXiv:2207.09814). Both write a VQGAN's tokens after reading a text, with
guidance on logits; a negative prompt takes the place of no text.

`NUWA` writes frame after frame. A request is answered by one picture, so it shows one frame of the clip; `NUWA.clip`
gives all of them. From a start picture a clip goes on; of a single picture the upper part is kept.

`NUWAInfinity` writes a canvas as wide and high as is asked for, in a direction that is an option. What is given of it
is kept: a start picture outside of its mask, a picture that is to grow by a margin, or the first patches of a picture,
as many as ``strength`` leaves. Its tokens are certain in the same loop that draws the others. Guidance leads away from
patches that know neither the text nor their neighbours; as an option, from those that do not know the text alone.
"""

import math
from dataclasses import dataclass, replace
from functools import partial
from typing import ClassVar, final

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from mindseye.errors import OptionError, SizeError
from mindseye.networks.direction import DIRECTIONS, Patch, Plan, plan
from mindseye.networks.nuwa import NUWA as Network
from mindseye.networks.nuwa_infinity import Chain, from_patches, to_patches
from mindseye.networks.nuwa_infinity import NUWAInfinity as PatchNetwork
from mindseye.noise import Noise
from mindseye.pixels import from_image, mask_from_image
from mindseye.request import Request, Steps
from mindseye.shapes import Ids, Pixels
from mindseye.systems import regions, writing
from mindseye.systems.base import known, option
from mindseye.systems.writing import Knobs, Painter
from mindseye.text.tokenizer import Tokenizer

__all__ = ["NUWA", "NUWAInfinity"]


@final
@dataclass(frozen=True, kw_only=True)
class ClipKnobs(Knobs):
    """The knobs of clips."""

    frames: int = option(1, "how long the clip is that is written", low=1, high=64)
    frame: int = option(0, "which of its frames is shown, 0 the first, -1 the last", low=-64, high=63)


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class NUWA:
    """Text to the tokens of frames to pixels.

    Attributes:
        network: Writes.
        codec: Paints what is written.
        tokenizer: The network's.

    Raises:
        WeightsError: They do not belong together.
    """

    Options: ClassVar[type] = ClipKnobs

    network: Network
    codec: Painter
    tokenizer: Tokenizer

    def __post_init__(self) -> None:
        writing.reads(self.tokenizer, self.network.config.text)
        writing.paints(self.codec, self.network.config.codes)

    @property
    def native(self) -> tuple[int, int]:
        """Width and height of what is painted."""
        _, rows, columns = self.network.config.grid
        return columns * self.codec.factor, rows * self.codec.factor

    def notices(self, request: Request) -> list[str]:
        """Words that do not fit, a size that is not its own."""
        return writing.unread(self.tokenizer, request) + writing.scaled(request, self.native)

    def synthesize(self, request: Request, options: ClipKnobs, noise: Noise) -> Steps[Pixels]:
        """Draw one frame a seed, of a clip of ``options.frames``.

        Raises:
            OptionError: More frames than the network writes, a frame that is not there, or a mask.
            WeightsError: The network gave numbers that are not finite.
        """
        if not -options.frames <= options.frame < options.frames:
            raise OptionError(f"a clip of {options.frames} frames has no frame {options.frame}", hint="--set frames=4")
        # What comes after the frame that is shown does not change it.
        frames = options.frame % options.frames + 1
        clips = yield from self.clip(request, replace(options, frames=frames), noise)
        return writing.fitted(clips[:, -1], known(request.size, "size"))

    def clip(self, request: Request, options: ClipKnobs, noise: Noise) -> Steps[Float[Tensor, "B T 3 H W"]]:
        """Draw one clip a seed, at its own size. Raises as `synthesize` does."""
        most, rows, columns = self.network.config.grid
        if options.frames > most:
            raise OptionError(f"a clip has up to {most} frames here, not {options.frames}")
        # A clip goes on from the whole picture, a picture from its upper part.
        whole = rows if options.frames > 1 else 0
        prime = writing.begun(request, self.codec, (rows, columns), whole)
        ids = yield from writing.written(
            self.network.frames(options.frames), self.codec, self.tokenizer, request, options, noise,
            prime=prime, look=lambda ids: self._paint(ids)[:, -1],
        )  # fmt: skip
        with torch.no_grad():
            return self._paint(ids)

    def _paint(self, ids: Ids) -> Float[Tensor, "B T 3 H W"]:
        _, rows, columns = self.network.config.grid
        frames = ids.view(-1, rows * columns)
        return self.codec.from_ids(frames, (rows, columns)).float().unflatten(0, (len(ids), -1))


@final
@dataclass(frozen=True, kw_only=True)
class InfinityKnobs(Knobs):
    """The knobs of canvases."""

    direction: str = option("top-left", "where drawing begins, and so how the canvas grows", choices=DIRECTIONS)
    guide_nearby: bool = option(
        True, "guidance leads to what the neighbours of a patch say, too, not to the text alone"
    )
    extend_left: int = option(0, "outpaint: pixels added on the left", low=0, high=4096)
    extend_right: int = option(0, "outpaint: pixels added on the right", low=0, high=4096)
    extend_up: int = option(0, "outpaint: pixels added above", low=0, high=4096)
    extend_down: int = option(0, "outpaint: pixels added below", low=0, high=4096)
    canvas: str = option("stretch", "outpaint: what the codec sees beyond the picture", choices=regions.CANVASES)
    feather: int = option(16, "outpaint: how far the new part reaches into the old, in pixels", low=0, high=512)
    paste: bool = option(True, "keep the start picture's own pixels where it is kept")

    @property
    def margins(self) -> regions.Margins:
        """What outpainting adds."""
        return regions.Margins(self.extend_left, self.extend_right, self.extend_up, self.extend_down)


@dataclass(frozen=True, eq=False)
class _Given:
    """What there is of a canvas before anything is drawn.

    Attributes:
        pixels: The picture, as large as the canvas.
        mask: 1 = draw, 0 = keep, and soft between.
    """

    pixels: Float[Tensor, "1 3 H W"]
    mask: Float[Tensor, "1 1 H W"]

    @classmethod
    def of(cls, request: Request, options: InfinityKnobs) -> "_Given | None":
        """From the request's picture, its mask and the margins; None without a picture to keep anything of."""
        if request.image is None:
            return None
        width, height = known(request.size, "size")
        added = options.margins
        if not any(added):
            if request.mask is None:
                return None
            return cls(from_image(request.image, (width, height)), mask_from_image(request.mask, (width, height)))
        # The canvas is of whole patches: what is left over is added on the right and below, or cut off there.
        right, down = width - added.left - request.image.width, height - added.top - request.image.height
        grown = regions.Margins(added.left, max(right, 0), added.top, max(down, 0))
        image, mask = request.image.convert("RGB"), request.mask
        if any(grown):
            old = mask
            image, mask = regions.extended(
                image, grown, Noise([0]).normal, canvas=options.canvas, overlap=options.feather
            )
            if old is not None:
                mask.paste(255, (grown.left, grown.top), old.convert("L").resize(request.image.size))
        pixels = from_image(image)[..., :height, :width]
        if mask is None:
            return cls(pixels, torch.zeros_like(pixels[:, :1]))
        return cls(pixels, mask_from_image(mask)[..., :height, :width])

    def kept(self, factor: int) -> Float[Tensor, "h w"]:
        """True, as 1, where a whole token is kept."""
        return (F.max_pool2d(self.mask, factor) < 0.5).float()[0, 0]


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class NUWAInfinity:
    """Text to the tokens of patches to pixels.

    Attributes:
        network: Writes.
        codec: Paints what is written.
        tokenizer: The network's.

    Raises:
        WeightsError: They do not belong together.
    """

    Options: ClassVar[type] = InfinityKnobs

    network: PatchNetwork
    codec: Painter
    tokenizer: Tokenizer

    def __post_init__(self) -> None:
        writing.reads(self.tokenizer, self.network.config.text)
        writing.paints(self.codec, self.network.config.codes)

    @property
    def multiple(self) -> int:
        """Sides are multiples of a patch."""
        return self.network.config.patch * self.codec.factor

    @staticmethod
    def placed(request: Request, options: InfinityKnobs) -> Request | None:
        """The request with the size of a canvas that grows from a picture; None where none does.

        Raises:
            OptionError: A margin without a picture.
        """
        added = options.margins
        if not any(added):
            return None
        if request.image is None:
            raise OptionError("a margin is added to a picture, but no picture was given", hint="add --image")
        width, height = request.image.size
        grown = (width + added.left + added.right, height + added.top + added.bottom)
        return replace(request, size=request.size or grown)

    def notices(self, request: Request) -> list[str]:
        """Words that do not fit."""
        return writing.unread(self.tokenizer, request)

    def synthesize(self, request: Request, options: InfinityKnobs, noise: Noise) -> Steps[Pixels]:
        """Draw one canvas a seed.

        Args:
            request: Resolved.
            options: The knobs of the method.
            noise: One seed a picture.

        Raises:
            SizeError: Sides that are no multiples of a patch.
            WeightsError: The network gave numbers that are not finite.
        """
        width, height = known(request.size, "size")
        side = self.multiple
        if width % side or height % side:
            raise SizeError(f"{width}x{height}: sides must be multiples of {side}")
        given = _Given.of(request, options)
        chain = self._chain(request, options, given, (height // side, width // side))
        # Below 1, guidance leads towards no text, where neighbours should still be heard.
        chain = replace(chain, forgets=options.guide_nearby and known(request.guidance, "guidance") > 1)
        ids = yield from writing.written(
            chain, self.codec, self.tokenizer, request, options, noise, look=partial(self._paint, chain)
        )
        with torch.no_grad():
            pixels = self._paint(chain, ids)
        if given is None or not options.paste:
            return pixels
        return torch.lerp(given.pixels.to(pixels), pixels, given.mask.to(pixels))

    @torch.no_grad()
    def _chain(self, request: Request, options: InfinityKnobs, given: _Given | None, patches: tuple[int, int]) -> Chain:
        """The writer of the canvas, told what there is already."""
        size, reach = self.network.config.patch, self.network.config.reach
        planned = plan(*patches, options.direction, reach=reach)
        if request.image is None:
            return self.network.chain(planned)
        image = given.pixels if given is not None else from_image(request.image, known(request.size, "size"))
        ids = self.codec.to_ids(image.to(writing.computes(self.codec)))
        if given is not None:
            known_tokens = given.kept(self.codec.factor).flatten()[None].to(ids.device) > 0
            ids = torch.where(known_tokens, ids, -1)
            planned = plan(*patches, options.direction, reach=reach, given=_whole(ids, planned, size))
            return self.network.chain(planned, to_patches(ids, planned, size))
        ordered = to_patches(ids, planned, size)
        first = len(planned) - math.ceil(len(planned) * request.strength - 1e-6)
        ordered[:, first * size * size :] = -1
        return self.network.chain(planned, ordered)

    def _paint(self, chain: Chain, ids: Ids) -> Pixels:
        """Pictures from the tokens that were written, and those that were there."""
        size = self.network.config.patch
        if chain.given is not None:
            ready = chain.given[:, : chain.ready * size * size].to(ids.device)
            ids = torch.cat([ready.expand(len(ids), -1), ids], 1)
        rows = from_patches(ids, chain.plan, size)
        return self.codec.from_ids(rows, (chain.plan.rows * size, chain.plan.columns * size)).float()


def _whole(ids: Int[Tensor, "1 N"], planned: Plan, size: int) -> list[Patch]:
    """The patches of which every token is there."""
    there = (to_patches(ids, planned, size) >= 0).view(len(planned), -1).all(1)
    return [patch for patch, whole in zip(planned.order, there.tolist(), strict=True) if whole]
