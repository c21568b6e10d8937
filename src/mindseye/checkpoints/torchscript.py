"""TorchScript archives, read for their tensors alone: OpenAI's CLIP was published as such programs.

An archive is a zip of code, stored tensors, and a pickle of the module's objects. `torch.jit.load` would compile the
code; `torch.load(weights_only=True)` refuses the archive. What is needed of the pickle is small: the few instructions
that TorchScript's writer uses, which are carried out here on plain values. Nothing is imported, called or built: a
module is its attributes, a tensor is a place in the file, and any other instruction or name is an error. Every
instruction takes a moment of its own, so the time is that of reading the file's list once.
"""

import pickletools
import struct
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

from mindseye.errors import WeightsError

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["is_torchscript", "read_torchscript"]

LARGEST = 64 << 20
"""Bytes of the pickle; CLIP's have some hundred thousand."""
MOST = 200_000
"""Attributes of all modules together."""

_DTYPES = {
    "DoubleStorage": "float64", "FloatStorage": "float32", "HalfStorage": "float16", "BFloat16Storage": "bfloat16",
    "LongStorage": "int64", "IntStorage": "int32", "ShortStorage": "int16", "CharStorage": "int8",
    "ByteStorage": "uint8", "BoolStorage": "bool",
}  # fmt: skip


@final
@dataclass(frozen=True)
class _Name:
    """A class or function that the pickle names."""

    text: str


@final
@dataclass(eq=False)
class _Module:
    attributes: dict[str, Any] = field(default_factory=dict)


@final
@dataclass(frozen=True)
class _Stored:
    """A tensor: which record of the archive, and what part of it."""

    dtype: str
    record: str
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


def is_torchscript(path: Path) -> bool:
    """Whether a zip is such an archive."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = {name.partition("/")[2] for name in archive.namelist()}
    except (OSError, zipfile.BadZipFile, ValueError):
        return False
    return "constants.pkl" in names and "data.pkl" in names


def read_torchscript(path: Path) -> tuple[dict[str, "Tensor"], dict[str, str]]:
    """The tensors of all modules by their dotted names, mapped into memory; and the numbers and words beside them.

    Raises:
        WeightsError: Damaged, or more than a module and its tensors.
    """
    again = "download it again"
    try:
        with zipfile.ZipFile(path) as archive:
            records = {info.filename.partition("/")[2]: info for info in archive.infolist()}
            if records["data.pkl"].file_size > LARGEST:
                raise WeightsError(f"{path} has a list of objects of absurd size")
            root = _run(archive.read(records["data.pkl"]))
        if not isinstance(root, _Module):
            raise ValueError("it holds no module")
        found = dict(_flat(root))
        tensors = _mapped(path, records, {k: v for k, v in found.items() if isinstance(v, _Stored)})
    except (OSError, zipfile.BadZipFile, ValueError, KeyError, IndexError, TypeError, struct.error) as error:
        raise WeightsError(f"{path} is no TorchScript archive that can be read: {error!s:.200}", hint=again) from None
    if not tensors:
        raise WeightsError(f"{path} holds no named tensors")
    return tensors, {k: str(v) for k, v in found.items() if isinstance(v, str | int | float)}


def _flat(root: _Module) -> Iterator[tuple[str, Any]]:
    """All attributes by dotted names; each module's once for every name it has."""
    waiting, count = [("", root)], 0
    while waiting:
        prefix, module = waiting.pop()
        for name, value in module.attributes.items():
            count += 1
            if count > MOST or len(prefix) > 1000:
                raise ValueError("its modules hold each other without end")
            if isinstance(value, _Module):
                waiting.append((f"{prefix}{name}.", value))
            else:
                yield prefix + name, value


def _mapped(path: Path, records: dict[str, zipfile.ZipInfo], found: dict[str, _Stored]) -> dict[str, "Tensor"]:
    """Tensors as the file's own memory."""
    import torch

    storage: Any = torch.UntypedStorage.from_file(str(path), False, path.stat().st_size)
    raw = torch.empty(0, dtype=torch.uint8).set_(storage)
    starts: dict[str, int] = {}
    tensors = {}
    with path.open("rb") as file:
        for name, each in found.items():
            info = records[f"data/{each.record}"]
            if info.compress_type != zipfile.ZIP_STORED:
                raise ValueError(f"{name} is packed")
            if each.record not in starts:
                # The file's own header of the record, whose padding the central directory does not know.
                file.seek(info.header_offset)
                header = file.read(30)
                starts[each.record] = info.header_offset + 30 + sum(struct.unpack("<HH", header[26:30]))
            dtype = getattr(torch, each.dtype)
            start = starts[each.record]
            whole = raw[start : start + info.file_size]
            if len(whole) != info.file_size or info.file_size % dtype.itemsize:
                raise ValueError(f"{name} is cut short")
            whole = (whole.clone() if start % dtype.itemsize else whole).view(dtype)
            tensors[name] = _part(name, whole, each)
    return tensors


def _part(name: str, whole: "Tensor", each: _Stored) -> "Tensor":
    """What part of a record a tensor is."""
    numbers, last = 1, each.offset
    for side, stride in zip(each.shape, each.stride, strict=True):
        numbers *= side
        last += (side - 1) * stride
    # Not more numbers than are stored: a stride of zero could promise any number of them.
    if numbers and not last < len(whole) or numbers > len(whole):
        raise ValueError(f"{name} reaches beyond what is stored")
    return whole.as_strided(each.shape, each.stride, whole.storage_offset() + each.offset)  # counted in the file


def _run(raw: bytes) -> Any:
    """Carry out a pickle's instructions, of those that TorchScript writes."""
    stack: list[Any] = []
    below: list[list[Any]] = []
    memo: dict[int, Any] = {}

    def marked() -> list[Any]:
        nonlocal stack
        items, stack = stack, below.pop()
        return items

    def fill(items: list[Any]) -> None:
        target = stack[-1]
        if not isinstance(target, dict) or len(items) % 2:
            raise ValueError("items without a dictionary")
        for key, value in zip(items[::2], items[1::2], strict=True):
            if not isinstance(key, str | int | float):
                raise ValueError("a key that is no word or number")
            target[key] = value

    def append(items: list[Any]) -> None:
        if not isinstance(stack[-1], list):
            raise ValueError("items without a list")
        stack[-1].extend(items)

    constants: dict[str, Callable[[], Any]] = {
        "NONE": lambda: None, "NEWTRUE": lambda: True, "NEWFALSE": lambda: False,
        "EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_TUPLE": tuple,
    }  # fmt: skip
    for instruction, argument, _ in pickletools.genops(raw):
        name = instruction.name
        if name in constants:
            stack.append(constants[name]())
        elif name in ("BINUNICODE", "SHORT_BINUNICODE", "BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT"):
            stack.append(argument)
        elif name == "GLOBAL":
            stack.append(_Name(str(argument)))
        elif name == "MARK":
            below.append(stack)
            stack = []
        elif name == "TUPLE":
            items = marked()
            stack.append(tuple(items))
        elif name in ("TUPLE1", "TUPLE2", "TUPLE3"):
            count = int(name[-1])
            items = tuple(stack[-count:])
            if len(items) != count:
                raise ValueError("a tuple of nothing")
            stack[-count:] = [items]
        elif name in ("SETITEM", "SETITEMS"):
            items = [stack.pop(-2), stack.pop()] if name == "SETITEM" else marked()
            fill(items)
        elif name in ("APPEND", "APPENDS"):
            items = [stack.pop()] if name == "APPEND" else marked()
            append(items)
        elif name in ("BINPUT", "LONG_BINPUT"):
            memo[_int(argument)] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            stack.append(memo[_int(argument)])
        elif name == "BINPERSID":
            stack.append(_storage(stack.pop()))
        elif name == "NEWOBJ":
            stack.pop()
            kind = stack.pop()
            if not isinstance(kind, _Name) or not kind.text.startswith("__torch__"):
                raise ValueError(f"it asks for an object of {kind!s:.80}")
            stack.append(_Module())
        elif name == "BUILD":
            state = stack.pop()
            if not isinstance(stack[-1], _Module) or not isinstance(state, dict):
                raise ValueError("a state that is no module's")
            stack[-1].attributes = {str(key): value for key, value in state.items()}
        elif name == "REDUCE":
            arguments = stack.pop()
            stack.append(_called(stack.pop(), arguments))
        elif name == "STOP":
            return stack.pop()
        elif name != "PROTO":
            raise ValueError(f"it has the instruction {name}, which TorchScript does not write")
    raise ValueError("its list of objects has no end")


def _int(value: object) -> int:
    if type(value) is not int or value < 0:
        raise ValueError("a place that is no whole number")
    return value


def _storage(told: Any) -> tuple[str, str]:
    """Dtype and record of what a persistent id names."""
    kind, storage, record, *_ = told
    if kind != "storage" or not isinstance(storage, _Name) or not isinstance(record, str):
        raise ValueError("a reference that is no storage's")
    package, _, name = storage.text.partition(" ")
    if package != "torch" or name not in _DTYPES:
        raise ValueError(f"a storage of {storage.text!s:.80}")
    return _DTYPES[name], record


def _called(function: Any, arguments: Any) -> Any:
    """What a call would have made, of the four calls there are."""
    name = function.text if isinstance(function, _Name) else ""
    if name == "torch._utils _rebuild_tensor_v2":
        (dtype, record), offset, shape, stride, *_ = arguments
        sides, strides = (tuple(_int(each) for each in every) for every in (shape, stride))
        return _Stored(dtype, record, _int(offset), sides, strides)
    if name == "collections OrderedDict" and arguments == ():
        return {}
    if name.startswith("torch.jit._pickle "):
        return arguments[0] if arguments else None
    raise ValueError(f"it asks to call {name or function!s:.80}")
