"""Pickles carried out on plain values: nothing is imported, called or built.

A pickle is a program for a small machine. What torch's writers put into one is a dozen instructions: words, numbers,
containers, "an object of this class with that state", "what that function makes of these". Here the machine is run with
names in place of classes and functions, so a module is its attributes and a tensor a place in the file; any other
instruction, and any name that the reader does not know, is an error. Every instruction takes a moment of its own, so
the time is that of reading the pickle once.
"""

import pickletools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, final

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["LARGEST", "MOST", "Called", "Name", "Object", "Stored", "mapped", "run", "storage", "tensor"]

LARGEST = 64 << 20
"""Bytes of a pickle that is no longer a list of objects; CLIP's have some hundred thousand."""
MOST = 200_000
"""Attributes of all modules together."""

_DTYPES = {
    "DoubleStorage": "float64", "FloatStorage": "float32", "HalfStorage": "float16", "BFloat16Storage": "bfloat16",
    "LongStorage": "int64", "IntStorage": "int32", "ShortStorage": "int16", "CharStorage": "int8",
    "ByteStorage": "uint8", "BoolStorage": "bool",
}  # fmt: skip


@final
@dataclass(frozen=True)
class Name:
    """A class or function that the pickle names: its module, a space, its own name."""

    text: str


@final
@dataclass(eq=False)
class Object:
    """An object that the pickle asks for: its class's name, and what it was given."""

    kind: str = ""
    attributes: dict[str, Any] = field(default_factory=dict)


@final
@dataclass(frozen=True)
class Stored:
    """A tensor: which record of the file, and what part of it."""

    dtype: str
    record: str
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


class Called(ValueError):
    """The pickle asks for something that is not known; the text names it."""


def run(
    source: bytes | IO[bytes],
    *,
    known: Callable[[str], bool],
    call: Callable[[str, Any], Any],
    refer: Callable[[Any], Any],
) -> Any:
    """Carry out a pickle's instructions, of those that torch's writers use.

    Args:
        source: The pickle; of a file, what follows it is left unread.
        known: Whether there may be objects of a class, by its `Name`.
        call: What a function makes of its arguments, by its `Name`; raises `Called` where it is not known.
        refer: What a persistent id stands for.

    Raises:
        Called: It asks for an object or a call that is not known.
        ValueError: It does anything else that those writers do not; also IndexError, KeyError and TypeError.
    """
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
    for instruction, argument, _ in pickletools.genops(source):
        name = instruction.name
        if name in constants:
            stack.append(constants[name]())
        elif name in ("BINUNICODE", "SHORT_BINUNICODE", "BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT"):
            stack.append(argument)
        elif name == "GLOBAL":
            stack.append(Name(str(argument)))
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
            stack.append(refer(stack.pop()))
        elif name == "NEWOBJ":
            stack.pop()
            kind = stack.pop()
            if not isinstance(kind, Name) or not known(kind.text):
                raise Called(_shown(kind))
            stack.append(Object(kind.text))
        elif name == "BUILD":
            state = stack.pop()
            if not isinstance(stack[-1], Object) or not isinstance(state, dict):
                raise ValueError("a state that is no module's")
            stack[-1].attributes = {str(key): value for key, value in state.items()}
        elif name == "REDUCE":
            arguments = stack.pop()
            function = stack.pop()
            if not isinstance(function, Name):
                raise Called(_shown(function))
            stack.append(call(function.text, arguments))
        elif name == "STOP":
            return stack.pop()
        elif name != "PROTO":
            raise ValueError(f"it has the instruction {name}, which torch does not write")
    raise ValueError("its list of objects has no end")


def _shown(thing: Any) -> str:
    """Its name as Python would write it."""
    return thing.text.replace(" ", ".")[:80] if isinstance(thing, Name) else f"{thing!s:.80}"


def _int(value: object) -> int:
    if type(value) is not int or value < 0:
        raise ValueError("a place that is no whole number")
    return value


def storage(told: Any) -> tuple[str, str]:
    """Dtype and record of what a persistent id names: a storage.

    Raises:
        ValueError: It names something else.
    """
    kind, named, record, *_ = told
    if kind != "storage" or not isinstance(named, Name) or not isinstance(record, str):
        raise ValueError("a reference that is no storage's")
    package, _, name = named.text.partition(" ")
    if package != "torch" or name not in _DTYPES:
        raise ValueError(f"a storage of {named.text!s:.80}")
    return _DTYPES[name], record


def tensor(arguments: Any) -> Stored:
    """What ``torch._utils._rebuild_tensor_v2`` is told."""
    (dtype, record), offset, shape, stride, *_ = arguments
    sides, strides = (tuple(_int(each) for each in every) for every in (shape, stride))
    return Stored(dtype, record, _int(offset), sides, strides)


def mapped(
    path: Path, found: Mapping[str, Stored], place: Callable[[IO[bytes], str], tuple[int, int]]
) -> "dict[str, Tensor]":
    """Tensors as the file's own memory.

    Args:
        path: The file.
        found: The tensors.
        place: First byte and number of bytes of a record; is given the open file to look, and asked once a record.

    Raises:
        ValueError: One is cut short, or reaches beyond what is stored.
    """
    import torch

    memory: Any = torch.UntypedStorage.from_file(str(path), False, path.stat().st_size)
    raw = torch.empty(0, dtype=torch.uint8).set_(memory)
    places: dict[str, tuple[int, int]] = {}
    tensors = {}
    with path.open("rb") as file:
        for name, each in found.items():
            if each.record not in places:
                places[each.record] = place(file, each.record)
            start, size = places[each.record]
            dtype = getattr(torch, each.dtype)
            whole = raw[start : start + size]
            if len(whole) != size or size % dtype.itemsize:
                raise ValueError(f"{name} is cut short")
            whole = (whole.clone() if start % dtype.itemsize else whole).view(dtype)
            tensors[name] = _part(name, whole, each)
    return tensors


def _part(name: str, whole: "Tensor", each: Stored) -> "Tensor":
    """What part of a record a tensor is."""
    numbers, last = 1, each.offset
    for side, stride in zip(each.shape, each.stride, strict=True):
        numbers *= side
        last += (side - 1) * stride
    # Not more numbers than are stored: a stride of zero could promise any number of them.
    if numbers and not last < len(whole) or numbers > len(whole):
        raise ValueError(f"{name} reaches beyond what is stored")
    return whole.as_strided(each.shape, each.stride, whole.storage_offset() + each.offset)  # counted in the file
