"""wdsr-pocket on small parts: what it is fed, that it learns to undo the codec, and its figures."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from mindseye.checkpoints.save import load_part
from mindseye.networks.wdsr import POCKET, WDSR
from mindseye.request import drain
from mindseye.training.recipe import Every, Workshop
from mindseye.training.recipes import wdsr
from mindseye.training.trainer import train


class Dull:
    """A codec of four by four pixels a token: what it paints has two greys alone, the darker for whatever is dark."""

    factor = 4

    def encode(self, pixels):
        """Not asked for."""
        raise NotImplementedError

    decode = encode

    def to_ids(self, pixels):
        return (F.avg_pool2d(pixels.mean(1, keepdim=True), 4) > 0).flatten(1).long()

    def from_ids(self, ids, grid=None):
        side = round(ids.shape[1] ** 0.5)
        grey = (ids.view(-1, 1, side, side).float() - 0.5).expand(-1, 3, -1, -1)
        return F.interpolate(grey, scale_factor=4)


@pytest.fixture
def workshop(tmp_path, monkeypatch):
    """Black squares on white, which the codec makes grey."""
    folder = tmp_path / "own"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(44):
        picture = Image.new("RGB", (128, 128), "white")
        left, top = (8 * int(each) for each in rng.integers(0, 8, 2))
        picture.paste("black", (left, top, left + 64, top + 64))
        picture.save(folder / f"{number}.png")
        (folder / f"{number}.txt").write_text("a square")
    (tmp_path / "codec").write_text("the codec's file")
    monkeypatch.setattr(wdsr, "POCKET", replace(POCKET, width=4, layers=1))
    return Workshop(
        corpus=tmp_path, data=folder, cache=tmp_path / "cache", parts=lambda name: Dull(),
        part_files=lambda name: tmp_path / "codec",
    )  # fmt: skip


def test_pictures_come_with_the_tokens_of_their_halves(workshop):
    batch = drain(wdsr.wdsr_pocket().feed(workshop)).batch(3, 5)
    assert batch["pixels"].shape == (5, 3, 128, 128) and batch["ids"].shape == (5, 256)
    small = F.avg_pool2d(batch["pixels"], 2)
    assert torch.equal(Dull().to_ids(small), batch["ids"])


def test_it_learns_what_the_codec_took(workshop, tmp_path):
    recipe = wdsr.wdsr_pocket()
    objective = recipe.objective(workshop)
    assert [name for name, _ in objective.named_parameters()] == [
        f"network.{name}" for name, _ in objective.network.named_parameters()
    ]
    never, optimizer = Every(log=1, sample=0, checkpoint=0), replace(recipe.optimizer, lr=2e-3, warmup=1)
    short = replace(recipe, steps=25, batch=4, ema=0.5, precision="fp32", every=never, optimizer=optimizer)
    network = load_part(drain(train(short, tmp_path / "run", workshop))["wdsr-pocket"])
    assert isinstance(network, WDSR)
    scores = recipe.scores(workshop, {"wdsr-pocket": network})
    # Half as far apart as black and white is 12 dB; that it is half is soon learned.
    assert 11 < scores["psnr_bicubic"] < 13 and scores["psnr"] > scores["psnr_bicubic"] + 4
    assert recipe.samples(workshop, {"wdsr-pocket": network}).size[0] > 6 * 128


def test_it_is_as_small_as_its_recipe_says():
    with torch.device("meta"):
        assert sum(value.numel() for value in WDSR(POCKET).parameters()) == pytest.approx(0.45e6, rel=0.02)
