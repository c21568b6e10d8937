"""Our loop that writes pictures beside minDALL-E's and min-dalle's own, on the same random weights, in one run.

    python benchmarks/autoregression.py                       # 1.3 billion parameters take 5 GB; see --width, --layers
    python benchmarks/autoregression.py --tokens 8 --width 64 --layers 2 --rounds 1

The peers' loops are written anew from what their repositories do (`peers_tokens.py`): caches that are concatenated
token by token and layer by layer (minDALL-E), one cache for all places under a mask (min-dalle). min-dalle's network is
an encoder and a decoder; its manner of caching is measured on the network that all share here, which is minDALL-E's.
Before anything is timed, all three must write the same likeliest codes. The peers run in float32, as they were
published; ours in bfloat16 is timed after the turns, for it is the same network narrowed, and its codes are held
against nobody's.

A step reads every weight once, and the keys and values so far; it computes next to nothing. So beside the ratio stands
the share of the memory bandwidth. On a shared machine that is 35 GB/s now and 60 a minute later, and within a turn of
seconds it goes up and down as well. So for ours a sum over 256 MB is timed after every step, apart from it: the share
is by the mean of those, as the steps' time is a mean, and what disturbs one disturbs the other. Beside it stands the
share by the best of three sums before the turn and of three after it, as far as memory goes when nobody else asks.
"""

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from peers_tokens import MinDallEWay, MinDalleWay

from mindseye.autoregression import sample
from mindseye.networks.mindalle import Config, MinDALLE
from mindseye.noise import Noise
from mindseye.request import drain

HALF = "mindseye bfloat16"
"""Ours as the engine holds it where that dtype is the faster (`mindseye.engine.policy`)."""


class Reads:
    """Sums over memory in between, and what they took."""

    def __init__(self) -> None:
        self.numbers = torch.ones(64 << 20)
        self.seconds: list[float] = []

    def __call__(self) -> None:
        start = time.perf_counter()
        self.numbers.sum()
        self.seconds.append(time.perf_counter() - start)

    @property
    def speed(self) -> float:
        """Bytes a second, all in all."""
        return self.numbers.numel() * 4 * len(self.seconds) / sum(self.seconds)


def bandwidth() -> float:
    """Bytes a second that a sum over memory reads: the best of three; 2 GB, for there are caches of hundreds of MB."""
    numbers = torch.ones(512 << 20)
    best = 0.0
    for _ in range(3):
        start = time.perf_counter()
        numbers.sum()
        best = max(best, numbers.numel() * 4 / (time.perf_counter() - start))
    return best


def ours(
    network: MinDALLE, text: torch.Tensor, batch: int, tokens: int, reads: Callable[[], None]
) -> tuple[torch.Tensor, list[float]]:
    """Ids, and what each token took; ``reads`` is called after each."""
    network.length = tokens
    steps = sample(network, text[:1], None, Noise(range(batch)), top_k=256)
    took: list[float] = []
    while True:
        start = time.perf_counter()
        try:
            next(steps)
        except StopIteration as stop:
            return stop.value, took
        took.append(time.perf_counter() - start)
        reads()


def check(network: MinDALLE, text: torch.Tensor, tokens: int) -> None:
    """Stop unless the three ways write the same codes where nothing is drawn."""
    network.length = tokens
    expected = drain(sample(network, text[:1], None, Noise(range(len(text))), temperature=0))
    for way in (MinDallEWay, MinDalleWay):
        if not torch.equal(way(network).write(text, tokens, top_k=1)[0], expected):
            raise SystemExit(f"{way.__name__} does not write what we write")


def _gb(speeds: list[float]) -> list[float]:
    return [round(speed / 1e9, 1) for speed in speeds]


def _shares(of: str, rates: list[float], speeds: list[float]) -> dict[str, object]:
    """What share of memory's speed each turn's rate of reading is, and their median."""
    shares = [rate / speed for rate, speed in zip(rates, speeds, strict=True)]
    return {
        f"of_{of}": round(statistics.median(shares), 3),
        f"of_{of}_by_turn": [round(share, 3) for share in shares],
        f"{of}_gb_s": _gb(speeds),
    }


def main() -> None:
    """Measure, print, and keep what was measured."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, value in (("width", 1024), ("layers", 24), ("batch", 4), ("tokens", 256), ("rounds", 3), ("threads", 0)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    if given.tokens < 2:
        parser.error(f"--tokens {given.tokens}: the first is the reading of the text, so at least 2 are timed")
    if given.threads:
        torch.set_num_threads(given.threads)
    torch.manual_seed(0)
    config = Config(
        width=given.width,
        layers=given.layers,
        heads=max(1, given.width // 64),
        text_tokens=16_384,
        text_length=64,
        image_tokens=16_384,
        image_length=given.tokens,
    )
    network = MinDALLE(config).eval().requires_grad_(False)
    text = torch.randint(0, config.text_tokens, (1, config.text_length)).expand(given.batch, -1)
    check(network, text, min(given.tokens, 6))
    between = Reads()
    ways: dict[str, Callable[[], tuple[torch.Tensor, list[float]]]] = {
        "mindseye": lambda: ours(network, text, given.batch, given.tokens, between),
        "minDALL-E": lambda: MinDallEWay(network).write(text, given.tokens),
        "min-dalle": lambda: MinDalleWay(network).write(text, given.tokens),
    }
    rows: dict[str, list[list[float]]] = {name: [] for name in (*ways, HALF)}
    reads: dict[str, list[float]] = {name: [] for name in rows}
    beside: dict[str, list[float]] = {name: [] for name in rows}
    read = bandwidth()

    def turn(name: str, way: Callable[[], tuple[torch.Tensor, list[float]]]) -> None:
        nonlocal read
        between.seconds.clear()
        rows[name].append(way()[1])
        beside[name] += [between.speed] if between.seconds else []
        before, read = read, bandwidth()
        reads[name].append((before + read) / 2)

    for _ in range(given.rounds):
        for name, way in ways.items():
            turn(name, way)
    network.to(torch.bfloat16)
    for _ in range(given.rounds):
        turn(HALF, ways["mindseye"])
    block = network.stack.blocks
    numbers = sum(p.numel() for p in [*block.parameters(), *network.image_head.parameters()])
    told: dict[str, object] = {
        "machine": platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
        "torch": torch.__version__,
        "batch": given.batch,
        "tokens": given.tokens,
        "parameters": sum(p.numel() for p in network.parameters()),
    }
    best = {name: min(sum(one) for one in each) for name, each in rows.items()}
    for name, each in rows.items():
        by_place = [statistics.median(one[place] for one in each) for place in range(given.tokens)]
        # The first token is the reading of the text, which is another matter.
        size = 2 if name == HALF else 4
        kept = 2 * given.layers * given.batch * given.width
        moved = sum(size * (numbers + kept * (config.text_length + place)) for place in range(1, given.tokens))
        rates = [moved / sum(one[1:]) for one in each]
        told[name] = {
            "seconds": round(best[name], 4),
            "ratio": round(best[name] / best["mindseye"], 3),
            "ms_by_place": {
                str(place): round(1000 * by_place[place], 3)
                for place in sorted({0, 1, given.tokens // 4, given.tokens // 2, given.tokens - 1})
            },
            "read_gb_s": _gb(rates),
            **_shares("best_bandwidth", rates, reads[name]),
            **(_shares("bandwidth", rates, beside[name]) if beside[name] else {}),
        }
    text_told = json.dumps(told, indent=1)
    print(text_told)
    if given.out:
        given.out.write_text(text_told + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
