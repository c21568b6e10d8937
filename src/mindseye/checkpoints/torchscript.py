"""TorchScript archives, read for their tensors alone: OpenAI's CLIP was published as such programs.

An archive is a zip of code, stored tensors, and a pickle of the module's objects. `torch.jit.load` would compile the
code; `torch.load(weights_only=True)` refuses the archive. What is needed of the pickle is small, and carried out on
plain values (`mindseye.checkpoints.inert`); the code is not looked at.
"""

import struct
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from mindseye.checkpoints.inert import LARGEST, MOST, Called, Object, Stored, mapped, run, storage, tensor
from mindseye.errors import WeightsError

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["in_archive", "is_torchscript", "read_torchscript"]


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
            root = run(archive.read(records["data.pkl"]), known=_known, call=_called, refer=storage)
        if not isinstance(root, Object):
            raise ValueError("it holds no module")
        found = dict(_flat(root))
        tensors = mapped(path, {k: v for k, v in found.items() if isinstance(v, Stored)}, in_archive(records))
    except (OSError, zipfile.BadZipFile, ValueError, KeyError, IndexError, TypeError, struct.error) as error:
        raise WeightsError(f"{path} is no TorchScript archive that can be read: {error!s:.200}", hint=again) from None
    if not tensors:
        raise WeightsError(f"{path} holds no named tensors")
    return tensors, {k: str(v) for k, v in found.items() if isinstance(v, str | int | float)}


def _flat(root: Object) -> Iterator[tuple[str, Any]]:
    """All attributes by dotted names; each module's once for every name it has."""
    waiting, count = [("", root)], 0
    while waiting:
        prefix, module = waiting.pop()
        for name, value in module.attributes.items():
            count += 1
            if count > MOST or len(prefix) > 1000:
                raise ValueError("its modules hold each other without end")
            if isinstance(value, Object):
                waiting.append((f"{prefix}{name}.", value))
            else:
                yield prefix + name, value


class in_archive:  # noqa: N801  used as a function
    """Where a record of an archive lies: what `mapped` asks."""

    def __init__(self, records: dict[str, zipfile.ZipInfo]) -> None:
        self.records = records

    def __call__(self, file: IO[bytes], record: str) -> tuple[int, int]:
        """First byte and number of bytes."""
        info = self.records[f"data/{record}"]
        if info.compress_type != zipfile.ZIP_STORED:
            raise ValueError(f"record {record} is packed")
        # The file's own header of the record, whose padding the central directory does not know.
        file.seek(info.header_offset)
        header = file.read(30)
        return info.header_offset + 30 + sum(struct.unpack("<HH", header[26:30])), info.file_size


def _known(name: str) -> bool:
    return name.startswith("__torch__")


def _called(name: str, arguments: Any) -> Any:
    """What a call would have made, of the four calls there are."""
    if name == "torch._utils _rebuild_tensor_v2":
        return tensor(arguments)
    if name == "collections OrderedDict" and arguments == ():
        return {}
    if name.startswith("torch.jit._pickle "):
        return arguments[0] if arguments else None
    raise Called(name.replace(" ", ".")[:80])
