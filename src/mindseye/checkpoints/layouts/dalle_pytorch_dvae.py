"""Names of DALLE-pytorch (lucidrains): its own discrete VAE, alone in a ``vae.pt`` or under ``vae.`` in a ``dalle.pt``.

Both are tables with ``hparams`` and ``weights``, of which the weights' shapes tell everything but the side of the
training pictures. Layers are numbered in the order in which they run; the decoder's begin with a 1x1 convolution where
there are residual blocks.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mindseye.checkpoints.layout import Rule
from mindseye.checkpoints.layouts.diffusers import layer
from mindseye.checkpoints.manifest import Manifest
from mindseye.checkpoints.releases import PartFile, Release
from mindseye.errors import WeightsError

if TYPE_CHECKING:
    from mindseye.networks.discrete_vae import Config

__all__ = ["PREFIXES", "release", "vae_config", "vae_rules"]

Shapes = Mapping[str, tuple[int, ...]]
PREFIXES = ("", "vae.")
_SIDE = 256


def vae_rules(config: "Config") -> Iterator[Rule]:
    """The discrete VAE."""
    layers, blocks = config.layers, config.blocks
    yield Rule("codebook.weight", "codes")
    for place in range(layers):
        yield from layer(f"encoder.{place}.0", f"down.{place}")
    yield from _blocks(blocks, "encoder", layers)
    yield from layer(f"encoder.{layers + blocks}", "to_logits")
    first = 0
    if blocks:
        yield from layer("decoder.0", "from_code")
        yield from _blocks(blocks, "decoder", 1)
        first = 1 + blocks
    for place in range(layers):
        yield from layer(f"decoder.{first + place}.0", f"up.{place}")
    yield from layer(f"decoder.{first + layers}", "to_pixels")


def _blocks(count: int, tower: str, first: int) -> Iterator[Rule]:
    for block in range(count):
        for place in range(3):
            yield from layer(f"{tower}.{first + block}.net.{2 * place}", f"{tower}_blocks.{block}.convs.{place}")


def vae_config(shapes: Shapes) -> dict[str, Any]:
    """A `mindseye.networks.discrete_vae.Config` as plain values, from shapes.

    Raises:
        KeyError: Not such a VAE.
        ValueError: One of another kind.
    """
    codes, channels = shapes["codebook.weight"]
    hidden, colours, *_ = shapes["encoder.0.0.weight"]
    if colours != 3:
        raise ValueError(f"its pictures have {colours} channels")
    layers = sum(f"encoder.{place}.0.weight" in shapes for place in range(len(shapes)))
    blocks = sum(f"encoder.{place}.net.0.weight" in shapes for place in range(len(shapes)))
    return {"layers": layers, "codes": codes, "code_channels": channels, "hidden": hidden, "blocks": blocks}


def release(path: Path, manifest: Manifest) -> Release | None:
    """The discrete VAE in a file as a release of the family "dvae", whose only part is "codec"; None if none is in it.

    Raises:
        WeightsError: A variant that is not supported.
    """
    marks = ("codebook.weight", "encoder.0.0.weight")
    prefix = next((each for each in PREFIXES if all(f"{each}{mark}" in manifest for mark in marks)), None)
    if prefix is None:
        return None
    try:
        config = vae_config(manifest.under(prefix).shapes())
    except (KeyError, ValueError, IndexError) as error:
        said = f"{error} is missing" if isinstance(error, KeyError) else str(error)
        raise WeightsError(f"the discrete VAE in {path} is not supported: {said}") from error
    told = _told(manifest, "vae_params" if prefix else "hparams")
    side = told if isinstance(told, int) and 0 < told <= 1 << 16 else _SIDE
    notes = () if told == side else (f"nothing in the file says what size it was trained at: taken for {side}",)
    return Release(
        family="dvae",
        parts={"codec": PartFile((path,), "dalle-pytorch-dvae", prefix, json.dumps(config))},
        tokenizers={},
        facts={},
        native=(side, side),
        multiple=2 ** config["layers"],
        notes=notes,
        licence="see its publisher",
    )


def _told(manifest: Manifest, table: str) -> object:
    """The side of the training pictures, where the file says it."""
    try:
        return json.loads(manifest.metadata[table]).get("image_size")
    except (KeyError, ValueError, AttributeError):
        return None
