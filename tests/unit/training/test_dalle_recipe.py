"""dalle-pocket on small parts: what is encoded once, what is learned, what is scored and shown."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from mindseye.checkpoints.save import load_part
from mindseye.data.rendered import Rendered
from mindseye.networks.dalle import DALLE, POCKET
from mindseye.networks.vae import Tower
from mindseye.networks.vqgan import VQGAN, Config
from mindseye.request import drain
from mindseye.text.tokenizer import Tokenizer
from mindseye.training import tokens
from mindseye.training.recipe import Every, Optimizer, Workshop
from mindseye.training.recipes import dalle
from mindseye.training.recipes.dalle import dalle_pocket
from mindseye.training.tokens import gather_tokens, token_scores
from mindseye.training.trainer import train

TOWER = Tower(channels=(8, 8), blocks=(0, 1), middle=False)
CODES = Config(encoder=TOWER, decoder=TOWER, codes=9, code_channels=4, z_channels=8, patch=4, groups=4)
SMALL = replace(POCKET, width=16, layers=2, heads=2, head_width=8, image_tokens=9, grid=4)


@pytest.fixture
def workshop(tmp_path, monkeypatch):
    """Eight pictures in two colours, which their captions name."""
    torch.manual_seed(0)
    codec = VQGAN(CODES).eval().requires_grad_(False)
    # Ids that look random, and are others for each colour.
    codec.to_ids = lambda pixels: (torch.arange(16) ** 2 + 4 * (pixels[:, 0].mean((1, 2)) > 0)[:, None]) % 9
    Tokenizer.train(["a red square", "a blue square"] * 4, 560).save(tmp_path / "bpe-pocket.json")
    (tmp_path / "vqgan-pocket").write_bytes(b"weights")
    colours = np.array([[220, 30, 30], [30, 30, 220]], dtype=np.uint8)
    pictures = np.ascontiguousarray(np.broadcast_to(colours[np.arange(8) % 2][:, None, None], (8, 32, 32, 3)))
    rendered = Rendered("train", pictures, ["a red square", "a blue square"] * 4)

    def all_of_them(workshop):
        return rendered
        yield

    monkeypatch.setattr(tokens, "training_pictures", all_of_them)
    monkeypatch.setattr(tokens, "held_out", lambda workshop: rendered)
    monkeypatch.setattr(dalle, "POCKET", SMALL)
    return Workshop(
        corpus=Path(), cache=tmp_path / "cache", parts=lambda name: codec,
        part_files=lambda name: tmp_path / (name if name == "vqgan-pocket" else f"{name}.json"),
    )  # fmt: skip


def test_pictures_and_captions_become_ids_once(workshop, monkeypatch):
    codec = workshop.parts("vqgan-pocket")
    reads = dalle.WRITING.read(workshop)
    feed = drain(gather_tokens(workshop, "vqgan-pocket", reads))
    assert feed.ids.dtype == np.int16 and feed.ids.shape == (8, 16) and len(feed.words) == 2
    assert len(feed.stream) == 24  # plain shapes three times
    batch = feed.batch(0, 6)
    assert batch["text"].shape == (6, 32) and batch["ids"].dtype == torch.int64
    assert torch.equal(batch["text"], feed.batch(0, 6)["text"])
    codec.to_ids = None
    again = drain(gather_tokens(workshop, "vqgan-pocket", reads))
    assert np.array_equal(again.ids, feed.ids)


def test_a_run_learns_which_text_goes_with_which_picture(workshop, tmp_path):
    recipe = replace(
        dalle_pocket(), steps=40, batch=8, every=Every(log=1, sample=0, checkpoint=0), precision="fp32", samples=None,
        optimizer=Optimizer(kind="muon", lr=2e-2, warmup=2),
    )  # fmt: skip
    files = drain(train(replace(recipe, ema=0.5), tmp_path / "run", workshop))
    part = load_part(files["dalle-pocket"])
    assert isinstance(part, DALLE) and part.config.text_tokens == dalle.WRITING.spelling(workshop).vocabulary
    scores = recipe.scores(workshop, {"dalle-pocket": part})
    assert scores["bits"] < 0.5 * np.log2(9) and scores["bits"] < scores["bits_mistold"]


def test_the_sheet_and_the_scores(workshop):
    recipe = dalle_pocket()
    objective = recipe.objective(workshop)
    parts = objective.parts()
    assert list(parts) == ["dalle-pocket"]
    network = parts["dalle-pocket"].eval()
    scores = token_scores(workshop, network, "vqgan-pocket", dalle.WRITING.read(workshop), count=3)
    assert set(scores) == {"bits", "bits_untold", "bits_mistold"} and 2 < scores["bits"] < 6
    assert recipe.samples(workshop, parts).size[0] > 8 * 128


def test_it_is_as_small_as_it_ought_to_be():
    with torch.device("meta"):
        assert sum(parameter.numel() for parameter in DALLE(POCKET).parameters()) <= 3_900_000
