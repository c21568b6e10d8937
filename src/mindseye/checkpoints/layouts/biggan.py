"""Names of BigGAN-deep as huggingface published it: ``biggan-deep-*-pytorch_model.bin`` with a ``config.json``.

Its weights lie under spectral norms: three tensors each, ``weight_orig`` and the two vectors of the power iteration,
and what the network multiplies by is ``weight_orig / (u W v)``. That is a quotient of a file's tensors and no view of
ours, so it stands before the rules, not among them: `folded` makes plain weights, the rules name them, and the way back
(`unfolded`) gives vectors that divide by 1. The last convolution has ``width`` outputs there and three here.

Which blocks double the side is in no shape. The ``config.json`` says it; without one, every second block does, as in
the three published models.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mindseye.checkpoints.layout import Rule, convert, restore
from mindseye.checkpoints.layouts.dcgan import read_state
from mindseye.checkpoints.manifest import Manifest
from mindseye.checkpoints.releases import PartFile, Release
from mindseye.errors import WeightsError

if TYPE_CHECKING:
    from torch import Tensor

    from mindseye.networks.biggan import BigGAN, Config

__all__ = ["config", "folded", "is_biggan", "load_biggan", "release", "rules", "to_release", "unfolded"]

Shapes = Mapping[str, tuple[int, ...]]
ORIGINAL, LEFT, RIGHT = ".weight_orig", ".weight_u", ".weight_v"
RGB = "generator.conv_to_rgb"
MARK = "generator.gen_z.weight_orig"
TABLES = (("running_means", "means"), ("running_vars", "variances"))
HEADS = (("theta", "query"), ("phi", "key"), ("g", "value"), ("o_conv", "out"))


def is_biggan(shapes: Shapes) -> bool:
    """Whether it is such a file."""
    return MARK in shapes and "embeddings.weight" in shapes


def rules(config: "Config") -> Iterator[Rule]:
    """After `folded`."""
    yield Rule("embeddings.weight", "embeddings.weight")
    for end in ("weight", "bias"):
        yield Rule(f"generator.gen_z.{end}", f"first.{end}")
    for place in range(len(config.layers)):
        theirs = f"generator.layers.{place + (config.attention is not None and place >= config.attention)}"
        for k in range(4):
            for their, our in TABLES:
                yield Rule(f"{theirs}.bn_{k}.{their}", f"blocks.{place}.norms.{k}.{our}")
            for end in ("scale", "offset"):
                yield Rule(f"{theirs}.bn_{k}.{end}.weight", f"blocks.{place}.norms.{k}.{end}.weight")
            for end in ("weight", "bias"):
                yield Rule(f"{theirs}.conv_{k}.{end}", f"blocks.{place}.convs.{k}.{end}")
    if config.attention is not None:
        theirs = f"generator.layers.{config.attention}"
        yield Rule(f"{theirs}.gamma", "attention.gain")
        for their, our in HEADS:
            yield Rule(f"{theirs}.snconv1x1_{their}.weight", f"attention.{our}.weight")
    for their, our in (("weight", "weight"), ("bias", "bias"), *TABLES):
        yield Rule(f"generator.bn.{their}", f"norm.{our}")
    for end in ("weight", "bias"):
        yield Rule(f"{RGB}.{end}", f"to_rgb.{end}")


def folded(theirs: Mapping[str, "Tensor"]) -> "dict[str, Tensor]":
    """Plain weights: each divided by its spectral norm as the file has it; of the last convolution, what is shown.

    Raises:
        WeightsError: A weight without its vectors, or one that its vectors say is nothing.
    """
    plain: dict[str, Tensor] = {}
    for key, value in theirs.items():
        if key.endswith((LEFT, RIGHT)):
            continue
        if not key.endswith(ORIGINAL):
            plain[key] = value
            continue
        base = key.removesuffix(ORIGINAL)
        left, right = theirs.get(base + LEFT), theirs.get(base + RIGHT)
        if left is None or right is None:
            raise WeightsError(
                f"{key} lies under a spectral norm, but {base}{LEFT if left is None else RIGHT} is missing"
            )
        whole = value.double().flatten(1)
        if left.shape != whole.shape[:1] or right.shape != whole.shape[1:]:
            raise WeightsError(f"the vectors of {key} do not fit it")
        norm = left.double() @ (whole @ right.double())
        if not norm:
            raise WeightsError(f"the spectral norm of {key} is 0: the file is damaged")
        plain[f"{base}.weight"] = (value.double() / norm).to(value.dtype)
    for end in ("weight", "bias"):
        if f"{RGB}.{end}" in plain:
            plain[f"{RGB}.{end}"] = plain[f"{RGB}.{end}"][:3]
    return plain


def unfolded(plain: Mapping[str, "Tensor"], width: int) -> "dict[str, Tensor]":
    """The way back: every weight under a spectral norm of 1, the last convolution filled up with zeros.

    Args:
        plain: Under the release's names, as `folded` makes them.
        width: Outputs of the last convolution.
    """
    import torch
    from torch.nn import functional as F

    theirs: dict[str, Tensor] = {}
    for key, value in plain.items():
        if key in (f"{RGB}.weight", f"{RGB}.bias"):
            value = F.pad(value, (*(0, 0) * (value.ndim - 1), 0, width - len(value)))
        base, _, end = key.rpartition(".")
        if end != "weight" or base in ("embeddings", "generator.bn"):
            theirs[key] = value.contiguous()
            continue
        left, norms, right = torch.linalg.svd(value.double().flatten(1), full_matrices=False)
        # In eval mode the release takes u W v for the norm, whatever their lengths are.
        theirs[base + ORIGINAL] = value.contiguous()
        theirs[base + LEFT] = left[:, 0].to(value.dtype).contiguous()
        theirs[base + RIGHT] = (right[0] / norms[0].clamp_min(1e-12)).to(value.dtype).contiguous()
    return theirs


def config(shapes: Shapes, told: Mapping[str, Any] | None = None) -> "Config":
    """The network that shapes describe.

    Args:
        shapes: Of the file's tensors.
        told: The release's ``config.json``, where it is there.

    Raises:
        WeightsError: It is another network, or the two contradict each other.
    """
    from mindseye.networks.biggan import Config

    told = told or {}
    try:
        classes, rows = shapes["embeddings.weight"], shapes["generator.bn.running_means"][0]
        width = shapes[f"{RGB}{ORIGINAL}"][0]
        count = 1 + max(int(key.split(".")[2]) for key in shapes if key.startswith("generator.layers."))
        blocks = [place for place in range(count) if f"generator.layers.{place}.conv_0{ORIGINAL}" in shapes]
        missing = [place for place in range(count) if place not in blocks]
        if len(missing) > 1 or any(f"generator.layers.{place}.gamma" not in shapes for place in missing):
            raise WeightsError("the BigGAN has layers of an unknown kind: " + ", ".join(map(str, missing)))
        layers = []
        for number, place in enumerate(blocks):
            wide = shapes[f"generator.layers.{place}.bn_0.running_means"][1] // width
            out = shapes[f"generator.layers.{place}.conv_3{ORIGINAL}"][0] // width
            layers.append((number % 2 == 1, wide, out))
        if "layers" in told:
            said = [(bool(up), int(wide), int(out)) for up, wide, out in told["layers"]]
            if [each[1:] for each in said] != [each[1:] for each in layers]:
                raise WeightsError("the config.json beside the weights is another model's: its blocks differ")
            layers = said
        return Config(
            z_dim=shapes[MARK][1] - classes[0],
            class_dim=classes[0],
            num_classes=classes[1],
            width=width,
            layers=tuple(layers),
            attention=missing[0] if missing else None,
            rows=rows,
            eps=float(told.get("eps", 1e-4)),
        )
    except (KeyError, ValueError, IndexError, TypeError) as error:
        raise WeightsError(f"this is no BigGAN-deep of huggingface's: {error}") from None


def release(path: Path, manifest: Manifest) -> Release | None:
    """A file of theirs as a release of the family "biggan", whose only part is "generator"; None if it is none.

    Raises:
        WeightsError: A BigGAN that is not supported, or a config.json that is about another.
    """
    shapes = {key.removeprefix("module."): shape for key, shape in manifest.shapes().items()}
    if not is_biggan(shapes):
        return None
    built = config(shapes, _told(path))
    return Release(
        family="biggan",
        parts={"generator": PartFile((path,), "biggan-deep", "", json.dumps(asdict(built)))},
        tokenizers={},
        facts={},
        native=(built.size, built.size),
        multiple=built.size,
        notes=("the classes have no names in the file: --set classes=207 paints the one of that number",),
        licence="MIT",
    )


def load_biggan(path: Path) -> "BigGAN":
    """The generator in a file or folder, in eval mode and without gradients.

    Args:
        path: ``*pytorch_model.bin``, or the folder in which it lies alone; ``config.json``, or the same name with
            ``-config.json``, is read beside it.

    Raises:
        WeightsMissing: No such file.
        WeightsError: Foreign, damaged, holding NaN, or code.
    """
    from mindseye.checkpoints.save import _Uninitialised, compare
    from mindseye.networks.biggan import BigGAN

    if path.is_dir():
        found = sorted([*path.glob("*pytorch_model.bin"), *path.glob("*.safetensors")])
        if len(found) != 1:
            raise WeightsError(f"{path} holds {len(found)} files of weights, and one is meant", hint="name the file")
        path = found[0]
    state = read_state(path)
    shapes = {key: tuple(value.shape) for key, value in state.items()}
    if not is_biggan(shapes):
        raise WeightsError(f"{path.name} is no BigGAN-deep of huggingface's")
    built = config(shapes, _told(path))
    converted = {key: value.float() for key, value in convert(folded(state), rules(built)).items()}
    with _Uninitialised():
        network = BigGAN(built)
    if wrong := compare(network.state_dict(), converted):
        raise WeightsError(f"{path.name} does not fit the network it describes: {wrong}")
    network.load_state_dict(converted, strict=True, assign=True)
    return network.eval().requires_grad_(False)


def to_release(network: "BigGAN") -> "tuple[dict[str, Tensor], dict[str, Any]]":
    """The release's tensors and its ``config.json``, for whoever has their code."""
    built = network.config
    theirs = unfolded(restore(network.state_dict(), rules(built)), built.width)
    told = {
        "output_dim": built.size,
        "z_dim": built.z_dim,
        "class_embed_dim": built.class_dim,
        "channel_width": built.width,
        "num_classes": built.num_classes,
        "layers": [list(layer) for layer in built.layers],
        "attention_layer_position": built.attention,
        "eps": built.eps,
        "n_stats": built.rows,
    }
    return theirs, told


def _told(path: Path) -> dict[str, Any] | None:
    """The configuration beside the weights; None where there is none that can be read."""
    for name in (path.name.replace("pytorch_model.bin", "config.json"), "config.json"):
        beside = path.with_name(name)
        if name != path.name and beside.is_file():
            try:
                told = json.loads(beside.read_text(encoding="utf-8"))
            except (OSError, ValueError, RecursionError):
                continue
            if isinstance(told, dict):
                return told
    return None
