"""Merging adapters into the networks of a base, and taking them out again.

Every change is computed in float32 from the original weights, all are added up, and the sum is rounded once to the
weight's dtype. A changed parameter gets new memory and the original memory is kept beside it, so that taking the
adapters out restores every bit (subtracting in half precision does not), costs nothing, and leaves weights that are
mapped from a file mapped. Nothing is exchanged before everything is computed: an error leaves the base as it was.
"""

import math
import re
import types
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor, nn

from mindseye.checkpoints.adapters import deltas
from mindseye.checkpoints.adapters.adapter import FAMILIES, Adapter, Change
from mindseye.checkpoints.adapters.dialects import Target
from mindseye.checkpoints.adapters.files import tensors_of
from mindseye.checkpoints.adapters.places import Layer, Places, base_of
from mindseye.checkpoints.layout import Rule
from mindseye.errors import OptionError, WeightsError
from mindseye.nn.layers import settle

__all__ = ["ENOUGH", "Attached", "Report", "Weights", "attach", "match"]

ENOUGH = 0.9
"""An adapter that finds fewer of its modules than this was made for something else."""

BIAS = ("diff_b", "b_norm")


@final
@dataclass(frozen=True)
class Weights:
    """How strongly an adapter counts.

    Attributes:
        unet: In the U-Net.
        text: In the text encoders; as in the U-Net when None.
        partial: Whether what fits is merged where most of it does not.
    """

    unet: float = 1.0
    text: float | None = None
    partial: bool = False

    def of(self, part: str) -> float:
        """The strength in a part."""
        return self.unet if part == "unet" or self.text is None else self.text


@final
@dataclass(frozen=True)
class Report:
    """What became of one adapter.

    Attributes:
        name: The adapter's.
        matched: How many of its modules found their place.
        unmatched: The others, each with the reason.
        notices: Sentences for the user: what was left out, and why that is all right.
    """

    name: str
    matched: int
    unmatched: tuple[str, ...] = ()
    notices: tuple[str, ...] = ()

    @property
    def total(self) -> int:
        """Modules that could have been matched."""
        return self.matched + len(self.unmatched)


@final
class Attached:
    """Adapters in their base, until `detach` or the end of a ``with``.

    Attributes:
        reports: One an adapter, in the order given.
    """

    def __init__(self, reports: Sequence[Report], kept: Sequence[tuple[nn.Parameter, Tensor, Tensor]]) -> None:
        self.reports = tuple(reports)
        self._kept = list(kept)

    @property
    def notices(self) -> tuple[str, ...]:
        """What the user should be told, of all adapters."""
        return tuple(notice for report in self.reports for notice in report.notices)

    def detach(self) -> None:
        """Give the base its own weights back, bit for bit. A second time it does nothing.

        Raises:
            RuntimeError: Something else has exchanged the weights since; later adapters are detached first.
        """
        if any(parameter.data_ptr() != merged.data_ptr() for parameter, _, merged in self._kept):
            raise RuntimeError("the weights were exchanged after these adapters were attached: detach in reverse order")
        for parameter, original, _ in self._kept:
            parameter.data = original
        self._kept.clear()

    def __enter__(self) -> "Attached":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: types.TracebackType | None
    ) -> None:
        self.detach()


@dataclass(frozen=True)
class _Step:
    """One change of one parameter."""

    adapter: int
    change: Change
    rule: Rule
    strength: float
    bias: bool


_Plan = dict[tuple[str, str], list[_Step]]


def match(parts: Mapping[str, nn.Module], adapter: Adapter) -> Report:
    """Which of an adapter's modules these networks have; nothing is loaded or changed.

    Args:
        parts: Networks by part: ``unet``, ``text``, ``text_2``; on the meta device if need be.
        adapter: From `read_adapter`.
    """
    return _plan(parts, Places(parts), adapter, 0, Weights(), {})


@torch.no_grad()
def attach(
    parts: Mapping[str, nn.Module],
    adapters: Sequence[tuple[Adapter, Weights]],
    *,
    allow_partial: bool = False,
) -> Attached:
    """Merge adapters into the networks of a base.

    Args:
        parts: Networks by part: ``unet``, ``text``, ``text_2``.
        adapters: Each with its strength; the order does not matter.
        allow_partial: Merge what fits of adapters that were made for something else: of all of them, whatever their
            `Weights` say.

    Returns:
        What to detach again, with a report on each adapter.

    Raises:
        WeightsError: Less than nine tenths of an adapter fits, or its file is damaged. The base is as it was.
        OptionError: A strength that is no number.
    """
    places, base = Places(parts), base_of(parts)
    plan: _Plan = {}
    reports = []
    for index, (adapter, weights) in enumerate(adapters):
        if not all(math.isfinite(weights.of(part)) for part in ("unet", "text")):
            raise OptionError(f"the weight of the adapter {adapter.name} is no number")
        report = _plan(parts, places, adapter, index, weights, plan)
        if not (allow_partial or weights.partial):
            _refuse(adapter, report, base)
        reports.append(report)
    for network in parts.values():
        settle(network)
    parameters = {part: dict(network.named_parameters()) for part, network in parts.items()}
    kept = []
    with ExitStack() as stack:
        opened = [stack.enter_context(tensors_of(adapter.path)) for adapter, _ in adapters]
        for (part, name), steps in plan.items():
            parameter = parameters[part][name]
            original = parameter.data
            weight = original.to(torch.float32)
            total: Tensor | None = None
            for step in steps:
                get = opened[step.adapter]
                keys = {f: key for f, key in step.change.keys.items() if (f in BIAS) == step.bias}
                tensors = {factor: get(key).to(weight.device) for factor, key in keys.items()}
                try:
                    delta = _delta(step, tensors, step.rule.op.view(weight))
                except (ValueError, RuntimeError) as error:
                    raise WeightsError(f"{adapters[step.adapter][0].path}: {step.rule.theirs}: {error}") from error
                if step.rule.op.of == 1 and step.rule.op.kind == "same" and total is None:
                    total = delta
                else:
                    total = torch.zeros_like(weight) if total is None else total
                    step.rule.op.view(total).add_(delta)
            if total is not None:
                merged = torch.empty_like(original)
                merged.copy_(total.add_(weight))
                kept.append((parameter, original, merged))
    for parameter, _, merged in kept:
        parameter.data = merged
    return Attached(reports, kept)


def _delta(step: _Step, tensors: Mapping[str, Tensor], weight: Tensor) -> Tensor:
    """One change at its strength, in the shape of their weight."""
    if step.bias:
        delta = deltas.bias_change(tensors)
        if delta is None:
            raise ValueError("has no change of the bias")
        return delta.reshape(weight.shape) * step.strength
    delta = deltas.change(tensors, weight, step.strength, step.change.scale)
    if delta is None:
        raise ValueError("has no change of the weight")
    return delta


def _plan(
    parts: Mapping[str, nn.Module], places: Places, adapter: Adapter, index: int, weights: Weights, plan: _Plan
) -> Report:
    """Find the place of every module of an adapter; adds to the plan what has to be computed."""
    shapes = {
        part: {name: (tuple(p.shape), p.is_floating_point()) for name, p in network.named_parameters()}
        for part, network in parts.items()
    }
    matched, unmatched, unused, taken = 0, [], [], set()
    for target, change in adapter.modules.items():
        found = places.find(target)
        if found is None:
            if _is_unused(parts, target):
                unused.append(str(target))
            else:
                unmatched.append(f"{target}: {_absent(parts, target)}")
            continue
        part, layer = found
        reason = _misfit(change, layer, shapes[part])
        place = (part, layer.weight.ours, layer.weight.op)
        if not reason and place in taken:
            reason = "is changed twice, under two names"
        if reason:
            unmatched.append(f"{target}: {reason}")
            continue
        matched += 1
        taken.add(place)
        strength = weights.of(part)
        if not strength:
            continue
        if set(change.keys) - {"alpha", *BIAS}:
            plan.setdefault((part, layer.weight.ours), []).append(_Step(index, change, layer.weight, strength, False))
        if layer.bias is not None and set(change.keys) & set(BIAS):
            plan.setdefault((part, layer.bias.ours), []).append(_Step(index, change, layer.bias, strength, True))
    notices = []
    if unused:
        notices.append(
            f"{adapter.name}: {len(unused)} modules belong to text layers that this base leaves out ({unused[0]})"
        )
    if unmatched:
        notices.append(
            f"{adapter.name}: {len(unmatched)} of {matched + len(unmatched)} modules are left out: {unmatched[0]}"
        )
    if adapter.left:
        notices.append(
            f"{adapter.name}: {len(adapter.left)} tensors mean nothing here and are left out: {adapter.left[0]}"
        )
    return Report(adapter.name, matched, tuple(unmatched), tuple(notices))


def _misfit(change: Change, layer: Layer, shapes: Mapping[str, tuple[tuple[int, ...], bool]]) -> str:
    """Why a change does not go where its name says; empty when it does."""
    if layer.weight.ours not in shapes:
        return "is no plain weight in this model"
    ours, floating = shapes[layer.weight.ours]
    if not floating:
        return "is quantised in this model"
    theirs = layer.weight.op.shape(ours)
    if theirs is None:
        return "lies differently in this model"
    bias = set(change.keys) & set(BIAS)
    if bias:
        if layer.bias is None or layer.bias.ours not in shapes:
            return "changes a bias that this base does not have"
        size = math.prod(layer.bias.op.shape(shapes[layer.bias.ours][0]) or ())
        if any(math.prod(change.shapes[name]) != size for name in bias):
            return f"changes a bias of another size than {size}"
    return deltas.misfit(change.shapes, theirs)


def _absent(parts: Mapping[str, nn.Module], target: Target) -> str:
    if target.part and target.part not in parts:
        return {"text": "there is no text encoder", "text_2": "there is no second text encoder"}.get(
            target.part, "there is no U-Net"
        )
    return "there is no such module"


def _is_unused(parts: Mapping[str, nn.Module], target: Target) -> bool:
    """Whether a module belongs to what the releases leave out of a text encoder: its last layer, its projection.

    SD 2 reads the last layer but one of OpenCLIP and its files end there; trainers that load the whole of it adapt the
    last one in vain.
    """
    tower = getattr(getattr(parts.get(target.part), "config", None), "text", None)
    if target.part not in ("text", "text_2") or tower is None:
        return False
    layer = re.match(r"(?:text_model_)?encoder_layers_(\d{1,4})_", target.name, re.ASCII)
    return target.name == "text_projection" or (layer is not None and int(layer[1]) == tower.layers)


def _refuse(adapter: Adapter, report: Report, base: str) -> None:
    """Raise when an adapter was made for something else."""
    other = bool(adapter.base and base and adapter.base != base)
    if not report.unmatched or (report.matched >= ENOUGH * report.total and not other):
        return
    fit = f"{report.matched} of its {report.total} modules fit"
    first = "; ".join(report.unmatched[:3])
    anyway = f"<lora:{adapter.name}:1:partial=yes>"
    if adapter.base and adapter.base != base:
        raise WeightsError(
            f"the adapter {adapter.name} was made for {FAMILIES[adapter.base]}, and this is {FAMILIES[base]}: "
            f"{fit} ({first})",
            hint=f"use it with a model of {FAMILIES[adapter.base]}, or have what fits: {anyway}",
        )
    raise WeightsError(
        f"the adapter {adapter.name} does not fit this model: {fit} ({first})",
        hint=f"it was made for another network, or by a trainer that is not known here; to have what fits: {anyway}",
    )
