"""The training loop: turns, averaging, budgets, atomic checkpoints, bit-exact resume; distribution is Accelerate's.

A run is a folder: ``recipe.json`` (what was asked), ``metrics.jsonl``, ``samples/``, ``state-<step>.pt`` (all that a
resumed run needs), ``manifest.json`` (which state is whole; written last) and the averaged parts as ``.safetensors``.
Killed at any moment, it goes on from the last whole state; on a CPU, with a step budget, to the same bits.
"""

import copy
import dataclasses
import json
import math
import os
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import Parameter

from mindseye.checkpoints.save import load_part, save_part
from mindseye.errors import DataError, Missing
from mindseye.objective import Objective
from mindseye.request import Progress, Steps
from mindseye.training.muon import Muon
from mindseye.training.recipe import Optimizer, Recipe, Workshop

__all__ = ["begin_from", "train"]

KEEP = 2
OPTIMIZERS = {"adamw": torch.optim.AdamW, "muon": Muon}


def train(
    recipe: Recipe,
    run: Path,
    workshop: Workshop,
    *,
    hours: float | None = None,
    resume: bool = True,
    start: Path | None = None,
) -> Steps[dict[str, Path]]:
    """Train a recipe in the folder ``run``; the answer is where each averaged part was written.

    Args:
        recipe: what to train.
        run: the run's folder; an earlier run in it is resumed.
        workshop: where corpus and finished parts are.
        hours: a wall-clock budget: the learning-rate schedule ends then, whatever the speed. Time already spent by
            the resumed run is not counted in it. When None, ``recipe.steps`` ends the run.
        resume: whether to go on from the folder's last state; otherwise the folder must hold none.
        start: a finished part whose weights a new run begins with, where names and shapes are the same.

    Raises:
        Missing: accelerate is not installed.
        DataError: the folder holds another recipe's run, or a run that must not be resumed.
    """
    try:
        from accelerate import Accelerator
        from accelerate.utils import broadcast, set_seed
    except ImportError as error:
        raise Missing("train", "training") from error
    accelerator = Accelerator(mixed_precision="bf16" if bf16_pays(recipe.precision) else "no")
    main = accelerator.is_main_process
    run.mkdir(parents=True, exist_ok=True)
    state = _resume(run, recipe, resume)
    feed = yield from recipe.feed(workshop)
    set_seed(recipe.seed)
    objective = recipe.objective(workshop)
    if start is not None and state is None:
        begin_from(start, objective.parts())
    averages = {name: copy.deepcopy(part).requires_grad_(False) for name, part in objective.parts().items()}
    optimizers = {
        turn: OPTIMIZERS[recipe.optimizer.kind](
            _groups(parameters, recipe.optimizer, objective.tables()),
            lr=recipe.optimizer.lr,
            betas=recipe.optimizer.betas,
        )
        for turn, parameters in objective.turns().items()
    }
    step, spent = 0, 0.0
    if state is not None:
        step, spent = state["step"], state["seconds"]
        objective.load_state_dict(state["objective"])
        for name, average in averages.items():
            average.load_state_dict(state["averages"][name])
        for turn, optimizer in optimizers.items():
            if len(optimizer.param_groups) != len(state["optimizers"][turn]["param_groups"]):
                raise DataError(
                    f"{run} holds a run of an earlier version, whose optimiser sorted its parameters otherwise",
                    hint="begin another run with --start and this one's .safetensors",
                )
            optimizer.load_state_dict(state["optimizers"][turn])
    elif main:
        _write_text(run / "recipe.json", json.dumps(describe(recipe), indent=2))
    wrapped = accelerator.prepare(objective)
    for average in averages.values():
        average.to(accelerator.device)
    optimizers = {turn: accelerator.prepare(optimizer) for turn, optimizer in optimizers.items()}
    clock = time.monotonic()
    first = step

    def elapsed() -> float:
        return time.monotonic() - clock

    def share() -> float:
        return elapsed() / (hours * 3600) if hours else step / recipe.steps

    def agreed() -> float:
        # Each process has a clock of its own; one that stopped a step before the others would leave them waiting.
        if not hours or accelerator.num_processes == 1:
            return share()
        told: Any = broadcast(torch.tensor(share(), dtype=torch.float32, device=accelerator.device))
        return float(told)

    def total() -> int:
        done = share()
        return (
            recipe.steps if not hours else max(step + 1, first + round((step - first) / done) if done > 0 else step + 1)
        )

    sums: dict[str, float] = {}
    window, counted = time.monotonic(), 0
    yield Progress("train", step, total(), tuple)
    while (done := agreed()) < 1:
        objective.share = done
        rate = learning_rate(recipe.optimizer, step - (first if hours else 0), objective.share)
        for turn, optimizer in optimizers.items():
            for group in optimizer.param_groups:
                group["lr"] = rate
            # Every draw of a step is a function of (seed, step, rank, turn), and of nothing that came before.
            mark = hash((recipe.seed, step, accelerator.process_index, tuple(optimizers).index(turn)))
            objective.reseed(mark % 2**63)
            batch = feed.batch(step * accelerator.num_processes + accelerator.process_index, recipe.batch)
            batch = {key: value.to(accelerator.device) for key, value in batch.items()}
            with accelerator.autocast():
                loss = wrapped(batch, turn)
            accelerator.backward(loss.total)
            norm = accelerator.clip_grad_norm_(
                [p for g in optimizer.param_groups for p in g["params"]], recipe.optimizer.clip
            )
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            for key, value in {**loss.parts, "loss": float(loss.total.detach()), "norm": float(norm or 0.0)}.items():
                name = key if len(optimizers) == 1 else f"{turn}/{key}"
                sums[name] = sums.get(name, 0.0) + value
        step += 1
        counted += 1
        _average(averages, objective.parts(), min(recipe.ema, (1 + step) / (10 + step)))
        if main and recipe.every.log and step % recipe.every.log == 0:
            speed = counted * recipe.batch * accelerator.num_processes / (time.monotonic() - window)
            row = {
                "step": step,
                "seconds": round(spent + elapsed(), 1),
                "lr": rate,
                "pictures_per_second": round(speed, 1),
            }
            _append(run / "metrics.jsonl", {**row, **{key: value / counted for key, value in sums.items()}})
            sums, window, counted = {}, time.monotonic(), 0
        if main and recipe.every.sample and step % recipe.every.sample == 0:
            _look(recipe, workshop, run, averages, step)
        if main and recipe.every.checkpoint and step % recipe.every.checkpoint == 0:
            _checkpoint(run, recipe, step, spent + elapsed(), objective, optimizers, averages)
        try:
            yield Progress("train", step, total(), tuple)
        except GeneratorExit:  # closed: somebody has other plans for the machine, and will want to go on
            if main:
                _checkpoint(run, recipe, step, spent + elapsed(), objective, optimizers, averages)
            raise
    files: dict[str, Path] = {}
    accelerator.wait_for_everyone()
    if main:
        _checkpoint(run, recipe, step, spent + elapsed(), objective, optimizers, averages)
        if recipe.finish is not None:
            recipe.finish(workshop, averages)
        scores = _look(recipe, workshop, run, averages, step)
        for name, average in averages.items():
            files[name] = run / f"{name}.safetensors"
            save_part(
                files[name],
                average,
                {**describe(recipe), "step": step, "hours": round((spent + elapsed()) / 3600, 3), "scores": scores},
            )
    return files


@torch.no_grad()
def begin_from(start: Path, parts: Mapping[str, nn.Module]) -> None:
    """Copy the tensors of a finished part into the part of a run, where names and shapes are the same.

    Raises:
        DataError: fewer than a quarter of the run's numbers are found in the file.
    """
    found = load_part(start).state_dict()
    best = max(parts.values(), key=lambda part: len(found.keys() & part.state_dict().keys()))
    mine = best.state_dict()
    same = [name for name, tensor in mine.items() if name in found and found[name].shape == tensor.shape]
    share = sum(mine[name].numel() for name in same) / max(1, sum(tensor.numel() for tensor in mine.values()))
    if share < 0.25:
        raise DataError(
            f"{start} holds {share:.0%} of the numbers that this recipe trains",
            hint="it is a part of another shape: leave --start out",
        )
    for name in same:
        mine[name].copy_(found[name])


def bf16_pays(precision: str) -> bool:
    """Whether to train under bf16 autocast: on accelerators that have it, and on CPUs where it is measured faster.

    bf16 instructions alone do not tell: on some processors oneDNN's bf16 kernels are slower than fp32.
    """
    if precision != "auto":
        return precision == "bf16"
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported()
    times = {}
    for dtype in (torch.float32, torch.bfloat16):
        a = torch.ones(1024, 1024, dtype=dtype)
        times[dtype] = min(_timed(a) for _ in range(4))
    return times[torch.bfloat16] < 0.7 * times[torch.float32]


def _timed(a: Tensor) -> float:
    start = time.perf_counter()
    torch.mm(a, a)
    return time.perf_counter() - start


def learning_rate(settings: Optimizer, step: int, share: float) -> float:
    """Linear warm-up over ``warmup`` steps times a half cosine (or nothing) over the budget."""
    warm = min(1.0, (step + 1) / max(1, settings.warmup))
    fall = 1.0
    if settings.schedule == "cosine":
        fall = settings.floor + (1 - settings.floor) * 0.5 * (1 + math.cos(math.pi * min(share, 1.0)))
    return settings.lr * warm * fall


def describe(recipe: Recipe) -> dict[str, Any]:
    """A recipe as JSON: its plain fields, with functions by name."""
    plain = {}
    for item in dataclasses.fields(recipe):
        value = getattr(recipe, item.name)
        plain[item.name] = (
            dataclasses.asdict(value) if dataclasses.is_dataclass(value) and not isinstance(value, type) else value
        )
        if callable(value):
            plain[item.name] = f"{value.__module__}:{getattr(value, '__qualname__', 'function')}"
    return plain


def _groups(
    parameters: Iterable[Parameter], settings: Optimizer, tables: Iterable[Parameter] = ()
) -> list[dict[str, Any]]:
    chosen = [p for p in parameters if p.requires_grad]
    apart = {id(p) for p in tables} if settings.kind == "muon" else set()
    groups = [
        {"params": [p for p in chosen if p.ndim >= 2 and id(p) not in apart], "weight_decay": settings.weight_decay},
        {"params": [p for p in chosen if p.ndim < 2 and id(p) not in apart], "weight_decay": 0.0},
    ]
    if mine := [p for p in chosen if id(p) in apart]:
        groups.append({"params": mine, "weight_decay": settings.weight_decay, "orthogonal": False})
    return groups


@torch.no_grad()
def _average(averages: Mapping[str, nn.Module], parts: Mapping[str, nn.Module], decay: float) -> None:
    for name, part in parts.items():
        ours, theirs = list(averages[name].parameters()), list(part.parameters())
        torch._foreach_lerp_(  # pyright: ignore[reportPrivateImportUsage]
            [p.data for p in ours], [p.data for p in theirs], 1 - decay
        )
        for mine, other in zip(averages[name].buffers(), part.buffers(), strict=True):
            mine.copy_(other)


def _look(
    recipe: Recipe, workshop: Workshop, run: Path, averages: Mapping[str, nn.Module], step: int
) -> dict[str, float]:
    """Draw a sheet and measure on held-out data, with the averaged parts."""
    for average in averages.values():
        average.eval()
    with torch.no_grad():
        if recipe.samples is not None:
            (run / "samples").mkdir(exist_ok=True)
            recipe.samples(workshop, averages).save(run / "samples" / f"{step:08d}.png")
        scores = recipe.scores(workshop, averages) if recipe.scores is not None else {}
    if scores:
        _append(run / "metrics.jsonl", {"step": step, **{f"held_out/{key}": value for key, value in scores.items()}})
    return scores


def _checkpoint(
    run: Path,
    recipe: Recipe,
    step: int,
    seconds: float,
    objective: Objective,
    optimizers: Mapping[str, Any],
    averages: Mapping[str, nn.Module],
) -> None:
    state = {
        "recipe": recipe.name,
        "step": step,
        "seconds": seconds,
        "objective": objective.state_dict(),
        "averages": {name: average.state_dict() for name, average in averages.items()},
        "optimizers": {turn: optimizer.state_dict() for turn, optimizer in optimizers.items()},
    }
    path = run / f"state-{step}.pt"
    part = path.with_suffix(".part")
    with part.open("wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(part, path)
    _write_text(run / "manifest.json", json.dumps({"recipe": recipe.name, "step": step, "state": path.name}))
    states = sorted(run.glob("state-*.pt"), key=lambda p: int(p.stem.split("-")[1]))
    for old in states[:-KEEP]:
        old.unlink()


def _resume(run: Path, recipe: Recipe, resume: bool) -> dict[str, Any] | None:
    manifest = run / "manifest.json"
    if not manifest.exists():
        return None
    told = json.loads(manifest.read_text(encoding="utf-8"))
    if told["recipe"] != recipe.name:
        raise DataError(
            f"{run} holds a run of {told['recipe']}, not of {recipe.name}", hint="name another folder with --run"
        )
    if not resume:
        raise DataError(
            f"{run} already holds a run of {recipe.name}", hint="resume it, or name another folder with --run"
        )
    return torch.load(run / told["state"], map_location="cpu", weights_only=True)


def _append(path: Path, row: Mapping[str, Any]) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")


def _write_text(path: Path, text: str) -> None:
    part = path.with_name(path.name + ".part")
    with part.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(part, path)
