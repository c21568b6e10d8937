"""THE image convention and its borders.

Inside, pictures are always float tensors `B 3 H W` in [-1, 1]; outside they are 8-bit sRGB, and value v of 0..255
stands for 2 v / 255 - 1. The way back rounds and clamps, so a picture survives the round trip exactly.
Masks are `B 1 H W` in [0, 1]; 1 is repainted, 0 is kept.
"""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from mindseye.pictures import flatten
from mindseye.shapes import Pixels


def from_image(image: Image.Image, size: tuple[int, int] | None = None) -> Pixels:
    """A PIL picture of any mode as `1 3 H W` in [-1, 1].

    Args:
        image: The picture; transparency is laid over white.
        size: Width and height to fit to; scaled to cover and cropped about the centre, never distorted.
    """
    fitted = fit(flatten(image), size) if size is not None else flatten(image)
    values = torch.from_numpy(np.array(fitted, dtype=np.uint8))
    return values.permute(2, 0, 1)[None].contiguous().float() / 127.5 - 1


def from_images(images: Sequence[Image.Image], size: tuple[int, int] | None = None) -> Pixels:
    """Several PIL pictures, which must end at one size, as `B 3 H W` in [-1, 1]."""
    return torch.cat([from_image(image, size) for image in images])


def to_images(pixels: Float[Tensor, "B 3 H W"]) -> tuple[Image.Image, ...]:
    """Pictures in [-1, 1], of any dtype and device, as 8-bit RGB; what lies outside is clamped."""
    values = ((pixels.detach().float() + 1) * 127.5).round().clamp(0, 255).nan_to_num(0).to(torch.uint8)
    return tuple(Image.fromarray(each) for each in values.permute(0, 2, 3, 1).contiguous().cpu().numpy())


def mask_from_image(mask: Image.Image, size: tuple[int, int] | None = None) -> Float[Tensor, "1 1 H W"]:
    """A PIL mask (white = repaint) as `1 1 H W` in [0, 1], fitted to `size` as `from_image` fits its picture."""
    grey = flatten(mask).convert("L")
    fitted = fit(grey, size) if size is not None else grey
    return torch.from_numpy(np.array(fitted, dtype=np.uint8))[None, None].float() / 255


def fit(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Scale to cover `size` and crop about the centre."""
    width, height = size
    if image.size == (width, height):
        return image
    # The box of the source that has the target's aspect; PIL resamples from a fractional box, so nothing drifts.
    shown_width = min(image.width, image.height * width / height)
    shown_height = min(image.height, image.width * height / width)
    left, top = (image.width - shown_width) / 2, (image.height - shown_height) / 2
    box = (left, top, left + shown_width, top + shown_height)
    return image.resize((width, height), Image.Resampling.LANCZOS, box=box)
