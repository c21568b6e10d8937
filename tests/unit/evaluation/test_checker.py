"""The checker against pictures painted here: right on clean and soft ones, and not to be talked into wrong ones."""

import itertools
import math

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter

from mindseye.data.colours import COLOURS
from mindseye.data.shapes import SHAPES, coverage
from mindseye.evaluation.checker import colour_shape, found, name_colour, oklab, placed, relation, shows, shows_relation

SIDE = 128
THINGS = list(itertools.product(COLOURS, SHAPES))
SPOTS = {"left of": (-1, 0), "right of": (1, 0), "above": (0, -1), "below": (0, 1)}


def paint(things, ground):
    """(colour as bytes, shape, centre, radius, turn) each, on a colour, as the corpus paints them."""
    canvas = np.ones((SIDE, SIDE, 3)) * ground
    for colour, shape, (x, y), radius, turn in things:
        alpha = coverage(shape, (x * SIDE, y * SIDE), radius * SIDE, SIDE, turn)[..., None]
        canvas = canvas * (1 - alpha) + alpha * np.array(colour)
    return Image.fromarray(canvas.round().clip(0, 255).astype(np.uint8))


def spoil(picture, rng):
    """Soft and grainy, as small decoders draw."""
    array = np.asarray(picture.filter(ImageFilter.GaussianBlur(1.5)), float) + rng.normal(0, 8, (SIDE, SIDE, 3))
    return Image.fromarray(array.round().clip(0, 255).astype(np.uint8))


def jittered(colour, rng):
    return np.clip(np.array(COLOURS[colour]) + rng.integers(-12, 13, 3), 0, 255)


def draw(*polygons, colour="red", ground="white"):
    """Polygons in a box of 128, drawn large and shrunk."""
    picture = Image.new("RGB", (512, 512), COLOURS[ground])
    for polygon in polygons:
        ImageDraw.Draw(picture).polygon([(4 * x, 4 * y) for x, y in polygon], fill=COLOURS[colour])
    return picture.resize((SIDE, SIDE), Image.Resampling.BOX)


def polygon(corners, across=40.0, down=40.0, turn=-90.0, inner=1.0):
    steps = [(across * r, down * r) for _ in range(corners) for r in ((1,) if inner == 1 else (1, inner))]
    angles = [math.radians(turn + 360 * k / len(steps)) for k in range(len(steps))]
    return [(64 + a * math.cos(t), 64 + d * math.sin(t)) for (a, d), t in zip(steps, angles, strict=True)]


def test_oklab_of_known_colours():
    # The published example values: white, and sRGB's primaries as every implementation gives them.
    known = {
        (1, 1, 1): (1.0, 0.0, 0.0),
        (1, 0, 0): (0.6280, 0.2249, 0.1258),
        (0, 1, 0): (0.8664, -0.2339, 0.1795),
        (0, 0, 1): (0.4520, -0.0325, -0.3115),
        (0, 0, 0): (0.0, 0.0, 0.0),
    }
    for rgb, lab in known.items():
        assert np.allclose(oklab(np.array(rgb, float)), lab, atol=2e-4)


def test_every_colour_has_its_own_name_and_strange_ones_none():
    for name, rgb in COLOURS.items():
        assert name_colour(oklab(np.array(rgb) / 255)) == name
    assert name_colour(oklab(np.array([0.1, 1.0, 0.1]))) is None  # brighter and purer than any green here


def scenes(spoiled):
    """Two things a picture, so that all colours and shapes come by in the harder case; each with what it shows."""
    rng = np.random.default_rng(1)
    order = rng.permutation(len(THINGS))
    for k in range(0, len(THINGS), 2 if spoiled else 4):
        one, other = THINGS[order[k]], THINGS[order[k + 1]]
        where = list(SPOTS)[k // 4 % 4]
        spot = np.array(SPOTS[where]) * 0.24
        ground = next(c for c in rng.permutation(list(COLOURS)) if c not in (one[0], other[0]))
        drift = rng.uniform(-0.05, 0.05, 2)
        radii, turns = rng.uniform(0.14, 0.2, 2), rng.uniform(-12, 12, 2)
        picture = paint(
            [
                (jittered(one[0], rng), one[1], 0.5 + spot + drift, radii[0], turns[0]),
                (jittered(other[0], rng), other[1], 0.5 - spot + drift, radii[1], turns[1]),
            ],
            jittered(ground, rng),
        )
        yield (spoil(picture, rng) if spoiled else picture), one, where, other


@pytest.mark.parametrize(("spoiled", "least"), [(False, 0.99), (True, 0.95)])
def test_relations_between_all_colours_and_shapes(spoiled, least):
    right = []
    for picture, one, where, other in scenes(spoiled):
        things = found(picture)
        right.append(shows_relation(things, one, where, other))
        assert not shows_relation(things, other, where, one)
        turned = {"left of": "above", "above": "right of", "right of": "below", "below": "left of"}[where]
        assert not shows_relation(things, one, turned, other)
    assert np.mean(right) >= least


@pytest.mark.parametrize(("spoiled", "least"), [(False, 0.99), (True, 0.95)])
def test_one_thing_of_any_size_and_place(spoiled, least):
    rng = np.random.default_rng(2)
    right = []
    for colour, shape in rng.permutation(THINGS)[:24]:
        radius = rng.uniform(0.18, 0.42)
        ground = next(c for c in rng.permutation(list(COLOURS)) if c != colour)
        centre = rng.uniform(radius + 0.02, 0.98 - radius, 2)
        thing = (jittered(colour, rng), shape, centre, radius, rng.uniform(-15, 15))
        picture = paint([thing], COLOURS[ground])
        picture = spoil(picture, rng) if spoiled else picture
        things = found(picture)
        right.append([(thing.colour, thing.shape) for thing in things] == [(colour, shape)])
    assert np.mean(right) >= least


def test_place_and_size_are_measured():
    (thing,) = found(paint([(COLOURS["blue"], "circle", (0.3, 0.6), 0.2, 0)], COLOURS["white"]))
    assert thing.centre == pytest.approx((0.3, 0.6), abs=0.005)
    assert thing.area == pytest.approx(math.pi * 0.2**2, rel=0.02)
    assert (thing.colour, thing.shape) == ("blue", "circle")


def test_one_thing_is_itself_and_nothing_else():
    picture = paint([(COLOURS["purple"], "star", (0.5, 0.5), 0.4, 5)], COLOURS["yellow"])
    things = found(picture)
    assert [thing for thing in THINGS if shows(things, thing)] == [("purple", "star")]


def test_shapes_drawn_by_another_hand():
    assert colour_shape(draw(polygon(90)), "red", "circle")
    assert colour_shape(draw([(30, 30), (98, 32), (97, 97), (29, 96)]), "red", "square")
    assert colour_shape(draw(polygon(3)), "red", "triangle")  # equilateral, which the corpus's is not
    assert colour_shape(draw(polygon(5, inner=0.382)), "red", "star")  # the pentagram's own ratio
    assert colour_shape(draw(polygon(4, across=26)), "red", "diamond")
    lobes = [[(64 + s * 18 + 20 * math.cos(t / 9), 52 + 20 * math.sin(t / 9)) for t in range(57)] for s in (-1, 1)]
    assert colour_shape(draw(*lobes, [(28.2, 60), (64, 106), (99.8, 60), (64, 46)], colour="pink"), "pink", "heart")


@pytest.mark.parametrize(
    "corners",
    [
        polygon(5),
        polygon(4),  # a square on its corner is neither a square nor this diamond
        polygon(60, 46, 34),
        [(20, 30), (120, 30), (120, 110), (20, 110)],
        polygon(3, turn=90),
        polygon(6, inner=0.5),
        polygon(4, inner=0.4),
        [p for p in polygon(80) if p[1] <= 64],
        [(30, 30), (60, 30), (60, 80), (100, 80), (100, 110), (30, 110)],
    ],
    ids="pentagon turned-square ellipse rectangle upside-down six-star four-star half-disc corner".split(),
)
def test_what_is_no_shape_of_the_table_gets_no_name(corners):
    (thing,) = found(draw(corners))
    assert (thing.colour, thing.shape) == ("red", None)


def test_potatoes_get_no_name():
    rng = np.random.default_rng(3)
    for _ in range(5):
        radii = rng.uniform(0.5, 1, 9)
        corners = [
            (64 + 46 * r * math.cos(2 * math.pi * k / 9), 64 + 46 * r * math.sin(2 * math.pi * k / 9))
            for k, r in enumerate(radii)
        ]
        assert found(draw(corners))[0].shape is None


def test_touching_things_are_told_apart_by_colour():
    picture = paint(
        [(COLOURS["red"], "square", (0.3, 0.5), 0.2, 0), (COLOURS["blue"], "circle", (0.3 + 0.17 + 0.2, 0.5), 0.2, 0)],
        COLOURS["white"],
    )
    assert relation(picture, ("red", "square"), "left of", ("blue", "circle"))


def test_a_highlight_and_a_drop_shadow_of_little_size_do_not_hide_the_thing():
    picture = paint([(COLOURS["red"], "heart", (0.5, 0.5), 0.38, 0)], COLOURS["white"])
    ImageDraw.Draw(picture).ellipse((40, 40, 52, 50), fill=(255, 190, 190))
    assert colour_shape(picture, "red", "heart")


def test_litter_and_company_count_against_it():
    one = (COLOURS["red"], "circle", (0.3, 0.5), 0.2, 0)
    assert not colour_shape(
        paint([one, (COLOURS["red"], "circle", (0.75, 0.5), 0.19, 0)], COLOURS["white"]), "red", "circle"
    )
    many = [one, (COLOURS["blue"], "star", (0.75, 0.25), 0.2, 0), (COLOURS["green"], "square", (0.75, 0.75), 0.2, 0)]
    assert not relation(paint(many, COLOURS["white"]), ("red", "circle"), "left of", ("blue", "star"))


def test_empty_and_noisy_pictures_hold_nothing_asked_for():
    assert found(Image.new("RGB", (SIDE, SIDE), "white")) == []
    noise = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3)).astype(np.uint8)
    for picture in (Image.fromarray(noise), Image.fromarray(noise).filter(ImageFilter.GaussianBlur(6))):
        things = found(picture)
        assert not any(shows(things, thing) for thing in THINGS)


def test_any_size_and_mode_is_measured():
    picture = paint([(COLOURS["green"], "triangle", (0.5, 0.5), 0.35, 0)], COLOURS["white"])
    assert colour_shape(picture.resize((512, 512), Image.Resampling.BICUBIC), "green", "triangle")
    assert colour_shape(picture.resize((64, 64), Image.Resampling.BOX), "green", "triangle")
    clear = picture.convert("RGBA")
    clear.putalpha(Image.fromarray((np.asarray(picture)[..., 0] < 200).astype(np.uint8) * 255))
    assert colour_shape(clear, "green", "triangle")


@pytest.mark.parametrize(
    ("first", "where", "second", "expected"),
    [
        ((0.2, 0.5), "left of", (0.8, 0.5), True),
        ((0.2, 0.5), "next to", (0.8, 0.5), True),
        ((0.8, 0.5), "next to", (0.2, 0.5), True),
        ((0.45, 0.5), "left of", (0.52, 0.5), False),  # too close to be beside
        ((0.2, 0.1), "left of", (0.5, 0.9), False),  # more above than left
        ((0.2, 0.1), "above", (0.5, 0.9), True),
        ((0.5, 0.8), "below", (0.5, 0.2), True),
        ((0.5, 0.8), "next to", (0.5, 0.2), False),
    ],
)
def test_directions(first, where, second, expected):
    assert placed(first, where, second) is expected
