"""What an adapter file holds, read from its table of contents: which modules it changes, how, and what it says.

LoRA (Hu et al. 2021, arXiv:2106.09685) and its kin are small files that change some of the weights of a base that they
do not contain. Nobody agreed on how to write them, so the dialect is told by the keys. Tensors stay where they are
until `mindseye.checkpoints.adapters.attach` asks for them; a pickle has no table of contents and is read whole.

The scale of a change is alpha / rank. Most dialects store alpha beside each module; PEFT keeps it in
``adapter_config.json`` beside the file and diffusers in the file's metadata. Without one it is the rank.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, final

from mindseye.checkpoints.adapters import deltas
from mindseye.checkpoints.adapters.dialects import Target, cloneofsimo, parse
from mindseye.checkpoints.adapters.embeddings import Embedding, bundled, looks_like_embedding
from mindseye.checkpoints.adapters.files import is_pickle, load_pickle, unwrap
from mindseye.checkpoints.manifest import read_manifest
from mindseye.errors import WeightsError

__all__ = ["FAMILIES", "Adapter", "Change", "read_adapter"]

Shape = tuple[int, ...]

FAMILIES = {
    "sd1": "Stable Diffusion 1",
    "sd2": "Stable Diffusion 2",
    "sdxl": "SDXL",
    "sdxl-refiner": "the SDXL refiner",
    "": "another network",
}
"""What families of bases are called in sentences."""

FOLDER_FILES = (
    "adapter_model.safetensors",
    "pytorch_lora_weights.safetensors",
    "adapter_model.bin",
    "pytorch_lora_weights.bin",
)
CHECKPOINT = ("model.diffusion_model.", "cond_stage_model.", "first_stage_model.", "conditioner.embedders.")


@final
@dataclass(frozen=True)
class Change:
    """What happens to one module.

    Attributes:
        keys: Factor -> key in the file.
        shapes: Factor -> shape.
        scale: What stands for alpha / rank, where it is told outside the tensors.
    """

    keys: Mapping[str, str]
    shapes: Mapping[str, Shape]
    scale: float | None = None


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class Adapter:
    """An adapter, unopened.

    Attributes:
        path: The file.
        name: What a prompt calls it: the file's name without its ending.
        dialect: Who writes files like that: "kohya", "lycoris", "peft", "diffusers", "diffusers-old", "dotted",
            "cloneofsimo", "cloneofsimo-list".
        base: What it was made for: "sd1", "sd2", "sdxl", "sdxl-refiner"; "" when it cannot be told.
        modules: Target -> what happens to it.
        embeddings: Learned words that travel in the same file.
        rank: The different ranks in it, smallest first; empty for kinds without.
        words: Words that its maker says call it up, or the captions' commonest tags, most frequent first.
        metadata: Everything else that the file says of itself.
        left: Keys that mean nothing to us.
    """

    path: Path
    name: str
    dialect: str
    base: str
    modules: Mapping[Target, Change] = field(repr=False)
    embeddings: tuple[Embedding, ...] = ()
    rank: tuple[int, ...] = ()
    words: tuple[str, ...] = ()
    metadata: Mapping[str, str] = field(default_factory=dict, repr=False)
    left: tuple[str, ...] = field(default=(), repr=False)

    @property
    def made_for(self) -> str:
        """The base in words."""
        return FAMILIES[self.base]


def read_adapter(path: Path) -> Adapter:
    """Read what an adapter is.

    Args:
        path: A ``.safetensors``, ``.pt`` or ``.bin``; or a folder that PEFT or diffusers wrote.

    Raises:
        WeightsMissing: It is not there.
        WeightsError: Corrupt, cut short, a pickle with code, a checkpoint or an embedding instead of an adapter, or an
            adapter of a kind that is not supported; says which.
    """
    if path.is_dir():
        inside = next((path / name for name in FOLDER_FILES if (path / name).is_file()), None)
        if inside is None:
            raise WeightsError(
                f"{path} is a folder without an adapter in it; one of {', '.join(FOLDER_FILES)} would be"
            )
        name, path = path.name, inside
    else:
        name = path.stem
    shapes, metadata, bare = _contents(path)
    if bare:
        try:
            modules, dialect, left = cloneofsimo.listed(list(shapes.values())), "cloneofsimo-list", ()
        except WeightsError as error:
            raise WeightsError(f"{path}: {error}") from error
    elif any(cloneofsimo.is_named(key) for key in shapes):
        try:
            modules, dialect = cloneofsimo.named(list(shapes), metadata), "cloneofsimo"
        except WeightsError as error:
            raise WeightsError(f"{path}: {error}") from error
        left = tuple(key for key in shapes if not cloneofsimo.is_named(key))
    else:
        dialect, modules, left = parse(shapes)
    if not modules:
        raise _no_adapter(path, shapes)
    scales = _Scales(path, metadata)
    changes = {}
    for target, keys in modules.items():
        factors = {factor: shapes[key] for factor, key in keys.items()}
        changes[target] = Change(keys, factors, None if "alpha" in keys else scales.of(target, factors))
    embeddings, left = bundled(path, left, shapes, metadata)
    ranks = {deltas.rank_of(change.shapes) for change in changes.values()} - {None}
    return Adapter(
        path=path,
        name=name,
        dialect=dialect,
        base=_base(changes, metadata, shapes),
        modules=changes,
        embeddings=embeddings,
        rank=tuple(sorted(rank for rank in ranks if rank is not None)),
        words=_words(metadata),
        metadata=metadata,
        left=left,
    )


def _contents(path: Path) -> tuple[dict[str, Shape], dict[str, str], bool]:
    """Shapes by key, metadata, and whether it is a bare list."""
    if is_pickle(path):
        content = load_pickle(path)
        tensors = unwrap(content)
        if not tensors:
            if looks_like_embedding(content):
                raise _embedding_error(path)
            raise WeightsError(f"{path} holds no tensors: not an adapter")
        return {key: tuple(value.shape) for key, value in tensors.items()}, {}, isinstance(content, list | tuple)
    manifest = read_manifest(path)
    return manifest.shapes(), dict(manifest.metadata), False


def _embedding_error(path: Path) -> WeightsError:
    return WeightsError(
        f"{path} is an embedding (textual inversion), not a LoRA",
        hint="put it in the folder of embeddings and write its name in the prompt",
    )


def _no_adapter(path: Path, shapes: Mapping[str, Shape]) -> WeightsError:
    """Why a file without a single module of an adapter is none."""
    if looks_like_embedding(dict.fromkeys(shapes)):
        return _embedding_error(path)
    whole = any(key.startswith(CHECKPOINT) for key in shapes)
    network = sum(key.endswith((".weight", ".bias")) for key in shapes) > len(shapes) / 2
    if not (whole or network) and len(shapes) <= 4 and all(len(shape) <= 2 for shape in shapes.values()):
        return _embedding_error(path)
    if whole or network:
        return WeightsError(
            f"{path} is a {'whole checkpoint' if whole else 'network'} ({len(shapes)} tensors), not an adapter",
            hint=f"mindseye models add {path}",
        )
    first = ", ".join(list(shapes)[:3]) or "none at all"
    return WeightsError(f"{path} is no adapter of a kind that is known here; its first keys are {first}")


class _Scales:
    """Scales that are told outside the tensors: by PEFT in a file beside, by diffusers in the metadata."""

    def __init__(self, path: Path, metadata: Mapping[str, str]) -> None:
        self._configs: dict[str, dict[str, Any]] = {}
        beside = path.parent / "adapter_config.json"
        if path.name.startswith("adapter_model") and beside.is_file():
            try:
                content = json.loads(beside.read_text(encoding="utf-8"))
            except (OSError, ValueError, RecursionError) as error:
                raise WeightsError(
                    f"{beside}, which says how strong the adapter is, cannot be read: {error}"
                ) from error
            if isinstance(content, dict):
                self._configs[""] = content
        try:
            packed = json.loads(metadata.get("lora_adapter_metadata", "{}"))
        except (ValueError, RecursionError):
            packed = {}
        for key, value in packed.items() if isinstance(packed, dict) else ():
            part, _, name = str(key).rpartition(".")  # without a part in what a single network saved
            part = {"text_encoder": "text", "text_encoder_2": "text_2"}.get(part, part)
            self._configs.setdefault(part, {})[name] = value

    def of(self, target: Target, shapes: Mapping[str, Shape]) -> float | None:
        """The scale of a module; None when nothing is told."""
        config = self._configs.get(target.part, self._configs.get("", {}))
        alpha = config.get("lora_alpha", config.get("alpha"))
        patterns = config.get("alpha_pattern")
        for name, value in patterns.items() if isinstance(patterns, dict) else ():
            wanted = str(name).removeprefix("^").replace(".", "_")
            if target.name == wanted or target.name.endswith(f"_{wanted}"):
                alpha = value
        rank = deltas.rank_of(shapes) or config.get("r")
        if not isinstance(alpha, int | float) or not isinstance(rank, int) or rank < 1:
            return None
        return float(alpha) / (rank**0.5 if config.get("use_rslora") is True else rank)


def _base(changes: Mapping[Target, Change], metadata: Mapping[str, str], keys: Mapping[str, Shape]) -> str:
    """What it was made for: by the width of the text that the U-Net attends to, else by what it says of itself."""
    widths = {768: "sd1", 1024: "sd2", 2048: "sdxl", 1280: "sdxl-refiner"}
    for target, change in changes.items():
        if target.part in ("", "unet") and target.name.endswith(("attn2_to_k", "attn2_to_v")):
            try:
                found = deltas.extent(change.shapes)
            except ValueError:
                continue
            if found is not None and found[1] in widths:
                return widths[found[1]]
    said = " ".join(metadata.get(key, "") for key in ("modelspec.architecture", "ss_base_model_version", "ss_v2"))
    said = said.lower()
    if "xl" in said:
        return "sdxl"
    if "v2" in said or "true" in said.split():
        return "sd2"
    if "v1" in said:
        return "sd1"
    parts = {target.part for target in changes}
    if "text_2" in parts or any(key.startswith("lora_te1_") for key in keys):
        return "sdxl"
    for target, change in changes.items():
        if target.part == "text" and target.name.endswith(("_k_proj", "_q_proj", "_v_proj", "_out_proj")):
            try:
                found = deltas.extent(change.shapes)
            except ValueError:
                continue
            if found is not None and found[1] in (768, 1024):
                return widths[found[1]]
    return ""


def _words(metadata: Mapping[str, str], most: int = 24) -> tuple[str, ...]:
    """Words to put into a prompt."""
    said = metadata.get("modelspec.trigger_phrase", "") or metadata.get("modelspec.trigger_word", "")
    words = [word.strip() for word in said.split(",") if word.strip()]
    if words:
        return tuple(words[:most])
    try:
        sets = json.loads(metadata.get("ss_tag_frequency", "{}"))
    except (ValueError, RecursionError):
        return ()
    counts: dict[str, int] = {}
    for tags in sets.values() if isinstance(sets, dict) else ():
        for tag, count in tags.items() if isinstance(tags, dict) else ():
            if isinstance(count, int):
                counts[str(tag).strip()] = counts.get(str(tag).strip(), 0) + count
    return tuple(sorted(counts, key=lambda tag: (-counts[tag], tag))[:most])
