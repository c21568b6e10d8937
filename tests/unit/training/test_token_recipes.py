"""parti-pocket and nuwa-pocket: what their feeds give, the orders that are trained, and two steps of each."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mindseye.checkpoints.save import load_part
from mindseye.data.colours import COLOURS
from mindseye.data.glyphs import SIDE, Corpus, IconRow, share
from mindseye.data.iconsets import ICON_SETS
from mindseye.data.scenes import paint
from mindseye.networks import nuwa_infinity, parti
from mindseye.networks.direction import DIRECTIONS, plan
from mindseye.networks.vae import Tower
from mindseye.networks.vqgan import VQGAN, Config
from mindseye.request import drain
from mindseye.training.recipe import Workshop, override
from mindseye.training.recipes import nuwa
from mindseye.training.recipes import parti as parti_recipe
from mindseye.training.recipes.nuwa import CanvasFeed, PatchByPatch, Planned, nuwa_pocket
from mindseye.training.recipes.parti import parti_pocket, read, words
from mindseye.training.tokens import TokenFeed
from mindseye.training.trainer import train

WORDS = Path(__file__).parents[3] / "src" / "mindseye" / "pocket" / "bpe-pocket.json"
TOWER = Tower(channels=(8, 8), blocks=(0, 1), middle=False, taper=True)


@pytest.fixture(scope="module")
def codec():
    torch.manual_seed(0)
    config = Config(encoder=TOWER, decoder=TOWER, codes=1024, code_channels=4, z_channels=4, patch=4, groups=4)
    found = VQGAN(config).eval().requires_grad_(False)
    found.quantizer.weight.normal_(std=0.5)
    return found


@pytest.fixture
def workshop(tmp_path, codec):
    """Forty-four squares in two colours, captioned, and a codec that was never trained."""
    folder = tmp_path / "own"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(44):
        colour = ("red", "blue")[number % 2]
        picture = Image.new("RGB", (128, 128), "white")
        left, top = (int(each) for each in rng.integers(0, 64, 2))
        picture.paste(COLOURS[colour], (left, top, left + 60, top + 60))
        picture.save(folder / f"{number}.png")
        (folder / f"{number}.txt").write_text(f"a {colour} square")
    weights = tmp_path / "vqgan-pocket.safetensors"
    weights.write_bytes(b"of no matter")
    return Workshop(
        corpus=tmp_path,
        data=folder,
        cache=tmp_path / "cache",
        parts=lambda name: codec,
        part_files=lambda name: WORDS if name == "bpe-pocket" else weights,
    )


def test_the_pockets_read_the_packaged_words(workshop):
    spelling = words(workshop)
    for text in (parti.POCKET.text, nuwa_infinity.POCKET.text):
        assert (text.vocabulary, text.length, text.pad) == (spelling.vocabulary, spelling.length, spelling.pad)


def test_every_third_step_shows_strips():
    def feed(value, width):
        count = np.arange(12)
        return TokenFeed(np.full((12, width), value, np.int16), np.zeros((1, 4), np.int32), count * 0, count)

    both = CanvasFeed(feed(1, 4), feed(2, 4))
    seen = [both.batch(step, 2) for step in range(6)]
    assert [int(batch["ids"][0, 0]) for batch in seen] == [1, 1, 2, 1, 1, 2]
    assert [tuple(batch["patches"][0].tolist()) for batch in seen] == [(2, 2), (2, 2), (1, 4)] * 2
    alone = CanvasFeed(feed(1, 4), None)
    assert {int(alone.batch(step, 2)["ids"][0, 0]) for step in range(6)} == {1}


def test_strips_are_of_the_training_stream():
    sets = [pin.key for pin in ICON_SETS]
    rows = [
        IconRow(set=key, name=f"thing-{n}", label=f"thing {n}", tone="", tags=(), group=7)
        for n in range(20)
        for key in sets[:3]
    ]
    icons = np.random.default_rng(0).integers(0, 256, (len(rows), SIDE, SIDE, 4), dtype=np.uint8)
    corpus = Corpus(icons, rows)
    scenes = [corpus.strip(index) for index in range(200)]
    starts = []
    for scene in scenes:
        assert scene.caption.startswith("a row of ")
        same = len(scene.things) == 5  # and begins anywhere
        starts += [scene.things[0].x] if same else []
        for place, placed in enumerate(scene.things):
            low, high = (-1, 5) if same else (place, place + 1)
            assert low <= placed.x - placed.radius and placed.x + placed.radius <= high
            assert 0 <= placed.y - placed.radius and placed.y + placed.radius <= 1
            if placed.thing.icon is None:
                assert share(f"shape:{placed.thing.words}") >= 0.04
            else:
                assert corpus.split_of[placed.thing.icon.row] is None
    # Of rows of one kind the first thing is as often cut off as not, and something always shows.
    assert min(starts) < -0.3 and max(starts) > 0.3 and 0.3 < np.mean(np.array(starts) < 0) < 0.7
    assert corpus.strip(7) == scenes[7]
    assert paint(scenes[0], icons, 64, 256).shape == (64, 256, 3)
    assert max(len(scene.caption.split()) for scene in scenes) <= 30


def test_every_direction_is_trained(workshop):
    config = replace(nuwa_infinity.POCKET, width=12, heads=2, hidden=8, layers=1)
    objective = PatchByPatch(nuwa_infinity.NUWAInfinity(config), read(words(workshop), [""]))
    objective.reseed(0)
    orders = [objective.draw_plan(2, 2).order for _ in range(120)]
    assert len({order[0] for order in orders}) == 4
    assert len(set(orders)) >= len(DIRECTIONS)
    objective.reseed(0)
    assert orders[:5] == [objective.draw_plan(2, 2).order for _ in range(5)]
    batch = {
        "ids": torch.randint(1024, (2, 256), generator=torch.Generator().manual_seed(0)),
        "text": read(words(workshop), [""]).expand(2, -1),
        "patches": torch.tensor([[1, 4], [1, 4]]),
    }
    objective.reseed(1)
    loss = objective(batch)
    assert loss.parts["image_bits"] == pytest.approx(10, abs=0.5)
    objective.reseed(1)
    assert objective(batch).total == loss.total
    assert list(objective.parts()) == ["nuwa-pocket"]


def test_logits_come_back_row_by_row():
    config = replace(nuwa_infinity.POCKET, width=12, heads=2, hidden=8, layers=1, patch=2, codes=11)
    torch.manual_seed(0)
    network = nuwa_infinity.NUWAInfinity(config).requires_grad_(False)
    planned = Planned(network)
    planned.plan = plan(1, 2, "right")
    text, ids = torch.zeros(1, 4, dtype=torch.long), torch.randint(11, (1, 8))
    ordered = nuwa_infinity.to_patches(ids, planned.plan, 2)
    wanted, found = network(text, ordered, planned.plan)[1], planned(text, ids)[1]
    # Two rows of four; the right patch comes first.
    assert torch.equal(found[0, [2, 3, 6, 7]], wanted[0, :4]) and torch.equal(found[0, [0, 1, 4, 5]], wanted[0, 4:])


@pytest.mark.parametrize("recipe", [parti_pocket, nuwa_pocket])
def test_two_steps_of_each(workshop, tmp_path, recipe, monkeypatch):
    """It runs, measures, and saves what can be loaded."""
    small = {"width": 16, "heads": 2, "hidden": 16, "layers": 1}
    for module, config in ((parti_recipe, parti.POCKET), (nuwa, nuwa_infinity.POCKET)):
        monkeypatch.setattr(module, "POCKET", replace(config, **small))
        monkeypatch.setattr(module, "PROMPTS", ("a red square",))
    monkeypatch.setattr(nuwa, "STRIP_PROMPTS", ("a row of red squares",))
    short = override(recipe(), [("precision", "fp32"), ("steps", "2"), ("batch", "2"), ("every.log", "1")])
    files = drain(train(short, tmp_path / "run", workshop))
    assert list(files) == [recipe().name]
    load_part(files[recipe().name])
    assert (tmp_path / "run" / "metrics.jsonl").read_text().count("bits") >= 2
