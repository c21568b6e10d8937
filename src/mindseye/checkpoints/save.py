"""Our own file format: one part is one ``.safetensors`` whose header says which network it is and its Config.

The header's metadata holds ``network`` ("module:Class"), ``config`` (JSON) and ``provenance`` (JSON); a file therefore
describes itself, and loading needs no code beside the class. Classes are looked up below ``mindseye.networks`` only.
"""

import dataclasses
import importlib
import json
import os
import types
import typing
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from mindseye.errors import WeightsError, WeightsMissing

__all__ = ["load_part", "read_header", "save_part"]

HOME = "mindseye.networks."


def save_part(
    path: Path, module: nn.Module, provenance: dict[str, Any] | None = None, dtype: torch.dtype | None = None
) -> None:
    """Write a network with its config, atomically (temporary file, fsync, rename).

    Args:
        path: the ``.safetensors`` to write.
        module: a network with a ``config`` attribute.
        provenance: how it came to be.
        dtype: what floating tensors are stored as; as they are when None.
    """
    from safetensors.torch import save

    state = {
        key: (value.to(dtype) if dtype is not None and value.is_floating_point() else value).contiguous().cpu()
        for key, value in module.state_dict().items()
    }
    kind = type(module)
    metadata = {
        "format": "pt",
        "network": f"{kind.__module__}:{kind.__qualname__}",
        "config": json.dumps(dataclasses.asdict(module.config)),  # pyright: ignore[reportArgumentType]
        "provenance": json.dumps(provenance or {}),
    }
    part = path.with_name(f"{path.name}.part{os.getpid()}")
    try:
        with part.open("wb") as file:
            file.write(save(state, metadata))
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def read_header(path: Path) -> dict[str, Any]:
    """``network``, ``config`` and ``provenance`` of a part file, tensors untouched.

    Raises:
        WeightsMissing: no such file.
        WeightsError: not a safetensors file, or not one of ours.
    """
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise WeightsMissing(f"the weights {path} are not there")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise WeightsError(
            f"{path} is no whole safetensors file ({error})", hint="download or copy it again"
        ) from error
    if not metadata.get("network", "").startswith(HOME):
        raise WeightsError(f"{path} is a safetensors file, but not a part that mindseye wrote")
    try:
        return {
            "network": metadata["network"],
            "config": json.loads(metadata["config"]),
            "provenance": json.loads(metadata.get("provenance", "{}")),
        }
    except (KeyError, ValueError) as error:
        raise WeightsError(f"the header of {path} cannot be read: {error}") from error


def load_part(path: Path, dtype: torch.dtype | None = torch.float32) -> nn.Module:
    """The network in a part file: built without initial values, filled strictly, in eval mode and without gradients.

    Args:
        path: a file that `save_part` wrote.
        dtype: what floating tensors become; as stored when None.

    Raises:
        WeightsMissing: no such file.
        WeightsError: corrupt, foreign, of another shape than its config says, or holding NaN or infinity.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    header = read_header(path)
    module_name, _, class_name = header["network"].partition(":")
    try:
        kind = getattr(importlib.import_module(module_name), class_name)
        config_type = typing.get_type_hints(kind.__init__)["config"]
        config = from_json(config_type, header["config"])
        with _Uninitialised():
            network = kind(config)
    except (ImportError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise WeightsError(f"{path} describes a network that this version does not have: {error}") from error
    try:
        state = load_file(path)
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{path} cannot be read: {error}") from error
    for key, value in state.items():
        if value.is_floating_point() and not torch.isfinite(value).all():
            raise WeightsError(f"{path} is damaged: {key} holds NaN or infinity", hint="download or copy it again")
    wrong = compare(network.state_dict(), state)
    if wrong:
        raise WeightsError(f"{path} does not fit the network it names: {wrong}")
    exact = getattr(network, "exact", ())
    if dtype is not None:
        state = {k: v.to(torch.float32 if k in exact else dtype) for k, v in state.items() if v.is_floating_point()} | {
            k: v for k, v in state.items() if not v.is_floating_point()
        }
    network.load_state_dict(state, strict=True, assign=True)
    return network.eval().requires_grad_(False)


class _Uninitialised(TorchFunctionMode):
    """Builds a network that is about to be filled from a file in memory that nobody has written to yet.

    Random numbers would be thrown away at once. And on the meta device torch computes initial values through its
    compiler's Python code, whose import alone takes longer than drawing the first picture; buffers that no file holds
    would also stay there.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Iterable[type], args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        named = dict(kwargs or {})
        if getattr(func, "__module__", "") == "torch.nn.init":
            return args[0] if args else named["tensor"]
        return (torch.empty if func in (torch.randn, torch.rand) else func)(*args, **named)


def compare(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> str:
    """What differs in keys or shapes, five of each at most; empty when nothing does."""
    missing = sorted(set(ours) - set(theirs))
    extra = sorted(set(theirs) - set(ours))
    shapes = sorted(k for k in set(ours) & set(theirs) if ours[k].shape != theirs[k].shape)
    named = [(missing, "missing"), (extra, "not known"), (shapes, "of another shape")]
    return "; ".join(f"{len(keys)} {what} ({', '.join(keys[:5])})" for keys, what in named if keys)


def from_json(kind: Any, value: Any) -> Any:
    """A frozen dataclass from what ``dataclasses.asdict`` made of it, nested ones and tuples included.

    Raises:
        TypeError: a field is unknown or missing.
    """
    if dataclasses.is_dataclass(kind) and isinstance(value, dict):
        hints = typing.get_type_hints(kind)
        unknown = set(value) - set(hints)
        if unknown:
            raise TypeError(f"{getattr(kind, '__name__', kind)} has no {sorted(unknown)[0]}")
        return kind(**{key: from_json(hints[key], item) for key, item in value.items()})  # pyright: ignore[reportCallIssue]
    origin = typing.get_origin(kind)
    if origin in (types.UnionType, typing.Union):
        if value is None:
            return None
        # The member with just the fields that the value names: every field is written, so this is exact.
        for option in typing.get_args(kind):
            if dataclasses.is_dataclass(option) and isinstance(value, dict):
                if {item.name for item in dataclasses.fields(option)} == set(value):
                    return from_json(option, value)
        if isinstance(value, dict):
            raise TypeError(f"no configuration has the fields {', '.join(sorted(value))}")
        return value
    if origin is tuple and isinstance(value, list):
        inner = typing.get_args(kind)
        return tuple(
            from_json(inner[min(i, len(inner) - 1)] if inner[-1] is not ... else inner[0], v)
            for i, v in enumerate(value)
        )
    return value
