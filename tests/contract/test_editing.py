"""Every way of editing, with the packaged weights and nothing else: what it promises, in two steps of drawing.

That each is done rightly is told on tiny networks in `tests/unit/systems`; here, that a user without a network and
without weights of their own has all of them.
"""

import numpy as np
import pytest
from PIL import Image, ImageDraw

from mindseye.cli.main import main
from mindseye.engine.engine import Engine
from mindseye.request import Request

SIDE = 64


@pytest.fixture(scope="module")
def engine():
    return Engine(device="cpu")


def picture():
    image = Image.new("RGB", (SIDE, SIDE), (240, 240, 235))
    ImageDraw.Draw(image).ellipse((12, 12, 52, 52), fill=(200, 30, 40))
    return image


def draw(engine, options=None, **asked):
    size = None if "image" in asked and any(name.startswith("extend") for name in options or {}) else (SIDE, SIDE)
    asked = {"prompt": "a red circle", "size": size, "seed": 3, "steps": 2, **asked}
    return np.asarray(engine.generate(Request(**asked, options=options or {})).images[0]).astype(int)


@pytest.fixture(scope="module")
def plain(engine):
    return draw(engine)


def test_image_to_image(engine, plain):
    near = draw(engine, image=picture(), strength=0.5)
    old = np.asarray(picture())
    assert near.shape == (SIDE, SIDE, 3) and 0 < np.abs(near - old).mean() < np.abs(plain - old).mean()


@pytest.mark.parametrize(
    ("options", "reach"),
    [
        ({}, 0),
        ({"mask_grow": 8, "masked": "fill"}, 8),
        ({"mask_blur": 2.0, "masked": "noise"}, 10),
        ({"only_masked": True, "padding": 8, "masked": "nothing"}, 0),
    ],
    ids=str,
)
def test_inpainting(engine, options, reach):
    """All of it is repainted, and nothing beyond it and its soft edge."""
    mask = Image.new("L", (SIDE, SIDE), 0)
    mask.paste(255, (0, 16, 32, 48))
    drawn = draw(engine, options, prompt="a blue star", image=picture(), mask=mask, strength=0.9)
    changed = np.abs(drawn - np.asarray(picture())).max(2) > 0
    kept = np.ones_like(changed)
    kept[16 - reach : 48 + reach, : 32 + reach] = False
    assert not changed[kept].any() and changed[16:48, :32].mean() > 0.8
    assert changed[~kept].sum() > changed[16:48, :32].sum() or not reach


@pytest.mark.parametrize("sides", [("left", "down"), ("right", "up")])
def test_outpainting(engine, sides):
    drawn = draw(engine, {"feather": 8, **{f"extend_{side}": 32 for side in sides}}, image=picture())
    assert drawn.shape == (SIDE + 32, SIDE + 32, 3)
    x, y = 32 * ("left" in sides), 32 * ("up" in sides)
    kept = np.s_[y + 8 * ("up" in sides) : y + SIDE - 8 * ("down" in sides),
                 x + 8 * ("left" in sides) : x + SIDE - 8 * ("right" in sides)]  # fmt: skip
    placed = np.zeros_like(drawn)
    placed[y : y + SIDE, x : x + SIDE] = np.asarray(picture())
    assert (drawn[kept] == placed[kept]).all()


def test_variations(engine, plain):
    near, far = (draw(engine, {"variation_seed": 9, "variation_strength": much}) for much in (0.1, 0.9))
    assert 0 < np.abs(near - plain).mean() < np.abs(far - plain).mean()


@pytest.mark.parametrize("upscaler", ["latent", "pixels"])
def test_a_second_pass(engine, upscaler):
    still, moved = (
        draw(engine, {"hires": 1.5, "hires_steps": 1, "hires_strength": strength, "hires_upscaler": upscaler})
        for strength in (0.0, 0.5)
    )
    assert still.shape == moved.shape == (96, 96, 3) and (still != moved).any()


def test_tiles_without_seams(engine):
    whole, tiled = (draw(engine, {"tile": tile}, size=(SIDE, 96)) for tile in (0, 32))
    assert np.abs(whole - tiled).max() <= 1


def test_seamless(engine, plain):
    """Around the edge it is no rougher than elsewhere."""
    tile = draw(engine, {"seamless": "xy"})
    seam = np.abs(tile[:, 0] - tile[:, -1]).mean() + np.abs(tile[0] - tile[-1]).mean()
    inside = np.abs(np.diff(tile, axis=0)).mean() + np.abs(np.diff(tile, axis=1)).mean()
    assert (tile != plain).any() and seam < 3 * inside


def test_towards_another_prompt(engine, plain):
    assert (draw(engine, {"toward": "a blue star", "toward_amount": 0.5}) != plain).any()


def test_grids_and_morphs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    asked = ("--steps", "1", "--seed", "3", "--size", str(SIDE))
    assert main(["grid", "a red circle", "-x", "guidance=1,4", *asked, "-o", "g.png"]) == 0
    assert main(["morph", "a red circle", "a blue star", "--frames", "3", *asked, "-o", "m.gif"]) == 0
    assert main(["morph", "a red circle", "--to-seed", "9", "--frames", "2", *asked, "-o", "m.png"]) == 0
    assert capsys.readouterr().out.split() == ["g.png", "m.gif", "m.png"]
    with Image.open("g.png") as sheet, Image.open("m.gif") as moving, Image.open("m.png") as strip:
        assert sheet.width > 2 * SIDE and moving.n_frames == 3 and strip.width >= 2 * SIDE
