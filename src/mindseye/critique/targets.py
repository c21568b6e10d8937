"""What is aimed for, in each critic's space: prompts, pictures and noise as weighted directions, worked out once.

A picture as a prompt is shown to a critic through the same cuts as the picture in the making, and each cut is an aim
with its share of the weight (VQGAN+CLIP and CLIP-guided diffusion notebooks). Its cuts are drawn from a seed of their
own, so that they do not depend on which picture is being made. Noise is a normal direction drawn from its seed. All
pictures of a batch share their aims, unless these are made fuzzy (`mindseye.critique.fuzzy`).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from mindseye.critique.critic import Critic
from mindseye.critique.cuts import Scheme
from mindseye.critique.fuzzy import Fuzz
from mindseye.critique.grammar import Normal, Wish, parse, scaled, wishes
from mindseye.critique.losses import Distance
from mindseye.errors import ImageError
from mindseye.noise import Noise
from mindseye.pictures import open_image
from mindseye.pixels import from_image

__all__ = ["GIVEN", "Aims", "Targets", "Wish", "embed", "given_or_opened", "parse", "wishes"]

GIVEN = "\0the picture given"
"""What a wish for a request's own picture is called: no file can be."""


@dataclass(frozen=True)
class Aims:
    """What one critic is to look for.

    Attributes:
        vectors: Unit rows in its space; where every picture has its own, one set a picture.
        weights: Of each; negative pushes away.
        stops: Signed distance at which each stops pulling.
        wish: Of each, which wish of `Targets` it came from.
    """

    vectors: Float[Tensor, "*own P D"]
    weights: Float[Tensor, "P"]
    stops: Float[Tensor, "P"]
    wish: tuple[int, ...]

    def measured(self, measure: Distance, seen: Float[Tensor, "B *S D"]) -> Float[Tensor, "B *S P"]:
        """From what is seen of each picture to each of its aims."""
        if self.vectors.ndim == 2:
            return measure(seen, self.vectors)
        return torch.stack([measure(one, own) for one, own in zip(seen, self.vectors, strict=True)])


@dataclass(frozen=True)
class Targets:
    """What all critics are to look for.

    Attributes:
        aims: One a critic.
        wishes: Where they came from.
    """

    aims: tuple[Aims, ...]
    wishes: tuple[Wish, ...]


@torch.no_grad()
def embed(
    critics: Sequence[Critic],
    found: Sequence[Wish],
    *,
    normal: Normal = "none",
    cuts: Scheme | None = None,
    size: tuple[int, int] | None = None,
    look: Callable[[str], Image.Image] | None = None,
    fuzz: Fuzz | None = None,
) -> Targets:
    """Wishes as directions.

    Args:
        critics: Who will look.
        found: From `wishes` or `parse`.
        normal: How the weights are made comparable; see `mindseye.critique.grammar.scaled`.
        cuts: Through which cuts pictures are seen; whole, scaled and cropped to the critic's square, when None.
        size: Width and height of the picture in the making: a prompt picture is fitted to its area, keeping its shape.
        look: Opens pictures by what the wish says; the file of that path when None.
        fuzz: Scatters prompts and pictures, other ways for each picture in the making.

    Raises:
        OptionError: The weights sum to about zero.
        ImageError: A picture that cannot be read, or an address: nothing is downloaded here.
    """
    found = scaled(found, normal)
    pictures = {each.text: (look or given_or_opened(None))(each.text) for each in found if each.kind == "image"}
    words = [each.text for each in found if each.kind == "text"]
    aims = []
    for critic in critics:
        as_they_are = {} if fuzz is None else {"unit": False}
        told = critic.embed_text(words or [""], **as_they_are).float()
        device, width, lines = told.device, told.shape[1], iter(told)
        rows: list[Tensor] = []
        for each in found:
            if each.kind == "noise":
                row = F.normalize(Noise((int(each.text),)).normal(width), dim=1).to(device)
                rows.append(row if fuzz is None else row.expand(len(fuzz.noise.seeds), -1, -1))
                continue
            if each.kind == "text":
                row = next(lines)[None]
            else:
                row = critic.embed_image(_pieces(critic, pictures[each.text], cuts, size), **as_they_are).float()
            rows.append(row if fuzz is None else fuzz(row))
        counts = [row.shape[-2] for row in rows]
        weights = [each.weight / count for each, count in zip(found, counts, strict=True) for _ in range(count)]
        stops = [each.stop for each, count in zip(found, counts, strict=True) for _ in range(count)]
        wish = tuple(place for place, count in enumerate(counts) for _ in range(count))
        strong, held = (torch.tensor(each, dtype=torch.float32, device=device) for each in (weights, stops))
        aims.append(Aims(torch.cat(rows, dim=-2), strong, held, wish))
    return Targets(tuple(aims), found)


def given_or_opened(image: Image.Image | None) -> Callable[[str], Image.Image]:
    """Opens pictures by what a wish says: the one given by the name `GIVEN`, the others from their files.

    The function raises ImageError for what cannot be read, and for an address: nothing is downloaded here.
    """

    def look(path: str) -> Image.Image:
        if path == GIVEN and image is not None:
            return image
        if "://" in path:
            raise ImageError(f"{path!r:.120} is an address; pictures are read from files", hint="download it first")
        return open_image(path)

    return look


def _pieces(
    critic: Critic, picture: Image.Image, cuts: Scheme | None, size: tuple[int, int] | None
) -> Float[Tensor, "K 3 S S"]:
    """What a critic is shown of a picture: the whole, or cuts."""
    if cuts is None:
        return from_image(picture, (critic.size, critic.size))
    if size is not None:
        # The area of the picture in the making, never larger than the prompt picture itself.
        factor = min(1.0, (size[0] * size[1] / (picture.width * picture.height)) ** 0.5)
        fitted = (max(1, round(picture.width * factor)), max(1, round(picture.height * factor)))
        pixels = from_image(picture.resize(fitted, Image.Resampling.LANCZOS))
    else:
        pixels = from_image(picture)
    boxes, changes = cuts.draw(pixels.shape[-2], pixels.shape[-1], critic.size, 0.0, Noise((0,)))
    return cuts.show(pixels, boxes, changes, critic.size)[0]
