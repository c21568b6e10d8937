"""How fast we draw, beside diffusers and OpenVINO, at the size of Stable Diffusion 1.5 and with the same weights.

One process; the variants take turns within a round, so that a machine that slows down slows all of them. Reported are
medians, minima, each variant's ratio to diffusers in bfloat16 and to diffusers' own fastest dtype here, and the error
of each answer against diffusers in float32. The text tower is left out: it is under one in a hundred of the whole.

On a machine that is not idle, seconds say little; what the processor spent on each variant still does. ``--busy``
reports that: take it with ``--threads 1``, for threads that wait for each other spend time as well.

    python benchmarks/sampling.py [--rounds 5] [--tasks unet-512 codec-512 ...] [--without NAME ...] [--threads N]
        [--folder DIR] [--busy]

Takes about 12 GB of memory. Writes benchmarks/results/sampling-<machine>.json, beside the tasks that are there already.
"""

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

# As the command line does it; has to be said before torch is loaded.
os.environ.setdefault("GOMP_SPINCOUNT", "10000")

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parent))
import peers

from mindseye.diffusion.denoiser import Conditioning, NetDenoiser
from mindseye.diffusion.guidance import Guided
from mindseye.diffusion.samplers import SAMPLERS
from mindseye.diffusion.schedule import scaled_linear, spacing
from mindseye.engine.policy import Policy, arrange, choose, reuse_memory
from mindseye.noise import Noise

TASKS = ("unet-512", "unet-256", "codec-512", "codec-256", "whole-256")
VARIANTS = ("mindseye float32", "mindseye bfloat16", "diffusers float32", "diffusers bfloat16", "OpenVINO")
GUIDANCE, STEPS = 7.5, 20
Run = Callable[[], Tensor]


def inputs(pixels: int) -> tuple[Tensor, Tensor, Tensor]:
    """Latents, timesteps and text as guidance gives them: the same latents twice, two texts."""
    generator, side = torch.Generator().manual_seed(42), pixels // 8
    x = torch.randn(1, 4, side, side, generator=generator)
    return x.repeat(2, 1, 1, 1), torch.tensor([500.0, 500.0]), torch.randn(2, 77, peers.CONTEXT, generator=generator)


def last(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last)


class Theirs:
    """diffusers in one dtype, ``channels_last`` or not."""

    def __init__(self, unet: Any, codec: Any, dtype: torch.dtype, layout: torch.memory_format) -> None:
        self.unet, self.codec, self.dtype, self.layout = unet, codec, dtype, layout

    def step(self, x: Tensor, t: Tensor, tokens: Tensor) -> Tensor:
        x = x.to(self.dtype).contiguous(memory_format=self.layout)
        return self.unet(x, t, tokens.to(self.dtype), return_dict=False)[0].float()

    def decode(self, z: Tensor) -> Tensor:
        z = z.to(self.dtype).contiguous(memory_format=self.layout)
        return self.codec.decode(z, return_dict=False)[0].float()

    def whole(self, x: Tensor, tokens: Tensor) -> Tensor:
        from diffusers import EulerDiscreteScheduler

        scheduler = EulerDiscreteScheduler(
            beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", timestep_spacing="trailing"
        )
        scheduler.set_timesteps(STEPS)
        x = x * scheduler.init_noise_sigma
        for t in scheduler.timesteps:
            scaled = scheduler.scale_model_input(x, t)
            null, cond = self.step(torch.cat([scaled, scaled]), t.expand(2), tokens).chunk(2)
            x = scheduler.step(null + GUIDANCE * (cond - null), t, x).prev_sample
        return self.decode(x / 0.18215)


class Ours:
    """mindseye in one dtype."""

    def __init__(self, unet: Any, codec: Any, dtype: torch.dtype) -> None:
        self.unet, self.codec, self.dtype = unet, codec, dtype

    def step(self, x: Tensor, t: Tensor, tokens: Tensor) -> Tensor:
        # The same latents with two texts, which our guidance gives once.
        return self.unet(last(x[:1].to(self.dtype)), t[:1], tokens.to(self.dtype)).float()

    def decode(self, z: Tensor) -> Tensor:
        return self.codec.decode_raw(last(z.to(self.dtype))).float()

    def whole(self, x: Tensor, tokens: Tensor) -> Tensor:
        schedule = scaled_linear()
        told = Conditioning(tokens=tokens.to(self.dtype))
        net = NetDenoiser(self.unet, schedule, "eps")
        sigmas = spacing("trailing", schedule, STEPS)
        steps = SAMPLERS["euler"](
            Guided(net, told.row(1), told.row(0), GUIDANCE), x / float(schedule.signal(sigmas[0])), sigmas, Noise([0])
        )
        try:
            while True:
                next(steps)
        except StopIteration as stop:
            return self.decode(stop.value / 0.18215)


def openvino(kind: str, plain: Theirs, pixels: int) -> dict[str, Run]:
    """Its step or decoding at one size; nothing where it is not installed."""
    try:
        import openvino as ov
    except ImportError:
        return {}

    class Step(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.unet = plain.unet

        def forward(self, x: Tensor, t: Tensor, tokens: Tensor) -> Tensor:
            return self.unet(x, t, tokens, return_dict=False)[0]

    class Decode(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.codec = plain.codec

        def forward(self, z: Tensor) -> Tensor:
            return self.codec.decode(z, return_dict=False)[0]

    x, t, tokens = inputs(pixels)
    module, given = (Step(), (x, t, tokens)) if kind == "unet" else (Decode(), (x[:1],))
    settings = {"INFERENCE_NUM_THREADS": torch.get_num_threads(), "PERFORMANCE_HINT": "LATENCY"}
    compiled = ov.Core().compile_model(ov.convert_model(module, example_input=given), "CPU", settings)
    arrays = [each.numpy() for each in given]
    return {"OpenVINO": lambda: torch.from_numpy(compiled(arrays)[0])}


def networks(folder: Path | None) -> tuple[Any, Any]:
    """diffusers' two, as `memory.py` has written them or made anew."""
    if folder is None:
        return peers.their_unet(), peers.their_codec()
    from diffusers import AutoencoderKL as Codec
    from diffusers import UNet2DConditionModel

    unet, codec = UNet2DConditionModel.from_pretrained(folder / "unet"), Codec.from_pretrained(folder / "vae")
    return unet.float().eval().requires_grad_(False), codec.float().eval().requires_grad_(False)


def variants(without: Collection[str], folder: Path | None) -> dict[str, Any]:
    """Everyone else, by name; "diffusers float32" is what errors are against, where it takes part."""
    unet, codec = networks(folder)
    own = choose(torch.device("cpu"), parameters=859_520_964)
    found: dict[str, Any] = {}
    # Ours copies before anything converts theirs.
    for dtype in (torch.float32, torch.bfloat16):
        if f"mindseye {str(dtype).removeprefix('torch.')}" in without:
            continue
        policy = Policy(dtype=dtype, keep=False, memory_format=torch.channels_last)
        name = f"mindseye {str(dtype).removeprefix('torch.')}" + (" (policy)" if dtype == own.dtype else "")
        found[name] = Ours(arrange(peers.our_unet(unet), policy), arrange(peers.our_codec(codec), policy), dtype)
    plain = Theirs(unet, codec, torch.float32, torch.contiguous_format)
    if "OpenVINO" not in without:
        found["OpenVINO"] = plain
    if "diffusers float32" not in without:
        found["diffusers float32"] = plain
    if "diffusers bfloat16" not in without:
        rest = networks(folder) if plain in found.values() else (unet, codec)
        half = [each.to(torch.bfloat16).to(memory_format=torch.channels_last) for each in rest]
        found["diffusers bfloat16"] = Theirs(*half, torch.bfloat16, torch.channels_last)
    return found


def runs_of(task: str, everyone: dict[str, Any]) -> dict[str, Run]:
    """What one task is for each variant."""
    kind, _, size = task.partition("-")
    x, t, tokens = inputs(int(size))
    plain = everyone.get("OpenVINO")
    everyone = {name: who for name, who in everyone.items() if name != "OpenVINO"}
    if kind == "unet":
        runs: dict[str, Run] = {name: lambda who=who: who.step(x, t, tokens) for name, who in everyone.items()}
    elif kind == "codec":
        runs = {name: lambda who=who: who.decode(x[:1]) for name, who in everyone.items()}
    else:
        runs = {name: lambda who=who: who.whole(x[:1], tokens) for name, who in everyone.items()}
    if kind != "whole" and plain is not None:
        runs |= openvino(kind, plain, int(size))
    return runs


@torch.inference_mode()
def measure(task: str, everyone: dict[str, Any], rounds: int, *, warm: bool, busy: bool) -> dict[str, dict[str, float]]:
    """Seconds and errors of one task."""
    now = time.process_time if busy else time.perf_counter
    runs = runs_of(task, everyone)
    answers: dict[str, Tensor] = {}
    times: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(rounds + warm):
        for name, run in runs.items():
            start = now()
            answers[name] = run()
            if turn or not warm:  # the first also builds kernels
                times[name].append(now() - start)
    truth = answers.get("diffusers float32")
    middle = {name: statistics.median(each) for name, each in times.items()}
    half = middle.get("diffusers bfloat16", float("nan"))
    best = min((seconds for name, seconds in middle.items() if name.startswith("diffusers")), default=float("nan"))
    return {
        name: {
            "median": middle[name],
            "min": min(times[name]),
            "max": max(times[name]),
            "times faster than diffusers bfloat16": half / middle[name] if half == half else None,
            "times faster than diffusers' best": best / middle[name],
            "error": None if truth is None else float((answers[name] - truth).norm() / truth.norm()),
        }
        for name in runs
    }


def main() -> None:
    """Measure, print a table, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=TASKS)
    parser.add_argument("--without", nargs="+", choices=VARIANTS, default=())
    parser.add_argument("--folder", type=Path, help="as memory.py writes it; spares the making of random weights")
    parser.add_argument("--busy", action="store_true", help="seconds of the processor, one round, nothing warmed up")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    reuse_memory()
    everyone = variants(given.without, given.folder)
    path = peers.results("sampling-busy" if given.busy else "sampling")
    path.parent.mkdir(exist_ok=True)
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    found |= {"machine": peers.machine(), "torch": torch.__version__, "threads": given.threads}
    print(f"{found['machine']}, {given.threads} threads, torch {torch.__version__}")
    for task in given.tasks:
        # Twenty steps take as long as many rounds of one.
        long = given.busy or task.partition("-")[0] == "whole"
        rounds = 1 if given.busy else max(1, given.rounds // 2) if long else given.rounds
        found[task] = measure(task, everyone, rounds, warm=not long, busy=given.busy) | {"rounds": rounds}
        print(f"\n{task:28} {'median s':>9} {'min s':>8} {'vs bf16':>8} {'vs best':>8} {'error':>8}")
        for name, row in found[task].items():
            if name != "rounds":
                middle, least, _, half, best, error = row.values()
                apart = "" if error is None else f"{error:8.1e}"
                print(f"{name:28} {middle:9.3f} {least:8.3f} {half or 0:7.2f}x {best:7.2f}x {apart}", flush=True)
        path.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
