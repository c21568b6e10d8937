"""What a file of weights is: a model, a LoRA, an embedding, an autoencoder, a CLIP, told by its keys and shapes.

Only names and shapes are looked at, so a folder of hundreds of files is sorted in a moment, without torch unless one of
them is a pickle. What a model is in detail is the business of `mindseye.checkpoints.releases`, what an adapter is of
`mindseye.checkpoints.adapters`.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from mindseye.checkpoints import dalle_mini
from mindseye.checkpoints.hub import WEIGHTS
from mindseye.errors import MindseyeError, WeightsError

__all__ = ["KINDS", "Kind", "Seen", "is_unit", "look"]

Kind = Literal["model", "lora", "embedding", "vae", "clip", "secondary"]
KINDS: tuple[Kind, ...] = get_args(Kind)
"""All kinds, in the order in which they are listed."""

Shapes = Mapping[str, tuple[int, ...]]

PICTURES = (".png", ".webp")
"""An embedding may travel in a picture of what it does."""
_PICTURE_MARK = b"sd-ti-embedding"
_SMALL = 8 << 20
"""Bytes; embeddings and pictures of them are smaller."""
_ADAPTER = re.compile(
    r"lora_|\.lora\.|lora_[AB]\b|\.lora_?[AB]\b|hada_|lokr_|oft_blocks|oft_diag|dora_scale|_lora\.|\.(up|down)\.weight:"
    r"|^(unet|text_encoder|te):\d+:|^\d+:(up|down|alpha)$"
)
_CHECKPOINT = ("model.diffusion_model.", "cond_stage_model.", "conditioner.embedders.", "diffusion_model.input_blocks.")
_UNET = ("input_blocks.0.0.weight", "down_blocks.0.resnets.0.conv1.weight")
_VAE = re.compile(
    r"(first_stage_model\.|vae\.)?(encoder|decoder)\.(down|up|mid|down_blocks|up_blocks|mid_block|layers)\..+"
)
_WIDTHS = {768: "sd1", 1024: "sd2", 1280: "sdxl", 2048: "sdxl"}
_ARCHITECTURES = {
    "sdxl": ("sdxl", "stable-diffusion-xl"),
    "sd2": ("sd_v2", "sd_2", "stable-diffusion-v2"),
    "sd1": ("sd_v1", "sd_1", "stable-diffusion-v1"),
}


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What a look at a path told.

    Attributes:
        kind: What it is; None when it is nothing that mindseye uses.
        family: Which base it is or is for: "sd1", "sdxl" ...; "" when that cannot be told.
        problem: Why it cannot be used, as a sentence; "" when it can.
    """

    kind: Kind | None
    family: str = ""
    problem: str = ""


def is_unit(folder: Path) -> bool:
    """Whether a folder is one thing (a diffusers folder, one of ours, an adapter), not a place where things lie."""
    from mindseye.checkpoints.layouts.openai_dvae import alone

    if alone(folder):
        return True
    names = (
        "model_index.json", "card.json", "adapter_config.json", "pytorch_lora_weights.safetensors",
        "open_clip_config.json", "stage2_last.ckpt",
    )  # fmt: skip
    if any((folder / name).is_file() for name in names):
        return True
    told = _config(folder)
    if dalle_mini.lies_in(folder):
        return True
    return str(told.get("_class_name", "")).startswith("Autoencoder") or told.get("model_type") == "clip"


def look(path: Path) -> Seen:
    """Say what a file, or a folder that `is_unit`, is. Never raises for what is wrong with the file."""
    try:
        return _folder(path) if path.is_dir() else _file(path)
    except MindseyeError as error:
        return Seen(kind=_by_place(path), problem=error.message)
    except OSError as error:
        return Seen(kind=_by_place(path), problem=f"{path} cannot be read: {error.strerror or error}")


def _folder(path: Path) -> Seen:
    if (path / "adapter_config.json").is_file() or (path / "pytorch_lora_weights.safetensors").is_file():
        names = ("adapter_model.safetensors", "pytorch_lora_weights.safetensors", "adapter_model.bin")
        inside = next((path / name for name in names if (path / name).is_file()), path / names[0])
        return Seen(kind="lora", family=look(inside).family)
    if str(_config(path).get("_class_name", "")).startswith("Autoencoder"):
        return Seen(kind="vae")
    return _model(path)


def _config(folder: Path) -> Mapping[str, Any]:
    """What a folder's `config.json` says; empty where there is none that can be read."""
    try:
        settings = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return settings if isinstance(settings, dict) else {}


def _model(path: Path) -> Seen:
    """A checkpoint, as `releases` names it; one of no known family is a model with a problem."""
    from mindseye.checkpoints.releases import identify

    family = identify(path).family
    return Seen(kind="clip" if family == "clip" else "secondary" if family == "secondary" else "model", family=family)


def _file(path: Path) -> Seen:
    from mindseye.checkpoints.early import identify_early
    from mindseye.checkpoints.manifest import read_manifest
    from mindseye.checkpoints.modules import is_modules

    ending, size = path.suffix.lower(), path.stat().st_size
    if ending in PICTURES:
        with path.open("rb") as file:
            return Seen(kind="embedding" if _PICTURE_MARK in file.read(1 << 16) else None)
    if ending not in WEIGHTS or (ending == ".pkl" and not is_modules(path)):
        return Seen(kind=None)  # most pickles have nothing to do with pictures
    if ending != ".safetensors" and size < _SMALL and (seen := _small_pickle(path)):
        return seen
    manifest = read_manifest(path)
    shapes = {key: entry.shape for key, entry in manifest.items()}
    if network := manifest.metadata.get("network", ""):
        return _ours(path, network)
    kind = _by_keys(shapes)
    if kind == "model":
        return _model(path)
    if kind != "lora" and kind != "embedding" and identify_early(path, manifest) is not None:
        return _model(path)
    if kind == "vae":
        return Seen(kind="vae")
    if kind is None:
        return Seen(kind=None, problem=f"{path.name} is no model, LoRA, embedding or autoencoder that mindseye knows")
    return Seen(kind=kind, family=_base(shapes, manifest.metadata))


def _ours(path: Path, network: str) -> Seen:
    """A single part in our own format."""
    if network.startswith(("mindseye.networks.vae:", "mindseye.networks.taesd:")):
        return Seen(kind="vae")
    what = network.rpartition(":")[2]
    return Seen(
        kind=None,
        problem=f"{path.name} is one part of a model ({what}), not a model; -m {path} draws with it if a card has one",
    )


def _small_pickle(path: Path) -> Seen | None:
    """Embeddings and lists of LoRA factors: pickles without named tensors at their top."""
    raw = path.read_bytes()
    if b"string_to_param" in raw:
        return Seen(kind="embedding")
    if raw.startswith((b"PK", b"\x80")):
        from mindseye.checkpoints.manifest import read_manifest

        try:
            read_manifest(path)
        except WeightsError as error:
            if "not named weights" in error.message:
                return _bare_pickle(path)
    return None


def _bare_pickle(path: Path) -> Seen:
    """A tensor or a list of tensors at the top: an embedding, or the list form of a LoRA."""
    import torch

    content = torch.load(path, map_location="cpu", weights_only=True)
    if isinstance(content, torch.Tensor):
        width = content.shape[-1] if content.ndim in (1, 2) else 0
        return Seen(kind="embedding", family=_WIDTHS.get(width, "")) if width else Seen(kind=None)
    if isinstance(content, list) and content and all(isinstance(each, torch.Tensor) for each in content):
        return Seen(kind="lora")
    return Seen(kind=None)


def _by_keys(shapes: Shapes) -> Kind | None:
    """The kind that keys and shapes tell."""
    from mindseye.checkpoints.layouts.taesd import half_of

    if any(key.startswith(_CHECKPOINT) for key in shapes):
        return "model"
    if any(_ADAPTER.search(key) for key in shapes):
        return "lora"
    if "emb_params" in shapes or {"clip_l", "clip_g"} & set(shapes):
        return "embedding"
    if len(shapes) <= 64 and shapes and all(_is_vectors(shape) for shape in shapes.values()):
        return "embedding"
    if half_of(shapes) or (any(map(_VAE.fullmatch, shapes)) and not any(key in shapes for key in _UNET)):
        return "vae"
    return "model" if any(key in shapes for key in _UNET) else None


def _is_vectors(shape: tuple[int, ...]) -> bool:
    """Whether it is one vector, or a few, of a text tower's width."""
    return len(shape) in (1, 2) and shape[-1] in _WIDTHS and (len(shape) == 1 or shape[0] <= 1024)


def _base(shapes: Shapes, metadata: Mapping[str, str]) -> str:
    """Which base an adapter or embedding is for: as it says itself, or by the widths that it fits; "" for unknown."""
    said = " ".join(metadata.get(key, "") for key in ("ss_base_model_version", "modelspec.architecture")).lower()
    for family, marks in _ARCHITECTURES.items():
        if any(mark in said for mark in marks):
            return family
    if any("lora_te2" in key or "text_encoder_2" in key for key in shapes) or "clip_g" in shapes:
        return "sdxl"
    if all(_is_vectors(shape) for shape in shapes.values()):
        return _WIDTHS[next(iter(shapes.values()))[-1]]
    for key, shape in shapes.items():
        if "attn2" in key and "to_k" in key and len(shape) >= 2 and re.search(r"down|lora_?A|w1_b", key):
            return _WIDTHS.get(shape[1], "")
    return ""


def _by_place(path: Path) -> Kind | None:
    """What a file that cannot be read was meant to be, by the folder it lies in as the web interfaces name theirs."""
    if path.is_dir():
        return "model"
    folders = {part.lower() for part in path.parts[:-1]}
    if folders & {"lora", "loras", "lycoris"}:
        return "lora"
    if folders & {"embeddings", "embedding", "textual_inversion"}:
        return "embedding"
    return "vae" if folders & {"vae", "vaes"} else "model"
