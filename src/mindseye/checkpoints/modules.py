"""Whole modules as ``torch.save(module)`` wrote them, read for their tensors alone: OpenAI's dVAE was published so.

Such a file is a pickle of Python objects: whoever loads it as meant runs its publisher's package, or whatever else the
pickle asks for. Here it is carried out on plain values (`mindseye.checkpoints.inert`), and its modules' parameters and
buffers are read where they lie. Both containers that torch has had are known: the zip, and the older row of pickles
with the tensors behind them.

Tensors are named as in a state dict, behind the name of the outermost class in small letters: ``encoder.`` and
``decoder.``, for the two halves of the dVAE have the same names.
"""

import os
import pickletools
import struct
import zipfile
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from mindseye.checkpoints.inert import LARGEST, MOST, Called, Name, Object, Stored, mapped, run, storage, tensor
from mindseye.checkpoints.torchscript import in_archive
from mindseye.errors import WeightsError

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["is_modules", "read_modules"]

KNOWN = ("dall_e.encoder ", "dall_e.decoder ", "dall_e.utils ", "torch.nn.modules.")
"""Where classes of modules come from that are read; none of them is imported."""
OUTERMOST = ("dall_e.encoder Encoder", "dall_e.decoder Decoder")
MAGIC = 0x1950A86A20F9469CFC6C
"""What the older container begins with."""
_LEGACY = b"\x80\x02\x8a\x0a" + MAGIC.to_bytes(10, "little") + b"."
_BAD = (OSError, EOFError, zipfile.BadZipFile, ValueError, KeyError, IndexError, TypeError, struct.error)


def is_modules(path: Path) -> bool:
    """Whether the first class that a file names is that of a module which is read here."""
    try:
        with path.open("rb") as file:
            start = file.read(len(_LEGACY))
            if start == _LEGACY:
                _skip(file, 2)
                return _first(file) in OUTERMOST
            if not start.startswith(b"PK"):
                return False
        with zipfile.ZipFile(path) as archive:
            record = _records(archive)["data.pkl"]
            with archive.open(record) as inside:
                return record.file_size <= LARGEST and _first(inside) in OUTERMOST
    except _BAD:
        return False


def read_modules(path: Path) -> tuple[dict[str, "Tensor"], dict[str, str]]:
    """The tensors of a module and of all in it by their dotted names, mapped into memory; and nothing beside them.

    Raises:
        WeightsError: Damaged, or more than modules and their tensors: nothing of it has been run.
    """
    try:
        with path.open("rb") as file:
            legacy = file.read(len(_LEGACY)) == _LEGACY
            root, place = _legacy(file) if legacy else _zipped(path)
        if not isinstance(root, Object):
            raise ValueError("it holds no module")
        prefix = root.kind.rpartition(" ")[2].lower()
        tensors = mapped(path, dict(_flat(f"{prefix}.", root)), place)
    except Called as error:
        raise WeightsError(
            f"{path} is a pickle with code in it ({error!s:.80}): it was not opened",
            hint="look for the same weights as .safetensors",
        ) from None
    except _BAD as error:
        raise WeightsError(f"{path} is no whole file of a module: {error!s:.200}", hint="download it again") from None
    if not tensors:
        raise WeightsError(f"{path} holds no named tensors")
    return tensors, {}


def _first(file: IO[bytes]) -> str:
    """The first class that a pickle names, which of a module is among its first instructions; "" when it is not."""
    first = islice(pickletools.genops(file), 8)
    return next((str(argument) for code, argument, _ in first if code.name == "GLOBAL"), "")


def _skip(file: IO[bytes], count: int) -> None:
    """Over so many pickles in a row."""
    for _ in range(count):
        for _ in pickletools.genops(file):
            pass


def _records(archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    return {info.filename.partition("/")[2]: info for info in archive.infolist()}


def _carried_out(source: bytes | IO[bytes]) -> Any:
    return run(source, known=lambda name: name.startswith(KNOWN), call=_called, refer=_referred)


def _zipped(path: Path) -> tuple[Any, Callable[[IO[bytes], str], tuple[int, int]]]:
    """The module, and where its records lie."""
    with zipfile.ZipFile(path) as archive:
        records = _records(archive)
        if records["data.pkl"].file_size > LARGEST:
            raise ValueError("its list of objects is of absurd size")
        return _carried_out(archive.read(records["data.pkl"])), in_archive(records)


def _legacy(file: IO[bytes]) -> tuple[Any, Callable[[IO[bytes], str], tuple[int, int]]]:
    """The same of the older container, the file standing behind its first pickle."""
    _skip(file, 1)
    about = _carried_out(file)
    if not isinstance(about, dict) or about.get("little_endian") is not True:
        raise ValueError("it was written by a machine that counts the other way")
    kinds: dict[str, str] = {}

    def refer(told: Any) -> Any:
        found = _referred(told)
        if isinstance(found, tuple):
            kinds[found[1]] = found[0]
        return found

    root = run(file, known=lambda name: name.startswith(KNOWN), call=_called, refer=refer)
    names = _carried_out(file)
    if not isinstance(names, list) or len(names) != len(set(names)):
        raise ValueError("its list of tensors cannot be read")
    sizes = {name: _BYTES[kind] for name, kind in kinds.items()}
    places: dict[str, tuple[int, int]] = {}
    at = file.tell()
    end = file.seek(0, os.SEEK_END)
    for name in names:
        file.seek(at)
        (count,) = struct.unpack("<q", file.read(8))
        if not 0 <= count <= end:
            raise ValueError("it is cut short")
        places[name] = (at + 8, count * sizes[name])
        at += 8 + count * sizes[name]
    return root, lambda _, record: places[record]


_BYTES = {
    "float64": 8, "float32": 4, "float16": 2, "bfloat16": 2, "int64": 8, "int32": 4, "int16": 2, "int8": 1, "uint8": 1,
    "bool": 1,
}  # fmt: skip


def _referred(told: Any) -> Any:
    """A storage, or, in the older container, a class that came with its source text, which is not looked at."""
    if isinstance(told, tuple) and len(told) == 4 and told[0] == "module" and isinstance(told[1], Name):
        return told[1]
    return storage(told)


def _called(name: str, arguments: Any) -> Any:
    """What a call would have made, of the few calls there are."""
    if name == "torch._utils _rebuild_tensor_v2":
        return tensor(arguments)
    if name == "torch._utils _rebuild_parameter":
        return arguments[0]
    if name == "collections OrderedDict" and arguments == ():
        return {}
    if name in ("__builtin__ set", "builtins set"):
        return list(*arguments)
    if name == "torch device":
        return str(arguments[0])
    raise Called(name.replace(" ", ".")[:80])


def _flat(prefix: str, root: Object) -> Iterator[tuple[str, Stored]]:
    """All parameters and buffers by dotted names."""
    waiting, count = [(prefix, root)], 0
    while waiting:
        before, module = waiting.pop()
        for part in ("_parameters", "_buffers", "_modules"):
            inside = module.attributes.get(part, {})
            if not isinstance(inside, dict):
                raise ValueError(f"its {part} are no table")
            for name, value in inside.items():
                count += 1
                if count > MOST or len(before) > 1000:
                    raise ValueError("its modules hold each other without end")
                if isinstance(value, Object):
                    waiting.append((f"{before}{name}.", value))
                elif isinstance(value, Stored):
                    yield f"{before}{name}", value
