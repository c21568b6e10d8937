"""Names of enhancing-transformers (thuanz123): ViT-VQGANs as Lightning checkpoints.

Shapes tell everything but the size of a head, which is 64 in all of them. The tables of places are fixed sinusoids,
which our network computes; they tell the side of the training pictures.
"""

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mindseye.checkpoints.layout import Ignore, Rule
from mindseye.checkpoints.layouts.diffusers import layer
from mindseye.checkpoints.manifest import Manifest
from mindseye.checkpoints.releases import PartFile, Release
from mindseye.errors import WeightsError

if TYPE_CHECKING:
    from mindseye.networks.vit_vqgan import Config

__all__ = ["IGNORE", "release", "vit_vqgan_config", "vit_vqgan_rules"]

Shapes = Mapping[str, tuple[int, ...]]
IGNORE = (
    Ignore(r"loss\..*", "the critics that the autoencoder was trained against"),
    Ignore(r"(encoder\.en|decoder\.de)_pos_embedding", "fixed sinusoids, which are computed"),
)
HEAD = 64


def vit_vqgan_rules(config: "Config") -> Iterator[Rule]:
    """Both transformers and what stands between them."""
    yield from layer("encoder.to_patch_embedding.0", "to_patches")
    for name, tower in (("encoder", config.encoder), ("decoder", config.decoder)):
        for block in range(tower.layers):
            theirs, ours = f"{name}.transformer.layers.{block}", f"{name}.stack.blocks.{block}"
            yield from layer(f"{theirs}.0.norm", f"{ours}.attention_norm")
            yield Rule(f"{theirs}.0.fn.to_qkv.weight", f"{ours}.qkv.weight")
            yield from layer(f"{theirs}.0.fn.to_out", f"{ours}.out")
            yield from layer(f"{theirs}.1.norm", f"{ours}.mlp_norm")
            yield from layer(f"{theirs}.1.fn.net.0", f"{ours}.up")
            yield from layer(f"{theirs}.1.fn.net.2", f"{ours}.down")
        yield from layer(f"{name}.transformer.norm", f"{name}.norm")
    yield from layer("pre_quant", "pre_quant")
    yield Rule("quantizer.embedding.weight", "quantizer.weight")
    yield from layer("post_quant", "post_quant")
    yield from layer("decoder.to_pixel.1", "to_pixels")


def vit_vqgan_config(shapes: Shapes) -> dict[str, Any]:
    """A `mindseye.networks.vit_vqgan.Config` as plain values, from shapes.

    Raises:
        KeyError: Not such a ViT-VQGAN.
        ValueError: One of another kind.
    """
    towers = {}
    for name in ("encoder", "decoder"):
        first = f"{name}.transformer.layers.0"
        hidden, width = shapes[f"{first}.1.fn.net.0.weight"]
        inner = shapes[f"{first}.0.fn.to_qkv.weight"][0] // 3
        if inner != width or width % HEAD:
            raise ValueError(f"its {name} attends with {inner} channels, not its {width}")
        layers = sum(f"{name}.transformer.layers.{i}.0.norm.weight" in shapes for i in range(len(shapes)))
        towers[name] = {"width": width, "layers": layers, "heads": width // HEAD, "hidden": hidden}
    codes, channels = shapes["quantizer.embedding.weight"]
    patch = shapes["encoder.to_patch_embedding.0.weight"][2]
    return {**towers, "codes": codes, "code_channels": channels, "patch": patch, "positive": True}


def release(path: Path, manifest: Manifest) -> Release | None:
    """The ViT-VQGAN in a file as a release of the family "vit-vqgan", whose only part is "codec"; None if none is.

    Raises:
        WeightsError: A variant that is not supported.
    """
    if "encoder.to_patch_embedding.0.weight" not in manifest or "quantizer.embedding.weight" not in manifest:
        return None
    shapes = manifest.shapes()
    try:
        config = vit_vqgan_config(shapes)
    except (KeyError, ValueError, IndexError) as error:
        said = f"{error} is missing" if isinstance(error, KeyError) else str(error)
        raise WeightsError(f"the ViT-VQGAN in {path} is not supported: {said}") from error
    table = shapes.get("encoder.en_pos_embedding", ())
    side = math.isqrt(table[1]) * config["patch"] if len(table) == 3 else 256
    return Release(
        family="vit-vqgan",
        parts={"codec": PartFile((path,), "enhancing-vit-vqgan", "", json.dumps(config))},
        tokenizers={},
        facts={},
        native=(side, side),
        multiple=config["patch"],
        licence="MIT",
    )
