"""How a start picture is set before a run, and how what was drawn goes back into it.

Three things happen to a picture that is edited, in this order: it grows (outpainting), its mask is grown and softened,
and, if only the masked part is to be drawn, that part is cut out and enlarged. What each does is in
`mindseye.systems.regions`; here is when.
"""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from PIL import ImageChops
from torch import Tensor

from mindseye.errors import OptionError
from mindseye.noise import Noise
from mindseye.pixels import from_image, to_images
from mindseye.request import Request
from mindseye.systems import regions
from mindseye.systems.base import known
from mindseye.systems.knobs import Options

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["Frame", "margins", "placed"]


def margins(options: Options) -> regions.Margins:
    """What outpainting adds."""
    return regions.Margins(options.extend_left, options.extend_right, options.extend_up, options.extend_down)


def placed(request: Request, options: Options) -> Request | None:
    """The request with the size of what it draws, where the start picture decides that; None where it does not.

    Raises:
        OptionError: A margin without a picture.
    """
    added = margins(options)
    if any(added):
        if request.image is None:
            raise OptionError("a margin is added to a picture, but no picture was given", hint="add --image")
        width, height = request.image.size
        grown = (width + added.left + added.right, height + added.top + added.bottom)
        return replace(request, size=request.size or grown)
    return request if options.only_masked and request.mask is not None else None


@dataclass(frozen=True, eq=False)
class Frame:
    """A picture to be edited, set for the run.

    Attributes:
        request: With the picture and the mask as the run sees them.
        whole: The picture that a drawn part goes back into; None = what is drawn is the picture.
        box: Where the part belongs.
        mask: Of the whole picture.
    """

    request: Request
    whole: "Image | None" = None
    box: regions.Box | None = None
    mask: "Image | None" = None

    @classmethod
    def of(cls, request: Request, options: Options) -> "Frame":
        """Set the request's picture."""
        image, mask = request.image, request.mask
        if image is None:
            return cls(request)
        if any(added := margins(options)):
            # The same canvas for every picture of a batch, whatever their seeds.
            canvas, new = regions.extended(
                image, added, Noise([0]).normal, canvas=options.canvas, overlap=options.feather
            )
            if mask is not None:
                old = ImageChops.constant(new, 0)
                old.paste(mask.convert("L").resize(image.size), (added.left, added.top))
                new = ImageChops.lighter(new, old)
            image, mask = canvas, new
        if mask is None:
            return cls(replace(request, image=image))
        mask = regions.blurred(regions.grown(mask, options.mask_grow), options.mask_blur)
        image = regions.filled(image, mask, options.masked)
        box = regions.around(mask, known(request.size, "size"), options.padding) if options.only_masked else None
        if box is None:
            return cls(replace(request, image=image, mask=mask))
        size = known(request.size, "size")
        part = replace(request, image=regions.cut(image, box, size), mask=regions.cut(mask, box, size))
        return cls(part, whole=image, box=box, mask=mask)

    def finish(self, drawn: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B 3 H2 W2"]:
        """What was drawn, set back where it belongs."""
        if self.whole is None or self.box is None or self.mask is None:
            return drawn
        back = [regions.put_back(self.whole, image, self.box, self.mask) for image in to_images(drawn)]
        return torch.cat([from_image(image) for image in back]).to(drawn)
