"""Whole CLIPs, both towers: OpenAI's files, OpenCLIP's files and folders, folders of the transformers library.

Shapes tell the sizes of both towers. They do not tell the curve between two layers (OpenAI's weights and some of
OpenCLIP's have QuickGELU, most of OpenCLIP's the exact GELU) nor the colours that pictures are normalised with; those
come from the JSON beside the weights, from the file's form or name, or from the caller, and what was assumed is said.
"""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from mindseye.checkpoints.folders import read_json
from mindseye.checkpoints.layouts import openai_clip, transformers
from mindseye.checkpoints.manifest import Manifest, read_manifest
from mindseye.checkpoints.releases import PartFile
from mindseye.checkpoints.torchscript import is_torchscript
from mindseye.errors import WeightsError, WeightsMissing

__all__ = ["FoundClip", "identify_clip"]

NAMES = (
    "model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json",
    "open_clip_model.safetensors", "open_clip_pytorch_model.bin",
)  # fmt: skip
"""What weights are called in folders, best first."""
QUICK = re.compile(r"quickgelu|openai|laion400m|yfcc15m|cc12m|(^|[/\\])(ViT-|RN\d)", re.IGNORECASE)
"""In the name of a file: OpenAI's own names, and the trainings of OpenCLIP that kept its curve."""


class FoundClip(NamedTuple):
    """A CLIP, as found at a path.

    Attributes:
        part: For `mindseye.checkpoints.load.load_foreign`.
        length: Tokens its texts have, for its tokenizer.
        notes: What was assumed, a sentence each.
    """

    part: PartFile
    length: int
    notes: tuple[str, ...]


def identify_clip(path: Path, activation: Literal["quick_gelu", "gelu", ""] = "") -> FoundClip:
    """What CLIP is at ``path``: its tables of contents and JSON are read, never its weights.

    Args:
        path: A file, or a folder with ``config.json`` or ``open_clip_config.json``.
        activation: The curve, where the caller knows better.

    Raises:
        WeightsMissing: Nothing is there.
        WeightsError: It is something else, or a CLIP whose towers are not known here.
    """
    file, told = _file(path)
    manifest = read_manifest(file)
    prefix = next((each for each in ("", "module.", "model.") if f"{each}logit_scale" in manifest), None)
    if prefix is None:
        raise WeightsError(f"{path} is no whole CLIP: it has no logit_scale")
    shapes = manifest.under(prefix).shapes()
    try:
        if "text_model.final_layer_norm.weight" in shapes:
            found = _transformers(path, told, shapes)
        else:
            found = _openai(path, file, told, shapes, activation, manifest)
    except (KeyError, ValueError, TypeError, IndexError) as error:
        said = f"{error} is missing" if isinstance(error, KeyError) else str(error)
        raise WeightsError(f"the CLIP at {path} is not supported: {said}") from error
    layout, config, notes = found
    part = PartFile(manifest.files, layout, prefix, json.dumps(config))
    return FoundClip(part, int(config["text"]["length"]), notes)


def _file(path: Path) -> tuple[Path, dict[str, Any]]:
    """The weights, and what the JSON beside them says."""
    if not path.exists():
        raise WeightsMissing(f"{path} is not there")
    folder = path if path.is_dir() else path.parent
    told: dict[str, Any] = {}
    named = path.is_dir() or path.name in NAMES
    for name in ("config.json", "open_clip_config.json", "preprocessor_config.json"):
        if named and (folder / name).is_file():
            told |= read_json(folder / name)
    if not path.is_dir():
        return path, told
    for name in NAMES:
        if (path / name).is_file():
            return path / name, told
    raise WeightsMissing(f"{path} holds no weights of a CLIP: {', '.join(NAMES)}")


def _openai(
    path: Path,
    file: Path,
    told: Mapping[str, Any],
    shapes: Mapping[str, tuple[int, ...]],
    activation: str,
    manifest: Manifest,
) -> tuple[str, dict[str, Any], tuple[str, ...]]:
    notes: list[str] = []
    model, colours = _inner(told, "model_cfg"), _inner(told, "preprocess_cfg")
    if not activation and model:
        activation = "quick_gelu" if model.get("quick_gelu") else "gelu"
    if not activation:
        program = file.suffix != ".safetensors" and is_torchscript(file)
        quick = program or bool(QUICK.search(path.name))
        activation = "quick_gelu" if quick else "gelu"
        if not program:
            notes.append(f"nothing says which curve this CLIP has: taken for {activation} by its name")
    mean, std = (_triple(colours.get(name)) for name in ("mean", "std"))
    config = openai_clip.clip_config(shapes, activation=activation, mean=mean, std=std)
    image = config["image"]
    if (width := _inner(model, "vision_cfg").get("head_width")) and "patch" in image:
        image["heads"] = max(1, image["width"] // int(width))
    if heads := _inner(model, "text_cfg").get("heads"):
        config["text"]["heads"] = int(heads)
    return "openai-clip", config, tuple(notes)


def _transformers(
    path: Path, told: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]
) -> tuple[str, dict[str, Any], tuple[str, ...]]:
    notes: list[str] = []
    text, vision = _inner(told, "text_config"), _inner(told, "vision_config")
    # What a config leaves out has the library's own value, which is that of OpenAI's B/32.
    words = transformers.text_shapes(shapes)["text"]
    size, (width, _, patch, _) = (
        shapes["vision_model.embeddings.position_embedding.weight"][0] - 1,
        shapes["vision_model.embeddings.patch_embedding.weight"],
    )
    hidden = shapes["vision_model.encoder.layers.0.mlp.fc1.weight"][0]
    layers = {key.split(".")[3] for key in shapes if key.startswith("vision_model.encoder.layers.")}
    if not told:
        notes.append("no config.json lies beside this CLIP: taken for QuickGELU and 64 channels a head")
    image = {
        "size": int(size**0.5) * patch,
        "patch": patch,
        "width": width,
        "layers": len(layers),
        "heads": int(vision.get("num_attention_heads", max(1, width // openai_clip.HEADS.get(width, 64)))),
        "hidden": None if hidden == 4 * width else hidden,
        "activation": _curve(vision),
    }
    words |= {"heads": int(text.get("num_attention_heads", words["heads"])), "activation": _curve(text)}
    config: dict[str, Any] = {"text": words, "image": image, "embed": shapes["text_projection.weight"][0]}
    for ours, theirs in (("mean", "image_mean"), ("std", "image_std")):
        if (value := _triple(told.get(theirs))) is not None:
            config[ours] = list(value)
    return "transformers-clip", config, tuple(notes)


def _curve(told: Mapping[str, Any]) -> str:
    curve = told.get("hidden_act", "quick_gelu")
    if curve not in ("quick_gelu", "gelu"):
        raise ValueError(f"its activation is {curve!s:.40}; quick_gelu and gelu are supported")
    return curve


def _inner(told: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """A table inside a table; empty where there is none."""
    found = told.get(name)
    return found if isinstance(found, dict) else {}


def _triple(value: Any) -> tuple[float, ...] | None:
    """Three numbers, or None where nothing is told."""
    if value is None:
        return None
    if not isinstance(value, Sequence) or len(value) != 3:
        raise ValueError(f"colours of {value!s:.40}")
    return tuple(float(each) for each in value)
