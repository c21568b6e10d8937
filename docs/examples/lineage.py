"""One prompt drawn by every card there is, side by side with their names: the lineage at a glance.

Run as ``python docs/examples/lineage.py OUT.png ["a prompt"]``. A card without its weights stays grey.
"""

import sys
from pathlib import Path

from mindseye.engine.engine import Engine
from mindseye.errors import WeightsMissing
from mindseye.labels import labelled
from mindseye.pictures import save_png
from mindseye.request import Request
from mindseye.zoo import ZOO

SIDE = 128


def main(path: Path, prompt: str = "a castle in the clouds") -> None:
    """Draw the sheet: every picture has seed 0, so the sheet is the same every time."""
    engine, pictures = Engine(), {}
    for column, card in enumerate(ZOO):
        try:
            result = engine.generate(Request(prompt=prompt, model=card.name, seed=0))
        except WeightsMissing as missing:
            print(f"{card.name}: {missing}", file=sys.stderr)
            continue
        pictures[column, 0, 0] = result.images[0].resize((SIDE, SIDE))
    names = [card.name.removesuffix("-pocket").replace("-", " ") for card in ZOO]
    save_png(labelled(pictures, columns=names, sheets=[prompt]), path)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:3])
