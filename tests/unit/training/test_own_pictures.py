"""Every recipe trains on a user's own folder of captioned pictures, from the command line, and resumes."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mindseye.checkpoints.save import load_part, read_header
from mindseye.cli.main import main
from mindseye.data.rendered import gather_captions
from mindseye.errors import DataError
from mindseye.request import drain
from mindseye.training.pictures import held_out, training_pictures
from mindseye.training.recipe import Workshop
from mindseye.training.recipes import RECIPES, clip, gan, stable_diffusion, vae
from mindseye.zoo import POCKET, drawn_with

PLAIN = ("--set", "precision=fp32")
"""Not the measured precision: one process of accelerate has one, and what is measured may differ from run to run."""
TRAINED = ("vae-pocket", "clip-pocket", "clip-rn-pocket", "unet-pocket")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty pictures of other sizes than the corpus', with captions beside them."""
    home = tmp_path_factory.mktemp("own")
    rng = np.random.default_rng(0)
    for n in range(40):
        Image.fromarray(rng.integers(0, 256, (90, 150, 3), dtype=np.uint8)).save(home / f"{n:02}.png")
        (home / f"{n:02}.txt").write_text(f"noise number {n}")
    return home


def test_every_twentieth_picture_is_kept(folder: Path, tmp_path: Path) -> None:
    workshop = Workshop(
        corpus=Path(), data=folder, cache=tmp_path, parts=lambda name: None, part_files=lambda name: Path(name)
    )
    shown, kept = drain(training_pictures(workshop)), held_out(workshop)
    assert kept.captions == ["noise number 0", "noise number 20"] and len(shown) == 38
    assert set(shown.captions).isdisjoint(kept.captions)
    assert shown.pictures.shape == (38, 128, 128, 3)


def test_a_changed_folder_is_read_again(folder: Path, tmp_path: Path) -> None:
    import os
    import shutil

    home = shutil.copytree(folder, tmp_path / "data")
    first = drain(gather_captions(home, tmp_path / "cache"))
    assert drain(gather_captions(home, tmp_path / "cache")).name == first.name
    (home / "03.txt").write_text("another caption")
    os.utime(home / "03.txt", ns=(10**18 * 2, 10**18 * 2))
    assert "another caption" in drain(gather_captions(home, tmp_path / "cache")).captions


def test_no_data_set_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no data set"):
        drain(gather_captions(tmp_path / "none", tmp_path / "cache"))
    asked = ["train", "vae-pocket", "--data", str(tmp_path / "none"), "--run", str(tmp_path / "run"), "-q"]
    assert main([*asked, *PLAIN]) == 1


def test_too_few_pictures_are_a_sentence_before_anything_is_trained(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], thin: None
) -> None:
    few = tmp_path / "few"
    few.mkdir()
    for n in range(20):
        (few / f"{n:02}.png").symlink_to(folder / f"{n:02}.png")
        (few / f"{n:02}.txt").symlink_to(folder / f"{n:02}.txt")
    asked = ["train", "vae-pocket", "--data", str(few), *PLAIN, "-q", "--set", "steps=1", "--set", "batch=2", "--run"]
    assert main([*asked, str(tmp_path / "one")]) == 1
    assert "few has 20 captioned pictures, and no network is trained on fewer than 21" in capsys.readouterr().err
    (few / "20.png").symlink_to(folder / "20.png")
    (few / "20.txt").symlink_to(folder / "20.txt")
    assert main([*asked, str(tmp_path / "two")]) == 0, capsys.readouterr().err


def test_classes_of_a_picture_each_are_not_measured(folder: Path, tmp_path: Path) -> None:
    workshop = Workshop(
        corpus=tmp_path,
        data=folder,
        cache=tmp_path,
        parts=lambda part: load_part(POCKET / f"{part}.safetensors"),
        part_files=lambda part: POCKET / f"{part}.json",
    )
    assert gan._class_scores(workshop, {"biggan-pocket": None}) == {}


@pytest.mark.parametrize("name", TRAINED)
def test_a_recipe_makes_what_is_shipped(name: str, tmp_path: Path) -> None:
    recipe, shipped = RECIPES[name](), POCKET / f"{name}.safetensors"
    workshop = Workshop(
        corpus=tmp_path,
        parts=lambda part: load_part(POCKET / f"{part}.safetensors"),
        part_files=lambda part: POCKET / f"{part}.json",
    )
    made = recipe.objective(workshop).parts()
    assert list(made) == [name] and made[name].config == load_part(shipped).config


@pytest.fixture
def thin(monkeypatch: pytest.MonkeyPatch) -> None:
    """Networks of a few channels that fit the same pictures, latents and words as the pocket ones."""
    words = replace(clip.POCKET_TEXT, width=16, layers=1, heads=2)
    for recipes, name, changes in (
        (vae, "POCKET", {
            "encoder": replace(vae.POCKET.encoder, channels=(8, 8)),
            "decoder": replace(vae.POCKET.decoder, channels=(8, 8)),
            "groups": 4,
        }),
        (clip, "POCKET", {"text": words, "image": replace(clip.POCKET.image, width=16, layers=1, heads=2)}),
        (clip, "POCKET_RESNET", {"text": words, "image": replace(clip.POCKET_RESNET.image, width=4)}),
        (stable_diffusion, "POCKET", {
            "channels": (8, 16, 16),
            "transformers": replace(stable_diffusion.POCKET.transformers, head_dim=8),
            "embedding": 16,
            "groups": 4,
        }),
    ):  # fmt: skip
        monkeypatch.setattr(recipes, name, replace(getattr(recipes, name), **changes))
    monkeypatch.setattr(stable_diffusion, "PROMPTS", stable_diffusion.PROMPTS[:1])  # one sample sheet is like another


@pytest.mark.parametrize("name", ["bpe-pocket", *TRAINED])
def test_a_recipe_runs_on_it(
    folder: Path, tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str], thin: None
) -> None:
    run = tmp_path / name
    settings = ("steps=2", "batch=2", "every.log=1") if name != "bpe-pocket" else ()
    quick = [word for setting in settings for word in ("--set", setting)]
    quick = [*PLAIN, *quick] if quick else []
    assert main(["train", name, "--data", str(folder), "--run", str(run), "-q", *quick]) == 0, capsys.readouterr().err
    if name == "bpe-pocket":
        assert (run / "bpe-pocket.json").is_file()
        return
    file = run / f"{name}.safetensors"
    assert read_header(file)["provenance"]["step"] == 2
    load_part(file)
    more = ["--resume", *quick, "--set", "steps=3"]
    assert main(["train", name, "--data", str(folder), "--run", str(run), "-q", *more]) == 0, capsys.readouterr().err
    if drawn_with(name) and name != "clip-pocket":  # the packaged U-Net was not trained to listen to a thin one
        drawn = tmp_path / "drawn.png"
        assert main(["a red apple", "-m", str(run), "--steps", "2", "-o", str(drawn), "-q"]) == 0, (
            capsys.readouterr().err
        )
        with Image.open(drawn) as picture:
            weights = json.loads(picture.info["mindseye"])["weights"]
        assert hashlib.sha256(file.read_bytes()).hexdigest() in weights.values()
    losses = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines() if '"loss"' in line]
    assert [row["step"] for row in losses] == [1, 2, 3] and all(np.isfinite(row["loss"]) for row in losses)
