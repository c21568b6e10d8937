"""`mindseye models`: what is listed, added, described and removed, in words and as JSON."""

import json
import struct

import pytest
import typer

from mindseye import zoo
from mindseye.checkpoints import public, sources
from mindseye.cli import models
from mindseye.errors import UnknownName, UsageError, WeightsError, WeightsMissing


@pytest.fixture(autouse=True)
def own(tmp_path, monkeypatch):
    monkeypatch.setenv("MINDSEYE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_HUB_DISABLE_PROGRESS_BARS", "1")  # restored afterwards: --json sets it
    return tmp_path


def run(capsys, *words):
    """What goes to stdout and to stderr."""
    root = typer.Typer()
    root.add_typer(models.app, name="models")

    @root.command()
    def other() -> None:
        pass

    root(["models", *map(str, words)], standalone_mode=False)
    return capsys.readouterr()


def rows(capsys, *words):
    return [json.loads(line) for line in run(capsys, *words, "--json").out.splitlines()]


def safetensors(path, shapes, metadata=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    table, place = {}, 0
    for key, shape in shapes.items():
        size = 2
        for side in shape:
            size *= side
        table[key] = {"dtype": "F16", "shape": list(shape), "data_offsets": [place, place + size]}
        place += size
    if metadata:
        table["__metadata__"] = metadata
    raw = json.dumps(table).encode()
    path.write_bytes(struct.pack("<Q", len(raw)) + raw + bytes(place))
    return path


MODULE = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k"
LORA = {f"{MODULE}.lora_down.weight": (4, 768), f"{MODULE}.lora_up.weight": (320, 4), f"{MODULE}.alpha": ()}
NOTES = {
    "ss_base_model_version": "sd_v1",
    "ss_network_dim": "4",
    "ss_tag_frequency": json.dumps({"10_cat": {"tabby": 9, "grass": 2}}),
    "unrelated": "x",
}


def test_what_can_draw_comes_first_and_what_could_last(capsys):
    text = run(capsys).out
    assert run(capsys, "list").out == text
    for card in zoo.ZOO:
        assert card.name in text and card.training in text
    for release in public.RELEASES:
        line = next(line for line in text.splitlines() if line.startswith(f"{release.name} "))
        assert "not downloaded" in line and release.licence in line
    assert "mindseye models add stable-diffusion-1.5" in text
    assert [row["name"] for row in rows(capsys)] == [card.name for card in zoo.ZOO]
    available = rows(capsys, "list", "--available")
    untrained = [
        card.name for card in zoo.ZOO if any(not file.is_file() for part in card.parts.values() for file in part.files)
    ]
    missing = [row["name"] for row in available if not row["ready"]]
    assert missing == untrained + [release.name for release in public.RELEASES]


def test_add_list_info_remove(capsys, own):
    path = safetensors(own / "tabby.safetensors", LORA, NOTES)
    said = run(capsys, "add", path)
    assert said.out == "tabby  (LoRA, sd1)\n"
    assert "tabby" in run(capsys).out and str(path) in run(capsys, "list", "--kind", "lora").out
    (row,) = rows(capsys, "list", "--kind", "lora")
    assert (row["name"], row["kind"], row["family"], row["ready"]) == ("tabby", "lora", "sd1", True)
    (told,) = rows(capsys, "info", "tabby")
    assert told["matched"] == told["tensors"] == 3 and told["unknown"] == [] and told["modules"] == 1
    assert told["metadata"]["ss_network_dim"] == "4" and "unrelated" not in told["metadata"]
    digits = told["hashes"]["tabby.safetensors"]
    assert digits["sha256"].startswith(digits["model_hash"]) and len(digits["model_hash"]) == 10
    assert digits["tensors"].startswith(digits["lora_hash"])
    text = run(capsys, "info", "tabby").out
    assert "kind: lora" in text and digits["sha256"] in text and "ss_network_dim: 4" in text and "tabby" in text
    assert "hashes" not in rows(capsys, "info", "tabby", "--no-hashes")[0]
    assert "forgotten; its files are untouched" in run(capsys, "remove", "tabby").err and path.exists()
    with pytest.raises(UnknownName):
        run(capsys, "info", "tabby")


def test_info_describes_a_path_that_was_not_added(capsys, own):
    path = safetensors(own / "word.safetensors", {"emb_params": (2, 768)})
    (told,) = rows(capsys, "info", path)
    assert (told["kind"], told["family"], told["vectors"]) == ("embedding", "sd1", 2)
    path.write_bytes(b"version https://git-lfs")
    with pytest.raises(WeightsError, match="LFS"):
        run(capsys, "add", path)
    (told,) = rows(capsys, "info", path, "--no-hashes")
    assert "Git LFS pointer" in told["problem"]
    with pytest.raises(UnknownName):
        run(capsys, "info", own / "none.safetensors")


def test_info_of_a_tiny_autoencoder(capsys, material):
    if not (material / "taef2").is_dir():
        pytest.skip("the material has no taef2")
    (told,) = rows(capsys, "info", material / "taef2" / "taef2_decoder.pth")
    assert (told["kind"], told["half"], told["channels"], told["factor"]) == ("vae", "decoder", 32, 8)


def test_info_of_a_model_that_lacks_its_parts_says_which(capsys, own):
    folder = own / "model"
    (folder / "unet").mkdir(parents=True)
    (folder / "model_index.json").write_text("{}")
    (told,) = rows(capsys, "info", folder, "--no-hashes")
    assert told["kind"] == "model" and "config.json" in told["problem"]
    with pytest.raises(WeightsError, match="config.json"):
        run(capsys, "add", folder)


def test_info_of_what_comes_with_mindseye(capsys):
    (told,) = rows(capsys, "info", zoo.DEFAULT)
    assert told["licence"] and told["parts"] and told["ready"] in (True, False)
    assert f"name: {zoo.DEFAULT}" in run(capsys, "info", zoo.DEFAULT).out
    with pytest.raises(UsageError, match="comes with mindseye"):
        run(capsys, "remove", zoo.DEFAULT)
    with pytest.raises(WeightsMissing, match="not downloaded"):
        run(capsys, "info", "sdxl")
    with pytest.raises(UnknownName, match="no kind named 'lore'"):
        run(capsys, "list", "--kind", "lore")


def test_a_folder_is_watched(capsys, own):
    folder = own / "Lora"
    safetensors(folder / "one.safetensors", LORA)
    for number in range(7):
        safetensors(folder / f"odd{number}.safetensors", {"a.b": (3,)})
    said = run(capsys, "add", folder)
    assert said.out == "one  (LoRA, sd1)\n"
    assert f"watching {folder}" in said.err and "and 2 more files that cannot be used" in said.err
    safetensors(folder / "two.safetensors", LORA)
    assert [row["name"] for row in rows(capsys, "list", "--kind", "lora")] == ["one", "two"]
    assert f"watched: {folder}" in run(capsys).out
    assert "is forgotten" in run(capsys, "remove", folder).err
    assert rows(capsys, "list", "--kind", "lora") == []
    assert "there is no lora yet" in run(capsys, "list", "--kind", "lora").err


def test_a_public_release_comes_with_its_licence_said(capsys, own, monkeypatch):
    path = safetensors(own / "home" / "downloads" / "x.safetensors", LORA)

    def fetch(text, *, downloads, precision):
        yield from ()
        return sources.Fetched(path=path, source=f"{text}@abc", new=(path,))

    monkeypatch.setattr(sources, "fetch", fetch)
    said = run(capsys, "add", "sd15")
    assert public.RELEASES[0].licence in said.err and "2 GB" in said.err
    assert said.out.startswith("stable-diffusion-1.5")
    assert not any(
        row["name"] == "stable-diffusion-1.5" and not row["ready"] for row in rows(capsys, "list", "--available")
    )
    assert rows(capsys, "remove", "stable-diffusion-1.5")[0]["freed"] > 0 and not path.exists()


def test_a_card_of_mindseyes_keeps_its_name(capsys, own):
    path = safetensors(own / "x.safetensors", LORA)
    with pytest.raises(UsageError, match="is taken by"):
        run(capsys, "add", path, "--name", zoo.DEFAULT)
