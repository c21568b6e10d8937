"""What the user owns: names for files, folders that stay alive, and an index that survives."""

import json
import os
import struct
from pathlib import Path

import pytest

from mindseye.checkpoints import hashes, hub, kinds, library, public, sources
from mindseye.checkpoints.kinds import look
from mindseye.checkpoints.library import Library, home
from mindseye.errors import OutputError, UnknownName, UsageError, WeightsError, WeightsMissing
from mindseye.request import drain


def safetensors(path, shapes, metadata=None):
    """A file of zeros, written by hand."""
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


LORA = {"lora_unet_x_attn2_to_k.lora_down.weight": (4, 768), "lora_unet_x_attn2_to_k.lora_up.weight": (8, 4)}
EMBEDDING = {"emb_params": (2, 768)}
VAE = {"decoder.mid_block.resnets.0.norm1.weight": (8,), "encoder.conv_in.weight": (8, 3, 3, 3)}


@pytest.fixture
def own(tmp_path, monkeypatch):
    monkeypatch.setenv("MINDSEYE_HOME", str(tmp_path / "home"))
    return Library()


def add(own, what, **more):
    return drain(own.add(str(what), **more))


def names(own, kind=None):
    return [entry.name for entry in own.entries(kind)]


def test_the_users_folder_is_where_they_say_or_where_programs_keep_data(monkeypatch, tmp_path):
    monkeypatch.setenv("MINDSEYE_HOME", str(tmp_path))
    assert home() == tmp_path
    monkeypatch.delenv("MINDSEYE_HOME")
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    assert home() == tmp_path / "data" / "mindseye"


@pytest.mark.parametrize(
    ("shapes", "metadata", "kind", "family"),
    [
        (LORA, None, "lora", "sd1"),
        ({"unet.x.attn2.to_k.lora_A.weight": (4, 2048)}, None, "lora", "sdxl"),
        ({"lora_te2_x.hada_w1_a": (4, 4)}, None, "lora", "sdxl"),
        ({"lora_unet_x.lokr_w1": (4, 4)}, {"ss_base_model_version": "sd_v2_768"}, "lora", "sd2"),
        ({"unet:0:up": (4, 1), "<s1>": (768,)}, None, "lora", ""),
        (EMBEDDING, None, "embedding", "sd1"),
        ({"clip_l": (2, 768), "clip_g": (2, 1280)}, None, "embedding", "sdxl"),
        ({"<cat-toy>": (1024,)}, None, "embedding", "sd2"),
        (VAE, None, "vae", ""),
        ({"first_stage_model.decoder.up.0.block.0.norm1.weight": (8,)}, None, "vae", ""),
        ({"1.weight": (8, 4, 3, 3), "1.bias": (8,), "3.conv.0.weight": (8, 8, 3, 3)}, None, "vae", ""),
        ({"something.else": (3, 5)}, None, None, ""),
    ],
)
def test_a_file_is_told_by_its_keys(tmp_path, shapes, metadata, kind, family):
    seen = look(safetensors(tmp_path / "x.safetensors", shapes, metadata))
    assert (seen.kind, seen.family) == (kind, family) and bool(seen.problem) == (kind is None)


def test_embeddings_in_pickles_and_pictures_are_told_too(tmp_path):
    import torch
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    torch.save({"string_to_param": {"*": torch.zeros(2, 768)}, "name": "cat"}, tmp_path / "a.pt")
    torch.save({"<cat>": torch.zeros(768)}, tmp_path / "b.bin")
    torch.save(torch.zeros(3, 768), tmp_path / "c.bin")
    text = PngInfo()
    text.add_text("sd-ti-embedding", "eyJ9")
    Image.new("RGB", (8, 8)).save(tmp_path / "d.png", pnginfo=text)
    assert [look(tmp_path / name).kind for name in ("a.pt", "b.bin", "c.bin", "d.png")] == ["embedding"] * 4
    torch.save([torch.zeros(4, 1), torch.zeros(1, 4)], tmp_path / "e.pt")
    assert look(tmp_path / "e.pt").kind == "lora"
    Image.new("RGB", (8, 8)).save(tmp_path / "f.png")
    assert look(tmp_path / "f.png").kind is None


def test_real_files_are_told(material):
    for path, kind, family in (
        ("lora_cloneofsimo/lora_disney.safetensors", "lora", ""),
        ("textual_inversion/cat-toy_learned_embeds.bin", "embedding", "sd1"),
        ("taef2/taef2_decoder.pth", "vae", ""),
    ):
        if (material / path).is_file():
            seen = look(material / path)
            assert (seen.kind, seen.family, seen.problem) == (kind, family, "")


def test_one_file_is_added_by_its_own_name_and_found_whatever_the_case(own, tmp_path):
    path = safetensors(tmp_path / "Cat Style.safetensors", LORA)
    (entry,) = add(own, path).entries
    assert (entry.name, entry.kind, entry.path, entry.family, entry.new) == ("Cat Style", "lora", path, "sd1", ())
    assert (
        Library().find("cat style") == Library().usable("Cat Style", "lora") and library.find("cat style").path == path
    )
    with pytest.raises(UnknownName) as told:
        own.find("cat stile")
    assert told.value.nearest == "Cat Style"
    with pytest.raises(UnknownName):
        own.find("cat style", "model")


def test_a_name_is_one_things_alone_within_its_kind(own, tmp_path):
    lora = safetensors(tmp_path / "a" / "cat.safetensors", LORA)
    add(own, lora)
    add(own, safetensors(tmp_path / "b" / "cat.safetensors", EMBEDDING))
    assert names(own) == ["cat", "cat"]
    with pytest.raises(UsageError, match="the name of several: lora, embedding"):
        own.find("cat")
    assert own.find("cat", "embedding").kind == "embedding"
    other = safetensors(tmp_path / "c" / "cat.safetensors", LORA)
    with pytest.raises(UsageError, match="the name cat is taken by cat .*a/cat") as told:
        add(own, other)
    assert "--name" in told.value.hint
    assert add(own, other, name="cat two").entries[0].name == "cat two"
    with pytest.raises(UsageError, match="added already, as cat"):
        add(own, lora)
    for bad in ("", "../x", "-x", "a/b", "a:b", "x" * 200, "a\nb"):
        with pytest.raises(UsageError, match="cannot be a name"):
            add(own, other, name=bad)
    with pytest.raises(UsageError, match="is taken by Pocket"):
        add(own, other, name="pocket", taken=["Pocket"])


def test_a_folder_of_many_stays_alive(own, tmp_path):
    folder = tmp_path / "Lora"
    safetensors(folder / "one.safetensors", LORA)
    safetensors(folder / "deep" / "two.safetensors", EMBEDDING)
    safetensors(folder / ".hidden" / "no.safetensors", LORA)
    (folder / "readme.txt").write_text("x")
    safetensors(folder / "unknown.safetensors", {"a.b": (3,)})
    added = add(own, folder)
    assert added.folder == folder and [entry.name for entry in added.entries] == ["one", "two"]
    assert len(added.problems) == 1 and "unknown.safetensors" in added.problems[0]
    safetensors(folder / "three.safetensors", LORA)
    safetensors(folder / "other" / "one.safetensors", LORA)
    assert names(Library(), "lora") == ["one", "other/one", "three"]
    (folder / "three.safetensors").unlink()
    assert names(own, "lora") == ["one", "other/one"]
    with pytest.raises(UsageError, match="which is watched"):
        own.remove("one")
    with pytest.raises(UsageError, match="keep their own names"):
        add(own, folder, name="x")
    add(own, folder)
    assert own.folders() == (folder,)
    assert own.remove(str(folder)).kept and own.entries() == () and (folder / "one.safetensors").exists()


def test_a_folder_that_is_one_thing_is_one_entry(own, tmp_path):
    for name in ("all/model-a", "all/model-b"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "model_index.json").write_text("{}")
        safetensors(tmp_path / name / "unet" / "diffusion_pytorch_model.safetensors", {"x": (1,)})
    tuned = tmp_path / "all" / "peft"
    safetensors(tuned / "adapter_model.safetensors", {"base_model.model.x.lora_A.weight": (2, 2)})
    (tuned / "adapter_config.json").write_text("{}")
    drawn = safetensors(tmp_path / "all" / "vae" / "diffusion_pytorch_model.safetensors", VAE).parent
    (drawn / "config.json").write_text('{"_class_name": "AutoencoderKL"}')
    add(own, tmp_path / "all")
    assert [(entry.name, entry.kind, bool(entry.problem)) for entry in own.entries()] == [
        ("model-a", "model", True),  # found, and its folder says what is missing
        ("model-b", "model", True),
        ("peft", "lora", False),
        ("vae", "vae", False),
    ]
    with pytest.raises(WeightsError, match="model-a cannot be used: "):
        own.usable("model-a")


def test_a_folder_that_was_incomplete_is_looked_at_again(own, tmp_path, monkeypatch):
    (tmp_path / "all" / "model").mkdir(parents=True)
    (tmp_path / "all" / "model" / "model_index.json").write_text("{}")
    add(own, tmp_path / "all")
    assert own.find("model").problem
    monkeypatch.setattr(library, "look", lambda path: kinds.Seen(kind="model", family="sd1"))
    assert Library().usable("model").family == "sd1"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer"),
        (b"<!doctype html><html>", "web page"),
        (b"", "empty"),
        (struct.pack("<Q", 500) + b"{", "cut short"),
    ],
)
def test_what_cannot_be_used_is_not_added(own, tmp_path, content, said):
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=said):
        add(own, path)
    assert own.entries() == ()


def test_where_nothing_is_nothing_is_added(own, tmp_path):
    (tmp_path / "empty").mkdir()
    for _ in range(2):
        with pytest.raises(UsageError, match="holds no model"):
            add(own, tmp_path / "empty")
        (tmp_path / "empty" / "notes.txt").write_text("x")
    (tmp_path / "empty" / "x.safetensors").write_bytes(b"<html>")
    assert "web page" in add(own, tmp_path / "empty").problems[0]  # it was meant to be one: the folder is watched
    with pytest.raises(WeightsMissing, match="no file or folder"):
        add(own, tmp_path / "none")


def fetching(monkeypatch, path, **more):
    """A download that is there at once."""

    def fetch(text, *, downloads, precision):
        yield from ()
        return sources.Fetched(path=path, **{"source": f"hub:org/{text[-4:]}@abc", **more})

    monkeypatch.setattr(sources, "fetch", fetch)


def test_removing_deletes_only_what_was_downloaded(own, tmp_path, monkeypatch):
    mine = safetensors(tmp_path / "mine.safetensors", LORA)
    add(own, mine)
    removed = own.remove("mine")
    assert removed.kept and removed.freed == 0 and mine.exists() and own.entries() == ()
    path = safetensors(own.folder / "downloads" / "theirs.safetensors", LORA)
    fetching(monkeypatch, path, new=(path,), licence="mit")
    (entry,) = add(own, "hub:org/repo").entries
    assert (entry.licence, entry.source) == ("mit", "hub:org/repo@abc")
    size = path.stat().st_size
    assert own.remove("theirs").freed == size and not path.exists()
    with pytest.raises(UnknownName):
        own.remove("theirs")


def test_a_download_is_found_by_its_source(own, tmp_path, monkeypatch):
    fetching(monkeypatch, safetensors(tmp_path / "x.safetensors", LORA))
    add(own, "hub:org/repo", name="theirs")
    for source in ("hub:org/repo", "hub:org/repo@abc", "hub:org/repo@main"):
        assert own.find(source).name == "theirs"
    for source in ("hub:org/repo@abd", "hub:org/repo/x.safetensors", "hub:org/other"):
        with pytest.raises(WeightsMissing) as told:
            own.find(source)
        assert told.value.hint == f"mindseye models add {source}"


def test_a_download_that_cannot_be_used_does_not_stay(own, tmp_path, monkeypatch):
    path = safetensors(own.folder / "downloads" / "odd.safetensors", {"a.b": (3,)})
    fetching(monkeypatch, path, new=(path,))
    with pytest.raises(WeightsError, match=r"odd\.safetensors is no model"):
        add(own, "hub:org/repo")
    assert not path.exists()


def test_public_releases_are_known_by_name(own, tmp_path, monkeypatch):
    with pytest.raises(WeightsMissing, match="stable-diffusion-1.5 is not downloaded") as told:
        own.find("sd15")
    assert told.value.hint == "mindseye models add stable-diffusion-1.5" and "RAIL" in told.value.message
    asked = []

    def fetch(text, *, downloads, precision):
        yield from ()
        asked.append((text, precision))
        return sources.Fetched(path=safetensors(tmp_path / "x.safetensors", {"a": (1,)}), source=f"{text}@abc")

    monkeypatch.setattr(sources, "fetch", fetch)
    monkeypatch.setattr(library, "look", lambda path: kinds.Seen(kind="model", family="sd1"))
    added = add(own, "SD1.5", precision="full")
    assert asked == [("hub:stable-diffusion-v1-5/stable-diffusion-v1-5", "full")]
    assert added.release is public.RELEASES[0] and added.entries[0].name == "stable-diffusion-1.5"
    assert added.entries[0].licence == public.RELEASES[0].licence
    assert own.find("sd15").name == "stable-diffusion-1.5"
    with pytest.raises(UsageError, match="is taken"):
        add(own, "sd15")
    assert len(asked) == 1  # and nothing was downloaded a second time


def test_the_public_table_holds_together():
    from mindseye.checkpoints.releases import FAMILIES
    from mindseye.diffusion.samplers import SAMPLERS
    from mindseye.diffusion.schedule import SCHEDULES

    spelled = [name for release in public.RELEASES for name in (release.name, *release.aliases)]
    assert len(spelled) == len(set(spelled))
    for release in public.RELEASES:
        assert isinstance(sources.parse(release.source), hub.Hub) and release.family in FAMILIES
        assert release.defaults["sampler"] in SAMPLERS and release.facts["schedule"] in SCHEDULES
        assert all(side % release.multiple == 0 for side in release.native) and release.licence and release.paper


def test_a_damaged_index_is_put_aside_and_said(own, tmp_path):
    add(own, safetensors(tmp_path / "a.safetensors", LORA))
    index = own.folder / "library.json"
    for damage in ("{", "[]", '{"version": 1}', '{"version": 1, "entries": [{"kind": "x"}], "folders": []}', "\udcff"):
        index.write_bytes(damage.encode("utf-8", "surrogateescape"))
        fresh = Library()
        assert fresh.entries() == () and len(fresh.notices) == 1 and "damaged" in fresh.notices[0]
        assert (own.folder / "library.json.damaged").exists()
    add(own, tmp_path / "a.safetensors")
    assert names(Library()) == ["a"]
    index.write_text('{"version": 99}')
    with pytest.raises(UsageError, match="newer mindseye"):
        Library().entries()
    assert index.read_text() == '{"version": 99}'


def test_a_file_that_went_is_said_and_can_be_forgotten(own, tmp_path):
    path = safetensors(tmp_path / "a.safetensors", LORA)
    add(own, path)
    path.unlink()
    assert "no longer where it was" in own.find("a").problem
    with pytest.raises(WeightsMissing, match="no longer where it was") as told:
        own.usable("a")
    assert "models remove a" in told.value.hint
    assert own.remove("a").kept is False and own.entries() == ()


def test_a_place_that_cannot_be_written_to_is_said(tmp_path):
    (tmp_path / "file").write_text("x")
    blocked = Library(tmp_path / "file")
    with pytest.raises(OutputError) as told:
        add(blocked, safetensors(tmp_path / "a.safetensors", LORA))
    assert "MINDSEYE_HOME" in told.value.hint


def test_fingerprints_are_taken_once_and_again_when_the_file_changes(own, tmp_path, monkeypatch):
    from hashlib import sha256

    path = safetensors(tmp_path / "a.safetensors", LORA, {"note": "x"})
    raw = path.read_bytes()
    start = 8 + struct.unpack("<Q", raw[:8])[0]
    taken = own.hashes(path)
    assert (taken.sha256, taken.tensors) == (sha256(raw).hexdigest(), sha256(raw[start:]).hexdigest())
    assert taken.short == taken.sha256[:10]
    calls = []
    monkeypatch.setattr(hashes, "take", lambda path: calls.append(path) or hashes.Hashes("new"))
    assert Library().hashes(path) == taken and calls == []
    os.utime(path, ns=(1, 1))
    assert Library().hashes(path).sha256 == "new" and calls == [path]
    with pytest.raises(WeightsMissing):
        own.hashes(tmp_path / "none")


def test_two_that_remember_do_not_forget_each_others(tmp_path):
    one, two = (safetensors(tmp_path / name, LORA) for name in ("a.safetensors", "b.safetensors"))
    first, second = (hashes.Remembered(tmp_path / "files.json") for _ in range(2))
    for memory, path in ((first, one), (second, two)):
        memory.hashes(path)
    first.save()
    second.save()
    again = hashes.Remembered(tmp_path / "files.json")
    assert again.get(one)["sha256"] and again.get(two)["sha256"]


def test_editing_the_notes_leaves_the_tensors_fingerprint(tmp_path):
    one = safetensors(tmp_path / "a.safetensors", LORA, {"note": "x"})
    two = safetensors(tmp_path / "b.safetensors", LORA, {"note": "another"})
    first, second = hashes.take(one), hashes.take(two)
    assert first.tensors == second.tensors and first.sha256 != second.sha256
    (tmp_path / "c.ckpt").write_bytes(b"PK")
    assert hashes.take(tmp_path / "c.ckpt").tensors == ""


def test_what_was_found_out_is_only_a_memory(own, tmp_path):
    path = safetensors(tmp_path / "a.safetensors", LORA)
    add(own, path)
    facts = own.folder / "files.json"
    assert str(path) in json.loads(facts.read_text())["files"]
    facts.write_text("garbage")
    assert names(Library()) == ["a"]


def test_listing_needs_no_torch(tmp_path):
    import subprocess
    import sys

    safetensors(tmp_path / "all" / "a.safetensors", LORA)
    safetensors(tmp_path / "all" / "b.safetensors", EMBEDDING)
    code = (
        "import sys; from pathlib import Path; from mindseye.checkpoints.library import Library;"
        "from mindseye.request import drain; own = Library(Path(sys.argv[1]) / 'home');"
        "drain(own.add(sys.argv[1] + '/all')); assert len(own.entries()) == 2; assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True)


def test_paths_stay_paths(own, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    safetensors(tmp_path / "sub" / "a.safetensors", LORA)
    add(own, "sub/a.safetensors")
    assert own.find("a").path == tmp_path / "sub" / "a.safetensors" and isinstance(own.find("a").path, Path)
