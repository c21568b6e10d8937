"""dalle-mini-pocket on small networks: what it is fed, that it learns, and its figures."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from mindseye.autoregression import NextToken
from mindseye.checkpoints.save import load_part
from mindseye.data.colours import COLOURS
from mindseye.networks.bart import POCKET, Bart
from mindseye.networks.vae import Tower
from mindseye.networks.vqgan import VQGAN, Config
from mindseye.request import drain
from mindseye.text.tokenizer import Tokenizer
from mindseye.training.recipe import Every, Workshop
from mindseye.training.recipes import dalle_mini, writing
from mindseye.training.trainer import train

CODES = Config(
    encoder=Tower(channels=(8, 16), blocks=(0, 1), middle=False, taper=True),
    decoder=Tower(channels=(8, 16), blocks=(1, 1), middle=False, taper=True),
    codes=16,
    code_channels=4,
    z_channels=8,
    patch=4,
    groups=4,
)
TINY = replace(POCKET, width=16, heads=2, hidden=16, encoder=1, decoder=1, codes=16, rows=17, start=16)
WORDS = Path(__file__).parents[3] / "src" / "mindseye" / "pocket" / "bpe-pocket.json"


@pytest.fixture
def workshop(tmp_path, monkeypatch):
    """Forty-four squares in two colours, captioned, and a codec that has learned nothing."""
    folder = tmp_path / "own"
    folder.mkdir()
    for number in range(44):
        colour = ("red", "blue")[number % 2]
        Image.new("RGB", (128, 128), COLOURS[colour]).save(folder / f"{number}.png")
        (folder / f"{number}.txt").write_text(f"a {colour} square")
    torch.manual_seed(0)
    codec = VQGAN(CODES).eval().requires_grad_(False)
    codec.quantizer.weight.normal_(generator=torch.Generator().manual_seed(0))
    (tmp_path / "codec").write_text("the codec's file")
    monkeypatch.setattr(dalle_mini, "POCKET", TINY)
    monkeypatch.setattr(writing, "PROMPTS", ("a red square",))
    files = {"bpe-pocket": WORDS, "vqgan-pocket": tmp_path / "codec"}
    return Workshop(
        corpus=tmp_path,
        data=folder,
        cache=tmp_path / "cache",
        parts=lambda name: codec,
        part_files=files.__getitem__,
    )


def test_the_feed_gives_captions_and_codes_that_belong_together(workshop):
    tokenizer = Tokenizer.from_file(WORDS, 32)
    batch = drain(dalle_mini.dalle_mini_pocket().feed(workshop)).batch(7, 6)
    assert batch["text"].shape == (6, 32) and batch["ids"].shape == (6, 256)
    red, blue = (tokenizer.encode([f"a {colour} square"])[0][0] for colour in ("red", "blue"))
    codec = workshop.parts("vqgan-pocket")
    for text, ids in zip(batch["text"], batch["ids"], strict=True):
        colour = "red" if torch.equal(text, red) else "blue"
        assert colour == "red" or torch.equal(text, blue)
        pixels = torch.tensor(COLOURS[colour]).view(1, 3, 1, 1).expand(1, 3, 128, 128) / 127.5 - 1
        assert (codec.to_ids(pixels)[0] == ids).float().mean() > 0.9


def test_a_short_run(workshop, tmp_path):
    recipe = dalle_mini.dalle_mini_pocket()
    assert sum(p.numel() for p in Bart(POCKET).parameters()) < 3_900_000
    optimizer = replace(recipe.optimizer, warmup=1, lr=1e-2)
    never = Every(log=5, sample=0, checkpoint=0)
    short = replace(recipe, steps=12, batch=4, precision="fp32", ema=0.5, every=never, optimizer=optimizer)
    files = drain(train(short, tmp_path / "run", workshop))
    network = load_part(files["dalle-mini-pocket"])
    assert network.config == TINY
    scores = recipe.scores(workshop, {"dalle-mini-pocket": network})
    # Sixteen codes are four bits when nothing is known, and pictures of one colour have few.
    assert 0 < scores["bits"] < 3.9
    sheet = recipe.samples(workshop, {"dalle-mini-pocket": network})
    assert sheet.size[0] >= 256


def test_the_objective_leaves_captions_out(workshop):
    objective = dalle_mini.dalle_mini_pocket().objective(workshop)
    assert isinstance(objective, NextToken) and objective.drop == 0.1
    assert objective.null_text.tolist() == [[1534, *[1535] * 31]]
