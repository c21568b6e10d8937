"""DALL-E mini and mega as people have them: which files of a folder belong together.

As min-dalle keeps them, ``encoder.pt`` and ``decoder.pt`` beside ``vocab.json`` and ``merges.txt`` (or all four with
``_mini`` in their names, where both models share a folder), and ``detoker.pt`` in the same folder or in ``vqgan``,
beside or in it. Or as they were published for Flax: ``flax_model.msgpack``, ``config.json`` and a vocabulary, and the
VQGAN, which is a repository of its own, in a folder ``vqgan`` beside or in it.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mindseye.checkpoints.layouts import dalle_mini, taming
from mindseye.checkpoints.manifest import Manifest, read_manifest
from mindseye.checkpoints.releases import PartFile, Release
from mindseye.errors import WeightsError, WeightsMissing

__all__ = ["FLAX", "find", "is_half", "lies_in", "vqgan"]

FLAX = "flax_model.msgpack"
HALVES = ("encoder", "decoder")
_ENDINGS = (".pt", ".safetensors")
_VARIANTS = ("", "_mini")


def lies_in(folder: Path) -> bool:
    """Whether a folder holds one, as far as names tell."""
    return bool(_variants(folder)) or _told(folder).get("model_type") == "dallebart"


def is_half(manifest: Manifest) -> bool:
    """Whether a file is one of min-dalle's two."""
    return "layers.0.glu.fc0.weight" in manifest and "embed_tokens.weight" in manifest


def find(path: Path) -> Release | None:
    """The release in a folder, or the one that a file of min-dalle's is a half of; None if there is none.

    Raises:
        WeightsMissing: Something that belongs to it is not there.
        WeightsError: It is of a kind that was never published.
    """
    folder = path if path.is_dir() else path.parent
    if path.is_dir() and path.joinpath(FLAX).is_file():
        return _flax(folder)
    there = _variants(folder)
    if not path.is_dir():
        there = [variant for variant in there if path.stem in {f"{half}{variant}" for half in HALVES}]
        if not there:
            raise WeightsMissing(
                f"{path.name} is one half of DALL-E mini, and {folder} holds no other (encoder.pt, decoder.pt)"
            )
    if not there:
        return None
    if len(there) > 1:
        raise WeightsError(
            f"{folder} holds two models, encoder.pt (mega) and encoder_mini.pt, and it is not clear which is meant",
            hint=f"give the path of one of them: {folder / 'encoder_mini.pt'}",
        )
    return _min_dalle(folder, there[0])


def vqgan(path: Path, manifest: Manifest) -> PartFile | None:
    """The VQGAN in a file of either kind, for pictures in [0, 1]; None if none is in it.

    Raises:
        WeightsError: One that is not supported.
    """
    shapes = manifest.shapes()
    if dalle_mini.is_flax_vqgan(shapes):
        return _part((path,), "vqgan-jax", lambda: dalle_mini.flax_vqgan_config(shapes))
    if dalle_mini.is_detoker(shapes):
        return _part((path,), "min-dalle-detoker", lambda: dalle_mini.detoker_config(shapes))
    return None


def _min_dalle(folder: Path, variant: str) -> Release:
    files = tuple(_half(folder, f"{half}{variant}") for half in HALVES)
    under = tuple(f"{half}." for half in HALVES)
    shapes = read_manifest(files, under).shapes()
    start, notes = _told(folder).get("decoder_start_token_id"), []
    if start is None:
        notes.append("nothing beside it says which row decoding starts at: the first behind the codes is taken")
    part = _part(files, "min-dalle", lambda: dalle_mini.min_dalle_config(shapes, start=start), under)
    named = folder / f"vocab{variant}.json"
    return _release(folder, part, named if variant and named.is_file() else folder, tuple(notes))


def _flax(folder: Path) -> Release | None:
    manifest = read_manifest(folder / FLAX)
    shapes = manifest.shapes()
    if not dalle_mini.is_flax(shapes):
        return None
    part = _part((folder / FLAX,), "dalle-mini-flax", lambda: dalle_mini.flax_config(shapes, _told(folder)))
    return _release(folder, part, folder, ())


def _release(folder: Path, part: PartFile, tokenizer: Path, notes: tuple[str, ...]) -> Release:
    config = json.loads(part.config)
    codec = _codec(folder)
    codes = json.loads(codec.config)
    if codes["encoder"] is None:
        notes = (*notes, "its VQGAN came without an encoder: it starts from no picture")
    side = int(config["length"] ** 0.5) * 2 ** (len(codes["decoder"]["channels"]) - 1)
    return Release(
        family="dalle-mini",
        parts={"network": part, "codec": codec},
        tokenizers={"tokenizer": tokenizer},
        facts={"length": config["text_length"]},
        native=(side, side),
        multiple=1,
        notes=notes,
        licence="Apache-2.0",
    )


def _codec(folder: Path) -> PartFile:
    """The VQGAN that belongs to a model in ``folder``.

    Raises:
        WeightsMissing: There is none where it should be.
    """
    for place in (folder, folder / "vqgan", folder.parent / "vqgan"):
        for name in ("detoker.pt", "detoker.safetensors", FLAX):
            path = place / name
            if path.is_file() and (found := vqgan(path, read_manifest(path))):
                return found
            if place != folder and path.is_file():
                raise WeightsError(f"{path} is no VQGAN that is read here")
        for path in sorted(place.glob("*.ckpt")) if place != folder and place.is_dir() else ():
            if (found := taming.release(path, read_manifest(path))) is not None:
                return found.parts["codec"]
    raise WeightsMissing(
        f"{folder} holds a DALL-E mini without the VQGAN that paints its codes",
        hint=f"put detoker.pt, or the repository dalle-mini/vqgan_imagenet_f16_16384, into {folder / 'vqgan'}",
    )


def _variants(folder: Path) -> list[str]:
    """What min-dalle's models in a folder have in their names."""
    return [
        variant
        for variant in _VARIANTS
        if all(any((folder / f"{half}{variant}{ending}").is_file() for ending in _ENDINGS) for half in HALVES)
    ]


def _half(folder: Path, name: str) -> Path:
    return next(path for ending in _ENDINGS if (path := folder / f"{name}{ending}").is_file())


def _told(folder: Path) -> Mapping[str, Any]:
    """What a folder's ``config.json`` says; empty where there is none that can be read."""
    try:
        told = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return told if isinstance(told, dict) else {}


def _part(
    files: tuple[Path, ...], layout: str, config: Callable[[], dict[str, Any]], under: tuple[str, ...] = ()
) -> PartFile:
    try:
        return PartFile(files, layout, "", json.dumps(config()), under=under)
    except (KeyError, ValueError, IndexError, TypeError) as error:
        said = f"{error} is missing" if isinstance(error, KeyError) else str(error)
        raise WeightsError(f"{files[0]} is not supported: {said}") from error
