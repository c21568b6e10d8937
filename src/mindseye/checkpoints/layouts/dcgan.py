"""Names of the small public GANs: pytorch/examples' DCGAN, facebookresearch's GAN zoo, and perceptrons in a row.

All number their layers, those without weights counted. Shapes tell everything: widths, whether pictures are grey, and a
last layer of 1x1, by which digits of 28x28 are cut out of 32x32 maps (csinva/gan-vae-pretrained-pytorch). Files that
were written by ``DataParallel`` have ``module.`` before every name, and old ones do not count batches.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mindseye.checkpoints.layout import Rule, convert
from mindseye.checkpoints.manifest import Manifest, open_pickle, read_manifest
from mindseye.checkpoints.releases import PartFile, Release
from mindseye.errors import WeightsError, WeightsMissing

if TYPE_CHECKING:
    from torch import Tensor, nn

    from mindseye.networks.gan import Config, MLPConfig

__all__ = [
    "config",
    "discriminator_rules",
    "generator_rules",
    "load_gan",
    "mlp_config",
    "mlp_rules",
    "release",
    "zoo_rules",
]

Shapes = Mapping[str, tuple[int, ...]]
NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
COUNTED = "num_batches_tracked"


def _norm(theirs: str, ours: str) -> Iterator[Rule]:
    for end in NORM:
        yield Rule(f"{theirs}.{end}", f"{ours}.{end}")


def generator_rules(config: "Config") -> Iterator[Rule]:
    """pytorch/examples, generator: convolution, norm and ReLU are counted."""
    count = len(config.widths)
    for place in range(count):
        yield Rule(f"main.{3 * place}.weight", f"convs.{place}.weight")
        yield from _norm(f"main.{3 * place + 1}", f"norms.{place}")
    yield Rule(f"main.{3 * count}.weight", "to_rgb.weight")


def discriminator_rules(config: "Config") -> Iterator[Rule]:
    """pytorch/examples, discriminator: its first convolution has no norm."""
    count = len(config.widths)
    for place in range(count):
        yield Rule(f"main.{max(0, 3 * place - 1)}.weight", f"convs.{place}.weight")
        if place:
            yield from _norm(f"main.{3 * place}", f"norms.{place - 1}")
    yield Rule(f"main.{3 * count - 1}.weight", "judge.weight")


def zoo_rules(config: "Config") -> Iterator[Rule]:
    """facebookresearch/pytorch_GAN_zoo, generator."""
    yield Rule("formatLayer.weight", "convs.0.weight")
    for place in range(len(config.widths)):
        if place:
            yield Rule(f"main.convTranspose{place}.weight", f"convs.{place}.weight")
        yield from _norm(f"main.batchNorm{place}", f"norms.{place}")
    yield Rule("main.outlayer.weight", "to_rgb.weight")


def mlp_rules(config: "MLPConfig") -> Iterator[Rule]:
    """Linear layers and activations in a row, generator and discriminator alike."""
    for place in range(len(config.hidden) + 1):
        for end in ("weight", "bias"):
            yield Rule(f"{2 * place}.{end}", f"layers.{place}.{end}")


def mlp_config(shapes: Shapes) -> "tuple[MLPConfig, bool] | None":
    """The perceptrons that shapes describe, and whether they are the generator; None when they are none."""
    from mindseye.networks.gan import MLPConfig

    places = sorted(int(key.partition(".")[0]) for key in shapes if key.partition(".")[0].isdecimal())
    layers = sorted(set(places))
    expected = {f"{place}.{end}" for place in layers for end in ("weight", "bias")}
    if len(layers) < 2 or layers != list(range(0, 2 * len(layers), 2)) or set(shapes) != expected:
        return None
    weights = [shapes[f"{place}.weight"] for place in layers]
    if any(len(shape) != 2 for shape in weights) or any(
        a[0] != b[1] for a, b in zip(weights, weights[1:], strict=False)
    ):
        return None
    paints = weights[-1][0] > 1
    numbers = weights[-1][0] if paints else weights[0][1]
    for grey in (True, False):
        side = round((numbers / (1 if grey else 3)) ** 0.5)
        if side * side * (1 if grey else 3) == numbers:
            hidden = [shape[0] for shape in weights[:-1]]
            z_dim = weights[0][1] if paints else MLPConfig().z_dim
            return MLPConfig(
                size=side, grey=grey, z_dim=z_dim, hidden=tuple(hidden if paints else reversed(hidden))
            ), paints
    return None


def config(shapes: Shapes) -> "tuple[Config, str] | None":
    """The DCGAN that shapes describe and which of "generator", "discriminator" and "zoo" it is; None for no DCGAN."""
    from mindseye.networks.gan import Config

    if "formatLayer.weight" in shapes and "main.outlayer.weight" in shapes:
        count = sum(key.startswith("main.batchNorm") and key.endswith(".weight") for key in shapes)
        convs = ["formatLayer.weight", *(f"main.convTranspose{place}.weight" for place in range(1, count))]
        return _generator(shapes, convs, "main.outlayer.weight", "zoo")
    numbers = sorted(
        int(key.split(".")[1])
        for key, shape in shapes.items()
        if key.startswith("main.") and key.endswith(".weight") and len(shape) == 4
    )
    if len(numbers) < 2:
        return None
    convs = [f"main.{number}.weight" for number in numbers]
    if numbers == list(range(0, 3 * len(numbers), 3)):
        return _generator(shapes, convs[:-1], convs[-1], "generator")
    if numbers == [0, *range(2, 3 * len(numbers) - 2, 3)] and shapes[convs[-1]][0] == 1:
        widths = tuple(shapes[key][0] for key in reversed(convs[:-1]))
        return Config(widths=widths, grey=shapes[convs[0]][1] == 1), "discriminator"
    return None


def _generator(shapes: Shapes, convs: list[str], last: str, kind: str) -> "tuple[Config, str] | None":
    """Transposed convolutions store what goes in first."""
    from mindseye.networks.gan import Config

    try:
        widths = tuple(shapes[key][1] for key in convs)
        z_dim, channels, kernel = shapes[convs[0]][0], shapes[last][1], shapes[last][2]
    except (KeyError, IndexError):
        return None
    if channels not in (1, 3) or kernel not in (1, 4):
        return None
    ends = (1, 1, 2) if kernel == 1 else (4, 2, 1)
    return Config(z_dim=z_dim, widths=widths, grey=channels == 1, last=ends), kind


def release(path: Path, manifest: Manifest) -> Release | None:
    """A generator's file as a release of the family "gan", whose only part is "generator"; None if it is none.

    Raises:
        WeightsError: It is a discriminator, which draws nothing.
    """
    shapes = {key.removeprefix("module."): shape for key, shape in manifest.shapes().items()}
    perceptrons, other = mlp_config(shapes), config(shapes)
    if perceptrons is None and other is None:
        return None
    if (perceptrons is not None and not perceptrons[1]) or (other is not None and other[1] == "discriminator"):
        raise WeightsError(f"{path.name} is a discriminator: it judges pictures and draws none", hint="use netG")
    built = perceptrons[0] if perceptrons is not None else other[0] if other is not None else None
    side = 0 if built is None else built.size
    kind = "mlp-gan" if perceptrons is not None else "dcgan-zoo" if other and other[1] == "zoo" else "dcgan"
    return Release(
        family="gan",
        parts={"generator": PartFile((path,), kind, "", json.dumps(built and asdict(built)))},
        tokenizers={},
        facts={},
        native=(side, side),
        multiple=side,
        licence="see its publisher",
    )


def load_gan(path: Path) -> "nn.Module":
    """The network in a file of any of these layouts, in eval mode and without gradients.

    Raises:
        WeightsMissing: No such file.
        WeightsError: Foreign, damaged, holding NaN, or code.
    """
    import torch

    from mindseye.checkpoints.save import _Uninitialised
    from mindseye.networks import gan

    state = read_state(path)
    shapes = {key: tuple(value.shape) for key, value in state.items()}
    network: Any
    kind: Any
    if (found := mlp_config(shapes)) is not None:
        rules, kind, built = list(mlp_rules(found[0])), (gan.MLPDiscriminator, gan.MLPGenerator)[found[1]], found[0]
    elif (other := config(shapes)) is not None:
        table = {"generator": generator_rules, "discriminator": discriminator_rules, "zoo": zoo_rules}
        rules, built = list(table[other[1]](other[0])), other[0]
        kind = gan.DCGANDiscriminator if other[1] == "discriminator" else gan.DCGANGenerator
    else:
        raise WeightsError(f"{path.name} is no GAN that mindseye knows", hint="DCGAN and perceptrons are read")
    for rule in rules:
        if rule.theirs.endswith(COUNTED):
            state.setdefault(rule.theirs, torch.tensor(0))
    converted = {
        key: value.float() if value.is_floating_point() else value for key, value in convert(state, rules).items()
    }
    with _Uninitialised():
        network = kind(built)
    wrong = [key for key, value in network.state_dict().items() if value.shape != converted[key].shape]
    if wrong:
        raise WeightsError(f"{path.name} does not fit the network it describes: {', '.join(wrong[:5])}")
    network.load_state_dict(converted, strict=True, assign=True)
    return network.eval().requires_grad_(False)


def read_state(path: Path) -> "dict[str, Tensor]":
    """All tensors of a small file, ``module.`` taken off; nothing in it is executed.

    Raises:
        WeightsMissing: No such file.
        WeightsError: Corrupt, cut short, code, or holding NaN; says which.
    """
    import torch
    from safetensors.torch import load_file

    if not path.is_file():
        raise WeightsMissing(f"the weights {path} are not there")
    pickled = any(entry.offset is None for entry in read_manifest(path).values())
    state = open_pickle(path)[0] if pickled else load_file(path)
    for key, value in state.items():
        if value.is_floating_point() and not torch.isfinite(value).all():
            raise WeightsError(f"{path} is damaged: {key} holds NaN or infinity", hint="download or copy it again")
    prefix = "module." if all(key.startswith("module.") for key in state) else ""
    return {key.removeprefix(prefix): value for key, value in state.items()}
