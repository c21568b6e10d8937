"""The corpus without the network: names, splits, scenes and captions on a handful of made-up icons."""

import json
from pathlib import Path

import numpy as np
import pytest

from mindseye.data.colours import COLOURS
from mindseye.data.glyphs import SIDE, Corpus, IconRow, attribution, share
from mindseye.data.iconsets import EMOJIBASE, ICON_SETS, fetch
from mindseye.data.names import Names, with_article
from mindseye.data.scenes import IconRef, Thing, names_plain_shapes, names_relation, paint, plural, relation_scene
from mindseye.data.shapes import SHAPES, silhouette
from mindseye.errors import DataError

EMOJIBASE_SAMPLE = [
    {"label": "red apple", "tags": ["apple", "fruit"], "group": 4},
    {
        "label": "man mage",
        "tags": ["wizard"],
        "group": 1,
        "skins": [
            {"label": "man mage: light skin tone", "tone": 1},
            {"label": "man mage: medium-dark skin tone", "tone": 4},
        ],
    },
    {"label": "flag: Spain", "tags": [], "group": 9},
    {"label": "musical note", "tags": ["music"], "group": 7},
    {"label": "cat", "tags": ["pet"], "group": 3},
]


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    sets = [pin.key for pin in ICON_SETS]
    rows = [
        IconRow(set=key, name=f"thing-{n}", label=f"thing {n}", tone="", tags=("tag",), group=7)
        for n in range(60)
        for key in sets[:5]
    ]
    icons = np.random.default_rng(0).integers(0, 256, (len(rows), SIDE, SIDE, 4), dtype=np.uint8)
    return Corpus(icons, rows)


@pytest.mark.parametrize(
    ("name", "label", "tone"),
    [
        ("red-apple", "red apple", ""),
        ("man-mage-light-skin-tone", "man mage", "light skin"),
        ("man-mage-medium-dark", "man mage", "medium dark skin"),
        ("flag-spain", "flag of spain", ""),
        ("flag-for-spain", "flag of spain", ""),
        ("flag-for-flag-spain", "flag of spain", ""),
        ("musicalnote", "musical note", ""),
        ("musical-note-2", "musical note", ""),
        ("redcat", "red cat", ""),
        ("woman-merfolk-dark", "woman merfolk", "dark skin"),
        ("zzyzx", "zzyzx", ""),
    ],
)
def test_names_become_words(name: str, label: str, tone: str) -> None:
    found = Names(EMOJIBASE_SAMPLE).find(name)
    assert (found.label, found.tone) == (label, tone)


def test_articles_and_plurals() -> None:
    assert with_article("owl") == "an owl" and with_article("unicorn") == "a unicorn"
    assert with_article("french fries") == "french fries" and with_article("glass") == "a glass"
    assert plural("red cross") == "red crosses" and plural("strawberry") == "strawberries"
    assert plural("man mage with dark skin") == "man mages with dark skin"


def test_an_example_is_a_function_of_seed_and_index(corpus: Corpus) -> None:
    a, b = corpus.example(17, seed=3), corpus.example(17, seed=3)
    assert a.caption == b.caption and (a.array() == b.array()).all()
    assert len({corpus.example(i, seed=3).caption for i in range(50)}) > 40
    assert a.array().shape == (SIDE, SIDE, 3)


def test_training_never_shows_what_the_splits_keep(corpus: Corpus) -> None:
    hidden = {i for i, split in enumerate(corpus.split_of) if split is not None}
    assert {corpus.split_of[i] for i in hidden} == {"pairs", "concepts"}
    for example in corpus.train_examples(1500):
        for placed in example.scene.things:
            if placed.thing.icon is not None:
                assert placed.thing.icon.row not in hidden
    assert {e.scene.things[0].thing.icon.row for s in ("pairs", "concepts") for e in corpus.held_out(s)} == hidden


def test_a_held_out_pair_is_a_known_concept_in_a_known_style(corpus: Corpus) -> None:
    shown = {corpus.rows[i].label for i, split in enumerate(corpus.split_of) if split is None}
    pairs = [corpus.rows[i] for i, split in enumerate(corpus.split_of) if split == "pairs"]
    assert pairs and all(row.label in shown for row in pairs)
    concepts = [corpus.rows[i] for i, split in enumerate(corpus.split_of) if split == "concepts"]
    assert concepts and not any(row.label in shown for row in concepts)
    styles = {pin.key: pin.styles[0] for pin in ICON_SETS}
    for example in corpus.held_out("pairs"):
        icon = example.scene.things[0].thing.icon
        assert icon is not None and styles[corpus.rows[icon.row].set] in example.caption


def test_unseen_relations_stay_unseen(corpus: Corpus) -> None:
    for example in corpus.held_out("relations", relations=40):
        a, b = (placed.thing.words for placed in example.scene.things)
        relation = next(
            r for r in ("left of", "right of", "above", "below", "next to", "beside") if r in example.caption
        )
        assert share(f"relation:{a}|{relation.replace('beside', 'next to')}|{b}") < 0.1


def test_captions_say_where_things_are() -> None:
    rng = np.random.default_rng(0)
    red, blue = Thing(shape="circle", colour="red"), Thing(shape="square", colour="blue")
    for relation, axis, sign in (("left of", 0, -1), ("right of", 0, 1), ("above", 1, -1), ("below", 1, 1)):
        for _ in range(20):
            scene = relation_scene(rng, red, relation, blue)
            picture = paint(scene, np.zeros((0, SIDE, SIDE, 4), np.uint8), SIDE).astype(int)
            spots = [np.argwhere((abs(picture - COLOURS[c]).sum(-1)) < 12).mean(0)[::-1] for c in ("red", "blue")]
            assert sign * (spots[0][axis] - spots[1][axis]) > 20, scene.caption
            assert scene.background not in ("red", "blue")


@pytest.mark.parametrize(
    ("caption", "plain"),
    [
        ("a yellow diamond beside a purple crescent on a green background", True),
        ("two black crosses", True),
        ("three red hearts on an orange background", True),
        ("a red apple", False),
        ("a heart, glossy 3d", False),
    ],
)
def test_captions_of_plain_shapes_are_known(caption: str, plain: bool) -> None:
    assert names_plain_shapes(caption) == plain


def test_what_the_corpus_says_of_shapes_alone_is_plain(corpus: Corpus) -> None:
    scenes = [corpus.example(index).scene for index in range(200)]
    shapes = [all(placed.thing.icon is None for placed in scene.things) for scene in scenes]
    assert 20 < sum(shapes) < 180
    for scene, plain in zip(scenes, shapes, strict=True):
        assert names_plain_shapes(scene.caption) == plain, scene.caption


@pytest.mark.parametrize(
    ("caption", "related"),
    [
        ("a red star to the left of a blue ring", True),
        ("a red star beside a blue ring on a pink background", True),
        ("a cat above a musical note, flat", True),
        ("a red star on a white background", False),
        ("three red stars", False),
        ("a left hand", False),
    ],
)
def test_captions_that_say_where_things_stand_are_known(caption: str, related: bool) -> None:
    assert names_relation(caption) == related


def test_a_dyed_icon_takes_the_colour_and_keeps_its_shading() -> None:
    tile = np.zeros((1, SIDE, SIDE, 4), np.uint8)
    tile[0, 32:96, 32:96] = (250, 214, 40, 255)
    tile[0, 48:64, 48:64] = (40, 30, 0, 255)
    from mindseye.data.scenes import Placed, Scene

    thing = Thing(icon=IconRef(row=0, label="box"), colour="blue")
    picture = paint(Scene(caption="", things=(Placed(thing=thing, x=0.5, y=0.5, radius=0.5),)), tile, SIDE)
    middle, dark = picture[80, 80].astype(int), picture[56, 56].astype(int)
    assert middle[2] > middle[0] + 60 and dark.sum() < middle.sum()


def test_silhouettes_differ() -> None:
    masks = {shape: silhouette(shape, 64) for shape in SHAPES}
    for a in masks:
        for b in masks:
            if a != b:
                overlap = (masks[a] & masks[b]).sum() / (masks[a] | masks[b]).sum()
                assert overlap < 0.93, (a, b)
    assert not masks["ring"][32, 32] and masks["circle"][32, 32]


def test_only_permissive_licences_and_all_are_attributed() -> None:
    text = attribution()
    for pin in (*ICON_SETS, EMOJIBASE):
        assert pin.licence in {"Apache-2.0", "MIT", "CC-BY-4.0"}
        assert pin.integrity.startswith("sha512-") and pin.source in text and pin.author in text


def test_a_package_that_is_not_the_pinned_one_is_refused(tmp_path: Path) -> None:
    pin = ICON_SETS[0]
    (tmp_path / f"iconify-json-noto-{pin.version}.tgz").write_bytes(b"not it")
    with pytest.raises(DataError, match="hash differs"):
        fetch(pin, tmp_path)


def test_no_corpus_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no glyphs corpus"):
        Corpus.open(tmp_path)
    (tmp_path / "index.json").write_text(json.dumps({"version": 99}))
    with pytest.raises(DataError, match="version 99"):
        Corpus.open(tmp_path)
