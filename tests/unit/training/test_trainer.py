"""The trainer: it learns, it resumes to the same bits after kill -9, and it never leaves half a checkpoint."""

import copy
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from torch import nn

from mindseye.checkpoints.save import save_part
from mindseye.errors import DataError, OptionError, UnknownName
from mindseye.networks.siren import Config as SirenConfig
from mindseye.networks.siren import Siren
from mindseye.objective import Batch, Loss, Objective
from mindseye.training import trainer
from mindseye.training.feeds import order
from mindseye.training.muon import Muon, orthogonal
from mindseye.training.recipe import Every, Optimizer, Recipe, Workshop, override
from mindseye.training.trainer import begin_from, bf16_pays, learning_rate, train

WORKSHOP = Workshop(corpus=Path(), parts=lambda name: None, part_files=lambda name: Path(name))


class Fit(Objective):
    """A line through noisy points; the noise is the objective's own."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(4, 8), nn.SiLU(), nn.Linear(8, 4))

    def forward(self, batch: Batch, turn: str) -> Loss:
        x = batch["x"]
        noise = torch.randn(x.shape, generator=self.generator)
        loss = (self.net(x + 0.1 * noise) - x.flip(1)).square().mean()
        return Loss(loss, {"mse": loss.item()})

    def parts(self) -> Mapping[str, nn.Module]:
        return {"fit": self.net}


@dataclass(frozen=True)
class Nothing:
    """A config without fields."""


class Points:
    """Sixty-four points, a batch a step."""

    x = torch.randn(64, 4, generator=torch.Generator().manual_seed(3))

    def batch(self, step: int, size: int) -> Batch:
        return {"x": self.x[torch.from_numpy(order(step, size, len(self.x)))]}


def feed(workshop: Workshop):
    yield from ()
    return Points()


def recipe(steps: int = 30, kind: str = "muon") -> Recipe:
    def objective(workshop: Workshop) -> Objective:
        fit = Fit()
        fit.net.config = Nothing()  # pyright: ignore
        return fit

    return Recipe(
        name="fit",
        about="a test",
        objective=objective,
        feed=feed,
        steps=steps,
        batch=8,
        optimizer=Optimizer(kind=kind, lr=1e-2, warmup=3),
        precision="fp32",
        every=Every(log=5, sample=0, checkpoint=10),
    )


def drain(steps):
    seen = []
    try:
        while True:
            seen.append(next(steps))
    except StopIteration as stop:
        return stop.value, seen


def state_of(run: Path):
    told = json.loads((run / "manifest.json").read_text())
    return torch.load(run / told["state"], weights_only=True)


def equal(a, b) -> bool:
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(equal(x, y) for x, y in zip(a, b, strict=True))
    return torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b


@pytest.mark.parametrize("kind", ["adamw", "muon"])
def test_training_lowers_the_loss_and_writes_the_averaged_part(tmp_path: Path, kind: str) -> None:
    files, seen = drain(train(recipe(200, kind), tmp_path, WORKSHOP))
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert rows[-1]["loss"] < 0.5 * rows[0]["loss"]
    assert files["fit"].is_file() and seen[-1].step == 200
    assert json.loads((tmp_path / "recipe.json").read_text())["optimizer"]["kind"] == kind


def test_a_resumed_run_is_the_same_run(tmp_path: Path) -> None:
    drain(train(recipe(30), tmp_path / "whole", WORKSHOP))
    steps = train(recipe(30), tmp_path / "cut", WORKSHOP)
    for progress in steps:
        if progress.step == 17:  # between the checkpoints at 10 and 20
            break
    steps.close()
    drain(train(recipe(30), tmp_path / "cut", WORKSHOP))
    whole, cut = state_of(tmp_path / "whole"), state_of(tmp_path / "cut")
    for key in ("step", "objective", "averages", "optimizers"):
        assert equal(whole[key], cut[key]), key


def test_a_closed_run_keeps_its_last_step(tmp_path: Path) -> None:
    steps = train(recipe(30), tmp_path / "run", WORKSHOP)
    for progress in steps:
        if progress.step == 17:
            break
    steps.close()
    assert state_of(tmp_path / "run")["step"] == 17
    assert next(train(recipe(30), tmp_path / "run", WORKSHOP)).step == 17


def test_the_objective_is_told_how_far_the_run_is(tmp_path: Path) -> None:
    class Told(Fit):
        """Remembers what it was told at every step."""

        def forward(self, batch: Batch, turn: str) -> Loss:
            seen.append(self.share)
            return super().forward(batch, turn)

    def objective(workshop: Workshop) -> Objective:
        told = Told()
        told.net.config = Nothing()  # pyright: ignore
        return told

    seen: list[float] = []
    assert Fit().share == 0
    listening = replace(recipe(30), objective=objective)
    drain(train(listening, tmp_path / "whole", WORKSHOP))
    whole, seen[:] = list(seen), []
    assert whole == [step / 30 for step in range(30)]
    steps = train(listening, tmp_path / "cut", WORKSHOP)
    for progress in steps:
        if progress.step == 17:  # between the checkpoints at 10 and 20
            break
    steps.close()
    assert seen == whole[:17]
    seen.clear()
    drain(train(listening, tmp_path / "cut", WORKSHOP))
    assert seen == whole[17:]
    seen.clear()
    drain(train(replace(listening, steps=10**9), tmp_path / "hours", WORKSHOP, hours=0.2 / 3600))
    assert len(seen) > 1 and seen == sorted(seen) and 0 <= seen[0] < seen[-1] <= 1


def test_a_run_killed_with_sigkill_resumes_to_the_same_bits(tmp_path: Path) -> None:
    script = textwrap.dedent(
        f"""
        import sys, time
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        from pathlib import Path
        from test_trainer import WORKSHOP, recipe, train
        for progress in train(recipe(30), Path(sys.argv[1]), WORKSHOP):
            print(progress.step, flush=True)
            time.sleep(0.02)
        """
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path / "cut")], stdout=subprocess.PIPE, text=True, env=os.environ
    )
    assert process.stdout is not None
    for line in process.stdout:
        if line.strip() == "14":
            process.send_signal(signal.SIGKILL)
            break
    process.wait()
    process.stdout.close()
    assert json.loads((tmp_path / "cut" / "manifest.json").read_text())["step"] == 10
    drain(train(recipe(30), tmp_path / "cut", WORKSHOP))
    drain(train(recipe(30), tmp_path / "whole", WORKSHOP))
    assert equal(state_of(tmp_path / "whole")["objective"], state_of(tmp_path / "cut")["objective"])


def test_a_wall_clock_budget_ends_the_run_and_the_schedule(tmp_path: Path) -> None:
    start = time.monotonic()
    drain(train(recipe(10**9), tmp_path, WORKSHOP, hours=2 / 3600))
    assert 1.9 < time.monotonic() - start < 15
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert rows[-1]["lr"] < 0.2 * max(row["lr"] for row in rows)


def test_only_two_states_are_kept_and_no_part_files(tmp_path: Path) -> None:
    drain(train(recipe(50), tmp_path, WORKSHOP))
    assert sorted(p.name for p in tmp_path.glob("state-*")) == ["state-40.pt", "state-50.pt"]
    assert not list(tmp_path.glob("*.part*"))


def test_a_folder_of_another_recipe_is_refused(tmp_path: Path) -> None:
    drain(train(recipe(10), tmp_path, WORKSHOP))
    with pytest.raises(DataError, match="holds a run of fit, not of other"):
        next(train(replace(recipe(10), name="other"), tmp_path, WORKSHOP))
    with pytest.raises(DataError, match="already holds"):
        next(train(recipe(10), tmp_path, WORKSHOP, resume=False))


def test_settings_are_typed_and_named() -> None:
    changed = override(recipe(), [("batch", "64"), ("optimizer.lr", "1e-4"), ("optimizer.kind", "adamw")])
    assert (changed.batch, changed.optimizer.lr, changed.optimizer.kind) == (64, 1e-4, "adamw")
    with pytest.raises(UnknownName, match="optimizer"):
        override(recipe(), [("optimiser.lr", "1")])
    with pytest.raises(OptionError, match="batch=many"):
        override(recipe(), [("batch", "many")])
    with pytest.raises(OptionError, match="adamw, muon"):
        override(recipe(), [("optimizer.kind", "sgd")])


def test_every_epoch_shows_every_example_once_and_no_two_alike() -> None:
    rows = [order(step, 6, 20) for step in range(20)]  # 120 draws: six epochs of 20, batches straddling them
    flat = [int(i) for batch in rows for i in batch]
    epochs = [flat[k : k + 20] for k in range(0, 120, 20)]
    assert all(sorted(epoch) == list(range(20)) for epoch in epochs)
    assert epochs[0] != epochs[1]
    assert all((order(step, 6, 20) == rows[step]).all() for step in (19, 0, 7))


def test_newton_schulz_orthogonalises() -> None:
    matrix = torch.randn(24, 60, generator=torch.Generator().manual_seed(0))
    singular = torch.linalg.svdvals(orthogonal(matrix))
    assert singular.min() > 0.6 and singular.max() < 1.3
    exact = torch.linalg.svd(matrix, full_matrices=False)
    assert (
        torch.nn.functional.cosine_similarity(orthogonal(matrix).flatten(), (exact.U @ exact.Vh).flatten(), dim=0)
        > 0.97
    )
    assert torch.allclose(orthogonal(matrix.T), orthogonal(matrix).T, atol=1e-5)


def test_muon_leaves_vectors_to_adamw() -> None:
    torch.manual_seed(0)
    ours, theirs = (nn.Parameter(torch.ones(5)) for _ in range(2))
    mine = Muon([ours], lr=0.1, betas=(0.9, 0.99), weight_decay=0.05)
    adam = torch.optim.AdamW([theirs], lr=0.1, betas=(0.9, 0.99), weight_decay=0.05)
    for _ in range(5):
        grad = torch.randn(5)
        for parameter, optimizer in ((ours, mine), (theirs, adam)):
            parameter.grad = grad.clone()
            optimizer.step()
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


def test_the_schedule_warms_up_and_falls_to_its_floor() -> None:
    settings = Optimizer(lr=1.0, warmup=10, floor=0.1)
    assert learning_rate(settings, 0, 0.0) == pytest.approx(0.1)
    assert learning_rate(settings, 100, 0.0) == pytest.approx(1.0)
    assert learning_rate(settings, 100, 0.5) == pytest.approx(0.55)
    assert learning_rate(settings, 100, 1.0) == pytest.approx(0.1)
    assert learning_rate(replace(settings, schedule="constant"), 100, 1.0) == pytest.approx(1.0)


def test_half_precision_is_trained_in_where_it_is_faster(monkeypatch) -> None:
    assert bf16_pays("bf16") and not bf16_pays("fp32")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert bf16_pays("auto") in (True, False)
    for seconds, pays in ((0.5, True), (0.9, False), (2.0, False)):
        monkeypatch.setattr(trainer, "_timed", lambda a, took=seconds: took if a.dtype == torch.bfloat16 else 1.0)
        assert bf16_pays("auto") is pays


def test_the_short_way_of_newton_schulz_equals_the_plain_one() -> None:
    from mindseye.training.muon import _iterate, _iterate_small

    matrix = torch.randn(32, 288, generator=torch.Generator().manual_seed(1))
    x = matrix / matrix.norm()
    torch.testing.assert_close(_iterate_small(x, 5), _iterate(x, 5), rtol=1e-3, atol=1e-4)


def test_a_run_begins_from_a_finished_part_where_shapes_are_the_same(tmp_path: Path) -> None:
    torch.manual_seed(0)
    made, new = Siren(SirenConfig(hidden=8, layers=3)), Siren(SirenConfig(hidden=8, layers=2))
    save_part(tmp_path / "made.safetensors", made, {"name": "made"})
    begin_from(tmp_path / "made.safetensors", {"new": new})
    theirs = made.state_dict()
    shared = [name for name, value in new.state_dict().items() if name in theirs and theirs[name].shape == value.shape]
    assert shared
    assert all(torch.equal(new.state_dict()[name], theirs[name]) for name in shared)


def test_a_run_does_not_begin_from_a_part_of_another_shape(tmp_path: Path) -> None:
    save_part(tmp_path / "made.safetensors", Siren(SirenConfig(hidden=8, layers=2)), {"name": "made"})
    with pytest.raises(DataError, match="of the numbers"):
        begin_from(tmp_path / "made.safetensors", {"new": Siren(SirenConfig(hidden=16, layers=2))})


def test_processes_with_clocks_of_their_own_stop_at_the_same_step(tmp_path: Path) -> None:
    script = textwrap.dedent(f"""
        import os, sys, time
        from pathlib import Path
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        import test_trainer as tests
        clock = time.monotonic
        slow = 1 if os.environ["RANK"] == "0" else 0.2
        time.monotonic = lambda: slow * clock()
        steps = tests.train(tests.recipe(), Path({str(tmp_path / "run")!r}), tests.WORKSHOP, hours=1 / 3600)
        _, seen = tests.drain(steps)
        Path({str(tmp_path)!r}, os.environ["RANK"]).write_text(str(seen[-1].step))
    """)
    (tmp_path / "two.py").write_text(script)
    subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone", tmp_path / "two.py"],
        check=True, timeout=120, capture_output=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"},
    )  # fmt: skip
    first, second = ((tmp_path / rank).read_text() for rank in "01")
    assert first == second and int(first) > 1


def test_vocabularies_are_left_to_adamw():
    torch.manual_seed(0)
    rows = torch.randn(6, 4)
    table, alone = (torch.nn.Parameter(rows.clone()) for _ in range(2))
    apart = Muon([{"params": [table], "orthogonal": False}], lr=0.1)
    adam = torch.optim.AdamW([alone], lr=0.1, betas=(0.9, 0.99), weight_decay=0.0)
    for step in range(3):
        for each in (table, alone):
            # How large a word's gradient is, is no matter: it is learned as fast.
            each.grad = torch.zeros(6, 4)
            each.grad[: 1 + step] = torch.tensor([[1.0], [1e-3], [1.0]])[: 1 + step]
        apart.step()
        adam.step()
    torch.testing.assert_close(table, alone)


def test_states_of_an_earlier_version_go_on():
    torch.manual_seed(0)
    weights = torch.randn(6, 4)
    one, other = (torch.nn.Parameter(weights.clone()) for _ in range(2))
    before, after = Muon([one], lr=0.1), Muon([other], lr=0.1)
    for each in (one, other):
        each.grad = weights.clone()
    before.step()
    state = copy.deepcopy(before.state_dict())
    for group in state["param_groups"]:
        del group["orthogonal"]
    after.load_state_dict(state)
    other.data.copy_(one.data)
    before.step()
    after.step()
    assert torch.equal(one, other)


def test_a_run_whose_parameters_were_sorted_otherwise_is_not_gone_on_with(tmp_path):
    """Its hint says what to do instead; nothing of it is lost."""

    class Sorted(Fit):
        def tables(self):
            return [next(p for p in self.parameters() if p.ndim >= 2)]

    def otherwise(workshop: Workshop) -> Objective:
        fit = Sorted()
        fit.net.config = Nothing()  # pyright: ignore
        return fit

    run = tmp_path / "run"
    drain(train(recipe(2), run, WORKSHOP))
    kept = {path: path.read_bytes() for path in run.iterdir() if path.is_file()}
    with pytest.raises(DataError, match="sorted its parameters otherwise"):
        drain(train(replace(recipe(4), objective=otherwise), run, WORKSHOP))
    assert kept == {path: path.read_bytes() for path in run.iterdir() if path.is_file()}
