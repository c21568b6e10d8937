"""Flax's files (``flax_model.msgpack``): where each array lies in them, read without reading the arrays.

Flax writes nested tables of parameters as MessagePack (https://msgpack.org) and each array as an extension of its own
(type 1) that holds three things: shape, name of the dtype, and the numbers in C order. So the numbers of an array lie
in the file as they lie in memory, and it is enough to walk over the tables and note where: the walk reads a few
kilobytes of a file of ten gigabytes, executes nothing, and tensors are mapped afterwards like those of safetensors.

A name is the path through the tables, joined by dots. Layers that were scanned over lie stacked in one array, an axis
more in front, under a name in the plural (``FlaxBartEncoderLayers``); they are shown one by one, as Flax itself names
them where it does not scan (``FlaxBartEncoderLayer_0``).
"""

import math
import mmap
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from mindseye.errors import WeightsError

__all__ = ["Array", "arrays", "is_flax"]

DTYPES = {
    "float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16", "int64": "I64", "int32": "I32",
    "int16": "I16", "int8": "I8", "uint64": "U64", "uint32": "U32", "uint16": "U16", "uint8": "U8", "bool": "BOOL",
}  # fmt: skip
"""numpy's names of dtypes -> safetensors'."""
BITS = {"F64": 64, "F32": 32, "F16": 16, "BF16": 16, "I64": 64, "I32": 32, "I16": 16, "I8": 8, "U64": 64, "U32": 32,
        "U16": 16, "U8": 8, "BOOL": 8}  # fmt: skip
DEEPEST = 64
"""Tables within tables."""
MOST = 100_000
"""Names in one file."""
_PIECES = "__msgpack_chunked_array__"
_SCANNED = re.compile(r"(.*\bFlax\w*Layer)s\.(.+)")
_TEXT, _BINARY, _LIST, _TABLE, _EXTENSION = "text", "binary", "list", "table", "extension"
_SIZED = {
    0xC4: (_BINARY, ">B"), 0xC5: (_BINARY, ">H"), 0xC6: (_BINARY, ">I"),
    0xC7: (_EXTENSION, ">B"), 0xC8: (_EXTENSION, ">H"), 0xC9: (_EXTENSION, ">I"),
    0xD9: (_TEXT, ">B"), 0xDA: (_TEXT, ">H"), 0xDB: (_TEXT, ">I"),
    0xDC: (_LIST, ">H"), 0xDD: (_LIST, ">I"), 0xDE: (_TABLE, ">H"), 0xDF: (_TABLE, ">I"),
}  # fmt: skip
"""First bytes of values that say their own size, and in which form they say it."""
_PLAIN = {
    0xC0: 0, 0xC2: 0, 0xC3: 0, 0xCA: 4, 0xCB: 8, 0xCC: 1, 0xCD: 2, 0xCE: 4, 0xCF: 8, 0xD0: 1, 0xD1: 2, 0xD2: 4, 0xD3: 8,
}  # fmt: skip
"""First bytes of numbers, truth values and nothing, and how many bytes follow."""
_INTEGERS = {0xCC: ">B", 0xCD: ">H", 0xCE: ">I", 0xCF: ">Q"}


@dataclass(frozen=True)
class Array:
    """One array of a file.

    Attributes:
        name: The path to it, joined by dots.
        shape: Its shape.
        dtype: By safetensors' name.
        offset: First byte of its numbers in the file.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    offset: int


def is_flax(start: bytes) -> bool:
    """Whether a file that begins like that is a table of named things in MessagePack."""
    if len(start) < 8:
        return False
    first = start[0]
    at = 1 if 0x81 <= first <= 0x8F else {0xDE: 3, 0xDF: 5}.get(first, 0)
    return bool(at) and (0xA1 <= start[at] <= 0xBF or start[at] in (0xD9, 0xDA))


def arrays(path: Path) -> list[Array]:
    """All arrays of a file, scanned layers one by one.

    Raises:
        WeightsError: Damaged, cut short, or of a kind that is not read here.
    """
    again = "download it again"
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            found = list(_Walk(content).table((), DEEPEST))
    except (IndexError, struct.error):
        raise WeightsError(f"{path} is cut short: its tables go on behind its end", hint=again) from None
    except (ValueError, UnicodeDecodeError) as error:
        raise WeightsError(f"{path} is no whole Flax file: {error!s:.200}", hint=again) from None
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {error.strerror or error}") from error
    named: dict[str, Array] = {}
    for each in found:
        for one in _unstacked(each):
            if one.name in named:
                raise WeightsError(f"{path} holds {one.name} twice")
            named[one.name] = one
    if not named:
        raise WeightsError(f"{path} is a MessagePack file without arrays")
    return list(named.values())


def _unstacked(each: Array) -> Iterator[Array]:
    """One array, or the rows of one that layers were scanned over."""
    stacked = _SCANNED.fullmatch(each.name)
    if stacked is None or not each.shape or each.shape[0] > 1000:
        yield each
        return
    size = math.prod(each.shape[1:]) * BITS[each.dtype] // 8
    for row in range(each.shape[0]):
        yield Array(f"{stacked[1]}_{row}.{stacked[2]}", each.shape[1:], each.dtype, each.offset + row * size)


@final
class _Walk:
    """Goes over a file's values in order; raises IndexError at its end, ValueError where it makes no sense."""

    def __init__(self, content: mmap.mmap) -> None:
        self._content, self._at, self._seen = content, 0, 0

    def table(self, path: tuple[str, ...], deepest: int) -> Iterator[Array]:
        """The arrays in the table that begins here."""
        kind, size, _ = self._head()
        if kind != _TABLE:
            raise ValueError(f"a table was expected at byte {self._at}")
        if not deepest:
            raise ValueError(f"tables lie deeper than {DEEPEST} in each other")
        for _ in range(size):
            self._seen += 1
            if self._seen > MOST:
                raise ValueError(f"more than {MOST:,} names")
            name = self._text()
            if name == _PIECES:
                raise ValueError(f"{'.'.join(path)} is written in pieces, which is not read here")
            yield from self._value((*path, name), deepest)

    def _value(self, path: tuple[str, ...], deepest: int) -> Iterator[Array]:
        before = self._at
        kind, size, code = self._head()
        if kind == _TABLE:
            self._at = before
            yield from self.table(path, deepest - 1)
        elif kind == _EXTENSION and code == 1:
            end = self._at + size
            yield self._array(".".join(path), end)
            self._at = end
        else:
            self._at = before
            self._skip(deepest)

    def _array(self, name: str, end: int) -> Array:
        kind, size, _ = self._head()
        if kind != _LIST or size != 3:
            raise ValueError(f"{name} is no array")
        kind, axes, _ = self._head()
        if kind != _LIST or axes > 16:
            raise ValueError(f"{name} has no shape")
        shape = tuple(self._integer() for _ in range(axes))
        dtype = self._text()
        if dtype not in DTYPES:
            raise ValueError(f"{name} is {dtype:.40}, which is not read here")
        kind, size, _ = self._head()
        wanted = math.prod(shape) * BITS[DTYPES[dtype]] // 8
        if kind != _BINARY or size != wanted:
            raise ValueError(f"{name} has {size} bytes where its shape needs {wanted}")
        if self._at + size != end:
            raise ValueError(f"{name} does not end where it says")
        if end > len(self._content):
            raise IndexError(end)
        return Array(name, shape, DTYPES[dtype], self._at)

    def _head(self) -> tuple[str, int, int]:
        """Kind and size of the value that begins here, and the type of an extension; stands behind the head then."""
        first = self._content[self._at]
        self._at += 1
        if first in _SIZED:
            kind, form = _SIZED[first]
            size = self._number(form)
        elif 0x80 <= first <= 0x8F:
            kind, size = _TABLE, first & 0x0F
        elif 0x90 <= first <= 0x9F:
            kind, size = _LIST, first & 0x0F
        elif 0xA0 <= first <= 0xBF:
            kind, size = _TEXT, first & 0x1F
        elif 0xD4 <= first <= 0xD8:
            kind, size = _EXTENSION, 1 << (first - 0xD4)
        elif first in _PLAIN:
            return "plain", _PLAIN[first], 0
        elif first <= 0x7F or first >= 0xE0:
            return "plain", 0, 0
        else:
            raise ValueError(f"byte {self._at - 1} begins no value")
        return kind, size, self._number(">b") if kind == _EXTENSION else 0

    def _skip(self, deepest: int) -> None:
        """Go past one value of no interest."""
        kind, size, _ = self._head()
        if kind not in (_TABLE, _LIST):
            self._at += size
            if self._at > len(self._content):
                raise IndexError(self._at)
            return
        if not deepest:
            raise ValueError(f"lists lie deeper than {DEEPEST} in each other")
        for _ in range(size * (2 if kind == _TABLE else 1)):
            self._skip(deepest - 1)

    def _number(self, form: str) -> Any:
        (found,) = struct.unpack_from(form, self._content, self._at)
        self._at += struct.calcsize(form)
        return found

    def _integer(self) -> int:
        first = self._content[self._at]
        self._at += 1
        if first <= 0x7F:
            return first
        if first not in _INTEGERS:
            raise ValueError(f"a size was expected at byte {self._at - 1}")
        return self._number(_INTEGERS[first])

    def _text(self) -> str:
        kind, size, _ = self._head()
        if kind != _TEXT or size > 4096:
            raise ValueError(f"a name was expected at byte {self._at}")
        raw = self._content[self._at : self._at + size]
        if len(raw) < size:
            raise IndexError(self._at)
        self._at += size
        return raw.decode("utf-8")
