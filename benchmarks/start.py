"""How long a person waits: from the command to its help, and from the command to a saved picture.

Whole processes, as a user starts them, several rounds; minimum, median and maximum in seconds, with the processor's
name. Run as ``python benchmarks/start.py [--rounds 5] [--json FILE]`` on an idle machine.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

COMMANDS = {
    "mindseye --help": ["--help"],
    "cold start to saved picture": ["a red apple", "--seed", "7", "-o", "apple.png"],
}


def processor() -> str:
    """The processor's name and the number of cores that this process may use."""
    name = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        named = [
            line.partition(":")[2].strip() for line in info.read_text().splitlines() if line.startswith("model name")
        ]
        name = named[0] if named else name
    return f"{name}, {len(os.sched_getaffinity(0))} cores"


def seconds(arguments: list[str]) -> float:
    """One process, in an empty folder."""
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        subprocess.run([sys.executable, "-m", "mindseye", *arguments], cwd=folder, check=True, capture_output=True)
        return time.perf_counter() - start


def main() -> None:
    """Measure, print, and write JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    found: dict[str, object] = {"machine": processor(), "rounds": given.rounds}
    for name, arguments in COMMANDS.items():
        seconds(arguments)  # the first fills the page cache
        times = sorted(seconds(arguments) for _ in range(given.rounds))
        found[name] = {"min": times[0], "median": statistics.median(times), "max": times[-1]}
        print(f"{name}: median {statistics.median(times):.2f} s (min {times[0]:.2f}, max {times[-1]:.2f})")
    if given.json is not None:
        given.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
