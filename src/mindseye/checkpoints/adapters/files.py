"""Opening the small files that adapters and learned words come in, and getting their tensors one at a time.

Safetensors' names and shapes come from `mindseye.checkpoints.manifest`. Pickles here are odder than checkpoints (bare
lists, ``ParameterDict``), so they are opened by a reader of their own, under the same rule: ``weights_only``, and of
classes only torch's own containers.
"""

import re
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mindseye.checkpoints.manifest import LARGEST_HEADER
from mindseye.errors import WeightsError, WeightsMissing

__all__ = ["is_pickle", "load_pickle", "tensors_of", "unwrap"]


def is_pickle(path: Path) -> bool:
    """Whether a file begins as a pickle or as torch's archive of one.

    Raises:
        WeightsMissing: It is not there.
        WeightsError: It cannot be read.
    """
    try:
        with path.open("rb") as file:
            start = file.read(9)
    except FileNotFoundError as error:
        raise WeightsMissing(f"{path} is not there") from error
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {error.strerror or error}") from error
    # A safetensors file begins with the length of its header, whose lowest byte may well be a pickle's first.
    if start[8:] == b"{" and int.from_bytes(start[:8], "little") <= LARGEST_HEADER:
        return False
    return start.startswith(b"PK") or start[:1] == b"\x80"


def load_pickle(path: Path) -> Any:
    """What a pickle holds: tensors, and plain containers of them. No code of the file's is run.

    Raises:
        WeightsError: Code in it, cut short, or no pickle of torch's.
    """
    allowed: list[Any] = [nn.ParameterDict, nn.ParameterList, OrderedDict, set]
    try:
        with torch.serialization.safe_globals(allowed):
            # Mapped, so that a checkpoint given by mistake is not read whole before it is refused.
            return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except Exception as error:  # a hostile pickle can fail in any way; none of it is ours
        told = str(error)
        if "weights_only" in told or "Unsupported" in told:
            found = re.search(r"(?:global|class|GLOBAL|operand) ([\w.]+)", told)
            what = f" ({found[1]})" if found else ""
            raise WeightsError(
                f"{path} is a pickle with more than numbers in it{what}: it was not opened",
                hint="look for the same thing as .safetensors",
            ) from error
        first = told.strip().splitlines()[0][:200] if told.strip() else type(error).__name__
        raise WeightsError(f"{path} is damaged or cut short ({first})", hint="download or copy it again") from error


def unwrap(content: Any) -> dict[str, Tensor]:
    """Tensors by name: of a mapping, of a list (its places), or below ``state_dict``; empty when there are none."""
    if isinstance(content, Mapping):
        inner = content.get("state_dict", content)
        items = inner.items() if isinstance(inner, Mapping) else ()
        return {str(key): value.detach() for key, value in items if isinstance(value, Tensor)}
    if isinstance(content, list | tuple):
        if not all(isinstance(value, Tensor) for value in content):
            return {}
        return {str(i): value.detach() for i, value in enumerate(content)}
    return {}


@contextmanager
def tensors_of(path: Path) -> Iterator[Callable[[str], Tensor]]:
    """A function from key to tensor; every tensor is checked for NaN and infinity when it is asked for.

    Raises:
        WeightsError: The file cannot be read, lacks a key, or a tensor holds a number that is none.
    """
    from safetensors import SafetensorError, safe_open

    def checked(key: str, tensor: Tensor) -> Tensor:
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor.to(torch.float32)).all()):
            raise WeightsError(f"{path} is damaged: {key} holds NaN or infinity", hint="download or copy it again")
        return tensor

    if is_pickle(path):
        found = unwrap(load_pickle(path))

        def from_pickle(key: str) -> Tensor:
            if key not in found:
                raise WeightsError(f"{path} has changed: {key} is no longer in it")
            return checked(key, found[key])

        yield from_pickle
        return
    try:
        file = safe_open(path, framework="pt")
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{path} cannot be read: {error}", hint="download or copy it again") from error
    with file:

        def from_safetensors(key: str) -> Tensor:
            try:
                tensor = file.get_tensor(key)
            except SafetensorError as error:
                raise WeightsError(f"{path} has changed: {key} cannot be read ({error})") from error
            return checked(key, tensor)

        yield from_safetensors
