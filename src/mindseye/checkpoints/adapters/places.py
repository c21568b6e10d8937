"""Where the modules that adapters name lie in our networks.

The table is made from the same rules that load checkpoints, in every naming that adapters use: diffusers' and the
original one for the U-Net, transformers' for the text encoders. A module has a weight and perhaps a bias, each a view
of one of our parameters in the publisher's shape: a third of a fused projection, a transposed matrix.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from torch import nn

from mindseye.checkpoints.adapters.dialects.target import Target
from mindseye.checkpoints.layout import Rule
from mindseye.checkpoints.layouts import compvis, diffusers, transformers
from mindseye.networks.clip import CLIP
from mindseye.networks.unet import UNet

__all__ = ["Layer", "Places", "base_of", "native_names"]


@dataclass(frozen=True)
class Layer:
    """One module of theirs.

    Attributes:
        weight: The rule of its weight.
        bias: The rule of its bias, where it has one.
    """

    weight: Rule
    bias: Rule | None


class Places:
    """Finds the modules of some networks by the names that adapters have for them.

    Args:
        parts: Networks by part: ``unet``, ``text``, ``text_2``. Kinds of network that adapters are not made for have
            no modules here.
    """

    def __init__(self, parts: Mapping[str, nn.Module]) -> None:
        self._tables = {part: _table(_rules(network)) for part, network in parts.items()}

    def find(self, target: Target) -> tuple[str, Layer] | None:
        """The part and the module, or None. A target that names no part is looked for in all."""
        for part in (target.part,) if target.part else self._tables:
            layer = self._tables.get(part, {}).get(target.name)
            if layer is not None:
                return part, layer
        return None


def _rules(network: nn.Module) -> tuple[Iterable[Rule], ...]:
    if isinstance(network, UNet):
        return diffusers.unet_rules(network.config), compvis.unet_rules(network.config)
    if isinstance(network, CLIP):
        return (transformers.clip_text_rules(network.config),)
    return ()


def _table(namings: Iterable[Iterable[Rule]]) -> dict[str, Layer]:
    """Module's name with underscores -> module."""
    table: dict[str, Layer] = {}
    for rules in namings:
        found: dict[str, dict[str, Rule]] = {}
        for rule in rules:
            for name in (rule.theirs, *rule.also):
                module, _, end = name.rpartition(".")
                if end in ("weight", "bias"):
                    found.setdefault(module.replace(".", "_"), {})[end] = rule
        for name, ends in found.items():
            if "weight" in ends:
                table.setdefault(name, Layer(ends["weight"], ends.get("bias")))
    return table


def native_names(network: nn.Module) -> dict[str, list[Rule]]:
    """Our parameter -> the publisher's weights that lie in it: for writing adapters of ours under public names."""
    names: dict[str, list[Rule]] = {}
    for rule in next(iter(_rules(network)), ()):
        if rule.theirs.endswith(".weight"):
            names.setdefault(rule.ours, []).append(rule)
    return names


def base_of(parts: Mapping[str, nn.Module]) -> str:
    """The family of some networks: "sd1", "sd2", "sdxl", "sdxl-refiner", or "" for any other."""
    unet = parts.get("unet")
    if isinstance(unet, UNet):
        config = unet.config
        context = config.transformers.context
        if config.vector is None:
            return {768: "sd1", 1024: "sd2"}.get(context or 0, "")
        return {2048: "sdxl", 1280: "sdxl-refiner"}.get(context or 0, "")
    if "text_2" in parts:
        return "sdxl"
    text = parts.get("text")
    return {768: "sd1", 1024: "sd2"}.get(text.config.text.width, "") if isinstance(text, CLIP) else ""
