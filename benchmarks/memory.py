"""How much memory a picture takes, and how long until the first step: from files to pixels, each in a fresh process.

A folder as diffusers writes it, with random weights of Stable Diffusion 1.5 in half precision, is made once; then each
variant loads it, encodes two texts, takes two guided steps (more take no more memory) and decodes. Reported are the
peak resident set, which counts mapped files too, that of the process before it loads anything, the seconds from the
start of loading, imports left out, until everything is ready, and what the processor did meanwhile; and the two steps,
of which ours pays in the first for layers that are widened only when they are called.

    python benchmarks/memory.py [--size 512] [--rounds 3] [--folder DIR] [--variants NAME ...]

Writes benchmarks/results/memory-<machine>.json; of another size than 512, memory-<size>-<machine>.json.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("GOMP_SPINCOUNT", "10000")

import torch

sys.path.insert(0, str(Path(__file__).parent))

VARIANTS = {
    "mindseye": "as the policy chooses",
    "mindseye bfloat16": "as the policy chooses where bfloat16 is the faster",
    "mindseye small": "as where memory is short: weights as in the file, widened at every call; decoded in bands",
    "diffusers bfloat16": "from_pretrained(torch_dtype=bfloat16)",
    "diffusers float32": "from_pretrained(torch_dtype=float32)",
}


def build(folder: Path) -> None:
    """Write the folder, one network at a time."""
    import peers

    for name, make in (("unet", peers.their_unet), ("vae", peers.their_codec), ("text_encoder", peers.their_text)):
        make().half().save_pretrained(folder / name)
    betas = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
    scheduler = {"_class_name": "DDIMScheduler", **betas, "prediction_type": "epsilon"}
    (folder / "scheduler").mkdir(exist_ok=True)
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(scheduler), encoding="utf-8")
    index = {
        "_class_name": "StableDiffusionPipeline",
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
        "text_encoder": ["transformers", "CLIPTextModel"],
    }
    (folder / "model_index.json").write_text(json.dumps(index), encoding="utf-8")


def ours(folder: Path, kind: str) -> Any:
    """Load; then a function that draws."""
    from mindseye.checkpoints.load import load_foreign
    from mindseye.checkpoints.releases import identify
    from mindseye.codec import Tiled
    from mindseye.engine.policy import Policy, arrange, choose, reuse_memory

    reuse_memory()
    policy = choose(torch.device("cpu"), parameters=859_520_964)
    small = kind == "small"
    if small:
        policy = Policy(dtype=torch.float32, keep=True, memory_format=torch.channels_last)
    elif kind:
        policy = Policy(dtype=torch.bfloat16, keep=False, memory_format=torch.channels_last)
    parts = identify(folder).parts
    text, unet, codec = (
        arrange(load_foreign(parts[name], policy.stored, memory_format=policy.memory_format, later=True), policy)
        for name in ("text", "unet", "codec")
    )

    def draw(ids: torch.Tensor, x: torch.Tensor, done: Callable[[], None]) -> torch.Tensor:
        tokens, _ = text.text(ids)  # type: ignore[operator]
        x = x.to(policy.dtype)
        for step in (900.0, 500.0):
            done()
            null, cond = unet(torch.cat([x, x]), torch.tensor([step, step]), tokens.to(policy.dtype)).chunk(2)
            x = x - 0.1 * (null + 7.5 * (cond - null))
        done()
        return (Tiled(codec, tile=32) if small else codec).decode(x)  # type: ignore[operator, arg-type]

    return draw


def theirs(folder: Path, dtype: torch.dtype) -> Any:
    """Load; then a function that draws."""
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextModel

    text = CLIPTextModel.from_pretrained(folder / "text_encoder", dtype=dtype).eval()
    unet = UNet2DConditionModel.from_pretrained(folder / "unet", torch_dtype=dtype).eval()
    codec = AutoencoderKL.from_pretrained(folder / "vae", torch_dtype=dtype).eval()

    def draw(ids: torch.Tensor, x: torch.Tensor, done: Callable[[], None]) -> torch.Tensor:
        tokens = text(ids).last_hidden_state
        x = x.to(dtype)
        for step in (900.0, 500.0):
            done()
            both = unet(torch.cat([x, x]), torch.tensor([step, step]), tokens, return_dict=False)[0]
            null, cond = both.chunk(2)
            x = x - 0.1 * (null + 7.5 * (cond - null))
        done()
        return codec.decode(x / 0.18215, return_dict=False)[0]

    return draw


def peak() -> float:
    """The most memory this process ever held, in GB (2^30 bytes)."""
    status = Path("/proc/self/status")
    if status.exists():  # getrusage would also count what the parent held when it made this process
        line = next(line for line in status.read_text(encoding="ascii").splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**30


@torch.inference_mode()
def measure(name: str, folder: Path, size: int) -> dict[str, float]:
    """One variant, in this process."""
    mine = name.startswith("mindseye")
    if mine:  # imports are not loading
        import mindseye.checkpoints.load
        import mindseye.checkpoints.releases
        import mindseye.codec
        import mindseye.engine.policy
        import mindseye.networks.clip
        import mindseye.networks.unet
        import mindseye.networks.vae  # noqa: F401
    else:
        from diffusers import AutoencoderKL, UNet2DConditionModel  # noqa: F401
        from transformers import CLIPTextModel  # noqa: F401
    ids = torch.full((2, 77), 49407)
    ids[:, 0], ids[0, 1:5] = 49406, torch.tensor([320, 736, 3055, 267])
    x = torch.randn(1, 4, size // 8, size // 8, generator=torch.Generator().manual_seed(0))
    before, start, busy = peak(), time.perf_counter(), time.process_time()
    if mine:
        draw = ours(folder, name.removeprefix("mindseye").strip())
    else:
        draw = theirs(folder, torch.bfloat16 if name.endswith("16") else torch.float32)
    ready, worked, loaded = time.perf_counter() - start, time.process_time() - busy, peak()
    laps: list[float] = []
    picture = draw(ids, x, lambda: laps.append(time.perf_counter()))
    if picture.shape != (1, 3, size, size):
        raise ValueError(f"drew {tuple(picture.shape)}")
    memory = {"imports GB": before, "loaded GB": loaded, "peak GB": peak()}
    return memory | {
        "load s": ready, "load CPU s": worked, "first step s": laps[1] - laps[0], "second step s": laps[2] - laps[1],
    }  # fmt: skip


def main() -> None:
    """Measure each variant in processes of its own, in turns."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="keep the weights here and use them again")
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--only", choices=VARIANTS, help="one variant, in this process, as JSON")
    given = parser.parse_args()
    if given.only:
        print(json.dumps(measure(given.only, given.folder, given.size)))
        return
    import peers

    with tempfile.TemporaryDirectory() as scratch:
        folder = given.folder or Path(scratch)
        if not (folder / "model_index.json").is_file():
            folder.mkdir(parents=True, exist_ok=True)
            build(folder)
        rows: dict[str, list[dict[str, float]]] = {name: [] for name in given.variants}
        for _ in range(given.rounds):
            for name in given.variants:
                command = [sys.executable, __file__, "--only", name, "--folder", str(folder), "--size", str(given.size)]
                done = subprocess.run(command, check=True, capture_output=True, text=True)
                rows[name].append(json.loads(done.stdout.splitlines()[-1]))
                print(f"{name:20} {done.stdout.splitlines()[-1]}", flush=True)
    found: dict[str, Any] = {"machine": peers.machine(), "size": given.size, "rounds": given.rounds}
    print(f"{found['machine']}; {given.size}x{given.size}")
    for name, measured in rows.items():
        found[name] = {key: statistics.median(row[key] for row in measured) for key in measured[0]}
        print(f"{name:20} " + "  ".join(f"{key} {value:.2f}" for key, value in found[name].items()))
    path = peers.results("memory" if given.size == 512 else f"memory-{given.size}")
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
