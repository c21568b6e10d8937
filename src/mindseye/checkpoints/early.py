"""The systems before latent diffusion, as files: VQGANs, discrete VAEs, GANs, ADM, its second model, and CLIP itself.

Each is one network; what it listens to comes from elsewhere. A file is told by its keys and shapes alone. So are the
DALL-Es, which bring a codec with them; DALL-E mini is a folder of several files (`mindseye.checkpoints.dalle_mini`).
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from mindseye.checkpoints import dalle_mini
from mindseye.checkpoints.clips import identify_clip
from mindseye.checkpoints.layouts import (
    biggan,
    dalle_pytorch,
    dalle_pytorch_dvae,
    dcgan,
    enhancing,
    guided_diffusion,
    mindalle,
    openai_dvae,
    taming,
)
from mindseye.checkpoints.manifest import Manifest, read_manifest
from mindseye.checkpoints.releases import PartFile, Release
from mindseye.errors import WeightsError

__all__ = ["identify_early"]

Shapes = Mapping[str, tuple[int, ...]]
_WRAPPERS = ("", "module.", "model.")
_VOCABULARY = 49408
"""Tokens of the only vocabulary that CLIPs were published with here."""
_SIDES = {4: 64, 5: 128, 7: 512}
"""Levels of the published ADMs, and the sides they were trained at; all others are of 256."""


def identify_early(path: Path, manifest: Manifest | None = None) -> Release | None:
    """The release in a file, or in a folder of one CLIP, dVAE or DALL-E mini; None when it is none of these.

    Args:
        path: File or folder.
        manifest: What is in the file.

    Raises:
        WeightsError: One of these, but of a kind that is not supported.
    """
    if path.is_dir():
        if mindalle.is_mindalle(path):
            return mindalle.release(path)
        if openai_dvae.alone(path):
            return openai_dvae.folder(path)
        if found := dalle_mini.find(path):
            return found
        if dalle_mini.holds_flax(path):
            return _vqgan(path / dalle_mini.FLAX, read_manifest(path / dalle_mini.FLAX))
        beside = ("open_clip_config.json", "config.json")
        return _clip(path) if any(_is_clip_config(path / name) for name in beside) else None
    if manifest is None:
        return None
    for publisher in (taming, dalle_pytorch, openai_dvae, dalle_pytorch_dvae, enhancing):
        if found := publisher.release(path, manifest):
            return found
    if found := _vqgan(path, manifest):
        return found
    if dalle_mini.is_half(manifest):
        return dalle_mini.find(path)
    for prefix in _WRAPPERS:
        shapes = manifest.under(prefix).shapes() if prefix else manifest.shapes()
        if "logit_scale" in shapes and any(key.startswith(("visual.", "vision_model.")) for key in shapes):
            return _clip(path)
        if guided_diffusion.is_adm(shapes):
            return _adm(path, prefix, shapes)
        if guided_diffusion.is_secondary(shapes):
            part = _part(path, "secondary", prefix, lambda s=shapes: guided_diffusion.secondary_config(s))
            return _release("secondary", {"secondary": part}, 256, 1)
    return _gan(path, manifest)


def _vqgan(path: Path, manifest: Manifest) -> Release | None:
    """A VQGAN of DALL-E mini's, on its own."""
    part = dalle_mini.vqgan(path, manifest)
    if part is None:
        return None
    factor = 2 ** (len(json.loads(part.config)["decoder"]["channels"]) - 1)
    return _release("vqgan", {"codec": part}, 256, factor)


def _gan(path: Path, manifest: Manifest) -> Release | None:
    """A generator. Whatever size is asked for, it draws its own, and that is brought to the size."""
    try:
        found = biggan.release(path, manifest) or dcgan.release(path, manifest)
    except (KeyError, ValueError, IndexError):  # layers of other networks have numbers and names of any kind
        return None
    return None if found is None else replace(found, multiple=1)


def _clip(path: Path) -> Release:
    found = identify_clip(path)
    config = json.loads(found.part.config)
    if (words := config["text"]["vocabulary"]) != _VOCABULARY:
        raise WeightsError(
            f"{path} is a CLIP with {words:,} tokens: the vocabulary known here is OpenAI's, of {_VOCABULARY:,}"
        )
    release = _release("clip", {"clip": found.part}, int(config["image"]["size"]), 1)
    return replace(release, facts={"length": found.length}, notes=found.notes)


def _is_clip_config(path: Path) -> bool:
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(told, dict) and (told.get("model_type") == "clip" or "model_cfg" in told)


def _adm(path: Path, prefix: str, shapes: Shapes) -> Release:
    part = _part(path, "guided-diffusion", prefix, lambda: guided_diffusion.adm_config(shapes))
    levels = len(json.loads(part.config)["channels"])
    side = _SIDES.get(levels, 256)
    notes = (f"nothing in the file says what size it was trained at: taken for {side} by its levels",)
    return _release("adm", {"unet": part}, side, 2 ** (levels - 1), notes)


def _part(path: Path, layout: str, prefix: str, config: Callable[[], dict[str, Any]]) -> PartFile:
    try:
        return PartFile((path,), layout, prefix, json.dumps(config()))
    except (KeyError, ValueError, IndexError) as error:
        said = f"{error} is missing" if isinstance(error, KeyError) else str(error)
        raise WeightsError(f"{path} is not supported: {said}") from error


def _release(
    family: str, parts: Mapping[str, PartFile], side: int, multiple: int, notes: tuple[str, ...] = ()
) -> Release:
    return Release(
        family=family, parts=parts, tokenizers={}, facts={}, native=(side, side), multiple=multiple, notes=notes,
        licence="MIT",
    )  # fmt: skip
