"""Is a picture of the class that the generator was told? By a classifier trained apart.

The classifier is `mindseye.adversarial.watch.Probe`: ridge regression with a Gaussian kernel on the held-out judge's
features, fitted in closed form on real pictures when it is wanted. Neither it nor the judge ever met the generator. How
often it is right about real pictures it never saw stands beside the figure, which it bounds. Real pictures are brought
to the size that the card draws: sharpness must not tell.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Final

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from mindseye.adversarial.watch import Probe
from mindseye.data.kinds import CLASSES, class_of
from mindseye.evaluation.clip_score import embed_pictures
from mindseye.evaluation.drawing import Example, Run, article
from mindseye.evaluation.figures import Row
from mindseye.request import Steps

__all__ = ["class_rows"]

SHOWN: Final = 100
"""Training pictures of each class that the classifier is shown, at most."""
LOOKED: Final = 40_000
"""Training captions among which they are looked for."""
UNSEEN: Final = 1_000
"""Held-out pictures on which the classifier itself is measured, at most."""


def class_rows(
    run: Run,
    labels: Sequence[str],
    training: Callable[[int, int], Sequence[Example]],
    held: Sequence[Example],
    of: Callable[[str], str | None] | None = None,
) -> Steps[list[Row]]:
    """Class accuracy, beside the classifier's own.

    Args:
        run: Draws and looks.
        labels: The classes that the generator is told; those that no training picture has are left out.
        training: From how many and a seed to training pictures.
        held: Pictures that were kept from training.
        of: From a caption to the class it names; the corpus's kinds of thing when None.
    """
    name = of or _kind
    examples: dict[str, list[Example]] = defaultdict(list)
    for example in training(LOOKED, run.seed + 2):
        label = name(example.caption)
        if label is not None and label in labels and len(examples[label]) < SHOWN:
            examples[label].append(example)
    known = [label for label in labels if examples[label]]
    if len(known) < 2 or not run.sizes.classes:
        return []
    wanted = [place for place in range(len(known)) for _ in range(run.sizes.classes)]
    made = yield from run.draw("classes", [article(known[place]) for place in wanted])
    size = made[0].size
    shown = yield from run.paint("training pictures", [example for label in known for example in examples[label]])
    places = [place for place, label in enumerate(known) for _ in examples[label]]
    probe = Probe.fit(_seen(run, shown, size), torch.tensor(places), len(known))
    kept = [example for example in held if name(example.caption) in known][:UNSEEN]
    unseen = yield from run.paint("real pictures", kept)
    own = [known.index(str(name(example.caption))) for example in kept]
    real = None
    if kept:
        real = float((probe(_seen(run, unseen, size)) == torch.tensor(own)).double().mean())
    right = probe(embed_pictures(run.judge, made)) == torch.tensor(wanted)
    return [
        Row(
            key="classes",
            label=f'"a {{class}}", {len(known)} classes, recognised by a classifier trained apart',
            estimate=run.decide("classes", right.tolist()),
            unit="%",
            real=real,
            note=f"the classifier saw {len(shown):,} real pictures; chance {1 / len(known):.0%}",
        )
    ]


def _kind(caption: str) -> str | None:
    """The corpus's kind of thing."""
    place = class_of(caption)
    return None if place is None else tuple(CLASSES)[place]


def _seen(run: Run, pictures: Sequence[Image.Image], size: tuple[int, int]) -> Float[Tensor, "N D"]:
    """The judge's features of pictures brought to a size."""
    small = [picture.resize(size, Image.Resampling.BOX) if picture.size != size else picture for picture in pictures]
    return embed_pictures(run.judge, small)
