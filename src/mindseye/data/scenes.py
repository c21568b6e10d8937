"""Scenes: one to three objects on a background, with a caption that says exactly what is there.

A `Scene` is a description, drawn from a numpy generator and painted afterwards, so that the caption, the placement and
the split it belongs to are known without looking at pixels.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from mindseye.data.colours import COLOURS
from mindseye.data.names import with_article
from mindseye.data.shapes import SHAPES, coverage

__all__ = [
    "RELATIONS",
    "IconRef",
    "Placed",
    "Scene",
    "Thing",
    "clip_scene",
    "names_plain_shapes",
    "names_relation",
    "paint",
    "relation_scene",
    "row_scene",
    "single_scene",
    "strip_scene",
]

Relation = Literal["left of", "right of", "above", "below", "next to"]
RELATIONS: Final[tuple[Relation, ...]] = ("left of", "right of", "above", "below", "next to")
PHRASES: Final = {
    "left of": ("left of", "to the left of"),
    "right of": ("right of", "to the right of"),
    "above": ("above", "above"),
    "below": ("below", "below"),
    "next to": ("next to", "beside"),
}
BACKGROUNDS: Final = tuple(COLOURS)
STYLE_SHARE: Final = 0.55
"""How often a caption names the style of its icons."""
MOTIONS: Final = {
    "moving to the right": (1, 0, 0.0),
    "moving to the left": (-1, 0, 0.0),
    "moving up": (0, -1, 0.0),
    "moving down": (0, 1, 0.0),
    "growing": (0, 0, 1.2),
    "shrinking": (0, 0, -1.2),
}
"""What a thing does in a clip: its way to the right and down, and its growth, as a share of what it is on average."""
NUMBERS: Final = {2: "two", 3: "three"}
_PLAIN: Final = frozenset(
    [*"a an and on background".split(), *NUMBERS.values(), *COLOURS, *SHAPES]
    + [f"{shape}{ending}" for shape in SHAPES for ending in ("s", "es")]
    + [word for phrases in PHRASES.values() for phrase in phrases for word in phrase.split()]
)
_RELATED: Final = re.compile(rf"\b(?:{'|'.join(phrase for phrases in PHRASES.values() for phrase in phrases)})\b")


@dataclass(frozen=True, kw_only=True)
class IconRef:
    """An icon of the corpus: its row and its words."""

    row: int
    label: str
    tone: str = ""


@dataclass(frozen=True, kw_only=True)
class Thing:
    """One kind of object: an icon, or a shape when ``icon`` is None."""

    icon: IconRef | None = None
    shape: str = ""
    colour: str = ""
    """A shape's colour; for an icon, the colour that it is dyed, or empty."""

    @property
    def words(self) -> str:
        """``"red circle"``, ``"blue owl"``, ``"man mage with dark skin"``."""
        if self.icon is None:
            return f"{self.colour} {self.shape}"
        tone = f" with {self.icon.tone}" if self.icon.tone else ""
        return f"{self.colour} {self.icon.label}{tone}".strip()


@dataclass(frozen=True, kw_only=True)
class Placed:
    """A thing at a place: centre and radius as shares of the picture's height, turn in degrees."""

    thing: Thing
    x: float
    y: float
    radius: float
    turn: float = 0.0
    flip: bool = False


@dataclass(frozen=True, kw_only=True)
class Scene:
    """What is in a picture, and the words for it."""

    caption: str
    things: tuple[Placed, ...]
    background: str = "white"
    jitter: tuple[int, int, int] = field(default=(0, 0, 0))
    """Added to the background's sRGB bytes."""


def single_scene(
    rng: np.random.Generator,
    thing: Thing,
    *,
    style: str = "",
    tags: Sequence[str] = (),
    flip: bool = False,
    name_style: bool = False,
) -> Scene:
    """One object near the middle. ``name_style``: the caption always says the style, not only sometimes."""
    icon = thing.icon is not None
    radius = rng.uniform(0.38, 0.47) if icon else rng.uniform(0.2, 0.4)
    slack = 0.5 - radius
    x, y = 0.5 + rng.uniform(-slack, slack, 2) * (0.5 if icon else 0.8)
    words = with_article(thing.words) if rng.random() < (0.6 if icon else 0.85) else thing.words
    if tags and rng.random() < 0.2:
        words += ", " + ", ".join(rng.choice(list(tags), size=min(len(tags), 2), replace=False))
    placed = Placed(thing=thing, x=float(x), y=float(y), radius=float(radius), flip=flip, turn=_turn(rng, thing))
    return _with_background(rng, words, (placed,), style, 1.0 if name_style else STYLE_SHARE)


def relation_scene(rng: np.random.Generator, first: Thing, relation: str, second: Thing, *, style: str = "") -> Scene:
    """``first`` left of, right of, above, below or next to ``second``."""
    spot = {"left of": (-1, 0), "right of": (1, 0), "above": (0, -1), "below": (0, 1)}
    dx, dy = spot.get(relation, ((1, 0), (-1, 0))[int(rng.integers(2))])
    gap = rng.uniform(0.21, 0.26)
    # The cross axis wanders a little, so that "left of" is not learned as one fixed picture.
    drift = rng.uniform(-0.06, 0.06, 2)
    things = []
    for thing, sign in ((first, 1), (second, -1)):
        radius = rng.uniform(0.14, 0.2) if thing.icon is None else rng.uniform(0.18, 0.215)
        x = 0.5 + sign * dx * gap + (drift[0] if dx == 0 else 0)
        y = 0.5 + sign * dy * gap + (drift[1] if dy == 0 else 0)
        things.append(Placed(thing=thing, x=float(x), y=float(y), radius=float(radius), turn=_turn(rng, thing)))
    phrase = PHRASES[relation][int(rng.random() < 0.3)]
    return _with_background(
        rng, f"{with_article(first.words)} {phrase} {with_article(second.words)}", tuple(things), style
    )


def row_scene(rng: np.random.Generator, things: Sequence[Thing], *, style: str = "") -> Scene:
    """Two or three of one thing ("three red stars"), or different ones, left to right ("a dog, a cat and a hat")."""
    count = len(things)
    radius = rng.uniform(0.13, 0.155) if count == 3 else rng.uniform(0.17, 0.21)
    xs = (0.18, 0.5, 0.82) if count == 3 else (0.27, 0.73)
    level = 0.5 + rng.uniform(-0.1, 0.1)
    placed = tuple(
        Placed(
            thing=thing, x=x, y=float(level + rng.uniform(-0.02, 0.02)), radius=float(radius), turn=_turn(rng, thing)
        )
        for thing, x in zip(things, xs, strict=True)
    )
    if all(thing == things[0] for thing in things):
        caption = f"{NUMBERS[count]} {plural(things[0].words)}"
    else:
        names = [with_article(thing.words) for thing in things]
        caption = ", ".join(names[:-1]) + " and " + names[-1]
    return _with_background(rng, caption, placed, style)


def strip_scene(rng: np.random.Generator, things: Sequence[Thing], *, style: str = "") -> Scene:
    """A wide row, as many times wider than high as there are things: "a row of red stars", or each by its name.

    A row of one kind begins anywhere, so that its ends cut through a thing; where each has a name, all are whole.
    """
    same = all(thing == things[0] for thing in things)
    start, row = (-rng.random(), [*things, things[0]]) if same else (0.0, [*things])
    placed = []
    for place, thing in enumerate(row):
        radius = rng.uniform(0.3, 0.42) if thing.icon is None else rng.uniform(0.4, 0.46)
        slack = 0.48 - radius
        x, y = 0.5 + start + place + rng.uniform(-slack, slack), 0.5 + rng.uniform(-slack, slack)
        placed.append(Placed(thing=thing, x=float(x), y=float(y), radius=float(radius), turn=_turn(rng, thing)))
    if same:
        caption = f"a row of {plural(things[0].words)}"
    else:
        names = [with_article(thing.words) for thing in things]
        caption = f"a row of {', '.join(names[:-1])} and {names[-1]}"
    return _with_background(rng, caption, tuple(placed), style)


def clip_scene(rng: np.random.Generator, thing: Thing, frames: int, *, style: str = "") -> tuple[Scene, ...]:
    """One object that moves across the picture, grows or shrinks, evenly: a scene a frame, all of one caption.

    Args:
        rng: Decides everything.
        thing: What moves.
        frames: How many, at least 2.
        style: Of an icon.
    """
    motion = list(MOTIONS)[int(rng.integers(len(MOTIONS)))]
    dx, dy, growth = MOTIONS[motion]
    radius, way = rng.uniform(0.24, 0.3), rng.uniform(0.36, 0.44)
    x, y = 0.5 + rng.uniform(-0.06, 0.06, 2)
    turn = _turn(rng, thing)
    row = []
    for share in np.linspace(-0.5, 0.5, frames):
        place = x + share * way * dx, y + share * way * dy
        size = radius * (1 + share * growth)
        row.append(Placed(thing=thing, x=float(place[0]), y=float(place[1]), radius=float(size), turn=turn))
    first = _with_background(rng, f"{with_article(thing.words)} {motion}", (row[0],), style)
    return tuple(replace(first, things=(placed,)) for placed in row)


def plural(words: str) -> str:
    """A plural good enough for captions."""
    head, _, tail = words.partition(" with ")
    if head.endswith(("s", "x", "sh", "ch")):
        head += "es" if not head.endswith("s") or head.endswith(("ss", "us")) else ""
    elif head.endswith("y") and head[-2] not in "aeiou":
        head = head[:-1] + "ies"
    else:
        head += "s"
    return f"{head} with {tail}" if tail else head


def names_plain_shapes(caption: str) -> bool:
    """Whether a caption speaks of plain shapes, their colours, number and places, and of nothing else."""
    return set(re.findall(r"[a-z]+", caption)) <= _PLAIN


def names_relation(caption: str) -> bool:
    """Whether a caption says where a thing stands from another."""
    return _RELATED.search(caption) is not None


def _turn(rng: np.random.Generator, thing: Thing) -> float:
    return float(rng.uniform(-8, 8)) if thing.icon is None else 0.0


def _with_background(
    rng: np.random.Generator, words: str, things: tuple[Placed, ...], style: str, named_style: float = STYLE_SHARE
) -> Scene:
    taken = {placed.thing.colour for placed in things}
    chance = rng.random()
    named = chance > 0.55
    background = "white"
    if named or "white" in taken:
        free = [c for c in BACKGROUNDS if c not in taken]
        background = free[int(rng.integers(len(free)))] if chance > 0.65 or "white" in taken else "white"
    if style and rng.random() < named_style:
        words = f"{words}, {style}"
    if named or background != "white":
        article = "an" if background[0] in "aeiou" else "a"
        words += f" on {article} {background} background"
    jitter = rng.integers(-8, 9, 3) if background != "white" else np.zeros(3, dtype=int)
    return Scene(
        caption=words, things=things, background=background, jitter=(int(jitter[0]), int(jitter[1]), int(jitter[2]))
    )


def paint(scene: Scene, icons: NDArray[np.uint8], size: int, width: int | None = None) -> NDArray[np.uint8]:
    """The picture of a scene: ``size x width x 3`` bytes.

    Args:
        scene: what to paint.
        icons: ``N side side 4`` rows of straight-alpha RGBA.
        size: the picture's height in pixels.
        width: its width; as its height when None.
    """
    from PIL import Image, ImageOps

    base = np.clip(np.array(COLOURS[scene.background]) + scene.jitter, 0, 255)
    canvas = Image.new("RGB", (width or size, size), (int(base[0]), int(base[1]), int(base[2])))
    for placed in scene.things:
        thing = placed.thing
        if thing.icon is None:
            # The mask covers the shape alone, not the picture: supersampling is the cost.
            side = int(2.3 * placed.radius * size) + 4
            left, top = round(placed.x * size - side / 2), round(placed.y * size - side / 2)
            centre = (placed.x * size - left, placed.y * size - top)
            alpha = coverage(thing.shape, centre, placed.radius * size, side, placed.turn)
            mask = Image.fromarray((alpha * 255).round().astype(np.uint8))
            canvas.paste(COLOURS[thing.colour], (left, top, left + side, top + side), mask)
            continue
        tile = icons[thing.icon.row]
        if thing.colour:
            tile = np.concatenate([dye(tile[..., :3].astype(np.float32), thing.colour), tile[..., 3:]], axis=-1)
            tile = tile.round().astype(np.uint8)
        icon = Image.fromarray(np.ascontiguousarray(tile))
        if placed.flip:
            icon = ImageOps.mirror(icon)
        side = max(2, round(2 * placed.radius * size))
        icon = icon.resize((side, side), Image.Resampling.BICUBIC)
        canvas.paste(icon, (round(placed.x * size - side / 2), round(placed.y * size - side / 2)), icon)
    return np.array(canvas)


def dye(rgb: NDArray[np.float32], colour: str) -> NDArray[np.float32]:
    """A picture in one hue: its light and dark kept, its colour replaced."""
    target = np.array(COLOURS[colour], np.float32)
    light = (rgb @ np.array([0.299, 0.587, 0.114], np.float32)) / 255
    # Dark parts stay dark, mid parts take the colour, highlights go towards white.
    dark = np.clip(light / 0.55, 0, 1)[..., None] ** 0.8
    shine = np.clip((light - 0.7) / 0.6, 0, 0.5)[..., None]
    floor = target * 0.28
    mid = floor + (target - floor) * dark
    return (mid + (255 - mid) * shine).astype(np.float32)
