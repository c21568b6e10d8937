"""Other people's weights into our networks: mapped into memory, one tensor at a time, strictly.

A network is built without initial values; each of its tensors is either the file's own memory (same dtype, same shape:
nothing is copied, pages come from the disk cache when they are first read) or a new tensor that the file's is converted
into, piece by piece. So the most memory that loading takes is the network in the wanted dtype and little beside it,
however large and of whatever dtype the file is (a pickle's pages stay mapped until the end). Nothing is half-loaded:
the network gets its tensors when all of them are there and all of their numbers are finite.

Loading waits for fresh memory more than for arithmetic, so a network may also be loaded to be widened ``later``: its
layers then hold the file's memory, checked, until each is first called (`mindseye.nn.layers.Later`).
"""

import importlib
import json
import math
import mmap
import os
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Lock
from typing import Any, final

import torch
from torch import Tensor, nn

from mindseye.checkpoints import layouts
from mindseye.checkpoints.layout import Layout, Rule, match
from mindseye.checkpoints.manifest import Entry, Manifest, open_pickle, read_manifest
from mindseye.checkpoints.releases import PartFile
from mindseye.checkpoints.save import HOME, _Uninitialised, from_json
from mindseye.errors import WeightsError
from mindseye.nn.casting import CHUNK, cast, place
from mindseye.nn.layers import Conv2d, Later, Linear

__all__ = ["DTYPES", "Files", "assemble", "load_foreign", "network_of", "resolve_part"]

DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2, "I64": torch.int64, "I32": torch.int32,
    "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8, "BOOL": torch.bool,
}  # fmt: skip
"""By safetensors' names."""


@final
class Files:
    """Reads tensors of files: as the file's own memory, mapped, or in pieces that are read and forgotten."""

    def __init__(self) -> None:
        self._maps: dict[Path, tuple[mmap.mmap, Tensor]] = {}
        self._pickles: dict[Path, dict[str, Tensor]] = {}
        self._lock = Lock()

    def tensor(self, entry: Entry) -> Tensor:
        """The file's own memory: reading it reads the file, writing to it is not written back.

        Raises:
            WeightsError: A dtype that torch has not, or the file changed since its table of contents was read.
        """
        if entry.offset is None:
            with self._lock:
                if entry.file not in self._pickles:
                    self._pickles[entry.file], _ = open_pickle(entry.file)
            return self._pickles[entry.file][entry.name].detach()
        dtype = dtype_of(entry)
        with self._lock:
            if entry.file not in self._maps:
                with entry.file.open("rb") as file:
                    mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
                self._maps[entry.file] = mapped, torch.frombuffer(mapped, dtype=torch.uint8)
        raw = self._maps[entry.file][1][entry.offset : entry.offset + entry.bytes]
        if len(raw) != entry.bytes:
            raise WeightsError(f"{entry.file} changed while it was being read")
        if entry.offset % dtype.itemsize:  # foreign writers need not align
            raw = raw.clone()
        return raw.view(dtype).view(entry.shape)

    def release(self, tensor: Tensor) -> None:
        """Hand the pages of a tensor that is the file's memory back to the system; whoever reads it reads the file."""
        advice = getattr(mmap, "MADV_DONTNEED", None)
        start, size = tensor.data_ptr(), tensor.nbytes
        for mapped, whole in self._maps.values():
            inside = start - whole.data_ptr()
            if advice is not None and 0 <= inside and inside + size <= len(whole):
                first = -(-inside // mmap.PAGESIZE) * mmap.PAGESIZE  # its neighbours may live in the outer pages
                if length := max(0, (inside + size) // mmap.PAGESIZE * mmap.PAGESIZE - first):
                    mapped.madvise(advice, first, length)

    def pieces(self, entry: Entry, numbers: int) -> Iterator[Tensor]:
        """The same along its first axis, about so many numbers at a time; a piece is gone when the next is asked for.

        Nothing of a safetensors file stays in this process's memory that way.
        """
        rows = max(1, numbers * (entry.shape[0] if entry.shape else 1) // max(1, entry.numbers))
        if entry.offset is None or not entry.shape or not entry.numbers:
            whole = self.tensor(entry)
            yield from whole.split(rows) if whole.ndim else (whole,)
            return
        dtype, line = dtype_of(entry), entry.bytes // entry.shape[0]
        room = torch.empty(min(rows, entry.shape[0]) * line, dtype=torch.uint8)
        seen = room.numpy().data
        with entry.file.open("rb", buffering=0) as file:
            file.seek(entry.offset)
            for start in range(0, entry.shape[0], rows):
                count = min(rows, entry.shape[0] - start)
                done = 0
                while done < count * line:  # the system may give less than was asked for
                    got = file.readinto(seen[done : count * line])
                    if not got:
                        raise WeightsError(f"{entry.file} changed while it was being read")
                    done += got
                yield room[: count * line].view(dtype).view(count, *entry.shape[1:])


def dtype_of(entry: Entry) -> torch.dtype:
    """Torch's dtype of a tensor in a file.

    Raises:
        WeightsError: Torch has none.
    """
    if entry.dtype not in DTYPES:
        raise WeightsError(f"{entry.file}: {entry.name} is {entry.dtype}, which is not read here")
    return DTYPES[entry.dtype]


def network_of(part: PartFile, manifest: Manifest) -> tuple[nn.Module, Layout]:
    """The empty network that a part is for, and the layout of its file.

    Raises:
        WeightsError: A network or a config that this version does not have.
    """
    if part.layout == "mindseye":
        name = manifest.metadata.get("network", "")
        layout = Layout("mindseye", name, lambda config: ())
    else:
        layout = layouts.find(part.layout)
        name = layout.network
    try:
        if not name.startswith(HOME):
            raise ValueError(f"{name or 'no network'} is named")
        module, _, kind_name = name.partition(":")
        kind = getattr(importlib.import_module(module), kind_name)
        config = from_json(typing.get_type_hints(kind.__init__)["config"], json.loads(part.config))
        with torch.device("meta"), _Uninitialised():
            network = kind(config)
    except (ImportError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise WeightsError(f"{part.files[0]} describes a network that this version does not have: {error}") from error
    if part.layout == "mindseye":
        layout = Layout("mindseye", name, lambda _: [Rule(key, key) for key in network.state_dict()])
    return network.requires_grad_(False).eval(), layout


def resolve_part(part: PartFile) -> tuple[nn.Module, Layout, Manifest, dict[str, list[tuple[Rule, Entry]]]]:
    """The empty network, the layout, the part's own manifest, and for each tensor of ours what lies where in the file.

    Raises:
        WeightsMissing: A file is not there.
        KeysMismatch: Keys or shapes differ.
        WeightsError: A damaged file, or a network that this version does not have.
    """
    whole = read_manifest(part.files, part.under)
    manifest = whole.under(part.prefix)
    network, layout = network_of(part, whole)
    ours = {key: tuple(value.shape) for key, value in network.state_dict().items()}
    given = {*layout.given, *dict(part.values)}
    config: Any = network.config
    names = " and ".join(path.name for path in part.files[:2]) + (" ..." if len(part.files) > 2 else "")
    found = match(
        manifest.shapes(),
        ours,
        layout.rules(config),
        ignore=layout.ignore(config),
        given=given,
        what=f"{names} does not fit the network it is for ({layout.name})",
    )
    places: dict[str, list[tuple[Rule, Entry]]] = {}
    for key, rule in found.items():
        places.setdefault(rule.ours, []).append((rule, manifest[key]))
    return network, layout, manifest, places


def load_foreign(
    part: PartFile,
    dtype: torch.dtype | None = torch.float32,
    device: torch.device | str = "cpu",
    memory_format: torch.memory_format = torch.contiguous_format,
    *,
    later: bool = False,
) -> nn.Module:
    """The network of a part, filled strictly, in eval mode and without gradients.

    Tensors that need no conversion are the file's memory, mapped: the file must not be written to in place while they
    live. (Replacing it by another is safe, and writing to the tensors is not written back.)

    Args:
        part: From `mindseye.checkpoints.releases.identify`.
        dtype: What floating tensors become; as stored when None.
        device: Where to.
        memory_format: Of the four-axis weights; ``torch.channels_last`` is faster for convolutions on CPUs.
        later: Layers take dtype and format only when each is first called, and hold the file's memory until then. Not
            the layer of the first parameter, which is where callers look for what a network computes in.

    Raises:
        WeightsMissing: A file is not there.
        WeightsError: Keys, shapes or a config that do not fit, a damaged file, or numbers that are not finite.
    """
    if part.layout in layouts.READERS:
        module, _, name = layouts.READERS[part.layout].partition(":")
        read: Callable[[Path], nn.Module] = getattr(importlib.import_module(module), name)
        return read(part.files[0]).to(device=device, dtype=dtype)
    network, _, _, places = resolve_part(part)
    files, values, state = Files(), dict(part.values), network.state_dict()
    device = torch.device(device)
    exact = getattr(network, "exact", ())
    waiting = _waiting(network) if later and dtype is not None and device.type == "cpu" else {}

    def fill(key: str) -> tuple[str, Tensor]:
        empty = state[key]
        shape = tuple(empty.shape)
        if key not in places:
            numbers = torch.tensor(values.get(key, (0.0,)), dtype=torch.float32)
            made = numbers.expand(shape) if len(numbers) == 1 and shape else numbers.view(shape)
            return key, made.to(device, None if key in exact else dtype).clone()
        try:
            wanted = torch.float32 if key in exact else dtype
            if key in waiting and (mapped := _mapped(places[key], shape, files)) is not None:
                return key, mapped
            return key, assemble(places[key], shape, files, wanted, device, memory_format)
        except NotFinite as error:
            name = part.files[0].name
            raise WeightsError(
                f"{name} is damaged: {error} holds NaN or infinity", hint="download or copy it again"
            ) from None

    # Reading, converting and checking all wait for memory, not for arithmetic: one tensor a thread.
    threads = torch.get_num_threads()
    filled = dict(_threaded(fill, list(state), min(threads, os.cpu_count() or 1)))
    if any(value.is_meta for value in network.buffers() if not _saved(value, state)):
        # A table that the network computes for itself and no file holds: build it once more, with memory.
        with _Uninitialised():
            network = type(network)(network.config).requires_grad_(False).eval()  # pyright: ignore[reportCallIssue]
        waiting = _waiting(network) if waiting else {}
    network.load_state_dict(filled, strict=True, assign=True)
    if waiting and dtype is not None:
        wait = Later(dtype=dtype, memory_format=memory_format, release=files.release)
        for layer in waiting.values():
            layer.later = wait
    return network


def _waiting(network: nn.Module) -> dict[str, Conv2d | Linear]:
    """The parameters that may wait for their layer's first call, and that layer."""
    layers = [(name, each) for name, each in network.named_modules() if isinstance(each, (Conv2d, Linear))]
    first = next(network.parameters(), None)
    return {
        f"{name}.{key}": layer
        for name, layer in layers
        if all(each is not first for each in layer.parameters())
        for key, _ in layer.named_parameters(recurse=False)
    }


def _mapped(places: Sequence[tuple[Rule, Entry]], shape: tuple[int, ...], files: Files) -> Tensor | None:
    """A tensor of ours that is the file's memory, checked; None where it lies otherwise there.

    Raises:
        NotFinite: With the key in the file.
    """
    (rule, entry), *more = places
    if more or rule.op.turns or not dtype_of(entry).is_floating_point:
        return None
    tensor = files.tensor(entry).reshape(shape)
    if not tensor.is_contiguous():
        return None
    if not finite(tensor):
        raise NotFinite(entry.name)
    return tensor


def _saved(value: Tensor, state: Mapping[str, Tensor]) -> bool:
    return any(value is other for other in state.values())


def _threaded(call: Callable[[str], tuple[str, Tensor]], keys: list[str], threads: int) -> Iterable[tuple[str, Tensor]]:
    """The tensors, one a thread; torch's own threads would wait for each other at every piece."""
    if threads < 2:
        return map(call, keys)
    before = torch.get_num_threads()
    try:
        with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            return list(pool.map(call, keys))
    finally:
        torch.set_num_threads(before)


class NotFinite(ValueError):
    """A tensor holds NaN or infinity; the text is its key."""


def assemble(
    places: Iterable[tuple[Rule, Entry]],
    shape: tuple[int, ...],
    files: Files,
    dtype: torch.dtype | None,
    device: torch.device | str = "cpu",
    memory_format: torch.memory_format = torch.contiguous_format,
) -> Tensor:
    """One tensor of ours out of the file's one or several.

    Args:
        places: What of theirs lies where in it.
        shape: Of ours.
        files: What reads them.
        dtype: Of floating tensors; as stored, the widest of several, when None.
        device: Where to.
        memory_format: Of four axes.

    Raises:
        NotFinite: With the key in the file.
    """
    places = list(places)
    wanted = dtype_of(places[0][1])
    for _, entry in places[1:]:
        wanted = torch.promote_types(wanted, dtype_of(entry))
    if dtype is not None and wanted.is_floating_point:
        wanted = dtype
    dense = memory_format if len(shape) == 4 else torch.contiguous_format
    rule, entry = places[0]
    as_it_is = len(places) == 1 and not rule.op.turns and wanted == dtype_of(entry)
    if as_it_is and torch.device(device).type == "cpu":
        tensor = files.tensor(entry).reshape(shape)
        if tensor.is_contiguous(memory_format=dense):
            if not finite(tensor):
                raise NotFinite(entry.name)
            return tensor
    ours = torch.empty(shape, dtype=wanted, device=device, memory_format=dense)
    for rule, entry in places:
        if not _copy(rule.op.view(ours), entry, files):
            raise NotFinite(entry.name)
    return ours


def _copy(ours: Tensor, entry: Entry, files: Files) -> bool:
    """Convert a tensor of a file into a tensor of the same shape; whether all its numbers were finite."""
    start = 0
    for piece in files.pieces(entry, CHUNK):
        if not finite(piece):
            return False
        piece = cast(piece, ours.dtype)
        if piece.ndim:
            place(ours[start : start + len(piece)], piece)
            start += len(piece)
        else:
            ours.copy_(piece)
    return True


def finite(tensor: Tensor) -> bool:
    """Whether all numbers are: one pass as a rule, since a sum is finite only of finite numbers."""
    if not tensor.is_floating_point():
        return True
    tensor = tensor.half() if tensor.itemsize == 1 else tensor
    return math.isfinite(tensor.sum()) or bool(torch.isfinite(tensor).all())


def values_of(network: nn.Module, names: Iterable[str]) -> Mapping[str, list[float]]:
    """Tensors as plain numbers, for headers."""
    state = network.state_dict()
    return {name: state[name].float().flatten().tolist() for name in names if name in state}
