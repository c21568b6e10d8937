"""What a weights file holds (key -> shape, dtype, place) before any tensor is touched.

A safetensors file begins with its table of contents: eight bytes of length, that much JSON, then the tensors. We read
those few kilobytes by hand, without torch, so that a command line can say what a file is in milliseconds. Pickles
(``.ckpt``, ``.bin``, ``.pt``) have no such table and are opened by ``torch.load(weights_only=True)``, memory mapped,
which runs no code of the file's; one that asks for code is refused. Flax's files are walked over like the table of
contents that they are (`mindseye.checkpoints.flax`). TorchScript archives, which that function refuses for being
programs, are read for their tensors alone (`mindseye.checkpoints.torchscript`), and so are a few modules that were
published whole (`mindseye.checkpoints.modules`). Sharded files are their index
and all the files it names. What a file is is decided by its first bytes, never its name.
"""

import contextlib
import json
import math
import re
import struct
import warnings
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

from mindseye.checkpoints.flax import arrays, is_flax
from mindseye.checkpoints.modules import is_modules, read_modules
from mindseye.checkpoints.torchscript import is_torchscript, read_torchscript
from mindseye.errors import WeightsError, WeightsMissing

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["BYTES", "Entry", "Manifest", "open_pickle", "read_manifest"]

BYTES = {
    "F64": 8, "F32": 4, "F16": 2, "BF16": 2, "F8_E4M3": 1, "F8_E5M2": 1,
    "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U64": 8, "U32": 4, "U16": 2, "U8": 1, "BOOL": 1,
}  # fmt: skip
"""Bytes of one number, by safetensors' names of dtypes."""

LARGEST_HEADER = 100_000_000
"""As safetensors' own reader: a longer table of contents is no table of contents."""

INERT = ("pytorch_lightning.", "lightning.", "lightning_fabric.", "omegaconf.", "numpy.", "torchmetrics.")
"""Classes of these packages are bookkeeping of training in the original releases. Their names are bound to a class of
ours that does nothing, so that the weights beside them can be read without importing any of it."""


@final
@dataclass(frozen=True)
class Entry:
    """One tensor of a file.

    Attributes:
        shape: Its shape.
        dtype: By safetensors' name: F16, BF16, F32 ...
        file: Where it lies.
        name: Its key there.
        offset: First byte of it in the file; None in a pickle.
    """

    shape: tuple[int, ...]
    dtype: str
    file: Path
    name: str
    offset: int | None = None

    @property
    def numbers(self) -> int:
        """How many numbers it holds."""
        return math.prod(self.shape)

    @property
    def bytes(self) -> int:
        """How many bytes it takes."""
        return self.numbers * BYTES[self.dtype]


@final
@dataclass(frozen=True)
class Manifest(Mapping[str, Entry]):
    """The tensors of one checkpoint, which may be several files.

    Attributes:
        entries: By key.
        files: All that belong to it.
        metadata: What a safetensors header says beside the tensors; of a pickle, the numbers and words beside them.
    """

    entries: Mapping[str, Entry]
    files: tuple[Path, ...]
    metadata: Mapping[str, str] = field(default_factory=dict)

    def __getitem__(self, key: str) -> Entry:
        return self.entries[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)

    def under(self, prefix: str) -> "Manifest":
        """The tensors whose keys begin like that, without the beginning."""
        if not prefix:
            return self
        cut = len(prefix)
        found = {key[cut:]: entry for key, entry in self.entries.items() if key.startswith(prefix)}
        return Manifest(found, self.files, self.metadata)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Key -> shape."""
        return {key: entry.shape for key, entry in self.entries.items()}


def read_manifest(path: Path | Sequence[Path], under: Sequence[str] = ()) -> Manifest:
    """What is in a file, in several, or in those that an index (``*.index.json``) names.

    Args:
        path: A ``.safetensors``, a pickle, an index, a Flax file; or several whose keys are put together.
        under: What is put before the keys of each of several files; nothing when empty.

    Raises:
        WeightsMissing: A file is not there, a shard that the index names included.
        WeightsError: Corrupt, cut short, no weights at all, or a pickle that would run code; says which.
    """
    paths = (path,) if isinstance(path, Path) else tuple(path)
    entries: dict[str, Entry] = {}
    files: list[Path] = []
    metadata: dict[str, str] = {}
    for number, each in enumerate(paths):
        if each.name.endswith(".json"):
            found, names, about = _index(each)
        else:
            found, about = _one(each)
            names = (each,)
        if under:
            found = {f"{under[number]}{key}": entry for key, entry in found.items()}
        for key in found:
            if key in entries:
                raise WeightsError(f"{each} and {entries[key].file} both hold {key}")
        entries |= found
        files += names
        metadata |= about
    return Manifest(entries, tuple(files), metadata)


def _index(path: Path) -> tuple[dict[str, Entry], tuple[Path, ...], dict[str, str]]:
    """The shards that an index names, checked for being there and for holding what it says."""
    try:
        table = json.loads(path.read_text(encoding="utf-8"))["weight_map"]
        names = sorted({str(name) for name in table.values()})
    except OSError as error:
        raise WeightsMissing(f"{path} cannot be read: {error.strerror or error}") from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise WeightsError(f"{path} is no index of weights: it has no readable weight_map") from error
    if any(Path(name).name != name for name in names):
        raise WeightsError(f"{path} names files outside its own folder")
    absent = [name for name in names if not (path.parent / name).is_file()]
    if absent:
        raise WeightsMissing(
            f"{path.name} names {len(names)} files, of which {len(absent)} "
            f"{'is' if len(absent) == 1 else 'are'} not there: {', '.join(absent[:5])}",
            hint=f"copy or download the missing ones into {path.parent}",
        )
    entries: dict[str, Entry] = {}
    metadata: dict[str, str] = {}
    for name in names:
        found, about = _one(path.parent / name)
        entries |= found
        metadata |= about
    lost = sorted(set(table) - set(entries))
    if lost:
        raise WeightsError(f"{path.name} promises {len(lost)} tensors that its files lack ({', '.join(lost[:5])})")
    return entries, tuple(path.parent / name for name in names), metadata


def _one(path: Path) -> tuple[dict[str, Entry], dict[str, str]]:
    """One file, by what its first bytes say that it is."""
    if path.is_dir():
        raise WeightsError(f"{path} is a folder, not a weights file")
    try:
        with path.open("rb") as file:
            start = file.read(512)
    except FileNotFoundError as error:
        raise WeightsMissing(f"the weights {path} are not there") from error
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {error.strerror or error}") from error
    # A table of contents may be of any length, so its first bytes may look like anything; what follows does not.
    table = start[8:9] == b"{" and struct.unpack("<Q", start[:8])[0] <= LARGEST_HEADER
    if not table and (start.startswith(b"PK") or start[:1] == b"\x80"):
        tensors, about = open_pickle(path)
        entries = {
            key: Entry(tuple(value.shape), _name(value), path, key)
            for key, value in tensors.items()
            if _name(value) in BYTES
        }
        return entries, about
    if not table and is_flax(start):
        found = arrays(path)
        return {each.name: Entry(each.shape, each.dtype, path, each.name, each.offset) for each in found}, {}
    return _safetensors(path, start)


def _safetensors(path: Path, start: bytes) -> tuple[dict[str, Entry], dict[str, str]]:
    size = path.stat().st_size
    again = "download it again"
    if not size:
        raise WeightsError(f"{path} is empty", hint=again)
    if start.startswith(b"version https://git-lfs"):
        raise WeightsError(
            f"{path} is a Git LFS pointer: a note of {size} bytes saying where the weights are, not the weights",
            hint="git lfs pull",
        )
    if re.match(rb"\s*(<!doctype|<html|<\?xml|<head)", start, re.IGNORECASE):
        raise WeightsError(f"{path} is a web page (an error page, most likely), not weights", hint=again)
    if start.startswith(b"GGUF"):
        raise WeightsError(f"{path} is a GGUF file; safetensors and pickles are read")
    length = struct.unpack("<Q", start[:8])[0] if len(start) >= 8 else 0
    if not 2 <= length <= LARGEST_HEADER or start[8:9] != b"{":
        raise WeightsError(f"{path} is no weights file: neither safetensors nor a pickle of torch's", hint=again)
    if length + 8 > size:
        raise WeightsError(
            f"{path} is cut short: {size:,} bytes, and its table of contents alone is longer", hint=again
        )
    with path.open("rb") as file:
        file.seek(8)
        raw = file.read(length)
    try:
        table = json.loads(raw)
        about = table.pop("__metadata__", None) or {}
        metadata = {str(key): str(value) for key, value in about.items()}
        entries = {key: _entry(path, key, item, length + 8) for key, item in table.items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise WeightsError(f"the table of contents of {path} cannot be read: {error}", hint=again) from error
    end = max((entry.offset + entry.bytes for entry in entries.values() if entry.offset is not None), default=0)
    if end > size:
        raise WeightsError(f"{path} is cut short: {size:,} of {end:,} bytes are there", hint=again)
    return entries, metadata


def _entry(path: Path, key: str, item: Any, base: int) -> Entry:
    """One line of the table of contents.

    Raises:
        ValueError: It contradicts itself.
    """
    shape, dtype, (start, end) = tuple(item["shape"]), item["dtype"], item["data_offsets"]
    if dtype not in BYTES:
        raise ValueError(f"{key} is {dtype}, which is not known here")
    if any(type(number) is not int or number < 0 for number in (*shape, start, end)):
        raise ValueError(f"{key} has no shape or no place")
    entry = Entry(shape, dtype, path, key, base + start)
    if end - start != entry.bytes:
        raise ValueError(f"{key} has {end - start} bytes where its shape needs {entry.bytes}")
    return entry


class _Inert:
    """Stands for a class that is not imported: takes anything, does nothing."""

    def __init__(self, *_: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass


def open_pickle(path: Path) -> tuple[dict[str, "Tensor"], dict[str, str]]:
    """The tensors of a pickle, memory mapped where its container allows it, and the plain values beside them.

    The weights may be the file's whole content or lie under ``state_dict`` (Lightning, the original releases),
    ``model`` or ``weights`` (DALLE-pytorch, whose settings come back as JSON under their names).

    Raises:
        WeightsError: Cut short, no pickle of torch's, no tensors in it, or code in it: nothing of it has been run.
    """
    import torch
    from torch import serialization

    with path.open("rb") as file:
        zipped = file.read(2) == b"PK"
    if zipped and not zipfile.is_zipfile(path):
        raise WeightsError(f"{path} is cut short: the end of the archive is missing", hint="download it again")
    if zipped and is_torchscript(path):
        return read_torchscript(path)
    if is_modules(path):
        return read_modules(path)
    harmless: list[Any] = []
    try:
        if zipped:
            asked = serialization.get_unsafe_globals_in_checkpoint(str(path))
            code = sorted(name for name in asked if not name.startswith(INERT))
            if code:
                raise WeightsError(
                    f"{path} is a pickle with code in it ({', '.join(code[:5])}): it was not opened",
                    hint="look for the same weights as .safetensors",
                )
            harmless = [(_Inert, name) for name in asked]
        with warnings.catch_warnings(), serialization.safe_globals(harmless):
            warnings.simplefilter("ignore")
            if path.suffix == ".safetensors":  # torch believes the name, and cannot map an open file
                with path.open("rb") as file:
                    content = torch.load(file, map_location="cpu", weights_only=True)
            else:
                content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    except WeightsError:
        raise
    except Exception as error:  # a hostile pickle can fail in any way; none of it is ours
        found = re.search(r"GLOBAL ([\w.]+)", str(error))
        if found is not None:
            raise WeightsError(
                f"{path} is a pickle with code in it ({found[1]}): it was not opened",
                hint="look for the same weights as .safetensors",
            ) from error
        first = next(iter(str(error).strip().splitlines()), type(error).__name__)[:200]
        if first.startswith("Weights only"):  # what follows advises to trust the file
            raise WeightsError(
                f"{path} is a pickle that asks for more than plain weights (it has code in it, most likely): "
                "it was not opened",
                hint="look for the same weights as .safetensors",
            ) from error
        raise WeightsError(f"{path} is no whole file of weights ({first})", hint="download it again") from error
    if not isinstance(content, Mapping):
        raise WeightsError(f"{path} holds {type(content).__name__}, not named weights")
    inner: Any = next(
        (content[key] for key in ("state_dict", "model", "weights") if isinstance(content.get(key), Mapping)), content
    )
    tensors = {str(key): value for key, value in inner.items() if isinstance(value, torch.Tensor)}
    if not tensors:
        raise WeightsError(f"{path} holds no named tensors")
    about = {str(key): str(value) for key, value in content.items() if isinstance(value, str | int | float)}
    return tensors, about | _settings(content)


def _settings(content: Mapping[Any, Any]) -> dict[str, str]:
    """What a network was built from, where a pickle says it, as JSON."""
    found = {}
    for name in ("hparams", "vae_params"):
        with contextlib.suppress(TypeError, ValueError, RecursionError):
            if isinstance(content.get(name), Mapping):
                found[name] = json.dumps(dict(content[name]))
    return found


def _name(tensor: "Tensor") -> str:
    """Safetensors' name of a tensor's dtype."""
    return {
        "float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16", "float8_e4m3fn": "F8_E4M3",
        "float8_e5m2": "F8_E5M2", "int64": "I64", "int32": "I32", "int16": "I16", "int8": "I8", "uint64": "U64",
        "uint32": "U32", "uint16": "U16", "uint8": "U8", "bool": "BOOL",
    }.get(str(tensor.dtype).removeprefix("torch."), "")  # fmt: skip
