"""TorchScript archives: the same tensors as torch's own reader, nothing carried out, hostile ones refused at once."""

import pickle
import time
import warnings
import zipfile

import pytest
import torch
from torch import nn

from mindseye.checkpoints.torchscript import is_torchscript, read_torchscript
from mindseye.errors import WeightsError


class Inner(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3, 4).half())
        self.register_buffer("count", torch.tensor(5))
        self.register_buffer("turned", torch.randn(4, 5).t())
        self.name, self.sizes, self.both, self.table = "x", [1, 2, 300], (1, 2.5), {"a": 70_000}

    def forward(self, x):
        return x @ self.weight.float().t() * self.sizes[0]


class Outer(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = Inner()
        self.several = nn.Sequential(Inner(), nn.Linear(3, 2))
        self.register_buffer("context_length", torch.tensor(77))
        self.register_buffer("piece", self.several[1].weight.detach()[:1])

    def forward(self, x):
        return self.several(x)


@pytest.fixture(params=["script", "trace"])
def archive(request, tmp_path):
    torch.manual_seed(0)
    path = tmp_path / "program.pt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.jit.script(Outer()) if request.param == "script" else torch.jit.trace(Outer(), torch.ones(1, 4))
        torch.jit.save(program, path)
        expected = torch.jit.load(path).state_dict()
    return path, expected


def test_the_same_tensors(archive):
    path, expected = archive
    assert is_torchscript(path)
    found, _ = read_torchscript(path)
    assert set(found) == set(expected)
    for name, value in expected.items():
        assert found[name].dtype == value.dtype and torch.equal(found[name], value), name


def test_words_beside_them(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(Outer()), tmp_path / "a.pt")
    assert read_torchscript(tmp_path / "a.pt")[1]["a.name"] == "x"


def test_weights_are_no_programs(tmp_path):
    torch.save({"a": torch.ones(2)}, tmp_path / "a.pt")
    assert not is_torchscript(tmp_path / "a.pt")
    (tmp_path / "b.pt").write_bytes(b"PK nonsense")
    assert not is_torchscript(tmp_path / "b.pt")


def rewritten(path, change):
    """The archive with another list of objects; records stored as they were."""
    other = path.with_name("other.pt")
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(other, "w") as new:
        for info in old.infolist():
            raw = old.read(info)
            new.writestr(info.filename, change(raw) if info.filename.endswith("/data.pkl") else raw)
    return other


class Evil:
    ran = False

    def __reduce__(self):
        return (setattr, (Evil, "ran", True))


def doubled():
    """A tuple of tuples of tuples ... as a key: hashing it would take longer than the sun burns."""
    return b"\x80\x02()q\x00" + b"h\x00h\x00\x86q\x00" * 80 + b"t}h\x00K\x01s."


@pytest.mark.parametrize(
    "raw",
    [
        pickle.dumps(Evil(), 2),
        pickle.dumps({"a": Evil()}, 4),
        doubled(),
        b"\x80\x02)))" + b"\x87" * 5 + b".",
        b"\x80\x02}.",
        b"\x80\x02(" * 1000 + b".",
        b"",
        b"\x80\x02c__torch__\nA\n)\x81}(X\x01\x00\x00\x00aU\x01bub.",
        # A module that holds itself.
        b"\x80\x02c__torch__\nA\n)\x81q\x00}(X\x01\x00\x00\x00ah\x00ub.",
        # A tensor that reaches beyond its record, and one that promises more numbers than there are.
        b"\x80\x02c__torch__\nA\n)\x81}(X\x01\x00\x00\x00actorch._utils\n_rebuild_tensor_v2\n"
        b"((X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x01tQ"
        b"J\xff\xff\xff\x00K\x02\x85K\x01\x85\x89NtRub.",
        b"\x80\x02c__torch__\nA\n)\x81}(X\x01\x00\x00\x00actorch._utils\n_rebuild_tensor_v2\n"
        b"((X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x01tQ"
        b"K\x00J\xff\xff\xff\x00\x85K\x00\x85\x89NtRub.",
    ],
    ids=["call", "call-4", "doubled", "stack", "no-module", "marks", "empty", "opcode", "cycle", "beyond", "promise"],
)
def test_anything_else_is_refused_and_nothing_is_run(archive, raw, second):
    path = rewritten(archive[0], lambda _: raw)
    began = time.process_time()
    with pytest.raises(WeightsError):
        read_torchscript(path)
    assert time.process_time() - began < 2 * second and not Evil.ran


def test_the_tests_own_pickle_is_a_good_one(archive):
    """The hostile ones above differ from this in one thing each."""
    raw = (
        b"\x80\x02c__torch__\nA\n)\x81}(X\x01\x00\x00\x00actorch._utils\n_rebuild_tensor_v2\n"
        b"((X\x07\x00\x00\x00storagectorch\nHalfStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x01tQ"
        b"K\x01K\x02\x85K\x01\x85\x89NtRub."
    )
    with zipfile.ZipFile(archive[0]) as old:
        record = old.read(next(name for name in old.namelist() if name.endswith("/data/0")))
    found, _ = read_torchscript(rewritten(archive[0], lambda _: raw))
    assert torch.equal(found["a"], torch.frombuffer(bytearray(record), dtype=torch.float16)[1:3])


def test_cut_short(archive):
    path = archive[0]
    short = path.with_name("short.pt")
    short.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(WeightsError):
        read_torchscript(short)
