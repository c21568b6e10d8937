"""Is the picture what the words said? A checker without learning, for coloured plain shapes and where they stand.

A learned judge can be fooled, and a picture model trained beside it may share its blind spots. For prompts such as "a
red circle" or "a blue star above a green heart" no judge is needed: the corpus paints them from a table of named
colours and a table of outlines, so a picture can be measured against the same tables.

1. Pixels go to OKLab (Ottosson, "A perceptual color space for image processing", 2020), where distance is difference
   seen.
2. The palette is the few colours that cover flat areas; blended edges name no colour. The background is the palette's
   colour that holds most of the border.
3. What is not background falls into connected pieces; a piece of two colours is cut where the colours meet.
4. A piece's colour is the named colour nearest to its median. Its shape is the silhouette it overlaps best after both
   are moved to their centre of gravity and scaled to the same area (moments of order 0 and 1), over small turns:
   shapes may lean, but a square on its corner is not a square.

It is strict by intent: an unclear shape is ``None``, the thing asked for must be the largest in the picture, and litter
counts against it. On pictures rendered from the tables it is right in at least 99 of 100 (tests), so what it reports
about a model is about the model. It measures the corpus's own flat style; it is no judge of photographs.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from mindseye.data.colours import COLOURS
from mindseye.data.shapes import SHAPES, silhouette
from mindseye.pictures import flatten

__all__ = [
    "Found",
    "Relation",
    "Thing",
    "colour_shape",
    "found",
    "name_colour",
    "oklab",
    "placed",
    "relation",
    "shows",
    "shows_relation",
]

Relation = Literal["left of", "right of", "above", "below", "next to"]
Thing = tuple[str, str]
"""A colour and a shape, both named."""
Floats = NDArray[np.floating]
Mask = NDArray[np.bool_]

SIDE: Final = 128
"""Pictures are measured at this size; thresholds in pixels refer to it."""
SMALLEST: Final = 0.006
"""The least share of the picture that counts as a thing: a disc of 11 pixels across."""
SAME: Final = 0.075
"""OKLab distance within which two pixels are of one palette colour; named colours lie at least 0.14 apart."""
COLOURS_MOST: Final = 10
"""Palette colours looked for; a picture of more is no picture of plain shapes, and may be as slow as it is wild."""
EDGE: Final = 0.035
"""OKLab change a pixel above which a pixel belongs to an edge, not to a flat area."""
FAR: Final = 0.17
"""OKLab distance from every named colour beyond which a colour has no name."""
TOLERANCE: Final = 0.022
"""How far an outline may lie from the silhouette's on average, as a share of the square root of the shape's area.

A strip of this width along the outline is what may be missing or too much, so compact shapes need a larger overlap
(circle 0.92) than branched ones (star 0.87): overlap alone would pass any potato as a circle."""
TURNS: Final = range(-20, 21, 5)
"""Degrees that a shape may lean."""
WEIGHT: Final = 5
"""Silhouettes are also compared with 2 pixels less and more all around: pens differ, and blur moves edges."""
GRID: Final = 56
"""Side of the grid on which shapes are compared; it spans 2.6 times the square root of the shape's area."""

_TO_LMS: Final = np.array(
    [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ]
)
_TO_LAB: Final = np.array(
    [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ]
)


@dataclass(frozen=True, kw_only=True)
class Found:
    """One thing in a picture."""

    colour: str | None
    """The named colour nearest to it; ``None`` when all are far."""
    shape: str | None
    """The silhouette it overlaps best; ``None`` when none well."""
    centre: tuple[float, float]
    """Its centre of gravity as shares of width and height, from the top left."""
    area: float
    """The share of the picture it covers."""
    match: float
    """The overlap with its best silhouette, in [0, 1]."""


def oklab(srgb: Floats) -> Floats:
    """sRGB in [0, 1], last axis 3, to OKLab: lightness in [0, 1], then green to red, then blue to yellow."""
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    return np.cbrt(linear @ _TO_LMS.T) @ _TO_LAB.T


def name_colour(lab: Floats) -> str | None:
    """The named colour nearest to an OKLab triple, ``None`` when every one is farther than ``FAR``."""
    names, table = _named()
    distances = _distance(table, lab)
    nearest = int(distances.argmin())
    return names[nearest] if distances[nearest] <= FAR else None


def found(picture: Image.Image) -> list[Found]:
    """The things in a picture, largest first.

    Args:
        picture: Any size and mode; transparency is put on white, and a picture that is not square is measured as if it
            were.
    """
    lab, flat = _measure(picture)
    palette, background = _palette(lab, flat)
    if len(palette) < 2:
        return []
    labels = _nearest(lab, palette)
    named = [name_colour(colour) for colour in palette]
    kinds = np.array([named.index(name) for name in named])  # the same number where the same name
    # An uneven background is still one: what has its name, or nearly its colour, belongs to it.
    ground = (_distance(palette, palette[background]) <= 1.3 * SAME) | (
        (kinds == kinds[background]) & (named[background] is not None)
    )
    things = [_describe(mask, lab) for piece in _pieces(~ground[labels]) for mask in _cut(piece, kinds[labels])]
    return sorted(things, key=lambda thing: -thing.area)


def colour_shape(picture: Image.Image, colour: str, shape: str) -> bool:
    """Is this a picture of one ``shape`` of that ``colour``? See `shows`."""
    return shows(found(picture), (colour, shape))


def relation(picture: Image.Image, first: Thing, where: Relation, second: Thing) -> bool:
    """Is this a picture of ``first`` standing ``where`` from ``second``? See `shows_relation`."""
    return shows_relation(found(picture), first, where, second)


def shows(things: Sequence[Found], asked: Thing) -> bool:
    """The largest thing must be it, and everything else together must be less than half as large."""
    if not things or (things[0].colour, things[0].shape) != asked:
        return False
    return sum(thing.area for thing in things[1:]) < things[0].area / 2


def shows_relation(things: Sequence[Found], first: Thing, where: Relation, second: Thing) -> bool:
    """The two largest things must be they, placed so, and everything else together smaller than either."""
    if len(things) < 2 or sum(thing.area for thing in things[2:]) >= things[1].area:
        return False
    return any(
        (one.colour, one.shape) == first
        and (other.colour, other.shape) == second
        and placed(one.centre, where, other.centre)
        for one, other in (things[:2], things[1::-1])
    )


def placed(first: tuple[float, float], where: Relation, second: tuple[float, float]) -> bool:
    """Does the point ``first`` lie ``where`` from ``second``? The named direction must be the larger one, and clear.

    Coordinates are shares of width and height, y downwards; less than a tenth of the picture apart is no direction.
    """
    across, down = first[0] - second[0], first[1] - second[1]
    along, aside = {
        "left of": (-across, down),
        "right of": (across, down),
        "above": (-down, across),
        "below": (down, across),
        "next to": (abs(across), down),
    }[where]
    return along >= 0.1 and along > abs(aside)


@cache
def _named() -> tuple[list[str], Floats]:
    return list(COLOURS), oklab(np.array(list(COLOURS.values()), dtype=np.float64) / 255)


def _measure(picture: Image.Image) -> tuple[Floats, Mask]:
    """OKLab at the measuring size with single wild pixels removed, and which pixels lie in flat areas."""
    picture = flatten(picture)
    if picture.size != (SIDE, SIDE):
        picture = picture.resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    lab = oklab(np.asarray(picture.filter(ImageFilter.MedianFilter(3)), dtype=np.float64) / 255)
    # Noise in near-black pixels is far larger in OKLab than to the eye, so slopes are taken on an averaged copy.
    smooth = oklab(np.asarray(picture.filter(ImageFilter.GaussianBlur(1)), dtype=np.float64) / 255)
    down, across = np.gradient(smooth, axis=(0, 1))
    return lab, np.sqrt((down**2 + across**2).sum(-1)) < EDGE


def _palette(lab: Floats, flat: Mask) -> tuple[Floats, int]:
    """The colours of the flat areas, most common first, and which of them is the background's.

    Greedy mean shift: the fullest cell of a coarse grid of colours, moved to the mean of what lies within ``SAME``.
    """
    border = np.ones_like(flat)
    border[3:-3, 3:-3] = False
    pixels = lab[flat | border]
    colours: list[Floats] = []
    while len(pixels) >= SMALLEST / 3 * flat.size and len(colours) < COLOURS_MOST:
        cells = np.round(pixels / SAME).astype(np.int64) @ (1, 64, 4096)  # at most 14 cells either way
        present, counts = np.unique(cells, return_counts=True)
        centre = pixels[cells == present[counts.argmax()]].mean(0)
        near = _distance(pixels, centre) <= SAME
        for _ in range(4):
            centre = pixels[near].mean(0)
            near = _distance(pixels, centre) <= SAME
        if near.sum() < SMALLEST / 3 * flat.size:
            break
        colours.append(centre)
        pixels = pixels[~near]
    if not colours:
        return np.empty((0, 3)), 0
    palette = np.stack(colours)
    return palette, int(np.bincount(_nearest(lab[border], palette), minlength=len(palette)).argmax())


def _nearest(lab: Floats, palette: Floats) -> NDArray[np.intp]:
    return np.stack([_distance(lab, colour) for colour in palette], -1).argmin(-1)


def _distance(a: Floats, b: Floats) -> Floats:
    """How different colours look; both broadcast, last axis 3."""
    difference = a - b
    return np.sqrt(np.einsum("...i,...i", difference, difference))


def _pieces(mask: Mask) -> list[Mask]:
    """The 4-connected pieces of a mask that are large and thick enough to count: a seam between colours is no thing.

    Every pixel takes the smallest index around it, then the index of the pixel that index names (pointer jumping),
    until nothing changes.
    """
    outside = mask.size
    index = np.where(mask, np.arange(mask.size).reshape(mask.shape), outside)
    while True:
        padded = np.pad(index, 1, constant_values=outside)
        around = np.minimum.reduce([padded[:-2, 1:-1], padded[2:, 1:-1], padded[1:-1, :-2], padded[1:-1, 2:], index])
        new = np.append(np.where(mask, around, outside).ravel(), outside)
        new = new[new][:-1].reshape(mask.shape)
        if (new == index).all():
            break
        index = new
    names, counts = np.unique(index[mask], return_counts=True)
    pieces = [index == name for name in names[counts >= SMALLEST * mask.size]]
    return [piece for piece in pieces if _core(piece).any()]


def _core(mask: Mask) -> Mask:
    """The mask without its outer two rings of pixels, which are blends with what lies around."""
    for _ in range(2):
        padded = np.pad(mask, 1)
        mask = mask & padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return mask


def _cut(piece: Mask, kinds: NDArray[np.intp]) -> list[Mask]:
    """One piece as the things in it: itself where one named colour rules, else its parts by named colour."""
    present, counts = np.unique(kinds[piece], return_counts=True)
    if counts.max() >= 0.7 * counts.sum():
        return [piece]
    return [part for kind in present for part in _pieces(piece & (kinds == kind))]


def _describe(mask: Mask, lab: Floats) -> Found:
    inside = _core(mask)
    rows, columns = np.nonzero(mask)
    scores = _overlaps(_normal(mask))
    best = max(scores, key=lambda shape: scores[shape])
    return Found(
        colour=name_colour(np.median(lab[inside], axis=0)),
        shape=best if scores[best] >= 1 - TOLERANCE * _references()[best].perimeter else None,
        centre=(float(columns.mean() + 0.5) / mask.shape[1], float(rows.mean() + 0.5) / mask.shape[0]),
        area=float(mask.mean()),
        match=scores[best],
    )


def _normal(mask: Mask) -> Floats:
    """The mask moved to its centre of gravity and scaled to a fixed area, on the comparing grid, flattened."""
    rows, columns = np.nonzero(mask)
    steps = ((np.arange(GRID) + 0.5) / GRID - 0.5) * 2.6 * np.sqrt(len(rows))
    y, x = rows.mean() + steps + 1, columns.mean() + steps + 1  # + 1: the padding
    padded = np.pad(mask.astype(np.float64), 1)
    y, x = np.clip(y, 0, padded.shape[0] - 1.001), np.clip(x, 0, padded.shape[1] - 1.001)
    top, left = y.astype(int), x.astype(int)
    v, u = (y - top)[:, None], (x - left)[None]
    upper = padded[top][:, left] * (1 - u) + padded[top][:, left + 1] * u
    lower = padded[top + 1][:, left] * (1 - u) + padded[top + 1][:, left + 1] * u
    return (upper * (1 - v) + lower * v).ravel().astype(np.float32)


@dataclass(frozen=True, eq=False)
class _Reference:
    """One shape as it may look."""

    drawings: Floats
    """Normalised as pieces are: ``drawings x grid``."""
    squares: Floats
    """The sum of squares of each."""
    perimeter: float
    """In square roots of the area."""


@cache
def _references() -> Mapping[str, _Reference]:
    """Every shape over the allowed turns, drawn thin, true and bold."""
    weights = (ImageFilter.MinFilter(WEIGHT), ImageFilter.MinFilter(1), ImageFilter.MaxFilter(WEIGHT))
    references = {}
    for shape in SHAPES:
        drawn = [Image.fromarray(silhouette(shape, SIDE, radius=0.65, turn=turn)).convert("L") for turn in TURNS]
        drawings = np.stack(
            [_normal(np.asarray(image.filter(weight)) > 127) for image in drawn for weight in weights], dtype=np.float32
        )
        # The total variation of a blurred silhouette is the length of its outline.
        soft = np.asarray(drawn[len(drawn) // 2].filter(ImageFilter.GaussianBlur(1.5)), dtype=np.float64) / 255
        down, across = np.gradient(soft)
        perimeter = float(np.hypot(down, across).sum() / np.sqrt(soft.sum()))
        references[shape] = _Reference(drawings, (drawings**2).sum(-1), perimeter)
    return references


def _overlaps(normal: Floats) -> dict[str, float]:
    """Intersection over union with each shape's best drawing (Tanimoto's form, which holds for blended pixels too)."""
    scores = {}
    for shape, reference in _references().items():
        shared = reference.drawings @ normal
        scores[shape] = float((shared / (reference.squares + (normal**2).sum() - shared)).max())
    return scores
