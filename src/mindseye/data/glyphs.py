"""The pocket corpus: icons of nine openly licensed sets and plain shapes, in scenes with exact captions.

``prepare`` fetches, renders and indexes once; `Corpus` then is a pure function of (seed, index): example 17 of seed 3
is the same picture and caption on every machine, and no example of the training stream ever shows what a held-out split
keeps back. Three splits are fixed by hash: (concept, style) pairs, whole concepts, and relations.
"""

import hashlib
import json
import os
from collections import defaultdict
from collections.abc import Generator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

import numpy as np
from numpy.typing import NDArray

from mindseye.data.colours import COLOURS
from mindseye.data.iconsets import EMOJIBASE, ICON_SETS, Icon, IconSet, fetch, read_icons, read_json
from mindseye.data.names import Names
from mindseye.data.scenes import (
    RELATIONS,
    IconRef,
    Scene,
    Thing,
    clip_scene,
    paint,
    relation_scene,
    row_scene,
    single_scene,
    strip_scene,
)
from mindseye.data.shapes import SHAPES
from mindseye.errors import DataError, Missing
from mindseye.request import Progress

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["SIDE", "Corpus", "Example", "Split", "attribution", "prepare"]

SIDE: Final = 128
"""Pixels a side of a rendered icon and of the corpus' pictures."""
VERSION: Final = 1
Split = Literal["pairs", "concepts", "relations"]
DYEABLE: Final = frozenset({3, 4, 5, 6, 7})
FLIPPABLE: Final = frozenset({1, 3, 4})
# What makes a mirrored picture wrong, or a second colour in the caption contradictory.
ONE_WAY: Final = ("left", "right", "clock", "facing", "letter", "sign", "flag", "keycap", "button")


@dataclass(frozen=True, kw_only=True)
class IconRow:
    """One rendered icon in the index."""

    set: str
    name: str
    label: str
    tone: str
    tags: tuple[str, ...]
    group: int

    @property
    def pair(self) -> str:
        """What the split of unseen pairs keeps apart: every tone of a concept in a style belongs together."""
        return f"{self.label}|{self.set}"


@dataclass(frozen=True)
class Example:
    """A scene and the corpus that can paint it."""

    scene: Scene
    corpus: "Corpus"

    @property
    def caption(self) -> str:
        """Exactly what the picture shows."""
        return self.scene.caption

    def array(self) -> NDArray[np.uint8]:
        """``SIDE SIDE 3`` bytes."""
        return paint(self.scene, self.corpus.icons, SIDE)

    def picture(self) -> "Image":
        """The picture."""
        from PIL import Image

        return Image.fromarray(self.array())


def prepare(root: Path, workers: int = 2) -> Generator[Progress, None, Path]:
    """Fetch every set, render each icon at `SIDE` pixels and write the index into ``root``.

    Files: ``icons.npy`` (``N SIDE SIDE 4`` straight-alpha RGBA), ``index.json``, ``ATTRIBUTION.md``. Each is written
    beside its place and renamed, ``index.json`` last, so an interrupted run leaves no half corpus.

    Raises:
        DataError: a package cannot be fetched or is not the pinned one.
        Missing: resvg-py is not installed.
    """
    try:
        import resvg_py  # noqa: F401
    except ImportError as error:
        raise Missing("train", "rendering the corpus") from error
    root.mkdir(parents=True, exist_ok=True)
    packages: list[tuple[IconSet, Path]] = []
    for number, pin in enumerate((*ICON_SETS, EMOJIBASE)):
        yield Progress("fetch", number, len(ICON_SETS) + 1, tuple)
        packages.append((pin, fetch(pin, root / "packages")))
    labels = read_json(packages.pop()[1], "en/data.json")
    icons: list[Icon] = [icon for pin, package in packages for icon in read_icons(pin, package)]
    names = Names(labels, (icon.name for icon in icons if icon.set != "fxemoji"))
    part = root / "icons.part.npy"
    store = np.lib.format.open_memmap(part, mode="w+", dtype=np.uint8, shape=(len(icons), SIDE, SIDE, 4))
    rows: list[IconRow] = []
    with ProcessPoolExecutor(max_workers=workers) as pool:
        for number, tile in enumerate(pool.map(render, (icon.svg for icon in icons), chunksize=64)):
            icon = icons[number]
            if tile is None:
                continue
            concept = names.find(icon.name)
            store[len(rows)] = tile
            rows.append(
                IconRow(
                    set=icon.set,
                    name=icon.name,
                    label=concept.label,
                    tone=concept.tone,
                    tags=concept.tags,
                    group=concept.group,
                )
            )
            if number % 50 == 0:
                yield Progress("render", number, len(icons), tuple)
    store.flush()
    del store
    os.replace(part, root / "icons.npy")
    (root / "ATTRIBUTION.md").write_text(attribution(), encoding="utf-8")
    index = {"version": VERSION, "side": SIDE, "icons": [row.__dict__ for row in rows]}
    _write(root / "index.json", json.dumps(index, ensure_ascii=False))
    yield Progress("render", len(icons), len(icons), tuple)
    return root


def render(svg: str) -> NDArray[np.uint8] | None:
    """An SVG as ``SIDE SIDE 4`` straight-alpha RGBA, centred when not square; None when nothing is drawn."""
    import io

    import resvg_py
    from PIL import Image

    try:
        png = bytes(resvg_py.svg_to_bytes(svg_string=svg, width=SIDE, height=SIDE))
    except Exception:  # an SVG that the renderer refuses is left out of the corpus, whatever its reason
        return None
    picture = Image.open(io.BytesIO(png)).convert("RGBA")
    tile = Image.new("RGBA", (SIDE, SIDE))
    picture.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    tile.paste(picture, ((SIDE - picture.width) // 2, (SIDE - picture.height) // 2))
    array = np.asarray(tile)
    return array if array[..., 3].any() else None


class Corpus:
    """The prepared corpus.

    Args:
        icons: ``N SIDE SIDE 4`` straight-alpha RGBA rows.
        rows: what each row shows.
    """

    def __init__(self, icons: NDArray[np.uint8], rows: Sequence[IconRow]) -> None:
        self.icons = icons
        self.rows = tuple(rows)
        self.styles = {pin.key: pin.styles for pin in ICON_SETS}
        sets_of: dict[str, set[str]] = defaultdict(set)
        for row in self.rows:
            sets_of[row.label].add(row.set)
        self.split_of = [self._split(row, len(sets_of[row.label])) for row in self.rows]
        train = [i for i, split in enumerate(self.split_of) if split is None]
        # A concept comes in five skin tones a set; unweighted, people would be two pictures of three.
        weights = np.array([0.25 if self.rows[i].tone else 0.5 if self.rows[i].group == 9 else 1.0 for i in train])
        self._train = np.array(train)
        self._cumulative = np.cumsum(weights) / weights.sum() if train else weights
        by_set: dict[str, list[int]] = defaultdict(list)
        for i in train:
            if not self.rows[i].tone and self.rows[i].group in DYEABLE | {0, 1}:
                by_set[self.rows[i].set].append(i)
        self._by_set = {key: members for key, members in by_set.items() if len(members) > 1}

    @classmethod
    def open(cls, root: Path) -> "Corpus":
        """The corpus that `prepare` wrote into ``root``.

        Raises:
            DataError: there is none, or it is of another version.
        """
        try:
            index = json.loads((root / "index.json").read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise DataError(f"{root} holds no glyphs corpus", hint="make it with: mindseye data glyphs") from error
        if index.get("version") != VERSION:
            raise DataError(
                f"the corpus in {root} is of version {index.get('version')}, and {VERSION} is needed",
                hint="make it again with: mindseye data glyphs",
            )
        rows = [IconRow(**{**row, "tags": tuple(row["tags"])}) for row in index["icons"]]
        return cls(np.load(root / "icons.npy", mmap_mode="r")[: len(rows)], rows)

    @staticmethod
    def _split(row: IconRow, sets: int) -> Split | None:
        if share(f"concept:{row.label}") < 0.03:
            return "concepts"
        return "pairs" if sets >= 3 and share(f"pair:{row.pair}") < 0.06 else None

    def example(self, index: int, seed: int = 0) -> Example:
        """Example ``index`` of the endless training stream ``seed``."""
        rng = np.random.default_rng([seed, index])
        while True:
            scene = self._draw(rng)
            if scene is not None:
                return Example(scene, self)

    def train_examples(self, count: int, seed: int = 0) -> list[Example]:
        """The first ``count`` of the training stream."""
        return [self.example(i, seed) for i in range(count)]

    def held_out(self, split: Split, seed: int = 0, relations: int = 400) -> list[Example]:
        """Everything that a split keeps from training, each once, captioned with its style."""
        rng = np.random.default_rng([seed, 1_000_003])
        if split == "relations":
            scenes: list[Example] = []
            while len(scenes) < relations:
                a, b, relation = self._shape(rng), self._shape(rng), RELATIONS[int(rng.integers(len(RELATIONS)))]
                if a.colour != b.colour and share(f"relation:{a.words}|{relation}|{b.words}") < 0.1:
                    scenes.append(Example(relation_scene(rng, a, relation, b), self))
            return scenes
        found = []
        for i, row in enumerate(self.rows):
            if self.split_of[i] == split:
                scene = single_scene(rng, Thing(icon=self.ref(i)), style=self.styles[row.set][0], name_style=True)
                found.append(Example(scene, self))
        return found

    def ref(self, row: int) -> IconRef:
        """The words and place of an icon."""
        return IconRef(row=row, label=self.rows[row].label, tone=self.rows[row].tone)

    def strip(self, index: int, things: int = 4, seed: int = 0) -> Scene:
        """A wide scene of so many things in a row, of the same or of several kinds, all of the training stream."""
        rng = np.random.default_rng([seed, index, 1_000_033])
        same = rng.random() < 0.7
        chosen, style = self._things(rng, 1 if same else things)
        return strip_scene(rng, chosen * things if same else chosen, style=style)

    def clip(self, index: int, frames: int = 4, seed: int = 0) -> tuple[Scene, ...]:
        """A thing of the training stream that moves, grows or shrinks: a scene a frame, all of one caption."""
        rng = np.random.default_rng([seed, index, 1_000_039])
        (thing,), style = self._things(rng, 1)
        return clip_scene(rng, thing, frames, style=style)

    def _things(self, rng: np.random.Generator, count: int) -> tuple[list[Thing], str]:
        """So many things of the training stream, shapes or icons of one set, and what the set's style is called."""
        if rng.random() < 0.4 or not self._by_set:
            chosen: list[Thing] = []
            while len(chosen) < count:
                thing = self._shape(rng)
                if share(f"shape:{thing.words}") >= 0.04:
                    chosen.append(thing)
            return chosen, ""
        key = list(self._by_set)[int(rng.integers(len(self._by_set)))]
        members, styles = self._by_set[key], self.styles[key]
        style = styles[int(rng.integers(len(styles)))]
        picked = rng.integers(0, len(members), count)
        return [Thing(icon=self.ref(members[int(each)])) for each in picked], style

    def _draw(self, rng: np.random.Generator) -> Scene | None:
        kind = rng.random()
        if kind < 0.62:
            return self._single(rng, dyed=kind < 0.09)
        if kind < 0.74:
            thing = self._shape(rng)
            return None if share(f"shape:{thing.words}") < 0.04 else single_scene(rng, thing)
        if kind < 0.86:
            a, b = self._shape(rng), self._shape(rng)
            relation = RELATIONS[int(rng.integers(len(RELATIONS)))]
            if a.colour == b.colour or share(f"relation:{a.words}|{relation}|{b.words}") < 0.1:
                return None
            return relation_scene(rng, a, relation, b)
        if kind < 0.9:
            return row_scene(rng, [self._shape(rng)] * int(rng.integers(2, 4)))
        key = list(self._by_set)[int(rng.integers(len(self._by_set)))]
        styles = self.styles[key]
        style = styles[int(rng.integers(len(styles)))]
        members = self._by_set[key]
        chosen = [Thing(icon=self.ref(members[int(k)])) for k in rng.integers(0, len(members), 3)]
        if kind < 0.95:
            relation = RELATIONS[int(rng.integers(len(RELATIONS)))]
            if share(f"relation:{chosen[0].words}|{relation}|{chosen[1].words}") < 0.1:
                return None
            return relation_scene(rng, chosen[0], relation, chosen[1], style=style)
        if kind < 0.98:
            return row_scene(rng, [chosen[0]] * int(rng.integers(2, 4)), style=style)
        return row_scene(rng, chosen, style=style)

    def _single(self, rng: np.random.Generator, *, dyed: bool) -> Scene | None:
        i = int(self._train[min(int(np.searchsorted(self._cumulative, rng.random())), len(self._train) - 1)])
        row = self.rows[i]
        colour = ""
        if dyed:
            if row.group not in DYEABLE or row.tone or any(word in COLOURS for word in row.label.split()):
                return None
            colour = list(COLOURS)[int(rng.integers(len(COLOURS)))]
        styles = self.styles[row.set]
        flip = row.group in FLIPPABLE and not any(word in row.label for word in ONE_WAY) and rng.random() < 0.35
        thing = Thing(icon=self.ref(i), colour=colour)
        style = styles[int(rng.integers(len(styles)))]
        return single_scene(rng, thing, style=style, tags=row.tags, flip=bool(flip))

    @staticmethod
    def _shape(rng: np.random.Generator) -> Thing:
        colour = list(COLOURS)[int(rng.integers(len(COLOURS)))]
        return Thing(shape=list(SHAPES)[int(rng.integers(len(SHAPES)))], colour=colour)


def share(key: str) -> float:
    """A number in [0, 1) that only the key decides, the same everywhere."""
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") / 2**64


def attribution() -> str:
    """Who drew the corpus, under which licences: the file that ships with the weights."""
    lines = [
        "# Attribution",
        "",
        "The pocket weights were trained on pictures composed from these icon sets: rendered, resized, mirrored, dyed",
        "and placed on coloured backgrounds. Thanks to everyone who drew them.",
        "",
        "| set | drawn by | licence | source | package, version |",
        "|---|---|---|---|---|",
    ]
    for pin in (*ICON_SETS, EMOJIBASE):
        lines.append(f"| {pin.title} | {pin.author} | {pin.licence} | <{pin.source}> | {pin.package} {pin.version} |")
    lines += [
        "",
        "CC-BY-4.0: <https://creativecommons.org/licenses/by/4.0/>. Apache-2.0: <https://www.apache.org/licenses/LICENSE-2.0>.",
        "MIT: <https://opensource.org/license/mit>. Emojibase gives names and keywords, no pictures.",
        "",
    ]
    return "\n".join(lines)


def _write(path: Path, text: str) -> None:
    part = path.with_name(path.name + ".part")
    part.write_text(text, encoding="utf-8")
    os.replace(part, path)
