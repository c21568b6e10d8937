"""Finished parts into the package: half precision, with provenance beside each, and the attribution they owe.

Run as ``python -m mindseye.training.ship RUNS [PART ...]``: ``RUNS`` holds a folder a run. A part larger than its limit
is refused. Provenance says the recipe as it was run, the commit, hours, held-out figures, the corpus and its licences,
and the file's hash.
"""

import argparse
import hashlib
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

from mindseye.data.glyphs import attribution
from mindseye.data.iconsets import EMOJIBASE, ICON_SETS
from mindseye.errors import OutputError, WeightsMissing

__all__ = ["LARGEST", "ship"]

LARGEST = {"unet-pocket": 24_000_000} | dict.fromkeys(("parti-pocket", "nuwa-pocket", "nuwa-clip-pocket"), 10_000_000)
"""Bytes a part may have; `OTHERS` for the rest."""
OTHERS = 8_000_000


def ship(runs: Path, name: str, pocket: Path) -> Path:
    """Copy one part from its run into ``pocket``.

    Raises:
        WeightsMissing: the run holds no finished part.
        OutputError: the part is larger than a pocket part may be.
    """
    import torch

    from mindseye.checkpoints.save import load_part, read_header, save_part

    words = name.startswith("bpe")
    source = runs / name / (f"{name}.json" if words else f"{name}.safetensors")
    if not source.is_file():
        raise WeightsMissing(f"{source} is not there: the run of {name} has not finished")
    target = pocket / source.name
    if words:
        shutil.copyfile(source, target)
        made: dict[str, Any] = json.loads(source.with_suffix(".provenance.json").read_text(encoding="utf-8"))
    else:
        made = read_header(source)["provenance"]
        save_part(target, load_part(source), {"name": name}, dtype=torch.float16)
    size, limit = target.stat().st_size, LARGEST.get(name, OTHERS)
    if size > limit:
        target.unlink()
        raise OutputError(f"{name} has {size} bytes in half precision, and {limit} is the most that ships")
    provenance = {
        **made,
        "commit": commit(),
        "sha256": hashlib.sha256(target.read_bytes()).hexdigest(),
        "bytes": size,
        "data": "glyphs",
        "licences": {pin.title: pin.licence for pin in (*ICON_SETS, EMOJIBASE)},
    }
    record = pocket / f"{name}{'.provenance' if words else ''}.json"
    record.write_text(json.dumps(provenance, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    (pocket / "ATTRIBUTION.md").write_text(attribution(), encoding="utf-8")
    return target


def commit() -> str:
    """The checkout's commit, or "unknown" outside of one."""
    run = subprocess.run(
        ["git", "rev-parse", "--short=12", "HEAD"],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parent,
    )
    return run.stdout.strip() or "unknown"


def main() -> None:
    """Ship the named parts, or all that are finished."""
    parser = argparse.ArgumentParser(prog="python -m mindseye.training.ship", description=__doc__)
    parser.add_argument("runs", type=Path, help="folder that holds a folder a run")
    parser.add_argument("parts", nargs="*", help="names of parts; all finished ones by default")
    parser.add_argument("--to", type=Path, default=Path(__file__).parents[1] / "pocket", help="where they go")
    given = parser.parse_args()
    names = given.parts or sorted(
        path.stem
        for path in given.runs.glob("*/*-pocket.*")
        if path.stem == path.parent.name and path.suffix in {".json", ".safetensors"}
    )
    for name in names:
        print(ship(given.runs, name, given.to))


if __name__ == "__main__":
    main()
