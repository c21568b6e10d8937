"""Does a canvas that is grown patch by patch show where its patches meet? On long strips, beside painted ones.

A strip is a row of one kind of thing, told as the corpus tells it ("a row of red stars"), whose things lie anywhere:
patches cut through them. The mean step across lines where patches meet is compared with that across the other lines of
tokens (`mindseye.evaluation.seams`), over all strips together: one strip has too few lines. The same of painted strips,
which have no patches, is the figure's own noise, and stands beside it.
"""

from typing import Final, NamedTuple

import numpy as np
import torch
from PIL import Image

from mindseye.data.colours import COLOURS
from mindseye.data.scenes import Scene, Thing, paint, strip_scene
from mindseye.data.shapes import SHAPES
from mindseye.evaluation import intervals
from mindseye.evaluation.drawing import Painter, Run
from mindseye.evaluation.figures import Row
from mindseye.evaluation.seams import ratio, seam_steps
from mindseye.pixels import from_images
from mindseye.request import Steps

__all__ = ["LONG", "Strips", "strip_rows"]

LONG: Final = 8
"""Patches of a strip."""
PAINTED: Final = 4
"""Times as many strips are painted as drawn, for they cost nothing."""


class Strips(NamedTuple):
    """A card that grows canvases.

    Attributes:
        painter: Draws strips of `LONG` patches.
        patch: Pixels a side of a patch.
        token: Pixels a side of a token.
    """

    painter: Painter
    patch: int
    token: int


def strip_rows(run: Run, strips: Strips) -> Steps[list[Row]]:
    """How large steps across seams are beside those within patches; 1 is a canvas without seams."""
    rng, size, count = np.random.default_rng([run.seed, 1_000_037]), strips.patch, run.sizes.strips
    scenes = [_scene(rng) for _ in range(PAINTED * count)]
    prompts = [scene.caption for scene in scenes[:count]]
    made = yield from run.beside(strips.painter).draw("strips", prompts, run.next_seed)
    icons = np.zeros((0, 1, 1, 4), np.uint8)  # of which none is asked for
    painted = [Image.fromarray(paint(scene, icons, size, LONG * size)) for scene in scenes]
    drawn, real = (seam_steps(from_images(each), size, strips.token) for each in (made, painted))
    return [
        Row(
            key="seams",
            label=f"strips of {LONG * size}x{size}: steps across seams over those within patches",
            estimate=intervals.jackknife(lambda kept: ratio(drawn[torch.from_numpy(kept)]), count, run.seed),
            real=ratio(real),
            note=f"of all strips together; {len(painted):,} painted ones, which have no patches, beside",
        )
    ]


def _scene(rng: np.random.Generator) -> Scene:
    """A row of one plain shape."""
    thing = Thing(shape=str(rng.choice(list(SHAPES))), colour=str(rng.choice(list(COLOURS))))
    return strip_scene(rng, [thing] * LONG)
