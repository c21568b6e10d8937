"""The geometry of editing: what of a picture is repainted, from what, and how it goes back.

Plain functions on PIL pictures (what comes from a user and goes to a file) and on tensors (what a network sees); a
mask is white, or 1, where a picture is repainted. No function here knows a system, and none draws at random by itself.

- *Only what is masked*: `around` finds the part of the picture that matters, `cut` enlarges it to the size that is
  drawn, `put_back` lays the result over the original, whose other pixels stay what they were.
- *Outpainting*: `extended` makes the larger canvas and the mask of what is new.
- *What lies under the mask* before it is repainted: `filled` on pictures, `refilled` on latents.
- *Networks made for inpainting*: `inpaint_planes` gives what they see beside the noise.
- *Larger than the network likes*: `enlarged` (latents); a picture is enlarged by PIL's Lanczos filter, as `cut` does.

AUTOMATIC1111's web UI named most of the choices.
"""

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image, ImageChops, ImageFilter
from torch import Tensor
from torch.nn import functional as F

from mindseye.errors import OptionError, UnknownName
from mindseye.pixels import from_image, mask_from_image, to_images
from mindseye.shapes import Latents, Pixels

__all__ = [
    "CANVASES",
    "CONTENTS",
    "ENLARGEMENTS",
    "Box",
    "Margins",
    "around",
    "blurred",
    "cut",
    "enlarged",
    "extended",
    "filled",
    "grown",
    "inpaint_planes",
    "put_back",
    "refilled",
]

CONTENTS = ("original", "fill", "noise", "nothing")
"""What lies under the mask: the picture itself, the colours around it, noise, or zero latents."""

CANVASES = ("stretch", "mirror", "mean", "noise")
"""What a new margin starts from: its edge drawn out and softened, its mirror image, its mean colour, or noise."""

ENLARGEMENTS: dict[str, tuple[str, bool]] = {
    "latent": ("bilinear", False),
    "latent-antialiased": ("bilinear", True),
    "latent-bicubic": ("bicubic", False),
    "latent-bicubic-antialiased": ("bicubic", True),
    "latent-nearest": ("nearest", False),
    "latent-nearest-exact": ("nearest-exact", False),
}
"""Ways to enlarge latents: torch's mode, and whether it is antialiased."""

Draw: TypeAlias = Callable[..., Tensor]
"""``draw(*shape)``: standard normal numbers, ``1 *shape``; `Noise.normal` of one seed is one."""


class Box(NamedTuple):
    """A rectangle of pixels, as PIL has it."""

    left: int
    top: int
    right: int
    bottom: int

    @property
    def size(self) -> tuple[int, int]:
        """Width and height."""
        return self.right - self.left, self.bottom - self.top


class Margins(NamedTuple):
    """Pixels to add on each side of a picture."""

    left: int = 0
    right: int = 0
    top: int = 0
    bottom: int = 0


def blurred(mask: Image.Image, radius: float) -> Image.Image:
    """The mask with soft edges.

    Args:
        mask: Grey, white where repainted.
        radius: Standard deviation of the Gaussian in pixels; 0 = as it is.
    """
    return mask.convert("L") if radius <= 0 else mask.convert("L").filter(ImageFilter.GaussianBlur(radius))


def grown(mask: Image.Image, by: int) -> Image.Image:
    """The mask, its white larger by so many pixels all around; smaller where ``by`` is negative."""
    values = mask_from_image(mask)
    reach = min(abs(by), max(mask.size))
    sign = 1 if by > 0 else -1
    for kernel, padding in (((2 * reach + 1, 1), (reach, 0)), ((1, 2 * reach + 1), (0, reach))):
        # Beyond the picture lies whatever would not show.
        edge = F.pad(sign * values, (padding[1], padding[1], padding[0], padding[0]), value=float("-inf"))
        values = sign * F.max_pool2d(edge, kernel, stride=1)
    return Image.fromarray((values[0, 0] * 255).round().to(torch.uint8).numpy())


def around(mask: Image.Image, size: tuple[int, int], padding: int = 32) -> Box | None:
    """The part of the picture that is worth drawing when only what is masked is repainted.

    Args:
        mask: White where repainted; anything but black counts.
        size: Width and height that will be drawn; the box gets this aspect as far as the picture allows.
        padding: Pixels of surroundings to show on every side.

    Returns:
        A box within the picture, or None where the mask is black.
    """
    inner = mask.convert("L").getbbox()
    if inner is None:
        return None
    width, height = mask.size
    left, top = max(inner[0] - padding, 0), max(inner[1] - padding, 0)
    right, bottom = min(inner[2] + padding, width), min(inner[3] + padding, height)
    wide = max(right - left, round((bottom - top) * size[0] / size[1]))
    high = max(bottom - top, round((right - left) * size[1] / size[0]))
    left, right = _widened(left, right, wide, width)
    top, bottom = _widened(top, bottom, high, height)
    return Box(left, top, right, bottom)


def _widened(low: int, high: int, wanted: int, most: int) -> tuple[int, int]:
    """A stretch of the wanted length about another's middle, moved and cut to lie in 0 .. most."""
    wanted = min(wanted, most)
    low = min(max(low - (wanted - (high - low)) // 2, 0), most - wanted)
    return low, low + wanted


def cut(image: Image.Image, box: Box, size: tuple[int, int]) -> Image.Image:
    """The box of a picture or a mask, scaled to ``size``. Not cropped: a box of another aspect is distorted and
    distorted back by `put_back`."""
    return image.resize(size, Image.Resampling.LANCZOS, box=box)


def put_back(image: Image.Image, drawn: Image.Image, box: Box, mask: Image.Image) -> Image.Image:
    """The picture with what was drawn in a box of it, seen through the mask.

    Args:
        image: The original.
        drawn: What was made of `cut(image, box, ...)`, of any size.
        box: Where it belongs.
        mask: As large as ``image``; where it is black the original's pixels are kept to the bit.
    """
    layer = image.convert("RGB").copy()
    layer.paste(drawn.convert("RGB").resize(box.size, Image.Resampling.LANCZOS), (box.left, box.top))
    inside = Image.new("L", image.size, 0)
    inside.paste(255, box)
    return Image.composite(layer, image.convert("RGB"), ImageChops.multiply(mask.convert("L"), inside))


def extended(
    image: Image.Image,
    margins: Margins,
    draw: Draw,
    *,
    canvas: str = "stretch",
    overlap: int = 16,
) -> tuple[Image.Image, Image.Image]:
    """A larger canvas around a picture, and the mask of what is to be painted there.

    Args:
        image: The picture.
        margins: What to add.
        draw: Source of noise.
        canvas: What the margins start from, one of `CANVASES`.
        overlap: How many pixels of the picture are repainted along each new margin, fading, so that the two grow
            together. White beyond the picture, falling to black over the overlap.

    Raises:
        UnknownName: No such canvas.
        OptionError: A negative margin, or none at all.
    """
    if canvas not in CANVASES:
        raise UnknownName("canvas", canvas, CANVASES)
    if min(margins) < 0 or not any(margins):
        raise OptionError("a picture grows by a margin on at least one side, and none is negative")
    width, height = image.width + margins.left + margins.right, image.height + margins.top + margins.bottom
    picture, place = image.convert("RGB"), (margins.left, margins.top)
    values = from_image(picture)
    pads = margins.left, margins.right, margins.top, margins.bottom
    if canvas == "mean":
        whole = values.mean((2, 3), keepdim=True).expand(1, 3, height, width)
    elif canvas == "noise":
        whole = values.mean((2, 3), keepdim=True) + 0.5 * draw(3, height, width)[:1]
    elif canvas == "mirror":
        down, across = (_mirrored(n, *ends) for n, ends in zip(values.shape[2:], (pads[2:], pads[:2]), strict=True))
        whole = values[:, :, down][:, :, :, across]
    else:
        edge = F.pad(values, pads, mode="replicate")
        soft = to_images(edge)[0].filter(ImageFilter.GaussianBlur(max(pads) / 8))
        # A trace of noise: from a flat start, a network paints flat pictures.
        whole = from_image(soft) + 0.1 * draw(3, height, width)[:1]
    result = to_images(whole)[0]
    result.paste(picture, place)
    return result, _overlapping(image.size, margins, overlap)


def _mirrored(length: int, before: int, after: int) -> Tensor:
    """Indices that run past either end of a side and come back, as often as need be."""
    period = max(2 * (length - 1), 1)
    index = torch.arange(-before, length + after) % period
    return torch.minimum(index, period - index) if length > 1 else torch.zeros_like(index)


def _overlapping(size: tuple[int, int], margins: Margins, overlap: int) -> Image.Image:
    """White around a picture, fading out within it along the margins that are not empty."""
    kept = []
    for length, ends in zip(size, ((margins.left, margins.right), (margins.top, margins.bottom)), strict=True):
        inside = np.ones(length, dtype=np.float32)
        for margin, place in zip(ends, (np.arange(length), np.arange(length)[::-1]), strict=True):
            if margin and overlap:
                inside = np.minimum(inside, np.clip((place + 0.5) / overlap, 0, 1))
        kept.append(np.pad(inside, ends))
    values = 255 * (1 - np.minimum(kept[1][:, None], kept[0][None, :]))
    return Image.fromarray(values.round().astype(np.uint8))


def filled(image: Image.Image, mask: Image.Image, content: str) -> Image.Image:
    """The picture with something else under the mask.

    Args:
        image: The picture.
        mask: As large.
        content: "fill" for the colours around the mask, continued smoothly into it; the other `CONTENTS` leave the
            picture alone ("noise" and "nothing" are `refilled` as latents).

    Raises:
        UnknownName: No such content.
    """
    if content not in CONTENTS:
        raise UnknownName("masked content", content, CONTENTS)
    if content != "fill":
        return image.convert("RGB")
    hard = mask.convert("L").point(lambda value: 255 if value else 0)
    pixels, keep = from_image(image), 1 - mask_from_image(hard)
    if not bool(keep.any()):
        return image.convert("RGB")
    return to_images(_pulled(pixels * keep, keep))[0]


def _pulled(sums: Tensor, weights: Tensor) -> Tensor:
    """Fill the holes of a picture from what is around them: averages of ever coarser levels, put under the finer.

    The pull-push algorithm (Gortler et al. 1996, "The Lumigraph", section 4.3.2).

    Args:
        sums: The picture times its weights.
        weights: 1 where it is known, 0 in a hole.
    """
    known = sums / weights.clamp_min(1e-8)
    if min(weights.shape[2:]) == 1 or bool((weights >= 1).all()):
        return known
    # Means, so that weights saturate where all of a coarser pixel is known.
    coarse = [F.avg_pool2d(each, 2, ceil_mode=True, count_include_pad=False) for each in (sums, weights)]
    below = _pulled(coarse[0] / coarse[1].clamp_min(1e-8) * (coarse[1] > 0), (coarse[1] > 0).to(weights))
    below = F.interpolate(below, size=weights.shape[2:], mode="bilinear")
    return torch.lerp(below, known, weights.clamp(max=1))


def refilled(
    latents: Float[Tensor, "#B C h w"], mask: Float[Tensor, "1 1 h w"], content: str, noise: Float[Tensor, "B C h w"]
) -> Float[Tensor, "B C h w"]:
    """The latents with something else under the mask.

    Args:
        latents: Of the picture, one row or one a picture.
        mask: 1 = repaint; soft masks mix.
        content: "noise" or "nothing"; the other `CONTENTS` leave the latents alone.
        noise: Standard normal; latents are normalised, so this is noise of their own strength.

    Raises:
        UnknownName: No such content.
    """
    if content not in CONTENTS:
        raise UnknownName("masked content", content, CONTENTS)
    latents = latents.expand_as(noise)
    if content not in ("noise", "nothing"):
        return latents
    return torch.lerp(latents, noise if content == "noise" else torch.zeros_like(noise), mask.to(noise))


def inpaint_planes(
    pixels: Pixels, mask: Float[Tensor, "#B 1 H W"], encode: Callable[[Pixels], Latents]
) -> Float[Tensor, "B P h w"]:
    """What a network made for inpainting sees beside the noisy latents: the mask, and the latents of what is kept.

    Channels are noise | mask | kept, the noise being set before these by the caller (for Stable Diffusion 4 | 1 | 4).
    Under the mask the picture is grey (zero), not black. The mask is hard: at least half is 1.

    Args:
        pixels: The picture, in the dtype and on the device of the codec.
        mask: 1 = repaint.
        encode: The codec's.
    """
    hard = (mask >= 0.5).to(pixels)
    kept = encode(pixels * (1 - hard))
    # Nearest: the first pixel of every square decides, which is what these networks were trained with.
    small = F.interpolate(hard, size=kept.shape[2:], mode="nearest")
    return torch.cat([small.expand(len(kept), -1, -1, -1), kept], dim=1)


def enlarged(latents: Latents, size: tuple[int, int], way: str = "latent") -> Float[Tensor, "B C h2 w2"]:
    """Latents of another size, for a second run at a higher resolution.

    Args:
        latents: Of the first run.
        size: Width and height, in latents.
        way: One of `ENLARGEMENTS`.

    Raises:
        UnknownName: No such way.
    """
    if way not in ENLARGEMENTS:
        raise UnknownName("way to enlarge", way, ENLARGEMENTS)
    mode, antialias = ENLARGEMENTS[way]
    return F.interpolate(latents.float(), size=(size[1], size[0]), mode=mode, antialias=antialias).to(latents.dtype)
