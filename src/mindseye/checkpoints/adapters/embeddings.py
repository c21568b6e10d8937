"""Learned words (textual inversion, Gal et al. 2022, arXiv:2208.01618): a few vectors that stand where a word's would.

==================  ===============================================================================================
A1111, rinongal     ``.pt``: ``{"string_to_param": {"*": (k, d)}, "name", "step", "sd_checkpoint_name"}``
A1111, picture      the same as JSON: base64 in the PNG's text ``sd-ti-embedding``, or, where a web site has stripped
                    that, in the low bits of two strips beside the picture (PNG, WebP)
diffusers           ``{"<token>": (d,) or (k, d)}``, pickle or safetensors
kohya               ``emb_params`` (k, d)
SDXL                ``clip_l`` (k, 768) and ``clip_g`` (k, 1280)
bare tensor         (d,) or (k, d)
==================  ===============================================================================================

The width tells the base: 768 is CLIP-L (SD 1), 1024 OpenCLIP-H (SD 2), 1280 OpenCLIP-bigG. An embedding file is known
in prompts by its own name and by its file's.
"""

import base64
import binascii
import json
import re
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor, nn

from mindseye.checkpoints.adapters.files import is_pickle, load_pickle, tensors_of
from mindseye.checkpoints.manifest import read_manifest
from mindseye.errors import WeightsError, WeightsMissing

__all__ = ["Embedding", "bundled", "check_width", "fits", "looks_like_embedding", "read_embedding", "read_embeddings"]

WIDTHS = {768: "sd1", 1024: "sd2", 1280: "sdxl"}
NAMES = {768: "Stable Diffusion 1", 1024: "Stable Diffusion 2", 1280: "SDXL"}
PICTURES = {".png", ".webp", ".jxl", ".avif"}
MOST_VECTORS = 1024
MOST_BYTES = 64 << 20


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class Embedding:
    """Vectors that a prompt calls by name.

    Attributes:
        name: What it is called: its token where the file has one, else the file's name without its ending.
        names: All that it may be called by, the file's name included.
        vectors: ``text`` -> (k, d), and for XL ``text_2`` -> (k, d2); float32, in the order in which they stand in
            the prompt.
        base: "sd1", "sd2" or "sdxl", told by the width.
        step: Training steps, where the file says.
        trained_on: Name of the checkpoint it was trained on, where the file says.
        path: The file.
    """

    name: str
    names: tuple[str, ...]
    vectors: Mapping[str, Float[Tensor, "K D"]] = field(repr=False)
    base: str
    step: int | None = None
    trained_on: str = ""
    path: Path = field(default_factory=Path)

    def __len__(self) -> int:
        """How many tokens of the prompt it takes."""
        return max(len(vectors) for vectors in self.vectors.values())


def read_embedding(path: Path) -> Embedding:
    """The learned word in a file.

    Raises:
        WeightsMissing: It is not there.
        WeightsError: Corrupt, no embedding, of a width that no base has, or several words in one file.
    """
    first, *others = read_embeddings(path)
    if others:
        names = ", ".join(each.name for each in (first, *others[:4]))
        raise WeightsError(f"{path} holds {1 + len(others)} words ({names}), not one")
    return first


def read_embeddings(path: Path) -> tuple[Embedding, ...]:
    """All learned words in a file: one, except where a diffusers file has several tokens.

    Raises:
        WeightsMissing: It is not there.
        WeightsError: Corrupt, no embedding, or of a width that no base has.
    """
    if path.suffix.lower() in PICTURES and not path.is_dir():
        content: Any = _picture(path)
    elif is_pickle(path):
        content = load_pickle(path)
    else:
        manifest = read_manifest(path)
        if len(manifest) > MOST_VECTORS:
            raise WeightsError(f"{path} holds {len(manifest)} tensors: no embedding, but a LoRA or a checkpoint")
        with tensors_of(path) as get:
            content = {key: get(key) for key in manifest if manifest[key].numbers <= MOST_VECTORS * 4096}
        if len(content) < len(manifest) or any("lora" in key for key in manifest):
            raise WeightsError(f"{path} is no embedding, but a LoRA or a checkpoint")
        content |= {key: value for key, value in manifest.metadata.items() if key not in content}
    return _interpret(path, content)


def _interpret(path: Path, content: Any) -> tuple[Embedding, ...]:
    """The words in what a file holds."""
    if isinstance(content, nn.Module) and not isinstance(content, nn.ParameterDict):
        content = None
    if isinstance(content, Tensor):
        return (_word(path, "", {"": content}, {}),)
    entries = _entries(content)
    if "string_to_param" in entries:
        params = {
            key: value for key, value in _entries(entries["string_to_param"]).items() if isinstance(value, Tensor)
        }
        if len(params) == 1:
            return (_word(path, str(entries.get("name") or ""), {"": next(iter(params.values()))}, entries),)
        return tuple(_word(path, name, {"": value}, entries) for name, value in _some(path, params).items())
    tensors = {str(key): value for key, value in entries.items() if isinstance(value, Tensor)}
    if {"clip_l", "clip_g"} & set(tensors):
        return (_word(path, str(entries.get("name") or ""), tensors, entries),)
    if "emb_params" in tensors:
        return (_word(path, str(entries.get("name") or ""), {"": tensors["emb_params"]}, entries),)
    return tuple(_word(path, token, {"": value}, entries) for token, value in _some(path, tensors).items())


def _some(path: Path, tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    if not tensors or len(tensors) > MOST_VECTORS:
        raise WeightsError(f"{path} is no embedding: it holds {len(tensors)} tensors")
    return tensors


def _entries(content: Any) -> dict[str, Any]:
    """A mapping's entries. torch's ParameterDict changed its insides in 1.12; older files have them elsewhere."""
    if isinstance(content, nn.ParameterDict):
        return {**content.__dict__.get("_parameters", {}), **(dict(content) if "_keys" in content.__dict__ else {})}
    return {str(key): value for key, value in content.items()} if isinstance(content, Mapping) else {}


def _word(path: Path, token: str, tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> Embedding:
    """One word, its vectors sorted by text encoder and checked."""
    vectors: dict[str, Tensor] = {}
    for key, value in tensors.items():
        value = value.detach().to(torch.float32, copy=True)  # the file may be mapped
        value = value[None] if value.ndim == 1 else value
        called = f"{path}{f' ({token})' if token and token != '*' else ''}"
        if value.ndim != 2 or not 1 <= len(value) <= MOST_VECTORS:
            raise WeightsError(f"{called} holds a tensor of {list(value.shape)}: not the vectors of a word")
        width = value.shape[1]
        if key in ("clip_l", "clip_g"):
            part = {"clip_l": "text", "clip_g": "text_2"}[key]
        elif key == "":
            part = "text_2" if width == 1280 else "text"
        else:
            continue
        if width not in WIDTHS:
            known = ", ".join(f"{size} for {name}" for size, name in NAMES.items())
            raise WeightsError(f"{called} has vectors of {width} numbers; known are {known}")
        if not bool(torch.isfinite(value).all()):
            raise WeightsError(f"{called} is damaged: it holds NaN or infinity", hint="download or copy it again")
        vectors[part] = value.contiguous()
    if len({len(value) for value in vectors.values()}) != 1:
        raise WeightsError(f"{path} has a different number of vectors for each text encoder")
    token = "" if token == "*" else token.strip()
    base = "sdxl" if "text_2" in vectors else WIDTHS[vectors["text"].shape[1]]
    step = about.get("step")
    return Embedding(
        name=token or path.stem,
        names=tuple(dict.fromkeys(name for name in (token, path.stem) if name)),
        vectors=vectors,
        base=base,
        step=int(step) if isinstance(step, int | float | str) and str(step).isdecimal() else None,
        trained_on=str(about.get("sd_checkpoint_name") or ""),
        path=path,
    )


def fits(embedding: Embedding, widths: Mapping[str, int]) -> bool:
    """Whether the text encoders of a base can read a word; see `check_width`."""
    found = {part: vectors.shape[1] for part, vectors in embedding.vectors.items()}
    return all(found.get(part) == width for part, width in widths.items())


def check_width(embedding: Embedding, widths: Mapping[str, int]) -> None:
    """Refuse a word that a base cannot read.

    Args:
        embedding: The word.
        widths: Part -> width of its token embeddings, for each text encoder of the base.

    Raises:
        WeightsError: A text encoder has no vectors in it, or of another width.
    """
    if not fits(embedding, widths):
        made = " and ".join(str(value.shape[1]) for value in embedding.vectors.values())
        here = " and ".join(str(each) for each in widths.values())
        family = {"sd1": "Stable Diffusion 1", "sd2": "Stable Diffusion 2", "sdxl": "SDXL"}[embedding.base]
        raise WeightsError(
            f"the embedding {embedding.name} has vectors of {made} numbers, as {family} reads them; "
            f"this model reads {here}",
            hint="use it with a model of its own family",
        )


def looks_like_embedding(content: Any) -> bool:
    """Whether the keys of something are an embedding's."""
    keys = set(_entries(content))
    return bool(keys & {"string_to_param", "emb_params", "clip_l", "clip_g"})


def bundled(
    path: Path, left: Sequence[str], shapes: Mapping[str, Sequence[int]], metadata: Mapping[str, str]
) -> tuple[tuple[Embedding, ...], tuple[str, ...]]:
    """Words that travel inside an adapter, and the keys that are none.

    cloneofsimo's files mark them in the metadata, kohya's friends prefix them with ``bundle_emb.<name>.``.
    """
    words: dict[str, dict[str, str]] = {}
    rest = []
    for key in left:
        found = re.fullmatch(r"bundle_emb\.(.+)\.(string_to_param\.\*|emb_params|clip_l|clip_g)", key)
        if found is not None:
            words.setdefault(found[1], {})[found[2] if found[2].startswith("clip") else ""] = key
        elif metadata.get(key) == "<embed>" and len(shapes[key]) <= 2:
            words.setdefault(key, {})[""] = key
        else:
            rest.append(key)
    if not words:
        return (), tuple(rest)
    with tensors_of(path) as get:
        read = [(name, {part: get(key) for part, key in keys.items()}) for name, keys in words.items()]
    embeddings = []
    for name, tensors in read:
        word = _word(path, name, tensors, {})
        embeddings.append(
            Embedding(name=word.name, names=(word.name,), vectors=word.vectors, base=word.base, path=path)
        )
    return tuple(embeddings), tuple(rest)


def _picture(path: Path) -> Any:
    """What an A1111 embedding picture carries."""
    try:
        with Image.open(path) as picture:
            text = getattr(picture, "text", {}).get("sd-ti-embedding")
            pixels = None if text is not None else np.asarray(picture.convert("RGB"))
    except FileNotFoundError as error:
        raise WeightsMissing(f"{path} is not there") from error
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise WeightsError(f"{path} is no picture that can be read: {error}") from error
    nothing = WeightsError(f"{path} is a picture without an embedding in it")
    try:
        raw = base64.b64decode(text) if text is not None else _hidden(pixels)
        if raw is None:
            raise nothing
        return _with_tensors(json.loads(raw))
    except (binascii.Error, ValueError, TypeError, zlib.error, RecursionError) as error:
        raise nothing from error


def _hidden(pixels: Any) -> bytes | None:
    """The bytes in the strips left and right of the picture; None when there are no strips.

    Low nibbles left, high nibbles right, each divided from the picture by a black column, and each masked by the low
    nibbles of a fixed sequence (``s <- 1664525 s + 1013904223`` modulo 2^32, then modulo 255).
    """
    seen = (pixels > 0).all(axis=2)
    rows, columns = np.flatnonzero(seen.any(axis=1)), np.flatnonzero(seen.any(axis=0))
    if not len(rows) or not len(columns):
        return None
    nibbles = pixels[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] & 0x0F
    black = np.flatnonzero(nibbles.sum(axis=(0, 2), dtype=np.int64) == 0)
    if len(black) < 2:
        return None
    low, high = nibbles[:, : black[0]], nibbles[:, black[-1] + 1 :]
    if low.shape != high.shape or not low.size:
        return None
    mask = _sequence(low.size).reshape(low.shape)
    packed = ((high ^ mask) << 4 | (low ^ mask)).tobytes()
    stream = zlib.decompressobj()
    raw = stream.decompress(packed, MOST_BYTES)
    return raw if stream.eof else None


def _sequence(count: int) -> Any:
    """The first ``count`` low nibbles of the mask, by doubling: s(i + n) is the same line of s(i) for every i."""
    values = np.empty(count, dtype=np.uint32)
    values[:1] = 1013904223
    done, factor, offset = 1, 1664525, 1013904223
    while done < count:
        more = min(done, count - done)
        values[done : done + more] = values[:more] * np.uint32(factor) + np.uint32(offset)
        offset = (factor * offset + offset) % 2**32
        factor = factor * factor % 2**32
        done += more
    return (values % 255 & 0x0F).astype(np.uint8)


def _with_tensors(value: Any) -> Any:
    """A1111's JSON, its tensors made of their lists of numbers."""
    if isinstance(value, dict):
        if "TORCHTENSOR" in value:
            return torch.tensor(value["TORCHTENSOR"], dtype=torch.float32)
        return {key: _with_tensors(item) for key, item in value.items()}
    return value
