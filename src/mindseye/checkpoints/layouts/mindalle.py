"""Names of minDALL-E (Kakao Brain): a folder with ``config.yaml``, two checkpoints and a tokenizer.

``stage1_last.ckpt`` is a VQGAN in taming-transformers' names, ``stage2_last.ckpt`` the transformer, both under
``state_dict``; ``tokenizer/`` holds ``bpe-16k-vocab.json`` and ``bpe-16k-merges.txt``. Shapes tell all but the number
of heads and the curve of the perceptrons, which the ``.yaml`` says.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mindseye.checkpoints.layout import Ignore, Rule, fuse
from mindseye.checkpoints.layouts import taming
from mindseye.checkpoints.layouts.diffusers import layer
from mindseye.checkpoints.manifest import read_manifest
from mindseye.checkpoints.releases import PartFile, Release
from mindseye.errors import WeightsError, WeightsMissing

if TYPE_CHECKING:
    from mindseye.networks.mindalle import Config

__all__ = ["IGNORE", "STAGES", "is_mindalle", "mindalle_config", "mindalle_rules", "release"]

Shapes = Mapping[str, tuple[int, ...]]
STAGES = ("stage1_last.ckpt", "stage2_last.ckpt")
IGNORE = (Ignore(r"blocks\.\d+\.attn\.mask", "causality"),)
HEAD_WIDTH = 64
"""Of the released model; where no ``.yaml`` says better."""


def is_mindalle(folder: Path) -> bool:
    """Whether a folder is such a release."""
    return (folder / STAGES[1]).is_file()


def release(folder: Path) -> Release:
    """The model in a folder, of the family "mindalle".

    Raises:
        WeightsMissing: A file that belongs to it is not there.
        WeightsError: It is another model.
    """
    absent = [name for name in (STAGES[0], "tokenizer") if not (folder / name).exists()]
    if absent:
        raise WeightsMissing(f"{folder} is a minDALL-E without its {' and its '.join(absent)}")
    codec, writer = (read_manifest(folder / name) for name in STAGES)
    notes: list[str] = []
    told = _told(folder / "config.yaml")
    if told is None:
        notes.append(f"there is no config.yaml that can be read: heads are taken for {HEAD_WIDTH} channels wide")
    try:
        config = mindalle_config(writer.shapes(), told or {})
        vqgan = taming.vqgan_config(codec.shapes())
    except (KeyError, ValueError, IndexError, TypeError) as error:
        said = f"{error} is missing" if isinstance(error, KeyError) else str(error)
        raise WeightsError(f"the minDALL-E in {folder} is not supported: {said}") from error
    if vqgan["codes"] != config["image_tokens"]:
        raise WeightsError(f"{folder} writes {config['image_tokens']} codes, and its VQGAN has {vqgan['codes']}")
    grid = round(config["image_length"] ** 0.5)
    side = grid << (len(vqgan["encoder"]["channels"]) - 1)
    return Release(
        family="mindalle",
        parts={
            "network": PartFile((folder / STAGES[1],), "mindalle", "", json.dumps(config)),
            "codec": PartFile((folder / STAGES[0],), "taming-vqgan", "", json.dumps(vqgan)),
        },
        tokenizers={"tokenizer": folder / "tokenizer"},
        facts={"length": config["text_length"]},
        native=(side, side),
        multiple=1,
        notes=tuple(notes),
        licence="CC-BY-NC-SA-4.0",
    )


def _told(path: Path) -> Mapping[str, Any] | None:
    """What the ``.yaml`` says of the transformer; None when it says nothing that can be read."""
    told = taming.read_yaml(path) if path.is_file() else None
    found = told.get("stage2") if told is not None else None
    found = found.get("hparams") if isinstance(found, Mapping) else None
    return found if isinstance(found, Mapping) else None


def mindalle_config(shapes: Shapes, told: Mapping[str, Any]) -> dict[str, Any]:
    """A `mindseye.networks.mindalle.Config` as plain values.

    Args:
        shapes: Of the transformer's file.
        told: ``stage2.hparams`` of the ``.yaml``.

    Raises:
        KeyError: It is another network.
        ValueError: Its heads do not fit.
    """
    image_tokens, width = shapes["tok_emb_img.weight"]
    heads = int(told.get("n_heads", max(1, width // HEAD_WIDTH)))
    if heads < 1 or width % heads:
        raise ValueError(f"{width} channels are not {heads} heads")
    return {
        "width": width,
        "layers": len({key.split(".")[1] for key in shapes if key.startswith("blocks.")}),
        "heads": heads,
        "text_tokens": shapes["tok_emb_txt.weight"][0],
        "text_length": shapes["pos_emb_txt.weight"][0],
        "image_tokens": image_tokens,
        "image_length": shapes["pos_emb_img.weight"][0],
        "activation": "quick_gelu" if told.get("gelu_use_approx") else "gelu",
    }


def mindalle_rules(config: "Config") -> Iterator[Rule]:
    """The transformer."""
    for kind, name in (("txt", "text"), ("img", "image")):
        yield Rule(f"tok_emb_{kind}.weight", f"{name}_embedding.weight")
        yield Rule(f"pos_emb_{kind}.weight", f"{name}_places.weight")
        yield Rule(f"head_{kind}.weight", f"{name}_head.weight")
    for number in range(config.layers):
        theirs, ours = f"blocks.{number}", f"stack.blocks.{number}"
        for op, name in zip(fuse(3), ("query", "key", "value"), strict=True):
            for end in ("weight", "bias"):
                yield Rule(f"{theirs}.attn.{name}.{end}", f"{ours}.qkv.{end}", op)
        pairs = {"attn.proj": "out", "ln1": "attention_norm", "ln2": "mlp_norm", "mlp.0": "up", "mlp.2": "down"}
        for their, our in pairs.items():
            yield from layer(f"{theirs}.{their}", f"{ours}.{our}")
    yield from layer("ln_f", "norm")
