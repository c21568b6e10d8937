"""Tables of contents: read without tensors, and what is no weights file is called by its name."""

import collections
import json
import os
import pickle
import struct
import subprocess
import sys
import types
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from mindseye.checkpoints.manifest import open_pickle, read_manifest
from mindseye.errors import WeightsError, WeightsMissing

TENSORS = {"a.weight": torch.arange(6.0).view(2, 3), "b": torch.ones(3, dtype=torch.float16), "n": torch.tensor(7)}


def test_safetensors(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    save_file(TENSORS, path, {"format": "pt", "who": "me"})
    manifest = read_manifest(path)
    assert manifest.shapes() == {"a.weight": (2, 3), "b": (3,), "n": ()}
    assert {key: entry.dtype for key, entry in manifest.items()} == {"a.weight": "F32", "b": "F16", "n": "I64"}
    assert manifest.metadata["who"] == "me" and manifest.files == (path,)
    entry = manifest["a.weight"]
    assert path.read_bytes()[entry.offset : entry.offset + entry.bytes] == TENSORS["a.weight"].numpy().tobytes()
    assert manifest.under("a.").shapes() == {"weight": (2, 3)}


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("wrap", [lambda x: x, lambda x: {"state_dict": x, "global_step": 875000, "epoch": 3}])
def test_pickles(tmp_path: Path, zipped: bool, wrap) -> None:
    path = tmp_path / "x.safetensors"  # the name says nothing
    torch.save(wrap(TENSORS), path, _use_new_zipfile_serialization=zipped)
    manifest = read_manifest(path)
    assert manifest.shapes() == {"a.weight": (2, 3), "b": (3,), "n": ()}
    assert manifest["a.weight"].offset is None
    assert manifest.metadata.get("global_step", "") in ("", "875000")


def sharded(folder: Path) -> Path:
    names = {"a.weight": "m-00001-of-00002.safetensors", "b": "m-00002-of-00002.safetensors"}
    for key, name in names.items():
        save_file({key: TENSORS[key]}, folder / name)
    index = folder / "m.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": names}))
    return index


def test_shards(tmp_path: Path) -> None:
    index = sharded(tmp_path)
    manifest = read_manifest(index)
    assert sorted(manifest) == ["a.weight", "b"] and len(manifest.files) == 2
    assert read_manifest(manifest.files).entries == manifest.entries
    with pytest.raises(WeightsError, match=r"both hold a\.weight"):
        read_manifest([manifest.files[0], manifest.files[0]])


def test_a_missing_shard(tmp_path: Path) -> None:
    index = sharded(tmp_path)
    (tmp_path / "m-00002-of-00002.safetensors").unlink()
    with pytest.raises(WeightsMissing, match=r"1 is not there: m-00002-of-00002\.safetensors"):
        read_manifest(index)


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({"weight_map": {"a": "../secret.safetensors"}}, "outside its own folder"),
        ({"weight_map": 3}, "no readable weight_map"),
        ([], "no readable weight_map"),
        ({"weight_map": {"z": "m-00001-of-00002.safetensors"}}, r"promises 1 tensors that its files lack \(z\)"),
    ],
)
def test_a_bad_index(tmp_path: Path, table: object, said: str) -> None:
    index = sharded(tmp_path)
    index.write_text(json.dumps(table))
    with pytest.raises(WeightsError, match=said):
        read_manifest(index)


def header(table: object, data: bytes = b"") -> bytes:
    raw = json.dumps(table).encode()
    return struct.pack("<Q", len(raw)) + raw + data


F32 = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
WRONG = {
    "empty": (b"", "is empty"),
    "lfs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 4\n", "Git LFS pointer"),
    "html": (b"\n<!DOCTYPE html><html><body>404", "web page"),
    "html2": (b"<HTML><head>", "web page"),
    "xml": (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "web page"),
    "gguf": (b"GGUF\x03\x00\x00\x00" + bytes(20), "GGUF"),
    "text": (b"hello, world, this is text", "no weights file"),
    "short": (b"\x01", "no weights file"),
    "huge header": (struct.pack("<Q", 2**60) + b"{}", "no weights file"),
    "cut in the header": (header({"a": F32}, bytes(8))[:30], "cut short"),
    "cut in the tensors": (header({"a": F32}, bytes(7)), r"cut short: \d+ of \d+ bytes"),
    "no json": (struct.pack("<Q", 4) + b"{abc", "cannot be read"),
    "deep json": (struct.pack("<Q", 50_000) + b"{" + b"[" * 49_999, "cannot be read"),
    "wrong size": (header({"a": {**F32, "data_offsets": [0, 4]}}, bytes(8)), "has 4 bytes where its shape needs 8"),
    "negative": (header({"a": {**F32, "shape": [-2], "data_offsets": [8, 0]}}, bytes(8)), "no shape"),
    "odd dtype": (header({"a": {**F32, "dtype": "Q4"}}, bytes(8)), "Q4, which is not known"),
    "no dtype": (header({"a": {"shape": []}}), "cannot be read"),
    "list": (header({"a": [1]}), "cannot be read"),
    "metadata": (header({"__metadata__": [1], "a": F32}, bytes(8)), "cannot be read"),
}


@pytest.mark.parametrize("name", WRONG)
def test_something_else(tmp_path: Path, name: str) -> None:
    content, said = WRONG[name]
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=said):
        read_manifest(path)


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(WeightsMissing, match="are not there"):
        read_manifest(tmp_path / "x.safetensors")
    with pytest.raises(WeightsError, match="a folder"):
        read_manifest(tmp_path)


class Bomb:
    """Makes a file when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self):
        return os.mkdir, (str(self.target),)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_with_code(tmp_path: Path, zipped: bool) -> None:
    path, target = tmp_path / "x.ckpt", tmp_path / "ran"
    torch.save({**TENSORS, "x": Bomb(target)}, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(WeightsError, match=r"code in it \((posix|nt)\.mkdir\): it was not opened"):
        read_manifest(path)
    assert not target.exists()


def test_a_bare_pickle_with_code(tmp_path: Path) -> None:
    path, target = tmp_path / "x.ckpt", tmp_path / "ran"
    path.write_bytes(pickle.dumps({"x": Bomb(target)}))
    with pytest.raises(WeightsError, match="x.ckpt is a pickle that asks for more.*code in it, most likely"):
        read_manifest(path)
    assert not target.exists()


@pytest.mark.parametrize("keep", [0.5, 0.99])
def test_a_truncated_pickle(tmp_path: Path, keep: float) -> None:
    path = tmp_path / "x.ckpt"
    torch.save(TENSORS, path)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * keep)])
    with pytest.raises(WeightsError, match="cut short"):
        read_manifest(path)


@pytest.mark.parametrize(("content", "said"), [([1, 2], "list, not named"), ({"epoch": 1}, "no named tensors")])
def test_a_pickle_of_something_else(tmp_path: Path, content: object, said: str) -> None:
    torch.save(content, tmp_path / "x.pt")
    with pytest.raises(WeightsError, match=said):
        open_pickle(tmp_path / "x.pt")


def test_training_bookkeeping_is_read_past(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The original releases name classes of Lightning beside their weights; they are not imported."""
    module = types.ModuleType("pytorch_lightning.callbacks")
    kind = type("ModelCheckpoint", (), {"__module__": module.__name__})
    module.ModelCheckpoint = kind
    monkeypatch.setitem(sys.modules, "pytorch_lightning", types.ModuleType("pytorch_lightning"))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    state = collections.OrderedDict(TENSORS)
    callback = kind()
    callback.best = torch.ones(1)
    torch.save({"state_dict": state, "callbacks": {kind: {"best": 1.0}, "more": callback}}, tmp_path / "x.ckpt")
    monkeypatch.undo()
    assert set(read_manifest(tmp_path / "x.ckpt")) == set(TENSORS)


def test_safetensors_need_no_torch(tmp_path: Path, tiny) -> None:
    path = tiny("sdxl").file(tmp_path / "x.safetensors")
    folder = tiny("sd1").folder(tmp_path / "folder")
    code = (
        "import sys\nfrom pathlib import Path\nfrom mindseye.checkpoints.releases import identify\n"
        f"assert identify(Path({str(path)!r})).family == 'sdxl'\n"
        f"assert identify(Path({str(folder)!r})).family == 'sd1'\n"
        "assert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
