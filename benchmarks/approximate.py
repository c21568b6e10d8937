"""What the options gain that are not exact, and what they cost: both in one line.

A few pictures are drawn exactly, then once with each option. The gain is counted in rows that the U-Net is asked for,
which no other program on the machine can disturb, and in seconds of the processor. The error is that of the pictures
against the exact ones: of the norm, and in levels of 8 bits. Two pictures of different seeds are the last line: that
far apart is as far as it gets.

    python benchmarks/approximate.py [-m MODEL] [--count 4] [--steps N] [--set name=value ...] [--threads N]

``--set`` measures another option of the model beside those listed here. Writes
benchmarks/results/approximate-<model>.json.
"""

import argparse
import json
import sys
import time
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parent))
import peers

from mindseye.engine.engine import Engine
from mindseye.request import DEFAULT, Request, Scalar

PROMPT = "a red apple"
OPTIONS: dict[str, dict[str, Scalar]] = {
    "guidance_low=0.3": {"guidance_low": 0.3},
    "guidance_low=0.5": {"guidance_low": 0.5},
    "guidance_high=0.9": {"guidance_high": 0.9},
    "guidance_low=0.5 guidance_high=0.9": {"guidance_low": 0.5, "guidance_high": 0.9},
}
"""All that is not exact to rounding and makes drawing faster."""


def pictures(engine: Engine, asked: Request, options: dict[str, Scalar]) -> tuple[np.ndarray, int, float]:
    """What is drawn, rows of the U-Net, seconds of the processor."""
    rows = [0]
    unet = engine.load(asked.model).unet
    hook = unet.register_forward_pre_hook(lambda module, given: rows.__setitem__(0, rows[0] + len(given[0])))
    start = time.process_time()
    try:
        images = engine.generate(
            Request(prompt=asked.prompt, model=asked.model, count=asked.count, seed=asked.seed, steps=asked.steps,
                    options=options)
        ).images  # fmt: skip
    finally:
        hook.remove()
    drawn = np.stack([np.asarray(image.convert("RGB"), dtype=np.float32) for image in images])
    return drawn, rows[0], time.process_time() - start


def error(drawn: np.ndarray, truth: np.ndarray) -> tuple[float, float]:
    """Of the norm about mid-grey, and in levels."""
    return float(np.linalg.norm(drawn - truth) / np.linalg.norm(truth - 127.5)), float(np.abs(drawn - truth).mean())


def main() -> None:
    """Measure, print, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-m", "--model", default=DEFAULT)
    parser.add_argument("--prompt", default=PROMPT)
    parser.add_argument("--count", type=int, default=4)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    engine = Engine(device="cpu")
    asked = Request(prompt=given.prompt, model=given.model, count=given.count, seed=1, steps=given.steps)
    truth, exact, spent = pictures(engine, asked, {})
    own: dict[str, dict[str, Scalar]] = {each: dict([each.split("=", 1)]) for each in given.set}
    found = {"exact": {"rows": exact, "fewer": 1.0, "cpu_seconds": spent, "error": 0.0, "levels": 0.0}}
    for name, options in {**OPTIONS, **own}.items():
        drawn, rows, seconds = pictures(engine, asked, options)
        norm, levels = error(drawn, truth)
        found[name] = {
            "rows": rows, "fewer": exact / rows, "cpu_seconds": seconds, "error": norm, "levels": levels,
        }  # fmt: skip
    norm, levels = error(truth, np.roll(truth, 1, axis=0))
    found["another seed"] = {"rows": exact, "fewer": 1.0, "cpu_seconds": spent, "error": norm, "levels": levels}
    print(f"{given.model}, {given.count} pictures, {peers.machine()}, {given.threads} threads")
    print(f"{'option':36} {'U-Net rows':>10} {'fewer':>7} {'CPU s':>7} {'error':>8} {'levels':>7}")
    for name, row in found.items():
        print(f"{name:36} {row['rows']:10} {row['fewer']:6.2f}x {row['cpu_seconds']:7.1f} {row['error']:8.3f} "
              f"{row['levels']:7.2f}")  # fmt: skip
    path = Path(__file__).parent / "results" / f"approximate-{given.model}.json"
    path.parent.mkdir(exist_ok=True)
    told = {"machine": peers.machine(), "torch": torch.__version__, "threads": given.threads, "options": found}
    path.write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
