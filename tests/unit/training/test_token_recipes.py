"""Recipes of Parti and the two NUWAs: what their feeds give, the orders that are trained, and two steps of each."""

import itertools
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
from mindseye.networks import nuwa as nuwa_net
from mindseye.networks import nuwa_infinity, parti
from mindseye.networks.direction import DIRECTIONS, plan
from mindseye.networks.vae import Tower
from mindseye.networks.vqgan import VQGAN, Config
from mindseye.request import drain
from mindseye.training.feeds import to_pixels
from mindseye.training.recipe import Workshop, override
from mindseye.training.recipes import nuwa, nuwa_clip, writing
from mindseye.training.recipes import parti as parti_recipe
from mindseye.training.recipes.nuwa import Canvases, PatchByPatch, Planned, nuwa_pocket
from mindseye.training.recipes.nuwa_clip import nuwa_clip_pocket
from mindseye.training.recipes.parti import WRITING, parti_pocket
from mindseye.training.tokens import TakingTurns, TokenFeed
from mindseye.training.trainer import train

POCKET = Path(__file__).parents[3] / "src" / "mindseye" / "pocket"
WORDS = POCKET / "bpe-pocket.json"
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
        parts=lambda name: load_part(POCKET / "clip-pocket.safetensors") if name == "clip-pocket" else codec,
        part_files=lambda name: WORDS if name == "bpe-pocket" else weights,
    )


def test_the_pockets_read_the_packaged_words(workshop):
    spelling = WRITING.spelling(workshop)
    for text in (parti.POCKET.text, nuwa_infinity.POCKET.text, nuwa_net.POCKET.text):
        assert (text.vocabulary, text.length, text.pad) == (spelling.vocabulary, spelling.length, spelling.pad)


@pytest.mark.parametrize("written", [WRITING, nuwa.WRITING, nuwa_clip.WRITING], ids=lambda written: written.name)
def test_readers_begin_as_the_tower_of_clip(workshop, written):
    reader, tower = written.untrained(workshop).reader, load_part(POCKET / "clip-pocket.safetensors").text_tower
    ids = written.read(workshop)(["a red square"])
    # The first word sees itself alone in the one, and with what comes after it in the other; both see the same without.
    alone = ids[:, :1]
    with torch.no_grad():
        seen, _ = reader(alone)
        expected, _ = tower(alone)
    torch.testing.assert_close(seen, expected)


def test_every_third_step_shows_strips():
    def feed(value, width):
        count = np.arange(12)
        return TokenFeed(np.full((12, width), value, np.int16), np.arange(12, dtype=np.int32)[:, None], count, count)

    both = TakingTurns(Canvases(feed(1, 4), (2, 2)), Canvases(feed(2, 4), (1, 4)), every=3)
    seen = [both.batch(step, 2) for step in range(18)]
    assert [int(batch["ids"][0, 0]) for batch in seen[:6]] == [1, 1, 2, 1, 1, 2]
    assert [tuple(batch["patches"][0].tolist()) for batch in seen[:6]] == [(2, 2), (2, 2), (1, 4)] * 2
    # Neither leaves anything out: six steps of strips are an epoch of them, six of pictures are one of those.
    for kind, some in ((1, [batch for batch in seen if batch["ids"][0, 0] == 1][:6]), (2, seen[2::3])):
        assert sorted(torch.cat([batch["text"][:, 0] for batch in some]).tolist()) == list(range(12)), kind
    alone = TakingTurns(feed(1, 4), None, every=3)
    assert {int(alone.batch(step, 2)["ids"][0, 0]) for step in range(6)} == {1}


def small_corpus():
    """Sixty icons of noise, in three styles."""
    sets = [pin.key for pin in ICON_SETS]
    rows = [
        IconRow(set=key, name=f"thing-{n}", label=f"thing {n}", tone="", tags=(), group=7)
        for n in range(20)
        for key in sets[:3]
    ]
    return Corpus(np.random.default_rng(0).integers(0, 256, (len(rows), SIDE, SIDE, 4), dtype=np.uint8), rows)


def test_strips_are_of_the_training_stream():
    corpus = small_corpus()
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
    assert paint(scenes[0], corpus.icons, 64, 256).shape == (64, 256, 3)
    assert max(len(scene.caption.split()) for scene in scenes) <= 30


def test_clips_are_of_the_training_stream_and_move_as_they_say():
    corpus = small_corpus()
    ways = {
        "moving to the right": lambda a, b: b.x - a.x, "moving to the left": lambda a, b: a.x - b.x,
        "moving down": lambda a, b: b.y - a.y, "moving up": lambda a, b: a.y - b.y,
        "growing": lambda a, b: b.radius - a.radius, "shrinking": lambda a, b: a.radius - b.radius,
    }  # fmt: skip
    seen = set()
    for clip in (corpus.clip(index, 4) for index in range(120)):
        assert len(clip) == 4 and len({(scene.caption, scene.background) for scene in clip}) == 1
        (way,) = [way for way in ways if f" {way}" in clip[0].caption]
        seen.add(way)
        placed = [scene.things[0] for scene in clip]
        steps = [ways[way](one, other) for one, other in itertools.pairwise(placed)]
        assert min(steps) > 0.05 and max(steps) - min(steps) < 1e-6
        still = [other for other in ways if other != way and abs(ways[other](placed[0], placed[3])) > 1e-9]
        assert len(still) <= 1  # the way back
        assert all(0 <= p.x - p.radius / 2 and p.x + p.radius / 2 <= 1 and 0.05 < p.radius < 0.5 for p in placed)
        thing = placed[0].thing
        held = share(f"shape:{thing.words}") < 0.04 if thing.icon is None else corpus.split_of[thing.icon.row]
        assert not held and len({p.thing for p in placed}) == 1
    assert seen == set(ways)
    assert corpus.clip(7, 4) == corpus.clip(7, 4)


def test_a_clip_is_encoded_frame_after_frame_and_taught_beside_pictures(workshop, tmp_path, codec, monkeypatch):
    corpus = small_corpus()
    monkeypatch.setattr(Corpus, "open", classmethod(lambda cls, root: corpus))
    monkeypatch.setattr(nuwa_clip, "CLIPS", 6)
    pictures = drain(nuwa_clip_pocket().feed(workshop))
    monkeypatch.setattr(nuwa_clip.WRITING.__class__, "feed", lambda self, workshop: _given(pictures))
    feed = drain(nuwa_clip_pocket().feed(replace(workshop, data=None)))
    picture, clip = feed.batch(0, 2), feed.batch(1, 2)
    assert (picture["ids"].shape, clip["ids"].shape) == ((2, 64), (2, 256))
    scenes = [corpus.clip(index, 4) for index in range(6)]
    rows = [WRITING.read(workshop)([scene[0].caption])[0].tolist() for scene in scenes]
    for text, ids in zip(clip["text"].tolist(), clip["ids"], strict=True):
        frames = np.stack([paint(frame, corpus.icons, 64) for frame in scenes[rows.index(text)]])
        assert (codec.to_ids(to_pixels(frames)).flatten() == ids).float().mean() > 0.95
    monkeypatch.setattr(nuwa_clip, "POCKET", replace(nuwa_net.POCKET, width=16, heads=2, hidden=16, layers=1))
    monkeypatch.setattr(writing, "read_as", lambda reader, clip: None)  # it is of another shape
    objective = nuwa_clip_pocket().objective(workshop)
    for batch in (picture, clip):
        assert 9 < objective(batch).parts["image_bits"] < 11


def _given(value):
    return value
    yield


def test_every_direction_is_trained(workshop):
    config = replace(nuwa_infinity.POCKET, width=12, heads=2, hidden=8, layers=1)
    objective = PatchByPatch(nuwa_infinity.NUWAInfinity(config), WRITING.read(workshop)([""]))
    objective.reseed(0)
    orders = [objective.draw_plan(2, 2).order for _ in range(120)]
    assert len({order[0] for order in orders}) == 4
    assert len(set(orders)) >= len(DIRECTIONS)
    objective.reseed(0)
    assert orders[:5] == [objective.draw_plan(2, 2).order for _ in range(5)]
    batch = {
        "ids": torch.randint(1024, (2, 256), generator=torch.Generator().manual_seed(0)),
        "text": WRITING.read(workshop)([""]).expand(2, -1),
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


@pytest.mark.parametrize("recipe", [parti_pocket, nuwa_pocket, nuwa_clip_pocket])
def test_two_steps_of_each(workshop, tmp_path, recipe, monkeypatch):
    """It runs, measures, and saves what can be loaded."""
    small = {"width": 16, "heads": 2, "hidden": 16, "layers": 1}
    nets = ((parti_recipe, parti.POCKET), (nuwa, nuwa_infinity.POCKET), (nuwa_clip, nuwa_net.POCKET))
    for module, config in nets:
        monkeypatch.setattr(module, "POCKET", replace(config, **small))
    for module in (writing, nuwa, nuwa_clip):
        monkeypatch.setattr(module, "PROMPTS", ("a red square",))
    monkeypatch.setattr(nuwa, "STRIP_PROMPTS", ("a row of red squares",))
    monkeypatch.setattr(writing, "read_as", lambda reader, clip: None)  # they are of another shape
    monkeypatch.setattr(nuwa_clip, "CLIP_PROMPTS", ("a red square growing",))
    short = override(recipe(), [("precision", "fp32"), ("steps", "2"), ("batch", "2"), ("every.log", "1")])
    files = drain(train(short, tmp_path / "run", workshop))
    assert list(files) == [recipe().name]
    load_part(files[recipe().name])
    assert (tmp_path / "run" / "metrics.jsonl").read_text().count("bits") >= 2
