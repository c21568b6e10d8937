"""Names of taming-transformers (CompVis): VQGANs as Lightning checkpoints, with a ``.yaml`` beside them.

The autoencoder's names are those of `mindseye.checkpoints.layouts.compvis`, which descends from it; levels may have an
attention for each residual block (``down.4.attn.0``), and the codebook is ``quantize.embedding.weight`` or, of the
Gumbel variant, ``quantize.embed.weight`` behind ``quantize.proj``. A transformer over tokens (``Net2NetTransformer``)
holds a VQGAN under ``first_stage_model.``; that is what is taken from such a file.

Shapes tell everything that a network is built from: where attention stands shows in the names, although the
configuration derives it from resolutions. The ``.yaml`` is read for the size of the training pictures and is held
against the shapes, so that a file with another's configuration beside it is refused in words.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mindseye.checkpoints.layout import SAME, SQUEEZE, Ignore, Rule
from mindseye.checkpoints.layouts import compvis
from mindseye.checkpoints.layouts.diffusers import layer
from mindseye.checkpoints.manifest import Manifest
from mindseye.checkpoints.releases import PartFile, Release
from mindseye.errors import WeightsError

if TYPE_CHECKING:
    from mindseye.networks.vqgan import Config

__all__ = ["IGNORE", "TARGETS", "prefix_of", "release", "vqgan_config", "vqgan_rules"]

Shapes = Mapping[str, tuple[int, ...]]

IGNORE = (
    Ignore(r"loss\..*", "the critics that the autoencoder was trained against, most of the file"),
    Ignore(r"model_ema\..*", "a second, averaged copy, under names without dots"),
    Ignore(r"quantize\.used", "which of the codes a transformer was told about"),
    Ignore(r"colorize", "random colours that segmentations are shown in"),
)
MODEL, TRANSFORMER = "taming.models.vqgan.", "taming.models.cond_transformer.Net2NetTransformer"
TARGETS = (f"{MODEL}VQModel", f"{MODEL}GumbelVQ", TRANSFORMER)
"""What a ``.yaml`` of theirs may be about."""
PREFIXES = ("", "first_stage_model.")
_MARKS = ("quantize.embedding.weight", "quantize.proj.weight")
_CLASSES = {"nearest": "VQModel", "gumbel": "GumbelVQ"}
_LEVEL = re.compile(r"(encoder|decoder)\.levels\.(\d+)\.blocks\.(\d+)\.")


def prefix_of(manifest: Mapping[str, Any]) -> str | None:
    """What stands before the VQGAN's names in such a file; None if none is in it, or a U-Net is: latent diffusion."""
    if any(key.startswith("model.diffusion_model.") for key in manifest):
        return None
    for prefix in PREFIXES:
        marks = any(f"{prefix}{mark}" in manifest for mark in _MARKS)
        if marks and f"{prefix}decoder.conv_in.weight" in manifest:
            return prefix
    return None


def release(path: Path, manifest: Manifest) -> Release | None:
    """The VQGAN in a file as a release of the family "vqgan", whose only part is "codec"; None if none is in it.

    Args:
        path: The file; a ``.yaml`` of the same name is read.
        manifest: What is in it.

    Raises:
        WeightsError: A variant that is not supported, or a ``.yaml`` that is about another file.
    """
    prefix = prefix_of(manifest)
    if prefix is None:
        return None
    try:
        config = vqgan_config(manifest.under(prefix).shapes())
    except (KeyError, ValueError, IndexError) as error:
        said = f"{error} is missing" if isinstance(error, KeyError) else str(error)
        raise WeightsError(f"the VQGAN in {path} is not supported: {said}") from error
    side, notes = 256, []
    beside = next((file for ending in (".yaml", ".yml") if (file := path.with_suffix(ending)).is_file()), None)
    if beside is not None:
        told = _read(beside)
        if told is None:
            notes.append(f"{beside.name} cannot be read; everything needed is in the file itself")
        else:
            side = _checked(told, config, beside, path)
    part = PartFile((path,), "taming-vqgan", prefix, json.dumps(config))
    return Release(
        family="vqgan",
        parts={"codec": part},
        tokenizers={},
        facts={},
        native=(side, side),
        multiple=2 ** (len(config["encoder"]["channels"]) - 1),
        notes=tuple(notes),
        licence="MIT",
    )


def vqgan_rules(config: "Config") -> Iterator[Rule]:
    """The VQGAN, either quantizer, with or without an encoder."""

    def placed(found: re.Match[str]) -> str:
        """Attention follows each residual block in our sequence, and stands in one of its own in theirs."""
        name, level, block = found[1], int(found[2]), int(found[3])
        return f"{name}.levels.{level}.blocks.{2 * block if level in config.attention else block}."

    for rule in compvis.vae_rules(config.towers):
        if config.encoder is not None or not rule.ours.startswith(("encoder.", "quant_conv.")):
            yield replace(rule, ours=_LEVEL.sub(placed, rule.ours))
    for name, tower, direction in (("encoder", config.encoder, "down"), ("decoder", config.decoder, "up")):
        if tower is None:
            continue
        for level in config.attention:
            for block in range(tower.blocks[level]):
                theirs = f"{name}.{direction}.{level}.attn.{block}"
                ours = f"{name}.levels.{level}.blocks.{2 * block + 1}"
                yield from layer(f"{theirs}.norm", f"{ours}.norm")
                for their, our in (("q", "query"), ("k", "key"), ("v", "value"), ("proj_out", "out")):
                    for end, op in (("weight", SQUEEZE), ("bias", SAME)):
                        yield Rule(f"{theirs}.{their}.{end}", f"{ours}.attention.{our}.{end}", op)
    if config.quantizer == "gumbel":
        yield from layer("quantize.proj", "quantizer.projection")
        yield Rule("quantize.embed.weight", "quantizer.weight")
    else:
        yield Rule("quantize.embedding.weight", "quantizer.weight")


def vqgan_config(shapes: Shapes) -> dict[str, Any]:
    """A `mindseye.networks.vqgan.Config` as plain values, from shapes.

    Raises:
        KeyError: Not such a VQGAN.
        ValueError: One of another kind.
    """
    towers = compvis.vae_config(shapes)
    if not towers["quant_conv"] or not (towers["encoder"]["middle"] and towers["decoder"]["middle"]):
        raise ValueError("it has no attention in the middle, or no convolutions around the codebook")
    if shapes["encoder.conv_out.weight"][0] != towers["latent_channels"]:
        raise ValueError("its encoder gives a mean and a variance")
    if shapes["encoder.conv_in.weight"][1] != 3 or shapes["decoder.conv_out.weight"][0] != 3:
        raise ValueError("it is about segmentations or depth, not pictures")
    attention = []
    for name, direction in (("encoder", "down"), ("decoder", "up")):
        found = re.compile(rf"{name}\.{direction}\.(\d+)\.attn\.0\.q\.weight")
        attention.append(sorted({int(seen[1]) for key in shapes if (seen := found.fullmatch(key))}))
    if attention[0] != attention[1]:
        raise ValueError("encoder and decoder attend at different levels")
    gumbel = "quantize.proj.weight" in shapes
    codes, channels = shapes["quantize.embed.weight" if gumbel else "quantize.embedding.weight"]
    return {
        "encoder": towers["encoder"],
        "decoder": towers["decoder"],
        "codes": codes,
        "code_channels": channels,
        "z_channels": towers["latent_channels"],
        "attention": attention[0],
        "quantizer": "gumbel" if gumbel else "nearest",
    }


def _read(path: Path) -> Mapping[str, Any] | None:
    """A ``.yaml`` as plain values; None when it is none, or longer than any of theirs."""
    import yaml

    try:
        if path.stat().st_size > 1 << 16:
            return None
        told = yaml.safe_load(path.read_text(encoding="utf-8", errors="replace"))
    except (OSError, yaml.YAMLError, ValueError, RecursionError):
        return None
    return told if isinstance(told, Mapping) else None


def _checked(told: Mapping[str, Any], config: Mapping[str, Any], beside: Path, path: Path) -> int:
    """The side of the training pictures that a ``.yaml`` tells, once it is known to be about this file.

    Raises:
        WeightsError: It is not.
    """
    target, about = _at(told, "model", "target"), _at(told, "model", "params")
    if target == TRANSFORMER:
        target, about = (_at(about, "first_stage_config", key) for key in ("target", "params"))
    shape = _at(about, "ddconfig")
    side, widths = _at(shape, "resolution"), _at(shape, "ch_mult")
    known = isinstance(side, int) and isinstance(widths, list) and isinstance(_at(shape, "ch"), int)
    if not known or 1 > side or side > 1 << 16:
        return 256
    places = _at(shape, "attn_resolutions")
    expected = {
        "target": f"{MODEL}{_CLASSES[config['quantizer']]}",
        "n_embed": config["codes"],
        "embed_dim": config["code_channels"],
        "z_channels": config["z_channels"],
        "channels": config["encoder"]["channels"],
        "attn_resolutions": sorted({side >> level for level in config["attention"]}),
    }
    levels = {side >> level for level in range(len(widths))}
    said = {
        "target": target,
        "n_embed": _at(about, "n_embed"),
        "embed_dim": _at(about, "embed_dim"),
        "z_channels": _at(shape, "z_channels"),
        "channels": [_at(shape, "ch") * width for width in widths if isinstance(width, int)],
        "attn_resolutions": sorted(levels.intersection(places)) if _is_numbers(places) else places,
    }
    for name, value in expected.items():
        if said[name] != value:
            raise WeightsError(
                f"{beside.name} is not about {path.name}: it says {name} {str(said[name])[:80]}, "
                f"and the file holds {value}",
                hint=f"the file alone is enough: rename or remove {beside.name}",
            )
    return side


def _is_numbers(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(each, int) for each in value)


def _at(told: Any, *keys: str) -> Any:
    """What nested tables hold there; None when they do not."""
    for key in keys:
        told = told.get(key) if isinstance(told, Mapping) else None
    return told
